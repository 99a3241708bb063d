"""The torrent contracts as the control process serves them.

Reads come from rows that are kept by deltas, so no request waits for another process; writes go to the torrent process, and
the rows are brought up to date before the answer, so a caller reads what it has written. While the torrent process is down
everything raises Unavailable: what was true is not handed out as if it still were.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec

from tidegate.api.session import GlobalStatsResponse, Session
from tidegate.api.torrent import (
    AddedTorrent,
    AddTorrentRequest,
    Folder,
    InfoHash,
    PeerListResponse,
    RemovedTorrent,
    Torrent,
    TorrentList,
    TorrentStatus,
)
from tidegate.contract.client import Line, remote
from tidegate.daemon.torrentrows import Rows
from tidegate.errors import Gone, NotFound, TidegateError, TimedOut, Unavailable

T = TypeVar("T")

WAIT = 1.0  # seconds that the other process may take to tell that nothing has changed; as old can the counters be
PAUSE = 0.05  # seconds between two deltas at least: many changes come as one
PATIENCE = 15.0  # seconds without an answer after which the other process is taken to hang


class Hanging(Exception):
    """The torrent process is there but does not answer."""


class View:
    """What the control process knows of the torrents. `why` says why nothing is known now."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.why = "it is being started"
        self._patience = patience
        self._rows = Rows()
        self._stats = GlobalStatsResponse(0, 0, 0, 0, 0, 0, 0)
        self._torrent: Torrent | None = None
        self._session: Session | None = None
        self._line: Line | None = None
        self._counting = asyncio.Lock()
        self._asking: asyncio.Task[None] | None = None
        self._queued: asyncio.Task[None] | None = None

    @property
    def torrent(self) -> Torrent:
        """The other process's service. Raises Unavailable."""
        if self._torrent is None:
            raise self._down()
        return self._torrent

    @property
    def line(self) -> Line:
        """The line to the other process. Raises Unavailable."""
        if self._line is None:
            raise self._down()
        return self._line

    @property
    def rows(self) -> Rows:
        """Raises Unavailable."""
        if self._torrent is None:
            raise self._down()
        return self._rows

    @property
    def stats(self) -> GlobalStatsResponse:
        """Raises Unavailable."""
        if self._torrent is None:
            raise self._down()
        return self._stats

    async def gain(self, line: Line) -> None:
        """The torrent process answers on this line: learn everything."""
        torrent, self._session = remote(Torrent, line), remote(Session, line)
        whole = await torrent.list()
        self._rows.reset(whole)
        self._stats = await self._session.get_global_stats()
        self._torrent, self._line = torrent, line

    def lose(self, why: str) -> None:
        """The torrent process is gone; those who wait for a change are told."""
        self.why = why
        self._torrent = self._session = self._line = None
        self._rows.close()
        self._rows = Rows()

    async def refresh(self) -> None:
        """Learn what has changed up to now. Raises what the other process raises, Unavailable where it is gone.

        Who asks while one question is on its way shares the next one with all others who do.
        """
        if self._queued is None:
            self._queued = asyncio.create_task(self._ask_after(self._asking))
        await asyncio.shield(self._queued)

    async def _ask_after(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait({before})
        self._asking, self._queued = self._queued, None
        await self._learn(0)
        await self._count()

    async def follow(self) -> None:
        """Learn what changes, until the other process is lost. Raises Hanging."""
        now = asyncio.get_running_loop().time
        answered = now()
        while self._torrent is not None:
            try:
                async with asyncio.timeout(self._patience):
                    await self._learn(WAIT)
                    await self._count()
                answered = now()
            except (TidegateError, TimeoutError):
                if now() - answered > self._patience:
                    raise Hanging from None
            await asyncio.sleep(PAUSE)

    async def _learn(self, wait: float) -> None:
        torrent, rows = self.torrent, self._rows
        try:
            rows.apply(await torrent.list(since=rows.revision, wait_seconds=wait))
        except Gone:
            rows.reset(await torrent.list())

    async def _count(self) -> None:
        # One after the other: an answer asked for earlier must not come after a later one.
        async with self._counting:
            if self._session is None:
                raise self._down()
            stats = await self._session.get_global_stats()
            if msgspec.structs.astuple(stats) != msgspec.structs.astuple(self._stats):
                self._stats = stats

    def _down(self) -> Unavailable:
        return Unavailable(f"the torrent process does not answer: {self.why}; try again", retry_after=1)


class TorrentMirror(Torrent):
    def __init__(self, view: View) -> None:
        self._view = view

    async def list(
        self, since: int | None = None, limit: int | None = None, offset: int = 0, wait_seconds: float = 0
    ) -> TorrentList:
        rows = self._view.rows
        found = await rows.answer(since, limit, offset, wait_seconds)
        if rows is not self._view.rows:  # lost, and found again, while this request waited
            raise Gone("the torrent process was started anew: read the full list", full="/api/v1/torrents")
        return found

    async def add(self, request: AddTorrentRequest) -> AddedTorrent:
        return await self._write(self._view.torrent.add(request))

    async def upload(self, torrent: bytes, folder: Folder | None = None, paused: bool = False) -> AddedTorrent:
        return await self._write(self._view.torrent.upload(torrent, folder, paused))

    async def status(self, info_hash: InfoHash) -> TorrentStatus:
        row = self._view.rows.get(info_hash)
        if row is None:
            raise NotFound(f"there is no torrent {info_hash}")
        return row

    async def remove(self, info_hash: InfoHash, delete_data: bool = False) -> RemovedTorrent:
        return await self._write(self._view.torrent.remove(info_hash, delete_data))

    async def pause(self, info_hash: InfoHash) -> TorrentStatus:
        return await self._write(self._view.torrent.pause(info_hash))

    async def resume(self, info_hash: InfoHash) -> TorrentStatus:
        return await self._write(self._view.torrent.resume(info_hash))

    async def get_peers(self, info_hash: InfoHash) -> PeerListResponse:
        return await self._ask(self._view.torrent.get_peers(info_hash))

    async def _write(self, call: Awaitable[T]) -> T:
        answer = await self._ask(call)
        with suppress(Unavailable, TimedOut):  # it is done; that the other process has died since is the next reader's to learn
            await self._view.refresh()
        return answer

    async def _ask(self, call: Awaitable[T]) -> T:
        return await _asked(call)


async def _asked(call: Awaitable[T]) -> T:
    try:
        return await call
    except Unavailable as error:
        raise Unavailable(f"the torrent process does not answer: {error.detail}; try again", retry_after=1) from error


class Through:
    """A line to whichever torrent process is up, for contracts that the other process answers itself."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        return await _asked(self._view.line.request(verb, path, headers, body))

    def messages(self, path: str) -> AsyncIterator[str]:
        return self._view.line.messages(path)


class SessionMirror(Session):
    def __init__(self, view: View) -> None:
        self._view = view

    async def get_global_stats(self) -> GlobalStatsResponse:
        return self._view.stats
