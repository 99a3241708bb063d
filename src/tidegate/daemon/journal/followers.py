"""Those who follow the journal: each at its own pace, none of them slowing another or the journal down.

A follower reads what is past from the store, page by page, and joins the live entries where the two meet: number for number,
without gap or doubling. Once live it has a queue of at most 1,024; whoever falls further behind gets one `Resync` in
place of what was dropped. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from weakref import WeakSet

from tidegate.events import Entry, Notice, Resync

QUEUE_LIMIT = 1_024
PAGE = 512

Pages = Callable[[int, int], Awaitable[Sequence[Entry]]]


class Follower(AsyncIterator[Notice]):
    """One reader's place in the journal. Ends when the journal closes; forgotten when nobody holds it any more."""

    def __init__(self, crowd: Followers, last: int, *, live: bool) -> None:
        self._crowd = crowd
        self._last = last  # the newest number that was queued or given up
        self._live = live
        self._missed: int | None = None
        self._queue: deque[Entry] = deque()
        self._woken = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many entries are held for this reader."""
        return len(self._queue)

    async def __anext__(self) -> Notice:
        while True:
            if self._missed is not None:
                missed, self._missed = self._missed, None
                return Resync(missed)
            if self._queue:
                return self._queue.popleft()
            if self._crowd.closed:
                raise StopAsyncIteration
            if self._live:
                self._woken.clear()
                await self._woken.wait()
            else:
                await self._catch_up()

    async def aclose(self) -> None:
        self._crowd.forget(self)

    def offer(self, entries: Sequence[Entry]) -> None:
        """New entries, in order. Costs no waiting: what does not fit is dropped, and the reader told."""
        if not self._live:
            return  # it will come upon them in the store
        self._take(entries)
        if len(self._queue) > self._crowd.limit:
            self.give_up(self._last)
        self._woken.set()

    def give_up(self, number: int) -> None:
        """Nothing up to and including `number` will be delivered any more."""
        self._queue.clear()
        self._missed = self._last = number

    def wake(self) -> None:
        self._woken.set()

    def _take(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._queue.extend(entries)
            self._last = entries[-1].number

    async def _catch_up(self) -> None:
        page = await self._crowd.pages(self._last, self._crowd.page)
        # What is durable but not yet told comes live: nobody knows of an entry before the others do.
        page = [entry for entry in page if entry.number <= self._crowd.head]
        if page and page[0].number > self._last + 1:
            self.give_up(page[0].number - 1)
        self._take(page)
        # No await between this comparison and the next live entries: nothing can slip through.
        self._live = self._last >= self._crowd.head


class Followers:
    """All followers of one journal, and the newest number that they were told."""

    def __init__(self, pages: Pages, head: int, *, limit: int = QUEUE_LIMIT, page: int = PAGE) -> None:
        """`pages(since, count)` reads the past."""
        self.pages = pages
        self.head = head
        self.limit = limit
        self.page = page
        self.closed = False
        self._all: WeakSet[Follower] = WeakSet()

    def join(self, since: int | None) -> Follower:
        """A follower of everything after the number `since`; of everything from now on where that is None."""
        follower = Follower(self, self.head if since is None else max(0, since), live=since is None)
        if since is not None and since > self.head:  # a number from another life of this journal: a backup was restored
            follower.give_up(self.head)
        self._all.add(follower)
        return follower

    def forget(self, follower: Follower) -> None:
        self._all.discard(follower)

    def tell(self, entries: Sequence[Entry]) -> None:
        self.head = entries[-1].number
        for follower in tuple(self._all):
            follower.offer(entries)

    def close(self) -> None:
        self.closed = True
        for follower in tuple(self._all):
            follower.wake()

    def __len__(self) -> int:
        return len(self._all)
