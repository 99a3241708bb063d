"""What the agent prints, as values; and the state document's bookkeeping: which classes and marks are in use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate.errors import Conflict, Refused
from tidegate.policy import iptables, nftables, tc
from tidegate.policy.desired import Place, Resources
from tidegate.policy.dialect import Dialect
from tidegate.policy.element import POLICERS, Element, Unreadable
from tidegate.policy.group import GroupId
from tidegate.policy.recovery import FILES, STATE, Copy, Damage, read_copy
from tidegate.policy.router import Interfaces
from tidegate.policy.state import Damaged, GroupState, Newer, StateDocument, from_text, to_text

_PENDING = re.compile(r"^pending=([0-9a-f]{16}) (\d{1,18}) (-?\d{1,9})$", re.ASCII | re.MULTILINE)
_REVERTED = re.compile(r"^reverted=([0-9a-f]{16}) (\d{1,18})$", re.ASCII | re.MULTILINE)
_MENDED = re.compile(r"^mended=(\d{1,15})((?: (?:rules|queues|document)){1,3})$", re.ASCII | re.MULTILINE)
_UNSOUND = re.compile(r"^unsound=current$", re.MULTILINE)
_UNENDED = re.compile(r"(.+)--- = [0-9]{1,3}")  # a file whose last line has no end
_STATUS = re.compile(r"[0-9]{1,3}", re.ASCII)
_LAN = re.compile(r"asked=([0-9]{1,2}) before=([0-9]{1,2}) after=([0-9]{1,2})$", re.ASCII)
_STRANGE = re.compile(r"[^\n\t\x20-\x7e]")


CLASSES = 9900
"""One for each group that a class can be named after: 1:100 of Group 0 to 1:9999, the last that tc takes."""


class Pending(NamedTuple):
    """A change that waits to be confirmed: its id, the generation that it makes, and the seconds that are left."""

    id: str
    generation: int
    seconds: int


class Reverted(NamedTuple):
    """A change that the router took back by itself, and the generation that it would have made."""

    id: str
    generation: int


class PutRight(NamedTuple):
    """What the router found altered and put right by itself, of "rules", "queues" and "document". `when`: by its own clock, in
    seconds; the name by which it is told that somebody heard of it."""

    when: int
    what: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(f"the router found that its {_NAMED[what]} altered, and put that right by itself" for what in self.what)


_NAMED = {"rules": "rules were", "queues": "queues were", "document": "state document was"}


@dataclass(frozen=True, slots=True)
class Observation:
    """A router as it answered. `document` None: it has none yet. `foreign`: root queues of others, by device.

    `sent`: bytes that each class let through, where the answer had counters. `pending`: a change that waits to be confirmed.
    `reverted`: one that was not, in time, and that nobody has heard of yet. `put_right`: what the router mended, and nobody has
    heard of either. `unsound`: its bundle of what was confirmed was altered, so it can't. `damage`: what is wrong with its
    document, and which copy `document` is instead; where it is None then, no change may be made by it.
    """

    document: StateDocument | None
    resources: Resources
    foreign: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[Place, int] = field(default_factory=dict)
    pending: Pending | None = None
    reverted: Reverted | None = None
    put_right: PutRight | None = None
    unsound: bool = False
    damage: Damage | None = None

    @property
    def generation(self) -> int:
        return self.document.generation if self.document else 0


@dataclass(frozen=True, slots=True)
class Answer:
    """`words` follow the agent's version in the first line: "ok", "stale 7 ab12", "refused nft". Sections: text and status."""

    version: str
    words: tuple[str, ...]
    sections: Mapping[str, tuple[str, int]]

    def __len__(self) -> int:
        """Characters in all."""
        return sum(len(text) for text, _ in self.sections.values())

    @property
    def word(self) -> str:
        return self.words[0] if self.words else ""


