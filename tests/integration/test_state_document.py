"""The state document on a real router's flash: of another version, damaged, or not this router's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.integration.edge import KERNEL, US, Edge, an_edge
from tidegate.errors import Conflict, Refused
from tidegate.policy.compiler import checksum
from tidegate.policy.device import DeviceRef, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.state import ControllerId, GroupState, Limit, from_text
from tidegate.router.engine import Applied, RouterOperationsEngine

pytestmark = pytest.mark.anyio

CHILD = GroupState(GroupId(1), (DeviceRef(MacAddress("02:00:5e:10:00:0b")),), Limit(20_000, 5_000))
SLOWER = replace(CHILD, limit=Limit(2_000, 5_000))
RECORDED = Path(__file__).parents[1] / "data" / "state"


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        yield found


@pytest.fixture
async def engine(edge: Edge) -> RouterOperationsEngine:
    """Of a router that has the base set-up and one group."""
    found = edge.engine()
    await found.create_group_infrastructure()
    await found.synchronise([CHILD])
    return found


async def repaired(engine: RouterOperationsEngine, *groups: GroupState, generation: int = 1) -> Applied:
    return await engine.repair(await engine.inspect(groups), groups, generation)


def state(edge: Edge) -> Path:
    return edge.root / "etc/tidegate/state.json"


def seal(path: Path, body: str) -> None:
    """Write a document with this body and the checksum that fits it."""
    path.write_text(f'{{"checksum": "{sha256(body.encode()).hexdigest()}",\n{body}')


async def mend(engine: RouterOperationsEngine) -> None:
    await engine.repair(await engine.inspect([CHILD]), [CHILD])


async def test_a_document_of_a_later_tidegate_is_left_alone(edge: Edge, engine: RouterOperationsEngine) -> None:
    seal(state(edge), state(edge).read_text().partition("\n")[2].replace('"schema": 2', '"schema": 3, "quotas": []'))
    before = edge.picture()
    for change in (engine.synchronise([SLOWER], force=True), mend(engine), engine.create_group_infrastructure()):
        with pytest.raises(Conflict, match=r"of schema 3, of a later Tidegate.*upgrade this one"):
            await change
    assert edge.picture() == before


async def test_a_document_of_an_older_tidegate_is_taken_forward_by_the_next_change(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    old = RECORDED.joinpath("1.json").read_text().replace("0123456789abcdef", "00000000000000aa")
    body = old.partition("\n")[2]
    state(edge).write_text(f'{{"schema": 1, "checksum": "{sha256(body.encode()).hexdigest()}",\n{body}')
    assert (await engine.synchronise([SLOWER], force=True)).generation == 8
    after = state(edge).read_text()
    assert '"schema": 2' in after
    assert from_text(after).groups == (SLOWER,)


def folder(edge: Edge) -> Path:
    return edge.root / "etc/tidegate"


def zero_a_page(path: Path) -> None:
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])


def another_routers(path: Path) -> None:
    seal(path, path.read_text().partition("\n")[2].replace('"router": "home"', '"router": "office"'))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:150]),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes().replace(b"02:00:5e", b"02:00:4e")),
    "a flipped bit in its generation": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"generation": ', b'"generation":!')
    ),
    "a zeroed page": zero_a_page,
    "removed": lambda path: path.unlink(),
    "an older one": lambda path: path.write_text(documents_in(path.parent / "earlier.1")),
    "another router's": another_routers,
    "no text at all": lambda path: path.write_bytes(b"\xff\x00\n--- nft\n--- = 0\n--- end\n" * 9),
}


def documents_in(bundle: Path) -> str:
    return bundle.read_text().partition("--- state\n")[2].partition("--- ")[0]


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_damaged_document_is_said_to_be_and_the_next_change_puts_it_right(
    edge: Edge, engine: RouterOperationsEngine, kind: str
) -> None:
    await engine.synchronise([SLOWER])
    running = edge.run(KERNEL)
    DAMAGE[kind](state(edge))
    seen, remarks = await engine.verify_router_state([SLOWER])
    assert seen.damage
    assert seen.document == from_text(documents_in(folder(edge) / "current"))
    assert [remark.text for remark in remarks] == [str(seen.damage)]
    assert edge.run(KERNEL) == running, "looking changes nothing"
    done = await engine.synchronise([SLOWER], force=True)
    assert (done.generation, done.words) == (4, (f"the state document is put right: {seen.damage}",))
    assert engine.documents.mended == seen.damage
    assert edge.run(KERNEL) == running
    assert (await engine.verify_router_state([SLOWER]))[1] == ()
    assert from_text(state(edge).read_text()).groups == (SLOWER,)


async def test_a_controller_that_knows_nothing_takes_up_a_router_with_a_damaged_document(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    await engine.synchronise([SLOWER])
    running = edge.run(KERNEL)
    state(edge).write_text("")
    (folder(edge) / "current").write_bytes(b"")  # that copy too
    taker = edge.engine(ControllerId("00000000000000bb"))
    assert (await taker.create_group_infrastructure()).generation == 3  # of the one before, whose group is the old one
    seen = await taker.observe()
    assert seen.document
    assert (seen.damage, seen.document.groups) == (None, (CHILD,))
    assert edge.run(KERNEL) != running


async def test_where_no_copy_is_good_nothing_is_changed_until_somebody_repairs(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    await engine.synchronise([SLOWER])
    for name in ("state.json", "current", "earlier.1", "earlier.2"):
        path = folder(edge) / name
        path.write_bytes(path.read_bytes().replace(b'"router": "home"', b'"router": "hone"'))
    before = edge.picture()
    taker = edge.engine(ControllerId("00000000000000bb"))
    for change in (
        engine.synchronise([CHILD], force=True),
        engine.synchronise([SLOWER], force=True),
        engine.remove_base(),
        engine.prepare([CHILD]),
        engine.create_group_infrastructure(),
        taker.create_group_infrastructure(),
    ):
        with pytest.raises(Refused, match=r"nor can a copy of it be used.*infrastructure repair"):
            await change
    with pytest.raises(Conflict, match="it names controller 00000000000000aa"):
        await repaired(taker)
    edge.run("tc qdisc del dev wan root; tc qdisc add dev wan root pfifo")
    others = edge.picture()
    with pytest.raises(Refused, match="a root queue of somebody else"):
        await repaired(engine, SLOWER, generation=3)
    assert edge.picture() == others, "what is refused leaves the flash as it was"
    edge.run("tc qdisc del dev wan root")
    await repaired(engine, SLOWER, generation=3)
    assert from_text(state(edge).read_text()).generation == 4
    assert (await engine.verify_router_state([SLOWER]))[1] == ()
    assert sorted(edge.run(KERNEL).splitlines()) == sorted(before[: len(edge.run(KERNEL))].splitlines())


async def test_the_last_three_confirmed_documents_are_kept(edge: Edge, engine: RouterOperationsEngine) -> None:
    for rate in (3_000, 4_000, 5_000):
        await engine.synchronise([replace(CHILD, limit=Limit(rate, rate))])
    copies, _ = await engine.documents.copies()
    kept = [(copy.file, copy.document.generation) for copy in copies if copy.document]
    assert kept == [("state.json", 5), ("current", 5), ("earlier.1", 4), ("earlier.2", 3)]
    assert [path.name for path in sorted(folder(edge).iterdir()) if path.is_file() and path.suffix != ".json"] == [
        "current",
        "current.id",
        "earlier.1",
        "earlier.2",
    ]


async def test_a_commit_that_was_cut_off_between_two_renames_is_brought_to_its_end(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    """The document has its new name, and the copies were moved up, when the power fails: the next verb does the rest."""
    texts = {name: (folder(edge) / name).read_text() for name in ("current", "earlier.1")}
    await engine.synchronise([SLOWER])
    new = (folder(edge) / "current").read_text()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for moved in ({}, {"earlier.2": texts["earlier.1"]}, {"earlier.2": texts["earlier.1"], "earlier.1": texts["current"]}):
        pending = folder(edge) / "pending"
        pending.mkdir(exist_ok=True)
        (pending / "bundle").write_text(new)
        for name in ("current", "earlier.1", "earlier.2"):
            (folder(edge) / name).unlink(missing_ok=True)
        left = texts | moved
        if "earlier.1" in moved:
            del left["current"]
        elif moved:
            del left["earlier.1"]
        for name, text in left.items():
            (folder(edge) / name).write_text(text)
        # Last: from here on it is brought to its end by whoever comes, the change's own timer too.
        (pending / "mark").write_text(f"{checksum(new.encode())[:16]} 3 {boot} 0 waits\n")
        seen = await engine.observe()
        assert (seen.damage, seen.pending, seen.generation) == (None, None, 3)
        assert (folder(edge) / "current").read_text() == new
        assert (folder(edge) / "earlier.1").read_text() == texts["current"]
        assert (folder(edge) / "earlier.2").read_text() == texts["earlier.1"]


async def test_two_controllers_at_once_never_undo_each_others_work(edge: Edge, engine: RouterOperationsEngine) -> None:
    """REL-15: 25 changes each, and each controller takes the router up anew where it lost it. Every one of the 50 either
    stands, under a generation of its own, or was refused with the other's id; nothing is written over."""
    ours, theirs = US, ControllerId("00000000000000bb")
    stands: dict[int, tuple[ControllerId, int]] = {}
    refused: list[tuple[ControllerId, Conflict]] = []

    async def changes(one: RouterOperationsEngine, me: ControllerId, other: ControllerId) -> None:
        for number in range(25):
            wish = replace(CHILD, limit=Limit(1_000 + number, 64 if me == ours else 65))
            try:
                done = await one.synchronise([wish])
                assert done.generation not in stands
                stands[done.generation] = me, 1_000 + number
            except Conflict as conflict:
                refused.append((other, conflict))
                with suppress(Conflict):
                    await one.create_group_infrastructure()

    await asyncio.gather(
        changes(engine, ours, theirs),
        changes(edge.engine(theirs), theirs, ours),
    )
    assert len(stands) + len(refused) == 50
    assert [why.detail for other, why in refused if other not in why.detail and "pending" not in why.facts] == []
    assert {me for me, _ in stands.values()} == {ours, theirs}
    last = from_text(state(edge).read_text())
    me, rate = stands[max(stands)]
    assert last.groups == (replace(CHILD, limit=Limit(rate, 64 if me == ours else 65)),)
    assert f"rate {rate}Kbit" in edge.run("tc class show dev br-lan classid 1:101")
