"""libtorrent behind a small typed face. The only place where a session lives.

What holds here:
- No call waits for the engine's network thread in the event loop: commands are posted; what must wait runs in a thread.
- Alerts reach the loop through a file descriptor. A Python notify callback would abort the process at exit and can deadlock
  with calls that hold the interpreter's lock.
- Rate limits hold for every peer: libtorrent's own classes would exempt loopback and private addresses.
- Resume data and `flushed` never claim more than is in the files (see `flushes.py`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import libtorrent as lt
import structlog

from tidegate.errors import Fault, Invalid
from tidegate.torrent import alerts
from tidegate.torrent.alerts import Happening, Peer, ResumeSaved, Updated
from tidegate.torrent.enginefilter import EngineFilter
from tidegate.torrent.flushes import Flushes
from tidegate.torrent.metainfo import SIZE_LIMIT

T = TypeVar("T")

UPDATE_EVERY: Final = 0.5  # seconds between two looks at rates and progress; turns of state are seen at once
COUNT_EVERY: Final = 1.0
ALERT_LIMIT: Final = 200_000  # alerts that may wait; some 20 times what 10,000 torrents post at once

_SAVE: Final = lt.save_resume_flags_t.only_if_modified
_STATUS: Final = lt.status_flags_t.query_accurate_download_counters

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.torrent")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What a session is started with. `listen` is libtorrent's list: "0.0.0.0:6881,[::]:6881". `filter_trackers`: trackers
    that the filter has are not asked."""

    listen: str = "0.0.0.0:6881,[::]:6881"
    dht: bool = True
    lsd: bool = True
    upnp: bool = True
    natpmp: bool = True
    utp: bool = True
    filter_trackers: bool = True


@dataclass(frozen=True, slots=True)
class Addition:
    """A torrent for the engine: its metainfo, its magnet link, or that and the metainfo that it has led to; checked before.

    `key` is the caller's name for it; `v1` and `v2` are its hashes as far as they are known.
    """

    key: str
    v1: str | None
    v2: str | None
    folder: Path
    paused: bool
    metainfo: bytes | None = None
    magnet: str | None = None
    resume: bytes | None = None


class NotAdded(Exception):
    """The engine does not take this torrent."""


