"""What is known of one torrent: its record in the journal and what the engine last said. Decisions only, no I/O."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tidegate.api.torrent import TorrentStatus
from tidegate.daemon.torrentstore import Stored
from tidegate.events import Event, TorrentCompleted, TorrentFailed, TorrentStatusChanged
from tidegate.torrent.alerts import Snapshot
from tidegate.torrent.metainfo import Metainfo


@dataclass(slots=True)
class LiveTorrent:
    """A torrent that the engine has. `stored` is as the journal has it, or will have once the recorder is through."""

    stored: Stored
    seen: Snapshot | None = None
    vetting: bool = False  # its metadata came from peers and is being checked
    unsaved: bool = False  # it has got further than its resume data say
    writing: bool = False  # it is complete, and its last bytes are on their way into the files
    written: bool = False  # they are there
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set once a torrent that is leaving has left

    @property
    def key(self) -> str:
        """The engine's name for it."""
        return str(self.stored.id)

    @property
    def info_hash(self) -> str:
        return self.stored.info_hash

    def row(self, download_dir: Path) -> TorrentStatus:
        """The torrent as readers see it."""
        stored, seen = self.stored, self.seen
        moving = seen is not None and stored.status not in ("paused", "error")
        rate = seen.download_rate if seen and moving else 0
        left = seen.left if seen and seen.has_metadata else stored.total_size or 0
        return TorrentStatus(
            info_hash=stored.info_hash,
            info_hash_v2=stored.v2,
            name=stored.name,
            status=stored.status,
            progress=seen.progress if seen else 0.0,
            download_rate=rate,
            upload_rate=seen.upload_rate if seen and moving else 0,
            num_peers=seen.num_peers if seen else 0,
            num_seeds=seen.num_seeds if seen else 0,
            total_size=stored.total_size or 0,
            downloaded=seen.downloaded if seen else 0,
            uploaded=seen.uploaded if seen else 0,
            left=left,
            eta_seconds=left // rate if rate and left else None,
            is_private=stored.private,
            output_dir=str(download_dir / stored.folder),
            pieces_completed=seen.pieces_completed if seen else 0,
            pieces_total=stored.pieces or 0,
            added_at=stored.added_at,
            completed_at=stored.completed_at,
            error=stored.error,
        )


def described(stored: Stored, meta: Metainfo, metainfo: bytes) -> Stored:
    """The record with what its metainfo says."""
    return replace(
        stored,
        v1=meta.v1,
        v2=meta.v2,
        name=meta.name,
        total_size=meta.total_size,
        pieces=meta.pieces,
        private=meta.private,
        metainfo=metainfo,
    )


def is_complete(seen: Snapshot) -> bool:
    """Whether all that is wanted is there, by the engine's word: the files may lack the last bytes for a moment."""
    return seen.has_metadata and seen.left == 0 and seen.activity in ("finished", "seeding")


def after(before: Stored, seen: Snapshot, now: datetime) -> Stored:
    """The record once the engine has shown that state, all of it in the files. An error stays until the torrent is resumed."""
    if before.error is not None:
        return before
    status = seen.activity
    if before.paused:
        status = "paused"
    elif status == "queued":
        # While it reads its resume data, a moment after each start, the engine says nothing of what the torrent will do.
        status = before.status
    completed_at = before.completed_at or (seen.completed_at or now if is_complete(seen) else None)
    return replace(before, status=status, completed_at=completed_at)


def news(before: Stored, now: Stored) -> tuple[Event, ...]:
    """The events that lead from one record to the other."""
    events: list[Event] = []
    if now.error is not None and before.error is None:
        events.append(TorrentFailed(now.info_hash, now.name, now.error))
    if now.completed_at is not None and before.completed_at is None:
        events.append(TorrentCompleted(now.info_hash, now.name))
    if now.status != before.status:
        events.append(TorrentStatusChanged(now.info_hash, now.name, now.status, before.status))
    return tuple(events)
