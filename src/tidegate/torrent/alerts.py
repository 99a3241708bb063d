"""The engine's alerts as values of our own.

An alert object lives until the next `pop_alerts()`; touching it later crashes the process. So each is converted at once,
here, and what leaves this file holds nothing of libtorrent's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import libtorrent as lt

from tidegate.torrent.filename import shown


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A torrent as the engine sees it. Rates are bytes per second of payload, sizes bytes, `progress` 0 to 1.

    `activity`: queued, checking, fetching_metadata, downloading, finished, seeding. `left` is what is wanted and not there.
    Errors are told as `Failed` alone: a snapshot taken before an error was cleared would bring it back.
    """

    key: str
    v1: str | None
    v2: str | None
    name: str
    activity: str
    has_metadata: bool
    progress: float
    download_rate: int
    upload_rate: int
    num_peers: int
    num_seeds: int
    total_size: int
    downloaded: int
    uploaded: int
    left: int
    pieces_completed: int
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Updated:
    """What changed since the last update, each torrent whole."""

    snapshots: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """The engine's counters, by libtorrent's names ("net.recv_payload_bytes")."""

    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class ResumeSaved:
    """What the engine needs to go on with this torrent after a restart; without the metainfo."""

    key: str
    resume: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine stopped this torrent."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Rechecking:
    """The resume data did not fit the files; the engine checks the files anew."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class ListenFailed:
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class PeerBlocked:
    """The filter refused a connection, or ended one. `incoming`: the other side had begun it."""

    ip: str
    incoming: bool


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection with a peer was made, whoever began it."""

    ip: str


Happening = Updated | Counted | ResumeSaved | Failed | Rechecking | ListenFailed | PeerBlocked | PeerConnected


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected peer. Rates are bytes per second of payload; `choked`: it lets us wait; `client`: its own words."""

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


_UTP_SOCKET: Final = 1 << 17  # peer_info::utp_socket; the binding has no name for it
_ACTIVITY: Final = {
    0: "queued",
    1: "checking",
    2: "fetching_metadata",
    3: "downloading",
    4: "finished",
    5: "seeding",
    6: "queued",  # allocating
    7: "queued",  # checking resume data: a moment at the start
}


def hashes(info_hashes: Any) -> tuple[str | None, str | None]:
    """The v1 and the v2 hash as hex digits, each None where the torrent does not have it."""
    return (
        str(info_hashes.v1) if info_hashes.has_v1() else None,
        str(info_hashes.v2) if info_hashes.has_v2() else None,
    )


def snapshot(key: str, status: Any) -> Snapshot:
    """A `torrent_status` as a value."""
    v1, v2 = hashes(status.info_hashes)
    completed = status.completed_time
    return Snapshot(
        key=key,
        v1=v1,
        v2=v2,
        name=shown(status.name, 255),
        activity=_ACTIVITY[int(status.state)],
        has_metadata=status.has_metadata,
        progress=status.progress_ppm / 1_000_000,
        download_rate=status.download_payload_rate,
        upload_rate=status.upload_payload_rate,
        num_peers=status.num_peers,
        num_seeds=status.num_seeds,
        total_size=status.total,
        downloaded=status.all_time_download,
        uploaded=status.all_time_upload,
        left=status.total_wanted - status.total_wanted_done,
        pieces_completed=status.num_pieces,
        completed_at=datetime.fromtimestamp(completed, UTC) if completed else None,
    )


def peer(info: Any) -> Peer | None:
    """A `peer_info` as a value; None for a connection that is not made yet."""
    ip, port = info.ip
    flags = int(info.flags)
    if flags & (lt.peer_info.connecting | lt.peer_info.handshake):
        return None
    return Peer(
        ip=ip,
        port=port,
        download_rate=info.payload_down_speed,
        upload_rate=info.payload_up_speed,
        choked=bool(flags & lt.peer_info.remote_choked),
        client=shown(info.client.decode(errors="replace"), 80),
        progress=info.progress_ppm / 1_000_000,
        encrypted=bool(flags & lt.peer_info.rc4_encrypted),
        incoming=not flags & lt.peer_info.local_connection,
        utp=bool(flags & _UTP_SOCKET),
    )


KeyOf = Callable[[Any], str | None]


def _updated(alert: Any, key_of: KeyOf) -> Happening | None:
    statuses = ((key_of(status.handle), status) for status in alert.status)
    found = tuple(snapshot(key, status) for key, status in statuses if key is not None)
    return Updated(found) if found else None


def _failed(alert: Any, key_of: KeyOf) -> Happening | None:
    key = key_of(alert.handle)
    return Failed(key, _why(alert)) if key is not None else None


def _why(alert: Any) -> str:
    file = getattr(alert, "filename", None)
    said: str = alert.error.message()
    return f"{said} ({file()})" if callable(file) and file() else said


def _saved(alert: Any, key_of: KeyOf) -> Happening | None:
    key = key_of(alert.handle)
    return ResumeSaved(key, lt.write_resume_data_buf(alert.params)) if key is not None else None


def _rechecking(alert: Any, key_of: KeyOf) -> Happening | None:
    key = key_of(alert.handle)
    return Rechecking(key, alert.error.message()) if key is not None else None


_BY_IP_FILTER: Final = 0  # peer_blocked_alert::reason_t::ip_filter; the binding has no name for it


def _blocked(alert: Any, _: KeyOf) -> Happening | None:
    # A connection that somebody else began has no torrent yet.
    return PeerBlocked(_ip(alert), not alert.handle.is_valid()) if int(alert.reason) == _BY_IP_FILTER else None


def _ip(alert: Any) -> str:
    """The peer's address without the zone that a link-local one has."""
    ip: str = alert.ip[0].partition("%")[0]
    return ip


_CONVERSIONS: Final[dict[type, Callable[[Any, KeyOf], Happening | None]]] = {
    lt.state_update_alert: _updated,
    lt.session_stats_alert: lambda alert, _: Counted(dict(alert.values)),
    lt.save_resume_data_alert: _saved,
    lt.torrent_error_alert: _failed,
    lt.file_error_alert: _failed,
    lt.fastresume_rejected_alert: _rechecking,
    lt.peer_blocked_alert: _blocked,
    lt.peer_connect_alert: lambda alert, _: PeerConnected(_ip(alert)),
    lt.listen_failed_alert: lambda alert, _: ListenFailed(f"{alert.address}:{alert.port}", alert.error.message()),
}

# After these a torrent's state is another: ask for it at once instead of at the next tick.
TURNS: Final = frozenset(
    {
        lt.state_changed_alert,
        lt.torrent_paused_alert,
        lt.torrent_resumed_alert,
        lt.torrent_finished_alert,
        lt.torrent_checked_alert,
        lt.torrent_error_alert,
        lt.file_error_alert,
        lt.metadata_received_alert,
    }
)


def convert(alert: Any, key_of: KeyOf) -> Happening | None:
    """The alert as a value; None where it says nothing to us or is about a torrent that we let go."""
    conversion = _CONVERSIONS.get(type(alert))
    return conversion(alert, key_of) if conversion else None


def turns(kinds: Iterable[type]) -> bool:
    return not TURNS.isdisjoint(kinds)