class Engine:
    """A running session. `told` is called in the event loop with what happened, in order.

    All methods belong to the loop in which it was made; keys are those given to `add`.
    """

    def __init__(
        self,
        settings: EngineSettings,
        told: Callable[[Sequence[Happening]], None],
        ip_filter: EngineFilter | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="torrent-engine")
        self._handles: dict[str, Any] = {}
        self._keys: dict[Any, str] = {}
        self._adding: dict[str, tuple[str, asyncio.Future[None]]] = {}  # by each of the torrent's hashes
        self._removing: dict[str, asyncio.Future[str | None]] = {}  # likewise
        self._with_files: set[str] = set()  # those of _removing whose files go too
        self._stored: set[str] = set()  # those that have files: their metadata is known
        self._flushes = Flushes(self._flush)
        self._happened: list[Happening] = []
        self._saving = 0
        self._saved = asyncio.Event()
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        parameters = lt.session_params(cast(Any, _pack(settings)))
        if ip_filter is not None:
            parameters.ip_filter = ip_filter.known  # in force before anybody can connect
        self._session: Any = lt.session(parameters)
        self._limit_everybody()
        self._session.set_alert_fd(self._writing.fileno())
        self._loop.add_reader(self._reading, self._take_alerts)
        self._timers: dict[float, asyncio.TimerHandle] = {}
        self._every(UPDATE_EVERY, self.update)
        self._every(COUNT_EVERY, self._session.post_session_stats)

    # ── commands

    def add(self, addition: Addition) -> asyncio.Future[None]:
        """Hand a torrent to the engine; done once it is there. The future raises NotAdded."""
        done: asyncio.Future[None] = self._loop.create_future()
        try:
            parameters = _parameters(addition)
        except RuntimeError as error:
            done.set_exception(NotAdded(str(error)))
            return done
        for each in _hashes(addition.v1, addition.v2):
            self._adding[each] = (addition.key, done)
        self._session.async_add_torrent(parameters)
        return done

    def remove(self, key: str, *, delete_files: bool) -> asyncio.Future[str | None]:
        """Let a torrent go; done once the engine has let go of its files too. Gives why they could not be deleted."""
        done: asyncio.Future[str | None] = self._loop.create_future()
        handle = self._handles.pop(key, None)
        if handle is None:
            done.set_result(None)
            return done
        self._keys.pop(handle, None)
        self._stored.discard(key)
        self._flushes.forget(key)
        for each in _hashes(*alerts.hashes(handle.info_hashes())):
            self._removing[each] = done
            if delete_files:
                self._with_files.add(each)
        self._session.remove_torrent(handle, lt.session.delete_files if delete_files else lt.session.delete_partfile)
        return done

    def pause(self, key: str) -> None:
        if handle := self._handles.get(key):
            handle.pause()
            self._save(handle)

    def resume(self, key: str, *, recheck: bool = False) -> None:
        """Go on, also after an error. `recheck`: look at the files anew, whose state libtorrent otherwise remembers."""
        if handle := self._handles.get(key):
            handle.clear_error()
            handle.unset_flags(lt.torrent_flags.upload_mode)  # what a full disk leads to
            if recheck:
                handle.force_recheck()
            handle.resume()

    def save(self, keys: Iterable[str] | None = None) -> None:
        """Ask for resume data of those torrents, or of all; it comes as `ResumeSaved` where something has changed."""
        for key in list(self._handles if keys is None else keys):
            if handle := self._handles.get(key):
                self._save(handle)

    def flushed(self, key: str) -> asyncio.Future[None]:
        """Done once all that the torrent has downloaded up to now is in its files."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._after_flush(key, lambda: None if done.done() else done.set_result(None))
        return done

    def update(self) -> None:
        """Ask for what has changed; it comes as `Updated`."""
        self._session.post_torrent_updates(_STATUS)

    async def peers(self, key: str) -> tuple[Peer, ...]:
        """The peers that the torrent is connected to."""
        handle = self._handles.get(key)
        return await self._in_thread(_peers, handle) if handle else ()

    async def metadata(self, key: str) -> bytes | None:
        """The info dictionary as it came from the peers; None while it is not known."""
        handle = self._handles.get(key)
        return await self._in_thread(_info_section, handle) if handle else None

    async def obey(self, ip_filter: EngineFilter) -> None:
        """Have this filter in force in place of the one before, as one step; peers that it refuses are cut off.

        The engine takes a copy: what the filter learns later is in force when it is given again.
        """
        await self._in_thread(self._session.set_ip_filter, ip_filter.known)

    async def listen_port(self) -> int:
        """The TCP port that peers reach us at; 0 where there is none."""
        return await self._in_thread(self._session.listen_port)

    async def close(self, patience: float = 5.0) -> None:
        """Stop all transfers, have the resume data of all torrents told, in `patience` seconds at most, and end.

        The end itself, saying farewell to trackers and writing to the disk what is still to be written, blocks the process.
        """
        for timer in self._timers.values():
            timer.cancel()
        self._session.pause()
        self.save()
        try:
            await asyncio.wait_for(self._until_saved(), patience)
        except TimeoutError:
            log.warning("some torrents did not give their resume data in time", torrents=self._saving)
        self._loop.remove_reader(self._reading)
        self._session.set_alert_fd(-1)
        self._reading.close()
        self._writing.close()
        self._handles.clear()
        self._keys.clear()
        self._threads.shutdown(wait=False)
        self._session = None

    # ── inside

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        act()
        self._timers[seconds] = self._loop.call_later(seconds, self._every, seconds, act)

    def _save(self, handle: Any) -> None:
        self._saving += 1
        handle.save_resume_data(_SAVE)

    def _after_flush(self, key: str, done: Callable[[], None]) -> None:
        if key in self._stored:
            self._flushes.ask(key, done)
        else:
            done()

    def _flush(self, key: str) -> None:
        self._handles[key].flush_cache()

    async def _until_saved(self) -> None:
        while self._saving > 0:
            self._saved.clear()
            await self._saved.wait()

    def _limit_everybody(self) -> None:
        everywhere = lt.ip_filter()
        bits = 1 << lt.session.global_peer_class_id
        everywhere.add_rule("0.0.0.0", "255.255.255.255", bits)  # noqa: S104 - a range, not a listening address
        everywhere.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", bits)
        self._session.set_peer_class_filter(everywhere)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(self._threads, call, *arguments)

    def _take_alerts(self) -> None:
        try:
            while len(self._reading.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        kinds: set[type] = set()
        for alert in self._session.pop_alerts():
            kinds.add(type(alert))
            self._settle(alert)
            if found := alerts.convert(alert, self._keys.get):
                self._happen(found)
        if alerts.turns(kinds):
            self.update()
        happened, self._happened = self._happened, []
        if happened:
            self._told(happened)

    def _happen(self, happening: Happening) -> None:
        match happening:
            case ResumeSaved(key):
                # What it claims was taken before this; what it claims is in the files after that.
                self._after_flush(key, lambda: self._resume_is_true(happening))
                return
            case Updated(snapshots):
                self._stored.update(each.key for each in snapshots if each.has_metadata)
            case _:
                pass
        self._happened.append(happening)

    def _resume_is_true(self, saved: ResumeSaved) -> None:
        self._happened.append(saved)
        self._one_saved()

    def _one_saved(self) -> None:
        self._saving -= 1
        self._saved.set()

    def _settle(self, alert: Any) -> None:
        """End what waits for this alert."""
        match alert:
            case lt.add_torrent_alert():
                self._added(alert)
            case lt.save_resume_data_alert() if alert.handle not in self._keys:
                self._one_saved()  # it has left meanwhile
            case lt.save_resume_data_failed_alert():
                self._one_saved()  # nothing has changed since the last time
            case lt.cache_flushed_alert():
                if key := self._keys.get(alert.handle):
                    self._flushes.flushed(key)
            case lt.torrent_removed_alert():
                self._let_go(alert, None, final=False)
            case lt.torrent_deleted_alert():
                self._let_go(alert, None, final=True)
            case lt.torrent_delete_failed_alert():
                # Without an error: there were no files yet.
                self._let_go(alert, alert.error.message() if alert.error.value() else None, final=True)
            case lt.alerts_dropped_alert():
                log.error("alerts were dropped: asking for the state of all torrents")
                for handle in self._handles.values():
                    handle.post_status(_STATUS)
            case _:
                pass

    def _added(self, alert: Any) -> None:
        found = [self._adding.pop(each, None) for each in _hashes(*alerts.hashes(alert.params.info_hashes))]
        waiting = next((each for each in found if each), None)
        if waiting is None:
            return
        key, done = waiting
        if alert.error.value():
            if not done.done():
                done.set_exception(NotAdded(alert.error.message()))
            return
        self._handles[key] = alert.handle
        self._keys[alert.handle] = key
        if not done.done():
            done.set_result(None)

    def _let_go(self, alert: Any, why: str | None, *, final: bool) -> None:
        for each in _hashes(*alerts.hashes(alert.info_hashes)):
            if each in self._with_files and not final:
                continue
            self._with_files.discard(each)
            done = self._removing.pop(each, None)
            if done and not done.done():
                done.set_result(why)


def _hashes(v1: str | None, v2: str | None) -> tuple[str, ...]:
    return tuple(each for each in (v1, v2) if each)


def _peers(handle: Any) -> tuple[Peer, ...]:
    try:
        return tuple(found for info in handle.get_peer_info() if (found := alerts.peer(info)))
    except RuntimeError:  # it was removed meanwhile
        return ()


def _info_section(handle: Any) -> bytes | None:
    try:
        torrent = handle.torrent_file()
    except RuntimeError:  # it was removed meanwhile
        return None
    return bytes(torrent.info_section()) if torrent else None


def check(addition: Addition) -> None:
    """Raises Invalid where the engine itself can't read what passed our own checks."""
    try:
        _parameters(addition)
    except RuntimeError as error:
        place = "body" if addition.metainfo is not None else "body/magnet"
        raise Invalid("the torrent engine can't use this", [Fault(place, str(error))]) from None


