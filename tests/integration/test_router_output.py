"""What a router prints is not believed (SEC-33): damaged in many ways, it ends in a value or its reader's own failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from tests.integration.edge import HOME, Edge, an_edge
from tidegate.errors import Conflict, Refused
from tidegate.policy import nftables, tc
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.element import Unreadable
from tidegate.policy.group import GroupId
from tidegate.policy.neighbours import read_neighbourhood
from tidegate.policy.state import Damaged, GroupState, Limit, Newer, from_text
from tidegate.router.agent import VERSION
from tidegate.router.inspection import offload_remarks
from tidegate.router.statefile import legible, read_answer, read_copies, read_document, read_observation

pytestmark = pytest.mark.anyio

DAMAGES = int(os.environ.get("TIDEGATE_DAMAGED_OUTPUTS", "1500"))
GROUPS = [
    GroupState(
        GroupId(n), (DeviceRef(MacAddress(f"02:00:5e:10:00:{n:02x}"), (IpAddress(f"2001:db8::{n}"),)),), Limit(9000, 500, 64)
    )
    for n in range(1, 6)
]
PIECES = (
    *(b"\0", b"\xff\xfe", b"\x1b[31m", b"\r", b"\n", b"\n\n", b'"', b"{", b"[", b"}", b"]", b":", b",", b" ", b"\t", b"--- "),
    *(b"--- end\n", b"--- = 0\n", b"\n--- nft\n", b"\n--- state\n", b"--- = ", b"null", b"true", b"-1", b"1e999", b"NaN"),
    *(b"9" * 5_000, b"[" * 10_000, b'{"a":' * 10_000, b"0x", b"1:", b"\xd9\xa3", "\u0663".encode(), b"qdisc ", b"class htb 1:"),
)


def damaged(whole: bytes, random: Random) -> bytes:
    """The output with one to four things done to it."""
    data = bytearray(whole)
    for _ in range(random.randint(1, 4)):
        at, to = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
        lines = bytes(data).splitlines(keepends=True) or [b""]
        match random.randrange(8):
            case 0:
                data = data[:at]
            case 1:
                del data[at : at + random.randint(1, 40)]
            case 2:
                data[at:at] = random.choice(PIECES)
            case 3:
                data[at : at + random.randint(1, 9)] = random.choice(PIECES)
            case 4 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 5:
                data[at:at] = data[at : min(to, at + 4_000)]
            case 6:
                random.shuffle(lines)
                data = bytearray(b"".join(lines))
            case _:
                line = random.choice(lines)
                data[at:at] = line
    return bytes(data)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with an_edge(tmp_path_factory.mktemp("edge"), ["dash"]) as found:
        yield found


@pytest.fixture
async def printed(edge: Edge) -> bytes:
    """What a real agent answers when it is asked how it is."""
    await edge.engine().create_group_infrastructure()
    await edge.engine().synchronise(GROUPS)
    result = await edge.shell().run(["/bin/sh", edge.agent, VERSION, "observe", *HOME])
    assert read_observation(read_answer(result.out), HOME).resources.classes
    return result.out


def outcomes(read: Callable[[bytes], Any], whole: bytes, own: tuple[type[Exception], ...]) -> set[str]:
    """How reading the damaged outputs ended; anything but a value and the reader's own failures comes through."""
    random, found = Random(33), set[str]()
    for _ in range(DAMAGES):
        data = damaged(whole, random)
        try:
            read(data)
            said = "a value"
        except own as error:
            said = str(error)
        found.add("value" if said == "a value" else "failure")
        assert said.isascii()
        assert len(said) < 2_000
    return found


async def test_an_answer_is_read_or_refused_whatever_was_done_to_it(printed: bytes) -> None:
    def to_the_end(data: bytes) -> None:
        answer = read_answer(data)
        with suppress(Refused, Conflict):
            read_observation(answer, HOME)
        with suppress(Refused, Conflict):
            read_document(answer)
        with suppress(Conflict):
            read_copies(answer)
        for text, _ in answer.sections.values():
            list(offload_remarks(text))

    assert outcomes(to_the_end, printed, (Refused,)) == {"value", "failure"}


async def test_each_reader_of_one_kind_of_output_raises_its_own_failure_and_no_other(printed: bytes) -> None:
    sections = read_answer(printed).sections
    rules, queues, state = (sections[name][0].encode() for name in ("nft", "tc br-lan", "state"))

    assert outcomes(lambda data: nftables.read_table(legible(data)), rules, (Unreadable,)) == {"value", "failure"}
    assert outcomes(lambda data: tc.read_device(legible(data)), queues, (tc.Unreadable,)) == {"value", "failure"}
    # What is damaged anywhere does not fit its checksum; what was only doubled or shuffled into the same is the same.
    assert "failure" in outcomes(lambda data: from_text(legible(data)), state + b"\n", (Damaged, Newer))
    neighbours = b"192.168.1.20 dev br-lan lladdr 02:00:5e:10:00:0b ref 1 used 5/6/7 probes 1 REACHABLE\n" * 3
    outcomes(lambda data: read_neighbourhood(legible(data), legible(data), legible(data), aged=True), neighbours, ())


@pytest.mark.parametrize("status", ["9" * 5_000, "-1", "", "1e3", "\u0663", " 0"])
def test_a_status_that_is_none_counts_as_a_failure(status: str) -> None:
    out = f"tidegate-agent {VERSION} ok\n--- nft\n--- = {status}\n--- end\n".encode()
    assert read_answer(out).sections["nft"] == ("", -1)
