"""From what is asked of a router's groups to the one bundle that a router is sent.

A bundle carries everything: what tc does before the rules change, the rules' change, what tc does after, the new state
document, and the same three parts again that undo it. The agent receives it whole and checks it before anything runs. And it
carries everything that stands after it, which the router keeps once the change is confirmed: with that it comes up again
after a restart, alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from tidegate.policy.desired import Resources, desired
from tidegate.policy.dialect import Dialect
from tidegate.policy.nftables import NFTABLES
from tidegate.policy.plan import Change, Remark, plan, remarks, texts
from tidegate.policy.state import GroupState, StateDocument, to_text

ID_DIGITS = 16
"""Of its checksum, a bundle's beginning names the change while it waits to be confirmed."""


@dataclass(frozen=True, slots=True)
class RouterCommandBundle:
    """The compiled change: from the state document of `before`, which the router must have, to `document`. `words` say what it
    does, `remarks` the same with whose it is."""

    before: StateDocument
    document: StateDocument
    change: Change
    words: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def generation(self) -> int:
        """What the router must be at, or the agent refuses the bundle."""
        return self.before.generation

    @property
    def after(self) -> Resources:
        """What the router holds once the bundle has run."""
        return self.change.desired

    def to_bytes(self) -> bytes:
        """The bundle as the agent reads it: parts, each behind a line `--- name`. No part has a line that begins so."""
        lan = self.document.interfaces.lan
        undo = plan(self.change.desired, self.change.seen)
        parts: dict[str, list[str]] = {
            "state": to_text(self.document).splitlines(),  # first: the agent reads its first line with no other program
            "for": [f"{self.before.controller} {self.before.router}"],
            **({"lan": []} if self.change.wide else {}),  # its being there asks the agent to look around on the LAN
            "tc-put": self.change.tc_put(),
            **self.change.rules(lan),
            "tc-remove": self.change.tc_remove(),
            "undo-tc-put": undo.tc_put(),
            **{f"undo-{name}": lines for name, lines in undo.rules(lan).items()},
            "undo-tc-remove": undo.tc_remove(),
            **{f"all-{name}": lines for name, lines in plan(Resources(), self.after).rules(lan).items()},
        }
        parts |= {f"all-tc-{device}": _queues_of(device, self.after) for device in sorted(self.after.roots)}
        return "".join(f"--- {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in parts.items()).encode()


def _queues_of(device: str, resources: Resources) -> list[str]:
    """Batch lines that make one device's queues where there are none; the first makes the root."""
    classes = {place: found for place, found in resources.classes.items() if place.device == device}
    return plan(Resources(), Resources(roots=frozenset([device]), classes=classes)).tc_put()


def checksum(bundle: bytes) -> str:
    return sha256(bundle).hexdigest()


class GroupPolicyCompiler:
    """Compiles for one router: its interfaces and what it can do are in every bundle, and no other router's ever are."""

    def __init__(self, leaf: str, dialect: Dialect = NFTABLES) -> None:
        self._leaf = leaf
        self._dialect = dialect

    def compile_sync_request(
        self, groups: Iterable[GroupState], document: StateDocument, seen: Resources
    ) -> RouterCommandBundle:
        """The smallest change after which the router has exactly these groups: all of them, as one document is one state."""
        after = replace(document, generation=document.generation + 1, groups=tuple(sorted(groups, key=lambda group: group.id)))
        change = plan(seen, self.resources(after))
        said = remarks(change, document.interfaces.lan)
        words = texts(said)
        if not words and after.groups != document.groups:
            words = ("the router's state document is brought up to date",)
        return RouterCommandBundle(document, after, change, words, said)

    def resources(self, document: StateDocument) -> Resources:
        """What stands on a router that is as its document says."""
        return desired(document.groups, document.interfaces, self._leaf, self._dialect)