def _parameters(addition: Addition) -> Any:
    link = lt.parse_magnet_uri(addition.magnet) if addition.magnet is not None else None
    if addition.resume is not None:
        parameters = lt.read_resume_data(addition.resume)
        # Peers that the link names are always worth asking; trackers may have been edited since.
        parameters.peers += link.peers if link else []
    elif link is not None:
        parameters = link
    else:
        parameters = lt.load_torrent_buffer(addition.metainfo or b"")
    if addition.metainfo is not None and parameters.ti is None:
        parameters.ti = lt.torrent_info(addition.metainfo)
    parameters.save_path = os.fspath(addition.folder.absolute())
    flags = lt.torrent_flags.update_subscribe | lt.torrent_flags.apply_ip_filter
    # Without auto_managed a torrent starts at once instead of at libtorrent's next round, up to a second later.
    parameters.flags = flags | lt.torrent_flags.paused if addition.paused else flags
    return parameters


def _pack(settings: EngineSettings) -> dict[str, Any]:
    category = lt.alert.category_t
    return {
        "listen_interfaces": settings.listen,
        "enable_dht": settings.dht,
        "enable_lsd": settings.lsd,
        "enable_upnp": settings.upnp,
        "enable_natpmp": settings.natpmp,
        "enable_incoming_utp": settings.utp,
        "enable_outgoing_utp": settings.utp,
        "apply_ip_filter_to_trackers": settings.filter_trackers,
        "alert_mask": category.error_notification
        | category.status_notification
        | category.storage_notification
        | category.ip_block_notification
        | category.connect_notification,
        "alert_queue_size": ALERT_LIMIT,
        "max_metadata_size": SIZE_LIMIT,
        "stop_tracker_timeout": 1,  # seconds that a farewell to a tracker may take when the session ends
        "user_agent": "Tidegate/0.1 libtorrent/2.1",
        "peer_fingerprint": lt.generate_fingerprint("TD", 0, 1, 0, 0),
    }
