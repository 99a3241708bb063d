"""Events of one journal taken over into another: none lost, none twice, whoever is cut off wherever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidegate.contract.acting import Acting
from tidegate.daemon.events import EventsService
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.journal.retention import Retention
from tidegate.daemon.journal.store import Store
from tidegate.daemon.takeover import TABLES, OutOfStep, Takeover
from tidegate.events import Entry, TorrentAdded

pytestmark = pytest.mark.anyio


async def at_once() -> None:
    """Nothing needs to be known before events are."""


def event(number: int) -> TorrentAdded:
    return TorrentAdded(f"{number:040x}", f"torrent {number}")


@asynccontextmanager
async def taking(control: Journal, node: Journal) -> AsyncIterator[None]:
    """Taken over from `node` to `control` in the block; cut off at its end."""

    async def run() -> None:
        takeover = Takeover(control, "torrent", at_once)
        while True:
            # As the daemon does: a commit that a cut-off taker left under way makes the next one begin again.
            with suppress(OutOfStep):
                await takeover.run(EventsService(node))

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def taken(control: Journal, count: int) -> list[Entry]:
    """The control journal's entries once there are that many."""
    async with asyncio.timeout(20):
        while len(entries := await control.entries(0, 100_000)) < count:
            await asyncio.sleep(0.005)
    return entries


async def test_events_arrive_in_order_with_who_acted(tmp_path: Path) -> None:
    control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
    await node.commit(nothing, event(1), acting=Acting("key:ab12", "request-1"))
    async with taking(control, node):
        await node.commit(nothing, event(2), event(3), acting=Acting("local:0", "request-2"))
        entries = await taken(control, 3)
    assert [entry.event for entry in entries] == [event(1), event(2), event(3)]
    assert [(entry.by, entry.request) for entry in entries] == [("key:ab12", "request-1")] + [("local:0", "request-2")] * 2
    await control.close()
    await node.close()


async def test_wherever_it_is_cut_off_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    """Also with other events in between, and with both journals closed and opened again."""
    chance = random.Random(1)
    told = 0
    for _ in range(12):
        control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
        async with taking(control, node):
            count = chance.randrange(1, 120)
            commits = [node.commit(nothing, event(told + each)) for each in range(1, count + 1)]
            told += count
            await asyncio.gather(*commits)
            await asyncio.sleep(chance.random() * 0.02)
        await control.close()
        await node.close()
    control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
    async with taking(control, node):
        entries = await taken(control, told)
        await asyncio.sleep(0.05)
    assert len(await control.entries(0, 100_000)) == told
    assert [entry.event for entry in entries] == [event(number) for number in range(1, told + 1)]
    await control.close()
    await node.close()


async def test_two_that_take_over_at_once_do_not_double(tmp_path: Path) -> None:
    control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
    takeovers = [asyncio.create_task(Takeover(control, "torrent", at_once).run(EventsService(node))) for _ in range(2)]
    for number in range(1, 200):
        await node.commit(nothing, event(number))
    for task in takeovers:
        task.cancel()
    await asyncio.gather(*takeovers, return_exceptions=True)  # one of them may have found itself out of step
    async with taking(control, node):
        entries = await taken(control, 199)
    assert [entry.event for entry in entries] == [event(number) for number in range(1, 200)]
    await control.close()
    await node.close()


async def test_a_journal_that_was_begun_anew_is_taken_over_from_its_beginning(tmp_path: Path) -> None:
    control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
    for number in range(1, 10):
        await node.commit(nothing, event(number))
    async with taking(control, node):
        await taken(control, 9)
    await node.close()
    anew = await Journal.open(tmp_path / "anew.db")
    await anew.commit(nothing, event(50))
    async with taking(control, anew):
        entries = await taken(control, 10)
    assert entries[-1].event == event(50)
    await control.close()
    await anew.close()


async def test_what_was_pruned_before_it_could_be_taken_is_passed_over(tmp_path: Path) -> None:
    node = await Journal.open(tmp_path / "node.db")
    for number in range(1, 11):
        await node.commit(nothing, event(number))
    await node.close()
    store = Store(tmp_path / "node.db", (), Retention(entries=4, least=1))
    store.open()
    assert store.prune(datetime.now(UTC)) == 6
    store.close()
    control, node = await Journal.open(tmp_path / "control.db", TABLES), await Journal.open(tmp_path / "node.db")
    async with taking(control, node):
        entries = await taken(control, 4)
        await node.commit(nothing, event(11))
        entries = await taken(control, 5)
    assert [entry.event for entry in entries] == [event(number) for number in range(7, 12)]
    await control.close()
    await node.close()
