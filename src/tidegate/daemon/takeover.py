"""Events of another process, taken over by number into this one's journal: none lost, none twice.

How far they were taken stands in the same transaction as the events, and a transaction that does not fit on to the last one
fails. So whichever process is killed wherever, the next take-over goes on at the right number.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Any, cast

from tidegate.api.events import Events
from tidegate.contract.acting import Acting
from tidegate.daemon.journal import Journal
from tidegate.events import Entry, Notice, Resync

TABLES = ("CREATE TABLE taken (node TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;",)

BATCH = 256


class OutOfStep(Exception):
    """What was to be taken over does not follow what was taken before."""


class Takeover:
    """Takes the events of `node` into `journal`. `before` is awaited before events become known here."""

    def __init__(self, journal: Journal, node: str, before: Callable[[], Awaitable[None]]) -> None:
        self._journal = journal
        self._node = node
        self._before = before
        self._doubted: int | None = None  # where the last stream began with a gap

    async def run(self, events: Events) -> None:
        """Take over what happens there, and first what happened since the last time. Ends when the stream does; raises what
        ends it before."""
        number = await self._journal.read(self._number)
        waiting: asyncio.Queue[Notice] = asyncio.Queue(BATCH)
        reader = asyncio.create_task(_read(events.follow(since=number), waiting))
        first = True
        try:
            while batch := await _batch(waiting, reader):
                entries = list(takewhile(lambda notice: isinstance(notice, Entry), batch))
                if entries:
                    number = await self._take(number, cast(list[Entry], entries))
                    self._doubted = None
                elif first:
                    await self._resync(number, cast(Resync, batch[0]).missed)
                if len(entries) < len(batch):
                    return  # a gap: what the store still has comes first when the stream is begun anew
                first = False
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _number(self, db: sqlite3.Connection) -> int:
        row = db.execute("SELECT number FROM taken WHERE node = ?", (self._node,)).fetchone()
        return cast(int, row[0]) if row else 0

    async def _take(self, number: int, entries: Sequence[Entry]) -> int:
        """Each entry with its own actor, all in one go: the journal writes what waits together."""
        await self._before()
        commits = []
        for entry in entries:
            step = self._step(number, entry.number)
            commits.append(self._journal.commit(step, entry.event, acting=Acting(entry.by, entry.request)))
            number = entry.number
        for result in await asyncio.gather(*commits, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return number

    async def _resync(self, number: int, missed: int) -> None:
        """The stream began with a gap. Where it ends before `number`, the other journal was begun anew and all of it is news.
        Otherwise entries up to `missed` may be gone - or we were too slow for a burst, and find them in the store next time.
        """
        if missed < number:
            await self._journal.commit(self._step(number, 0))
        elif self._doubted == number:
            await self._journal.commit(self._step(number, missed))
        else:
            self._doubted = number

    def _step(self, before: int, after: int) -> Callable[[sqlite3.Connection], None]:
        def change(db: sqlite3.Connection) -> None:
            if self._number(db) != before:
                raise OutOfStep(f"{after} is not the next to be taken from {self._node}")
            db.execute(
                "INSERT INTO taken VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET number = excluded.number", (self._node, after)
            )

        return change


async def _read(follower: AsyncIterator[Notice], into: asyncio.Queue[Notice]) -> None:
    try:
        async for notice in follower:
            await into.put(notice)
    finally:
        await cast(Any, follower).aclose()


async def _batch(waiting: asyncio.Queue[Notice], reader: asyncio.Task[None]) -> list[Notice]:
    """What has come, at least one; empty once the reader has ended."""
    getting = asyncio.create_task(waiting.get())
    await asyncio.wait({getting, reader}, return_when=asyncio.FIRST_COMPLETED)
    if not getting.done():
        getting.cancel()
        return []
    batch = [getting.result()]
    while not waiting.empty() and len(batch) < BATCH:
        batch.append(waiting.get_nowait())
    return batch
