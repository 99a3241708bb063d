"""The journal: the only way to change state, and the record of every change.

- `commit(change, *events)` puts state and events into one transaction. It returns once both are on the disk (fsync), and
  only then are the followers told. Commits that wait at the same time share one fsync; each stands or falls alone.
- Event numbers rise by one without gaps, also across crashes. Entries form the audit chain (`chain.py`).
- Writes have one thread, reads another: a slow disk never stops the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

from tidegate.contract.acting import Acting
from tidegate.contract.acting import acting as who_acts
from tidegate.daemon.journal.audit import Audit, Walk
from tidegate.daemon.journal.chain import Anchor, Chain
from tidegate.daemon.journal.diskfault import code_of, failure, shakes_trust
from tidegate.daemon.journal.followers import Followers
from tidegate.daemon.journal.retention import Retention
from tidegate.daemon.journal.rows import RAW, chain_in, entry_of, read_connection
from tidegate.daemon.journal.store import PRUNED_AT_ONCE, Change, Outcome, Store
from tidegate.errors import Unavailable
from tidegate.events import Entry, Event, Notice

T = TypeVar("T")

BATCH = 512  # changes that share one transaction at most
KEEP = 5_000_000  # entries
TIDY_EVERY = 60.0  # seconds between looks for entries that are due to go


def nothing(_: sqlite3.Connection) -> None:
    """No change: `commit(nothing, event)` records an event alone."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    change: Change
    done: asyncio.Future[Any]


