"""The torrents and their session, as served inside the torrent process.

A change that was acknowledged is on the disk: kill -9 straight after the answer loses nothing. Reads are answered from memory;
the engine is asked for peers alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import astuple, replace
from datetime import UTC, datetime

import msgspec

from tidegate.api.session import GlobalStatsResponse, Session
from tidegate.api.torrent import (
    AddedTorrent,
    AddTorrentRequest,
    Folder,
    InfoHash,
    PeerInfo,
    PeerListResponse,
    RemovedTorrent,
    Torrent,
    TorrentList,
    TorrentStatus,
)
from tidegate.daemon import torrentstore as store
from tidegate.daemon.library import Library
from tidegate.daemon.livetorrent import LiveTorrent, described, news
from tidegate.daemon.torrentstore import Stored
from tidegate.errors import NotFound
from tidegate.events import TorrentAdded, TorrentRemoved
from tidegate.torrent import magnet, metainfo
from tidegate.torrent.engine import check

DELETE_PATIENCE = 20.0  # seconds that an answer waits for files to be deleted


class TorrentService(Torrent):
    def __init__(self, library: Library) -> None:
        self._library = library

    async def list(
        self, since: int | None = None, limit: int | None = None, offset: int = 0, wait_seconds: float = 0
    ) -> TorrentList:
        return await self._library.rows.answer(since, limit, offset, wait_seconds)

    async def add(self, request: AddTorrentRequest) -> AddedTorrent:
        link = magnet.read(request.magnet)
        name = link.name or link.info_hash
        return await self._library.wholly(self._admit(_new(link.v1, link.v2, name, request.folder, request.paused, link.link)))

    async def upload(self, torrent: bytes, folder: Folder | None = None, paused: bool = False) -> AddedTorrent:
        # A file of the largest size allowed may take a second or two; nobody else is to wait for it.
        meta = await asyncio.to_thread(metainfo.read, torrent)
        new = _new(meta.v1, meta.v2, meta.name, folder, paused, None)
        return await self._library.wholly(self._admit(described(new, meta, torrent)))

    async def status(self, info_hash: InfoHash) -> TorrentStatus:
        return self._library.row(self._known(info_hash))

    async def remove(self, info_hash: InfoHash, delete_data: bool = False) -> RemovedTorrent:
        return await self._library.wholly(self._remove(self._known(info_hash), delete_data))

    async def pause(self, info_hash: InfoHash) -> TorrentStatus:
        return await self._library.wholly(self._pause(self._known(info_hash)))

    async def resume(self, info_hash: InfoHash) -> TorrentStatus:
        return await self._library.wholly(self._resume(self._known(info_hash)))

    async def get_peers(self, info_hash: InfoHash) -> PeerListResponse:
        live = self._known(info_hash)
        peers = tuple(PeerInfo(*astuple(peer)) for peer in await self._library.engine.peers(live.key))
        return PeerListResponse(live.info_hash, peers, len(peers))

    # ── commands, each run to its end

    async def _admit(self, new: Stored) -> AddedTorrent:
        check(self._library.addition(new))
        while found := self._library.find(new.v1, new.v2):
            if not found.stored.leaving:
                return AddedTorrent(found.info_hash, found.stored.name, duplicate=True)
            await found.gone.wait()
        try:
            id_ = await self._library.recorder.commit(lambda db: store.insert(db, new), TorrentAdded(new.info_hash, new.name))
        except store.Duplicate:  # another request was a moment faster, and has its torrent on the disk
            return AddedTorrent(new.info_hash, new.name, duplicate=True)
        await self._library.give(replace(new, id=id_))
        return AddedTorrent(new.info_hash, new.name, duplicate=False)

    async def _remove(self, live: LiveTorrent, delete_data: bool) -> RemovedTorrent:
        before = live.stored
        live.stored = replace(before, leaving=True)
        forget = store.leave if delete_data else store.delete
        event = TorrentRemoved(before.info_hash, before.name, delete_data)
        try:
            await self._library.recorder.commit(lambda db: forget(db, before.id), event)
        except BaseException:
            live.stored = replace(live.stored, leaving=False)
            live.gone.set()
            live.gone = asyncio.Event()
            raise
        going = self._library.start(self._library.let_go(live, delete_files=delete_data))
        await asyncio.wait({going}, timeout=DELETE_PATIENCE)
        deleted = delete_data and going.done() and going.result() is None
        return RemovedTorrent(before.info_hash, before.name, deleted)

    async def _pause(self, live: LiveTorrent) -> TorrentStatus:
        if not live.stored.paused:
            await self._turn(live, replace(live.stored, paused=True, status="paused" if live.stored.error is None else "error"))
            self._library.engine.pause(live.key)
        return self._library.row(live)

    async def _resume(self, live: LiveTorrent) -> TorrentStatus:
        if live.stored.paused or live.stored.error is not None:
            status = live.seen.activity if live.seen else "queued"
            failed_to_check = live.stored.error is not None and status in ("queued", "checking")
            await self._turn(live, replace(live.stored, paused=False, status=status, error=None))
            self._library.engine.resume(live.key, recheck=failed_to_check)
        return self._library.row(live)

    async def _turn(self, live: LiveTorrent, now: Stored) -> None:
        """Record what somebody asked for; nothing has changed where that fails."""
        before, live.stored = live.stored, now
        try:
            await self._library.recorder.commit(lambda db: store.set_state(db, now), *news(before, now))
        except BaseException:
            state = live.stored
            live.stored = replace(state, paused=before.paused, status=before.status, error=before.error)
            raise
        self._library.show(live)

    def _known(self, info_hash: str) -> LiveTorrent:
        live = self._library.find(info_hash)
        if live is None or live.stored.leaving:
            raise NotFound(f"there is no torrent {info_hash}")
        return live


def _new(v1: str | None, v2: str | None, name: str, folder: Folder | None, paused: bool, link: str | None) -> Stored:
    status = "paused" if paused else "queued"
    return Stored(0, v1, v2, name, str(folder or ""), paused, status, datetime.now(UTC), magnet=link)


# Name in the answer -> libtorrent's counter.
_COUNTERS = {
    "connected_peers": "peer.num_peers_connected",
    "half_open_peers": "peer.num_peers_half_open",
    "dht_nodes": "dht.dht_nodes",
    "failed_pieces": "ses.num_piece_failed",
    "wasted_bytes": "net.recv_redundant_bytes",
    "disk_queue_bytes": "disk.queued_write_bytes",
    "protocol_downloaded": "net.recv_bytes",
    "protocol_uploaded": "net.sent_bytes",
}


class SessionService(Session):
    def __init__(self, library: Library) -> None:
        self._library = library
        self._made_of: tuple[int, dict[str, int]] = (-1, {})
        self._stats = GlobalStatsResponse(0, 0, 0, 0, 0, 0, 0)

    async def get_global_stats(self) -> GlobalStatsResponse:
        rows, counters = self._library.rows, self._library.counters
        if self._made_of[0] != rows.revision or self._made_of[1] is not counters:
            self._made_of = rows.revision, counters
            stats = self._count()
            if msgspec.structs.astuple(stats) != msgspec.structs.astuple(self._stats):
                self._stats = stats
        return self._stats

    def _count(self) -> GlobalStatsResponse:
        counters, totals, count = self._library.counters, self._library.rows.totals, len(self._library.rows)
        stats = {name: float(counters.get(counter, 0)) for name, counter in _COUNTERS.items()}
        stats["num_seeding"] = float(totals.by_status["seeding"])
        stats["total_left"] = float(totals.left)
        stats["average_progress"] = round(totals.progress / count, 4) if count else 0.0
        paused = totals.by_status["paused"]
        return GlobalStatsResponse(
            num_torrents=count,
            num_active=count - paused - totals.by_status["error"],
            num_paused=paused,
            total_download_rate=totals.download_rate,
            total_upload_rate=totals.upload_rate,
            total_downloaded=counters.get("net.recv_payload_bytes", 0),
            total_uploaded=counters.get("net.sent_payload_bytes", 0),
            stats=stats,
        )
