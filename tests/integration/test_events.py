"""Following events with filters, over the real journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidegate.daemon.events import EventsService
from tidegate.daemon.journal import Journal, nothing
from tidegate.errors import Invalid
from tidegate.events import (
    DaemonStarted,
    Entry,
    Event,
    GroupSyncFailed,
    Notice,
    Resync,
    RouterReachable,
    TorrentAdded,
    TorrentRemoved,
)

pytestmark = pytest.mark.anyio

HASH = "ab" * 20
STORY: tuple[Event, ...] = (
    DaemonStarted("1"),
    RouterReachable("home"),
    RouterReachable("shed"),
    TorrentAdded(HASH, "a film"),
    TorrentAdded("cd" * 20, "another"),
    GroupSyncFailed("home", 5, "no answer"),
    TorrentRemoved(HASH, "a film", False),
)


@asynccontextmanager
async def told(folder: Path, *story: Event) -> AsyncIterator[Journal]:
    journal = await Journal.open(folder / "journal.db")
    try:
        for event in story:
            await journal.commit(nothing, event)
        yield journal
    finally:
        await journal.close()


async def all_of(journal: Journal, notices: AsyncIterator[Notice]) -> list[int]:
    """The numbers that come until the journal closes."""

    async def read() -> list[int]:
        return [notice.number async for notice in notices if isinstance(notice, Entry)]

    reading = asyncio.create_task(read())
    await journal.read(lambda _: None)  # the past is read before this answer
    await asyncio.sleep(0.05)
    await journal.close()
    return await reading


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"types": "router_reachable"}, [2, 3]),
        ({"types": "router_reachable, torrent_removed"}, [2, 3, 7]),
        ({"router": "home"}, [2, 6]),
        ({"router": "nowhere"}, []),
        ({"info_hash": HASH}, [4, 7]),
        ({"info_hash": HASH.upper()}, [4, 7]),
        ({"router": "shed", "info_hash": HASH}, [3, 4, 7]),
        ({"router": "home", "types": "group_sync_failed,torrent_added"}, [6]),
    ],
)
async def test_filters_leave_out_what_was_not_asked_for(tmp_path: Path, filters: dict[str, str], numbers: list[int]) -> None:
    async with told(tmp_path, *STORY) as journal:
        assert await all_of(journal, EventsService(journal).follow(0, **filters)) == numbers


@pytest.mark.parametrize(
    "types", ["", "router_reachabel", "router_reachable,", "RouterReachable", "daemon_started;x", "x" * 9999]
)
async def test_an_unknown_type_is_refused_before_anything_is_followed(tmp_path: Path, types: str) -> None:
    async with told(tmp_path) as journal:
        with pytest.raises(Invalid) as caught:
            EventsService(journal).follow(types=types)
        assert caught.value.faults[0].at == "query/types"
        assert len(caught.value.faults[0].why) < 200


async def test_a_misspelt_type_is_answered_with_the_nearest_and_every_fault_is_named(tmp_path: Path) -> None:
    async with told(tmp_path) as journal:
        with pytest.raises(Invalid) as caught:
            EventsService(journal).follow(since=-1, types="router_reachabel,nonsense")
        assert [fault.at for fault in caught.value.faults] == ["query/since", "query/types", "query/types"]
        assert "did you mean 'router_reachable'?" in caught.value.faults[2].why


async def test_following_begins_with_the_call_and_not_with_the_first_read(tmp_path: Path) -> None:
    async with told(tmp_path, DaemonStarted("1")) as journal:
        notices = EventsService(journal).follow(types="router_reachable")
        await journal.commit(nothing, RouterReachable("home"))
        assert await anext(notices) == (await journal.entries(1, 1))[0]


async def test_a_resync_passes_every_filter(tmp_path: Path) -> None:
    async with told(tmp_path, DaemonStarted("1")) as journal:
        notices = EventsService(journal).follow(types="torrent_added")
        await journal.commit(nothing, *(RouterReachable("home") for _ in range(1_100)))
        assert await anext(notices) == Resync(1_101)


async def test_a_slow_reader_on_the_journal_is_told_and_the_others_are_not_delayed(tmp_path: Path) -> None:
    async with told(tmp_path) as journal:
        slow, quick = journal.follow(), journal.follow()
        seen: list[int] = []
        for _ in range(30):
            await journal.commit(nothing, *(RouterReachable("home") for _ in range(100)))
            seen += [notice.number for _ in range(100) if isinstance(notice := await anext(quick), Entry)]
        assert seen == list(range(1, 3_001))
        missed = await anext(slow)
        assert isinstance(missed, Resync)
        caught_up = journal.follow(0)  # nothing is gone: the store has what the queue has not
        assert [(await anext(caught_up)).number for _ in range(missed.missed)] == list(range(1, missed.missed + 1))  # type: ignore[attr-defined]
