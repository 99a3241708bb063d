"""Torrents: add, watch, pause, remove. Rates are bytes per second, sizes bytes, progress 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol, Self

import msgspec

from tidegate.contract import Media, delete, get, post
from tidegate.contract.answers import EncodedOnce
from tidegate.events import TorrentAdded, TorrentRemoved, TorrentStatusChanged
from tidegate.policy.text import Text

TorrentFile = Annotated[bytes, Media("application/x-bittorrent", 4 << 20)]


class InfoHash(Text):
    """40 (v1) or 64 (v2) hex digits; any case is accepted, lower case is returned. A hybrid torrent answers to both."""

    PATTERN = r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}"
    EXPECTS = "an info hash: 40 or 64 hex digits"

    def __new__(cls, text: str) -> Self:
        return super().__new__(cls, text.lower())


class Folder(Text):
    """A folder inside the download directory, as a relative path: no leading slash, no `..`, no control characters."""

    EXPECTS = "a relative path inside the download directory"
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "string",
        "format": "folder",
        "examples": ["films/2026"],
    }

    def __new__(cls, text: str) -> Self:
        parts = text.split("/")
        if len(text) > 1024 or not text.isprintable() or "\\" in text:
            raise ValueError("a folder is a relative path of printable characters")
        if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
            raise ValueError("a folder stays inside the download directory: no empty, '.' or '..' parts")
        return str.__new__(cls, text)


class Magnet(Text):
    """A magnet link of at most 8 KiB (BEP 9)."""

    PATTERN = r"magnet:\?[!-~]{10,8183}"
    EXPECTS = "a magnet link: magnet:?xt=urn:btih:..."


@dataclass(frozen=True, slots=True)
class AddTorrentRequest:
    """`folder` is inside the download directory; the torrent starts at once unless `paused`."""

    magnet: Magnet
    folder: Folder | None = None
    paused: bool = False


class AddedTorrent(msgspec.Struct, frozen=True):
    """`duplicate`: it was here already, and nothing changed."""

    info_hash: str
    name: str
    duplicate: bool


class TorrentStatus(msgspec.Struct, frozen=True):
    """A torrent as it is. `status`: queued, checking, fetching_metadata, downloading, finished, seeding, paused, error."""

    info_hash: str
    info_hash_v2: str | None
    name: str
    status: str
    progress: float
    download_rate: int
    upload_rate: int
    num_peers: int
    num_seeds: int
    total_size: int
    downloaded: int
    uploaded: int
    left: int
    eta_seconds: int | None
    is_private: bool
    output_dir: str
    pieces_completed: int
    pieces_total: int
    added_at: datetime
    completed_at: datetime | None
    error: str | None


class TorrentList(EncodedOnce, frozen=True, eq=False):
    """`revision` names this state. With `since` only the rows that changed after that revision, and the removed hashes."""

    revision: int
    total: int
    torrents: tuple[TorrentStatus, ...]
    removed: tuple[str, ...] = ()


class RemovedTorrent(msgspec.Struct, frozen=True):
    info_hash: str
    name: str
    data_deleted: bool


class PeerInfo(msgspec.Struct, frozen=True):
    ip: str
    port: int
    download_rate: int
    upload_rate: int
    choked: bool
    client: str
    progress: float
    encrypted: bool
    incoming: bool
    utp: bool


class PeerListResponse(msgspec.Struct, frozen=True):
    info_hash: str
    peers: tuple[PeerInfo, ...]
    count: int


class Torrent(Protocol):
    """Torrents: add, watch, pause, remove."""

    @get("/torrents")
    async def list(
        self, since: int | None = None, limit: int | None = None, offset: int = 0, wait_seconds: float = 0
    ) -> TorrentList:
        """All torrents, oldest first; with `since`, what changed after that revision (Gone where that is too old).

        With `since`, the answer waits up to `wait_seconds` (30 at most) for a change. `limit` and `offset` page the full list.
        """
        ...

    @post("/torrents/add", emits=(TorrentAdded,))
    async def add(self, request: AddTorrentRequest) -> AddedTorrent:
        """Add a magnet link. The answer comes once it is on disk; adding twice changes nothing and says so."""
        ...

    @post("/torrents", emits=(TorrentAdded,))
    async def upload(self, torrent: TorrentFile, folder: Folder | None = None, paused: bool = False) -> AddedTorrent:
        """Add the bytes of a .torrent file. The answer comes once it is on disk; adding twice changes nothing and says so."""
        ...

    @get("/torrents/{info_hash}")
    async def status(self, info_hash: InfoHash) -> TorrentStatus:
        """One torrent."""
        ...

    @delete("/torrents/{info_hash}", emits=(TorrentRemoved,))
    async def remove(self, info_hash: InfoHash, delete_data: bool = False) -> RemovedTorrent:
        """Forget a torrent; its files stay unless `delete_data`."""
        ...

    @post("/torrents/{info_hash}/pause", emits=(TorrentStatusChanged,))
    async def pause(self, info_hash: InfoHash) -> TorrentStatus:
        """Stop transferring until resumed, also across restarts."""
        ...

    @post("/torrents/{info_hash}/resume", emits=(TorrentStatusChanged,))
    async def resume(self, info_hash: InfoHash) -> TorrentStatus:
        """Go on transferring."""
        ...

    @get("/torrents/{info_hash}/peers")
    async def get_peers(self, info_hash: InfoHash) -> PeerListResponse:
        """The peers that this torrent is connected to now."""
        ...
