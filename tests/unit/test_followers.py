"""What a reader of events can rely on: order, no gap without a word, and that nobody waits for anybody else.

A model client keeps a copy of a small state by events alone; whenever it is told to, it reads the state anew. However often it
is cut off and however slowly it reads, its copy ends equal to the state.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate.daemon.journal.followers import PAGE, QUEUE_LIMIT, Follower, Followers
from tidegate.events import Entry, Notice, Resync, RouterReachable, RouterUnreachable

pytestmark = pytest.mark.anyio

AT = datetime(2026, 11, 1, tzinfo=UTC)


class Store:
    """Entries in memory, and the state that they lead to. What is written is told later, as in the journal."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.floor = 0
        self.untold: list[Entry] = []
        self.followers = Followers(self.pages, 0, limit=20, page=8)

    def write(self, router: str, reachable: bool) -> None:
        event = RouterReachable(router) if reachable else RouterUnreachable(router, "gone")
        entry = Entry(self.floor + len(self.entries) + 1, AT, "daemon", "", event)
        self.entries.append(entry)
        self.untold.append(entry)

    def tell(self) -> None:
        if self.untold:
            told, self.untold = self.untold, []
            self.followers.tell(told)

    def prune(self, count: int) -> None:
        count = min(count, max(0, len(self.entries) - 1))
        self.floor += count
        self.entries = self.entries[count:]

    def pages(self, since: int, limit: int) -> Awaitable[Sequence[Entry]]:
        async def page() -> Sequence[Entry]:
            await asyncio.sleep(0)  # others run meanwhile
            return [entry for entry in self.entries if entry.number > since][:limit]

        return page()

    @property
    def head(self) -> int:
        return self.floor + len(self.entries)


class Client:
    """Knows which routers are reachable, by events; `seen` is the number up to which it knows."""

    def __init__(self, store: Store, state: dict[str, bool]) -> None:
        self._store = store
        self._state = state  # what a request would answer
        self.copy: dict[str, bool] = {}
        self.seen = 0
        self._notices: Follower | None = None

    async def read(self, count: int) -> None:
        if self._notices is None:
            self._notices = self._store.followers.join(self.seen)
        for _ in range(count):
            pending = asyncio.ensure_future(anext(self._notices))
            for _ in range(20):
                await asyncio.sleep(0)
            if not pending.done():
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)
                return
            self._apply(pending.result())

    def cut_off(self) -> None:
        self._notices = None

    def _apply(self, notice: Notice) -> None:
        if isinstance(notice, Resync):
            assert notice.missed > self.seen
            self.copy, self.seen = dict(self._state), notice.missed
            return
        assert isinstance(notice, Entry)
        assert notice.number == self.seen + 1, "a gap or a doubling without a word"
        self.seen = notice.number
        self.copy[notice.event.router] = isinstance(notice.event, RouterReachable)  # type: ignore[union-attr]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.booleans()),
        st.tuples(st.just("burst"), st.integers(1, 50)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("prune"), st.integers(1, 30)),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 50)),
        st.tuples(st.just("cut"), st.integers(0, 1)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=200)
@example([("write", "a", True), ("read", 0, 1), ("cut", 0), ("read", 0, 1)])  # on the disk, but not yet told
@given(steps)
def test_a_copy_kept_by_events_ends_equal_to_the_state(taken: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        store, state = Store(), dict[str, bool]()
        clients = [Client(store, state), Client(store, state)]

        def write(router: str, reachable: bool) -> None:
            state[router] = reachable
            store.write(router, reachable)

        for name, *arguments in taken:
            if name == "write":
                write(*arguments)
            elif name == "burst":
                for number in range(arguments[0]):
                    write("abc"[number % 3], number % 2 == 0)
            elif name == "tell":
                store.tell()
            elif name == "prune":
                store.tell()
                store.prune(*arguments)
            elif name == "read":
                await clients[arguments[0]].read(arguments[1])
            else:
                clients[arguments[0]].cut_off()
        store.tell()
        for client in clients:
            while client.seen < store.head:
                before = client.seen
                await client.read(1_000)
                assert client.seen > before, "it waits for ever"
            assert client.copy == state

    asyncio.run(run())


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(number, AT, "daemon", "", RouterReachable("home")) for number in range(first, last + 1)]


async def nothing_kept(_: int, __: int) -> Sequence[Entry]:
    return []


async def test_a_reader_within_the_bound_misses_nothing() -> None:
    followers = Followers(nothing_kept, 0)
    follower = followers.join(None)
    followers.tell(entries(1, QUEUE_LIMIT))
    assert [(await anext(follower)).number for _ in range(QUEUE_LIMIT)] == list(range(1, QUEUE_LIMIT + 1))  # type: ignore[attr-defined]


async def test_a_reader_beyond_the_bound_is_told_so_once_and_goes_on_from_there() -> None:
    followers = Followers(nothing_kept, 0)
    slow, quick = followers.join(None), followers.join(None)
    for first in range(1, 5_001, 100):
        followers.tell(entries(first, first + 99))
        assert [(await anext(quick)).number for _ in range(100)] == list(range(first, first + 100))  # type: ignore[attr-defined]
    resync = await anext(slow)
    assert isinstance(resync, Resync)
    rest = [await anext(slow) for _ in range(5_000 - resync.missed)]
    followers.tell(entries(5_001, 5_001))
    rest.append(await anext(slow))
    assert [notice.number for notice in rest] == list(range(resync.missed + 1, 5_002))  # type: ignore[attr-defined]
    assert len(rest) <= QUEUE_LIMIT + 1


async def test_a_reader_that_never_reads_holds_a_bounded_number_of_entries() -> None:
    followers = Followers(nothing_kept, 0)
    stuck = followers.join(None)
    for first in range(1, 20_001, 10):
        followers.tell(entries(first, first + 9))
        assert stuck.waiting <= QUEUE_LIMIT


async def test_a_reader_that_catches_up_holds_at_most_a_page_of_the_past() -> None:
    past = entries(1, 10 * PAGE)

    async def pages(since: int, limit: int) -> Sequence[Entry]:
        return past[since : since + limit]

    followers = Followers(pages, len(past))
    follower = followers.join(0)
    for number in range(1, len(past) + 1):
        assert (await anext(follower)).number == number  # type: ignore[attr-defined]
        assert follower.waiting < PAGE


async def test_a_cancelled_read_loses_nothing() -> None:
    followers = Followers(nothing_kept, 0)
    follower = followers.join(None)
    for number in range(1, 50):
        waiting: Coroutine[Any, Any, Notice] = follower.__anext__()
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        task.cancel()
        followers.tell(entries(number, number))
        await asyncio.gather(task, return_exceptions=True)
        assert (await anext(follower)).number == number  # type: ignore[attr-defined]


async def test_who_left_is_forgotten() -> None:
    followers = Followers(nothing_kept, 0)
    left, lost = followers.join(None), followers.join(None)
    assert len(followers) == 2
    await left.aclose()
    del lost
    gc.collect()
    assert len(followers) == 0