class Journal:
    """An open journal. Made by `Journal.open`; all methods belong to the event loop that opened it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[int] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._reading: sqlite3.Connection | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._followers = Followers(self.entries, 0)
        self._writer = threading.Thread(target=self._write_all, name="journal-writer", daemon=True)

    @classmethod
    async def open(
        cls,
        path: Path,
        migrations: Sequence[str] = (),
        keep: int = KEEP,
        retention: Retention | None = None,
    ) -> Journal:
        """Open the journal at `path`, made where there is none; its key lies beside it, with the suffix `.key`.

        `migrations` are the numbered steps of the schema, each an SQL script, run in order and each in a transaction; a backup
        of an existing store is taken first. `keep` is how many entries stay at most. Raises Unavailable with what to do where
        the store is in use, damaged, of a newer version, or without its key; StorageFull.
        """
        limits = retention or Retention(entries=keep)
        journal = cls(Store(path, migrations, limits))
        journal._writer.start()
        opened = False
        try:
            journal._followers.head = await journal._opened
            opened = True
        finally:
            if not opened:
                await asyncio.shield(journal.close())
        return journal

    # ── reading

    @property
    def head(self) -> int:
        """The number of the newest entry that followers were told of; 0 where there is none yet."""
        return self._followers.head

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """The query's value, from one consistent state that holds every commit acknowledged before. Raises Unavailable."""
        if self._closing:
            raise Unavailable("the journal is closed")
        return await self._loop.run_in_executor(self._reader, self._query, query)

    async def entries(self, since: int, limit: int) -> list[Entry]:
        """The entries after the number `since`, oldest first, at most `limit`."""
        return await self.read(lambda connection: [entry_of(row) for row in connection.execute(RAW, (since, limit))])

    def follow(self, since: int | None = None) -> AsyncIterator[Notice]:
        """Entries as they become durable, from this call on. With `since` first all after that number.

        `Resync` stands in for what is gone: pruned, or dropped because this reader was more than 1,024 entries behind.
        """
        return self._followers.join(since)

    async def trail(self, since: int, limit: int) -> tuple[list[Entry], Chain]:
        """`entries`, and where the audit chain begins and ends at the same moment. Its head, noted elsewhere, is what shows
        later that an end was cut off."""

        def both(connection: sqlite3.Connection) -> tuple[list[Entry], Chain]:
            found = chain_in(connection, self._store.key)
            rows = connection.execute(RAW, (since, limit))
            return [entry_of(row) for row in rows], found[0] if found else self._store.chain

        return await self.read(both)

    async def anchor(self) -> Anchor:
        """Where the audit chain ends now."""

        def head(connection: sqlite3.Connection) -> Anchor:
            found = chain_in(connection, self._store.key)
            return (found[0] if found else self._store.chain).head

        return await self.read(head)

    async def verify(self, known: Anchor | None = None) -> Audit:
        """Recompute the chain over every entry kept, against its head and, where given, an anchor kept elsewhere."""
        walk = Walk(self._store.key, known)
        while (found := await self.read(walk.step)) is None:
            pass
        return found

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._reading is None:
                self._reading = read_connection(self._store.path)
            self._reading.execute("BEGIN")
            try:
                return query(self._reading)
            finally:
                self._reading.execute("ROLLBACK")
        except sqlite3.Error as error:
            if code_of(error) == sqlite3.SQLITE_READONLY:
                raise  # a query that writes: a bug, not the disk
            if shakes_trust(error):
                self._stop_reading()
            raise failure(error, self._store.path) or error from None
        except UnicodeDecodeError:  # SQLite quotes damaged bytes, which Python can't decode
            raise Unavailable(f"{self._store.path} is damaged: restore it from a backup") from None

    def _stop_reading(self) -> None:
        connection, self._reading = self._reading, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # ── writing

    async def commit(self, change: Callable[[sqlite3.Connection], T], *events: Event, acting: Acting | None = None) -> T:
        """Make the change and record the events, together or not at all; returns the change's value once that is durable.

        The change runs in the writer's thread on the connection that it is given, may run twice (so it touches nothing else),
        and must not end the transaction. What it raises undoes it, and it alone, and is raised here. Who acts is read from the
        calling task unless `acting` says. Raises StorageFull (nothing changed) or Unavailable (the disk failed: whether
        the change was made shows once it answers again).
        """
        if self._closing:
            raise Unavailable("the journal is closed")
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put(_Waiting(Change(change, events, acting or who_acts()), done))
        return cast(T, await done)

    async def close(self) -> None:
        """What was asked for before is written; followers end; the files are left closed and whole."""
        if not self._closing:
            self._closing = True
            self._waiting.put(None)
        await asyncio.shield(self._ended)
        self._followers.close()

    def _write_all(self) -> None:
        """The writer's thread."""
        try:
            self._store.open()
        except Exception as error:  # noqa: BLE001 - handed to the one who opens
            self._tell(self._opened.set_exception, error)
            self._end()
            return
        self._tell(self._opened.set_result, self._store.chain.head.number)
        tidy_at = monotonic() + TIDY_EVERY
        going_on = True
        while going_on:
            batch, going_on = self._next_batch(max(0.0, tidy_at - monotonic()))
            if batch:
                try:
                    outcomes, entries = self._store.write([waiting.change for waiting in batch])
                except Exception:
                    # The writer outlives any bug: those who wait are told, and the store opened anew.
                    logging.getLogger(__name__).exception("the journal's writer failed")
                    self._store.distrust()
                    outcomes = [Outcome(error=Unavailable("the state could not be written"))] * len(batch)
                    entries = []
                self._tell(self._deliver, batch, outcomes, entries)
            if monotonic() >= tidy_at and self._store.prune(datetime.now(UTC)) < PRUNED_AT_ONCE:
                tidy_at = monotonic() + TIDY_EVERY
        self._end()

    def _end(self) -> None:
        self._reader.submit(self._stop_reading).result()
        self._reader.shutdown(wait=False)
        self._store.close()  # the last connection: SQLite puts the WAL's content into the file
        self._tell(self._ended.set_result, None)

    def _next_batch(self, patience: float) -> tuple[list[_Waiting], bool]:
        """All that wait now, up to a bound; and whether more may come. Waits so many seconds for the first."""
        batch: list[_Waiting] = []
        try:
            first = self._waiting.get(timeout=patience)
            while first is not None:
                batch.append(first)
                if len(batch) == BATCH:
                    return batch, True
                first = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _tell(self, what: Callable[..., Any], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(what, *arguments)

    def _deliver(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome], entries: Sequence[Entry]) -> None:
        if entries:
            self._followers.tell(entries)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.done.cancelled():
                continue
            if outcome.error is None:
                waiting.done.set_result(outcome.value)
            else:
                waiting.done.set_exception(outcome.error)
