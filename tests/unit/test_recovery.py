"""Damage of every kind to a router's state document (REL-04) is noticed, and what stands in for it is never empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from tidegate.errors import Refused, TidegateError
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.recovery import Copy, Damage, judge, read_copy
from tidegate.policy.router import Interfaces
from tidegate.policy.state import ControllerId, GroupState, Limit, RouterName, StateDocument, to_text
from tidegate.router.statefile import read_answer, read_document

PAGE = 4096


def group(number: int) -> GroupState:
    device = DeviceRef(MacAddress(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"), (IpAddress(f"10.0.{number}.9"),))
    return GroupState(GroupId(number), (device,), Limit(number * 1000, 5_000), block=number % 7 == 0)


def document(generation: int, controller: str = "00000000000000aa", router: str = "home") -> StateDocument:
    groups = tuple(group(number) for number in range(1, 60 + generation))
    return StateDocument(generation, ControllerId(controller), RouterName(router), Interfaces.of("br-lan", "wan"), groups)


NOW, BEFORE, OLDEST = document(7), document(6), document(5)
WHOLE = to_text(NOW).encode()
KEPT = (Copy("current", NOW), Copy("earlier.1", BEFORE), Copy("earlier.2", OLDEST))


def bit_flips(count: int) -> Iterator[bytes]:
    chance = Random(4)
    for _ in range(count):
        at = chance.randrange(len(WHOLE))
        yield WHOLE[:at] + bytes([WHOLE[at] ^ 1 << chance.randrange(8)]) + WHOLE[at + 1 :]


DAMAGE: dict[str, Iterator[bytes]] = {
    "truncated at every offset": (WHOLE[:length] for length in range(len(WHOLE))),
    "a flipped bit, 1,000 times": bit_flips(1_000),
    "each page zeroed": (
        WHOLE[:at] + bytes(min(PAGE, len(WHOLE) - at)) + WHOLE[at + PAGE :] for at in range(0, len(WHOLE), PAGE)
    ),
    "an older one in its place": iter([to_text(BEFORE).encode(), to_text(OLDEST).encode()]),
    "another router's": iter([to_text(document(90, router="office")).encode()]),
    "another controller's": iter([to_text(document(7, controller="00000000000000bb")).encode()]),
    "of no version": iter([WHOLE.replace(b'"schema": 2', b'"schema": 0'), WHOLE.replace(b'"schema": 2', b'"schema": 1')]),
    "other content": iter([b"{}", b"null\n", b"\n" * 9, b"--- end\n", WHOLE + WHOLE, b"\xff\xfe" * 99]),
}


def as_printed(state: bytes) -> bytes:
    """What the agent answers with that file in the document's place, and the good one kept beside it."""
    kept = WHOLE.partition(b"\n")[0]
    return b"tidegate-agent 1 ok\n--- state\n" + state + b"--- = 0\n--- confirmed\n" + kept + b"\n--- = 0\n--- end\n"


def copies(state: str | None, **kept: StateDocument | str) -> list[Copy]:
    texts = {file.replace("_", "."): each if isinstance(each, str) else to_text(each) for file, each in kept.items()}
    found = [read_copy("state.json", state)] if state is not None else []
    return found + [read_copy(file, text) for file, text in texts.items()]


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_and_the_newest_good_copy_stands_in(kind: str) -> None:
    count = 0
    for state in DAMAGE[kind]:
        with pytest.raises(Refused):
            read_document(read_answer(as_printed(state)))
        damage = judge("", [read_copy("state.json", state.decode("ascii", errors="replace")), *KEPT])
        assert damage, state
        assert (damage.file, damage.used and damage.used.document, damage.lost) == ("state.json", NOW, "nothing")
        count += 1
    assert count


def test_a_whole_document_is_believed() -> None:
    assert read_document(read_answer(as_printed(WHOLE))) == NOW
    assert judge("", copies(to_text(NOW), current=NOW, earlier_1=BEFORE)) is None
    assert judge("", copies(to_text(NOW))) is None


@pytest.mark.parametrize(
    ("there", "file", "used", "lost"),
    [
        ({"state": None, "current": NOW}, "state.json", "current", "nothing"),
        (
            {"state": "", "current": "", "earlier_1": BEFORE},
            "state.json",
            "earlier.1",
            "what may have changed after generation 6",
        ),
        (
            {"state": to_text(NOW).replace("1000", "9000"), "current": "", "earlier_1": "", "earlier_2": OLDEST},
            "state.json",
            "earlier.2",
            "what changed after generation 5, up to 7",
        ),
        ({"state": to_text(NOW), "current": "", "earlier_1": BEFORE}, "current", "state.json", "nothing"),
        ({"state": "", "current": "", "earlier_1": ""}, "state.json", None, "everything that it said"),
        ({"state": ""}, "state.json", None, "everything that it said"),
        ({"state": None, "current": ""}, "state.json", None, "everything that it said"),
    ],
)
def test_what_was_damaged_what_stands_in_and_what_that_does_not_say_is_told(
    there: dict[str, StateDocument | str | None], file: str, used: str | None, lost: str
) -> None:
    state = there["state"]
    assert not isinstance(state, StateDocument)
    damage = judge("", copies(state, **{name: each for name, each in there.items() if name != "state" and each is not None}))
    assert damage
    assert (damage.file, damage.used and damage.used.file, damage.lost) == (file, used, lost)
    assert str(damage).startswith("the ")
    assert (used is None) == str(damage).endswith("nor can a copy of it be used")


def test_a_document_that_another_controller_took_the_router_up_with_is_its_own() -> None:
    """All that is there is of that controller by then: nothing is wrong with it."""
    theirs = document(8, controller="00000000000000bb")
    assert judge("", copies(to_text(theirs), current=theirs, earlier_1=NOW)) is None
    ours_put_back = judge("", copies(to_text(NOW), current=theirs, earlier_1=NOW))
    assert ours_put_back
    assert ours_put_back.used
    assert ours_put_back.used.document == theirs


def test_a_controller_that_a_damaged_document_names_is_told() -> None:
    damaged = to_text(replace(NOW, controller=ControllerId("00000000000000bb"))).replace("5000", "6000")
    judged = judge("", copies(damaged))
    assert judged
    assert (judged.used, judged.claimant) == (None, "00000000000000bb")
    assert Damage("state.json", "why").claimant == ""


def test_whatever_a_file_holds_reading_it_ends_in_one_of_our_own_failures() -> None:
    chance = Random(7)
    pieces = [
        b"--- state\n",
        b"--- = 0\n",
        b"--- = 0",
        b"\n",
        b"\x00",
        b"--- confirmed\n",
        WHOLE[:90],
        b"{",
        b"--- end\n",
        b"\xff",
    ]
    for _ in range(2_000):
        junk = b"".join(chance.choice(pieces) for _ in range(chance.randrange(12)))
        try:
            read_document(read_answer(as_printed(junk)))
        except TidegateError:
            continue