def read_answer(out: bytes) -> Answer:
    """The agent's answer. Raises Refused where it is not one, or not whole."""
    lines = legible(out).splitlines()
    first = lines[0].split() if lines else []
    if first[:1] != ["tidegate-agent"] or len(first) < 3:
        raise Refused(f"the router's agent answered {' '.join(first)[:120]!r}")
    sections: dict[str, tuple[str, int]] = {}
    name, whole = "", len(lines) == 1
    text: list[str] = []
    for line in lines[1:]:
        if line.startswith("--- = "):
            sections[name] = ("\n".join(text), int(line[6:]) if _STATUS.fullmatch(line[6:]) else -1)
            name, text = "", []
        elif name and (unended := _UNENDED.fullmatch(line)):
            sections[name] = ("\n".join([*text, unended[1]]), -1)
            name, text = "", []
        elif line == "--- end":
            whole = True
        elif line.startswith("--- "):
            name, text = line[4:], []
        else:
            text.append(line)
    if not whole:
        raise Refused("the router's agent broke off in mid-answer")
    return Answer(first[1], tuple(first[2:]), sections)


def legible(out: bytes) -> str:
    """What a router printed, as plain text: no control characters, no other script's look-alikes (SEC-33)."""
    return _STRANGE.sub("?", out.decode("ascii", errors="replace"))


def read_observation(answer: Answer, interfaces: Interfaces, known: StateDocument | None = None) -> Observation:
    """`known`: the document that we expect there. Raises Refused where the router printed what can't be read, names what is
    missing on it; Conflict where a later Tidegate looks after it."""
    document, damage = judged(answer, known)
    try:
        dialect, rules, elements = read_rules(answer)
        roots, classes, foreign, sent = set[str](), dict[Place, tc.TrafficClass](), dict[str, str](), dict[Place, int]()
        for device in interfaces:
            printed, status = answer.sections.get(f"tc {device}", ("", -1))
            if status != 0:
                raise Refused(f"tc can't show {device}: {_last_line(printed)}", device=str(device))
            queues = tc.read_device(printed)
            if queues.foreign:
                foreign[device] = queues.root
            if queues.ours:
                roots.add(device)
                classes.update({Place(device, minor): found for minor, found in queues.classes.items()})
                sent.update({Place(device, minor): size for minor, size in queues.sent.items()})
    except tc.Unreadable as error:
        raise Refused(str(error)) from None
    resources = Resources(rules, elements, frozenset(roots), classes, dialect)
    return Observation(document, resources, foreign, sent, *_commit(answer), damage)


def read_lan(answer: Answer) -> str:
    """What the agent found out about the LAN around a change that could cut it off; "" for one that could not."""
    text, _ = answer.sections.get("lan", ("", 0))
    if not (found := _LAN.match(text)):
        return ""
    asked, before, after = map(int, found.groups())
    if not before:
        return f"nobody on the LAN answered before the change ({asked} asked), so nobody was asked after it"
    return f"{after} of {before} machines on the LAN that answered before the change answer after it"


def read_document(answer: Answer, known: StateDocument | None = None) -> StateDocument | None:
    """The state document alone. Raises Refused where it is damaged, Conflict where a later Tidegate wrote it."""
    document, damage = judged(answer, known)
    if damage:
        raise Refused(str(damage))
    return document


def judged(answer: Answer, known: StateDocument | None) -> tuple[StateDocument | None, Damage | None]:
    """The document, and where it can't be believed why, as far as this answer tells. What is to a byte what we write of the
    document that we know need not be taken apart."""
    text, status = answer.sections.get("state", ("", None))
    commit, _ = answer.sections.get("commit", ("", 0))
    confirmed = answer.sections.get("confirmed", ("", 0))[0].strip()
    if status is None:
        return None, Damage(STATE, "the state document is missing") if confirmed else None
    try:
        document = known if known and f"{text}\n" == to_text(known) else from_text(f"{text}\n")
    except Damaged as error:
        return None, Damage(STATE, str(error))
    except Newer as error:
        raise left_to_its_own(error) from None
    if status != 0:
        return None, Damage(STATE, "the state document is cut short")
    if confirmed and not _PENDING.search(commit) and confirmed != text.partition("\n")[0]:
        return document, Damage(STATE, "the state document is not the one that was confirmed last")
    return document, None


