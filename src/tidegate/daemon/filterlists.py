"""The lists of addresses that the settings name: loaded when asked, when they never were, and again when it is time.

What is in force stays so until a new list is whole, believable, and on the disk; where that fails, the reason is kept and told.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import IO

import structlog

from tidegate.daemon import fetch
from tidegate.daemon.filterstore import StoredList
from tidegate.daemon.jail import open_inside
from tidegate.daemon.journal import nothing
from tidegate.daemon.listsource import ListSettings, ListSource
from tidegate.daemon.peerfilter import PeerFilter
from tidegate.daemon.recorder import Recorder
from tidegate.errors import TidegateError
from tidegate.events import IpFilterFailed
from tidegate.torrent.ipfilter import suspicion
from tidegate.torrent.iplist import AddressList
from tidegate.torrent.listprocess import read_list
from tidegate.torrent.unpack import OUTPUT_LIMIT, NotAList

RETRIES = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))  # after the first, second, ... failure in a row
LOOK_EVERY = 60.0  # seconds between two looks for lists that are due at most

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.torrent")


class NotLoaded(Exception):
    """Why a list is as it was."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading one list; with an `error`, `found` is None."""

    name: str
    seconds: float
    found: AddressList | None = None
    unchanged: bool = False
    error: str | None = None


@dataclass(slots=True)
class _Standing:
    """How a list fares. `due` is None where it is not loaded by itself."""

    source: ListSource
    due: datetime | None
    error: str | None = None
    failures: int = 0


class FilterLists:
    def __init__(self, settings: ListSettings, peers: PeerFilter, recorder: Recorder) -> None:
        self._settings = settings
        self._peers = peers
        self._recorder = recorder
        self._refresh = timedelta(hours=settings.refresh_hours)
        self._trust = fetch.Trust(frozenset(settings.hosts), Path(settings.authority) if settings.authority else None)
        self._reading = asyncio.Lock()
        self._standing = {each.name: _Standing(each, self._first(each)) for each in settings.sources}

    @property
    def names(self) -> Sequence[str]:
        return list(self._standing)

    def error(self, name: str) -> str | None:
        """Why the last try to load it failed, if it did."""
        return self._standing[name].error

    def due(self, name: str) -> datetime | None:
        """When it is loaded by itself; None for a file, which is loaded when somebody says so."""
        return self._standing[name].due

    async def run(self) -> None:
        """Load what is due, until cancelled."""
        while True:
            now = datetime.now(UTC)
            if due := [name for name, each in self._standing.items() if each.due and each.due <= now]:
                await self.load(due)
            waits = [(each.due - datetime.now(UTC)).total_seconds() for each in self._standing.values() if each.due]
            await asyncio.sleep(max(0.0, min([LOOK_EVERY, *waits])))

    async def load(self, names: Sequence[str], *, accept: bool = False) -> list[Loaded]:
        """Load these lists; they are fetched side by side and read one after the other."""
        return list(await asyncio.gather(*(self._load(self._standing[name], accept=accept) for name in names)))

    async def _load(self, standing: _Standing, *, accept: bool) -> Loaded:
        began, name = perf_counter(), standing.source.name
        standing.due = datetime.now(UTC) + self._refresh if standing.source.is_url else None
        try:
            async with self._opened(standing.source, accept=accept) as (file, version):
                if file is None:
                    await self._peers.put_checked(name, datetime.now(UTC))
                    found, unchanged = self._peers.lists[name].found, True
                else:
                    async with self._reading:
                        found, unchanged = await self._read(standing.source, file, version, accept=accept), False
        except (NotLoaded, NotAList, fetch.NotFetched, TidegateError, OSError) as error:
            why = error.detail if isinstance(error, TidegateError) else str(error)
            self._failed(standing, why)
            return Loaded(name, perf_counter() - began, error=why)
        standing.error, standing.failures = None, 0
        return Loaded(name, perf_counter() - began, found, unchanged)

    async def _read(self, source: ListSource, file: IO[bytes], version: str, *, accept: bool) -> AddressList:
        known = await self._peers.others(source.name)
        found = await read_list(file, lambda pairs: asyncio.to_thread(known.learn_blocked, pairs))
        if not accept and (why := suspicion(self._peers.found(source.name), found)):
            raise NotLoaded(f"{why}: look at it, and load it with `accept` if that is right")
        now = datetime.now(UTC)
        await self._peers.put_list(StoredList(source.name, source.origin, version, now, now, found), known)
        log.info("a list of addresses is in force", list=source.name, ranges=found.ranges, skipped=found.skipped)
        return found

    def _failed(self, standing: _Standing, why: str) -> None:
        standing.failures += 1
        if standing.source.is_url:
            standing.due = datetime.now(UTC) + RETRIES[min(standing.failures, len(RETRIES)) - 1]
        if why != standing.error:
            standing.error = why
            self._recorder.note(nothing, IpFilterFailed(standing.source.name, why))
            log.error("a list of addresses could not be loaded", list=standing.source.name, why=why)

    def _first(self, source: ListSource) -> datetime | None:
        """When to load a list for the first time in this process's life."""
        stored = self._peers.lists.get(source.name)
        if stored is None or stored.origin != source.origin or (not source.is_url and stored.version != self._stamp(source)):
            return datetime.now(UTC)
        if not source.is_url:
            return None
        # A quarter earlier at most: daemons that were started together do not all ask together.
        return stored.checked_at + self._refresh * random.uniform(0.75, 1)  # noqa: S311 - no secret

    @asynccontextmanager
    async def _opened(self, source: ListSource, *, accept: bool) -> AsyncIterator[tuple[IO[bytes] | None, str]]:
        """The list as an open file, and what this state of it is called; no file where it is as it was."""
        if not source.is_url:
            with open_inside(Path(self._settings.folder), source.origin, OUTPUT_LIMIT) as file:
                yield file, self._stamp(source)
            return
        stored = self._peers.lists.get(source.name)
        known = stored.version if stored and stored.origin == source.origin and not accept else ""
        with tempfile.TemporaryFile(dir=Path(self._settings.folder).parent) as file:
            fetched = await fetch.fetch(source.origin, file, known, self._trust)
            file.seek(0)
            yield None if fetched.unchanged else file, fetched.version

    def _stamp(self, source: ListSource) -> str:
        try:
            kept = (Path(self._settings.folder) / source.origin).stat(follow_symlinks=False)
        except OSError:
            return ""
        return f"{kept.st_size}-{kept.st_mtime_ns}"