def read_copies(answer: Answer) -> tuple[tuple[Copy, ...], str]:
    """Every document on the router's flash, and the checksum of all of state.json ("-": there is none). Raises Conflict."""
    found = [(file, *answer.sections.get(f"copy {file}", ("", None))) for file in FILES]
    try:
        copies = tuple(read_copy(file, text + "\n", status == 0) for file, text, status in found if status is not None)
    except Newer as error:
        raise left_to_its_own(error) from None
    return copies, answer.sections.get("sum", ("-", 0))[0].strip()[:64]


def document_in(answer: Answer, known: StateDocument | None = None) -> StateDocument | None:
    """What is to a byte what we write of the document that we `know` need not be taken apart. Raises as `from_text` does."""
    text, _ = answer.sections.get("state", ("", 0))
    if not text:
        return None
    return known if known and f"{text}\n" == to_text(known) else from_text(f"{text}\n")


def left_to_its_own(newer: Newer) -> Conflict:
    """A router whose document we can't read in full is not ours to change."""
    return Conflict(f"{newer}. Nothing was changed on the router: look after it with that Tidegate, or upgrade this one")


def _commit(answer: Answer) -> tuple[Pending | None, Reverted | None, PutRight | None, bool]:
    text, _ = answer.sections.get("commit", ("", 0))
    pending, reverted, mended = _PENDING.search(text), _REVERTED.search(text), _MENDED.search(text)
    return (
        Pending(pending[1], int(pending[2]), int(pending[3])) if pending else None,
        Reverted(reverted[1], int(reverted[2])) if reverted else None,
        PutRight(int(mended[1]), tuple(mended[2].split())) if mended else None,
        bool(_UNSOUND.search(text)),
    )


def read_rules(answer: Answer) -> tuple[Dialect, tuple[str, ...], frozenset[Element]]:
    """Our rules as the router has them, in the dialect in which it shows them: the constant part, empty where nothing of ours
    is there, and the elements. Raises Refused where they can't be shown or read."""
    try:
        if "ip4" not in answer.sections:
            rules, elements = _table(*answer.sections.get("nft", ("", -1)))
            policed = any(rule.startswith(f"map {POLICERS[0]}:") for rule in rules)
            return nftables.POLICED if policed else nftables.NFTABLES, rules, elements
        for family in iptables.FAMILIES:
            printed, status = answer.sections.get(family, ("", -1))
            if status != 0:
                raise Refused(f"iptables-save can't show its rules: {_last_line(printed)}")
        printed_sets, _ = answer.sections.get("ipset", ("", 0))
        return iptables.read_rules(printed_sets, {family: answer.sections[family][0] for family in iptables.FAMILIES})
    except Unreadable as error:
        raise Refused(str(error)) from None


def _table(printed: str, status: int) -> tuple[tuple[str, ...], frozenset[Element]]:
    if status == 0:
        return nftables.read_table(printed)
    if "No such file or directory" in printed and "list table" in printed:
        return (), frozenset()
    raise Refused(f"nft can't list our table: {_last_line(printed)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1][:200]


class StateFileManager:
    """The groups of a router's state document, and what can be told from them.

    A group's mark and class follow from its number alone (`GroupId`), so there is nothing to hand out or to take back: a number
    is free until a group has it, and again once that is deleted.
    """

    def __init__(self, groups: Sequence[GroupState]) -> None:
        self._groups = groups

    def groups_active(self) -> int:
        return sum(group.active for group in self._groups)

    def classes_in_use(self) -> tuple[str, ...]:
        """Classes of capped groups, as tc names them."""
        return tuple(f"1:{group.id.class_minor}" for group in self._groups if group.effective)

    def classes_free(self) -> int:
        """How many more groups could be capped, the guests among them."""
        return CLASSES - len(self.classes_in_use())

    def next_group(self) -> GroupId | None:
        """The lowest group number that nobody has, with its mark and class; None where all 9,899 are taken."""
        used = {group.id for group in self._groups}
        return next((found for number in range(1, CLASSES) if (found := GroupId(number)) not in used), None)
