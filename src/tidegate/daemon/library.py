"""The torrents that the engine has, kept in step with the journal on one side and the rows that readers see on the other.

An event is told once: what the engine repeats after a restart (finished, checked, resumed) is no news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import structlog

from tidegate.api.torrent import TorrentStatus
from tidegate.daemon import filterstore
from tidegate.daemon import torrentstore as store
from tidegate.daemon.filterlists import FilterLists
from tidegate.daemon.journal import Journal
from tidegate.daemon.listsource import NO_LISTS, ListSettings
from tidegate.daemon.livetorrent import LiveTorrent, after, described, is_complete, news
from tidegate.daemon.peerfilter import PeerFilter
from tidegate.daemon.recorder import Recorder
from tidegate.daemon.torrentrows import Rows
from tidegate.daemon.torrentstore import Stored
from tidegate.errors import Invalid, TidegateError, TooLarge
from tidegate.events import MetadataReceived, TorrentFailed
from tidegate.torrent import metainfo
from tidegate.torrent.alerts import (
    Counted,
    Failed,
    Happening,
    ListenFailed,
    PeerBlocked,
    PeerConnected,
    Rechecking,
    ResumeSaved,
    Snapshot,
    Updated,
)
from tidegate.torrent.engine import Addition, Engine, EngineSettings, NotAdded

T = TypeVar("T")

SAVE_EVERY = 5.0  # seconds between two looks for resume data of downloads: what came since is fetched anew after a crash
SAVE_ALL_EVERY = 12  # looks; of torrents that get no further little changes
LIFE = 1 << 32  # revisions that one life of the process has for itself

# The numbered steps of the torrent journal's schema. A step that was released is never changed; new ones go to the end.
MIGRATIONS = (*store.TABLES, *filterstore.TABLES)

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.torrent")


class Library:
    """Made by `open`, ended by `close`; the journal is the caller's."""

    def __init__(
        self,
        journal: Journal,
        download_dir: Path,
        settings: EngineSettings,
        life: int,
        peer_filter: PeerFilter,
        lists: ListSettings,
    ) -> None:
        self.rows = Rows(life * LIFE)
        self.counters: dict[str, int] = {}
        self.recorder = Recorder(journal)
        self._journal = journal
        self._download_dir = download_dir
        self._live: dict[str, LiveTorrent] = {}
        self._by_hash: dict[str, LiveTorrent] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self.peer_filter = peer_filter
        self.engine = Engine(settings, self._take, peer_filter.known)
        peer_filter.start(self.engine, self.recorder)
        self.filter_lists = FilterLists(lists, peer_filter, self.recorder)

    @classmethod
    async def open(
        cls,
        journal: Journal,
        download_dir: Path,
        settings: EngineSettings,
        save_every: float = SAVE_EVERY,
        lists: ListSettings = NO_LISTS,
    ) -> Library:
        """Start the engine and give it back all torrents that the journal knows."""
        await asyncio.to_thread(download_dir.mkdir, parents=True, exist_ok=True)
        peer_filter = await PeerFilter.open(journal, [source.name for source in lists.sources])
        life = await journal.commit(store.next_life)
        library = cls(journal, download_dir, settings, life, peer_filter, lists)
        await library._restore()
        library.start_aside(peer_filter.run())
        library.start_aside(library.filter_lists.run())
        library.start_aside(library._save_regularly(save_every))
        return library

    async def close(self, patience: float = 5.0) -> None:
        """Stop all transfers and record how to go on, in twice `patience` seconds and what the engine's end takes."""
        self.rows.close()
        for task in tuple(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        self.peer_filter.record_hits()
        await self.engine.close(patience)
        await self.recorder.close(patience)

    # ── what is there

    def __iter__(self) -> Iterator[LiveTorrent]:
        return iter(self._live.values())

    def find(self, *hashes: str | None) -> LiveTorrent | None:
        """The torrent with one of these hashes, also one that is leaving."""
        return next((live for each in hashes if each and (live := self._by_hash.get(each))), None)

    def row(self, live: LiveTorrent) -> TorrentStatus:
        return live.row(self._download_dir)

    def show(self, live: LiveTorrent) -> None:
        """Let readers see the torrent as it is now."""
        self.rows.put(self.row(live))

    def addition(self, stored: Stored) -> Addition:
        return Addition(
            key=str(stored.id),
            v1=stored.v1,
            v2=stored.v2,
            folder=self._download_dir / stored.folder,
            paused=stored.paused or stored.leaving,
            metainfo=stored.metainfo,
            magnet=stored.magnet,
            resume=stored.resume,
        )

    # ── coming and going

    async def give(self, stored: Stored) -> None:
        """Hand a torrent that the journal has to the engine."""
        added = self.engine.add(self.addition(stored))
        live = LiveTorrent(replace(stored, metainfo=None, resume=None))
        self._live[live.key] = live
        self._index(live)
        if not stored.leaving:
            self.show(live)
        try:
            await added
        except NotAdded as error:
            self._fail(live, str(error))

    async def let_go(self, live: LiveTorrent, *, delete_files: bool) -> str | None:
        """Have the engine drop a torrent that the journal has dropped; why its files could not be deleted."""
        self.rows.remove(live.info_hash)
        why = await self.engine.remove(live.key, delete_files=delete_files)
        stored = live.stored
        if delete_files:
            failed = [TorrentFailed(stored.info_hash, stored.name, f"its files could not be deleted: {why}")] if why else []
            self.recorder.note(lambda db: store.delete(db, stored.id), *failed)
        del self._live[live.key]
        for each in (stored.v1, stored.v2):
            self._by_hash.pop(each or "", None)
        live.gone.set()
        return why

    async def _restore(self) -> None:
        giving: list[asyncio.Task[None]] = []
        last = 0
        while page := await self._journal.read(_page_after(last)):
            last = page[-1].id
            giving += [asyncio.create_task(self.give(stored)) for stored in page]
        await asyncio.gather(*giving)
        for live in tuple(self):
            if live.stored.leaving:
                self.start_aside(self.let_go(live, delete_files=True))

    def _index(self, live: LiveTorrent) -> None:
        for each in (live.stored.v1, live.stored.v2):
            if each:
                self._by_hash[each] = live

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that ends with the library."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def wholly(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a command to its end, also where the one who asked hangs up in the middle of it."""
        return await asyncio.shield(self.start(work))

    def start_aside(self, work: Coroutine[Any, Any, Any]) -> None:
        """The same for work that nobody waits for; its bugs are logged."""
        self.start(work).add_done_callback(_log_bug)

    async def _save_regularly(self, every: float) -> None:
        for look in count(1):
            await asyncio.sleep(every)
            if self.recorder.behind:  # while the disk is full, more would only pile up
                continue
            further = [live for live in self if live.unsaved]
            self.engine.save(None if look % SAVE_ALL_EVERY == 0 else [live.key for live in further])
            for live in further:
                live.unsaved = False

    # ── what the engine says

    def _take(self, happenings: Sequence[Happening]) -> None:
        changed: dict[str, LiveTorrent] = {}
        resumes: dict[int, bytes] = {}
        for happening in happenings:
            match happening:
                case Updated(snapshots):
                    changed |= {live.key: live for each in snapshots if (live := self._see(each))}
                case ResumeSaved(key, resume):
                    resumes[int(key)] = resume
                case Failed(key, why) if live := self._live.get(key):
                    self._fail(live, why)
                case Counted(counters):
                    self.counters = counters
                case PeerBlocked() | PeerConnected():
                    self.peer_filter.saw(happening)
                case Rechecking(key, why) if live := self._live.get(key):
                    log.warning("the files are checked anew", torrent=live.info_hash, why=why)
                case ListenFailed(address, why):
                    log.error("can't listen for peers", address=address, why=why)
                case _:
                    pass
        if resumes:
            self.recorder.note(lambda db: store.set_resumes(db, resumes))
        self.rows.put(*(self.row(live) for live in changed.values()))

    def _see(self, seen: Snapshot) -> LiveTorrent | None:
        """Take a torrent's new state; None where there is nothing to show for it."""
        live = self._live.get(seen.key)
        if live is None or live.stored.leaving:
            return None
        live.unsaved |= live.seen is not None and live.seen.left != seen.left
        live.seen = seen
        if seen.has_metadata and live.stored.total_size is None:
            if not live.vetting:
                live.vetting = True
                self.start_aside(self._vet(live))
            return None
        if is_complete(seen) and not (live.written or live.stored.completed_at):
            if not live.writing:
                live.writing = True
                self.start_aside(self._complete(live))
            return live
        self._turn(live, after(live.stored, seen, datetime.now(UTC)))
        return live

    async def _complete(self, live: LiveTorrent) -> None:
        """A torrent is told to be complete when its files are."""
        await self.engine.flushed(live.key)
        live.written = True
        if live.seen and self._see(live.seen):
            self.show(live)

    def _turn(self, live: LiveTorrent, now: Stored) -> None:
        events = news(live.stored, now)
        if now.completed_at and not live.stored.completed_at:
            self.engine.save([live.key])
        live.stored = now
        if events:
            self.recorder.note(lambda db: store.set_state(db, now), *events)

    def _fail(self, live: LiveTorrent, why: str, *, paused: bool = False) -> None:
        if live.stored.error is None and not live.stored.leaving:
            self._turn(live, replace(live.stored, status="error", error=why, paused=live.stored.paused or paused))
            self.show(live)

    async def _vet(self, live: LiveTorrent) -> None:
        """A magnet link's metadata came from strangers: it is held to the rules of a file that somebody uploads."""
        try:
            info = await self.engine.metadata(live.key)
            if info is None or live.stored.leaving:
                return
            data = metainfo.of_info(info)
            try:
                meta = await asyncio.to_thread(metainfo.read, data)
                known = described(live.stored, meta, data)
                event = MetadataReceived(known.info_hash, known.name, meta.total_size)
                await self.recorder.commit(lambda db: store.set_metainfo(db, known), event)
            except (Invalid, TooLarge) as error:
                why = "; ".join(fault.why for fault in error.faults[:3]) if isinstance(error, Invalid) else error.detail
                self._refuse(live, f"what the peers sent can't be used: {why}")
            except store.Duplicate:
                self._refuse(live, "this link leads to a torrent that is here already")
            else:
                self._describe(live, known)
        except TidegateError as error:
            log.error("the metadata could not be recorded", torrent=live.info_hash, why=error.detail)
        finally:
            live.vetting = False

    def _describe(self, live: LiveTorrent, known: Stored) -> None:
        before = live.stored
        live.stored = replace(
            before,
            v1=known.v1,
            v2=known.v2,
            name=known.name,
            total_size=known.total_size,
            pieces=known.pieces,
            private=known.private,
        )
        if live.info_hash != before.info_hash:  # asked for by its v2 hash alone, it has turned out to be a hybrid
            self.rows.remove(before.info_hash)
        self._index(live)
        self.engine.save([live.key])
        if live.seen and self._see(live.seen):
            self.show(live)

    def _refuse(self, live: LiveTorrent, why: str) -> None:
        self.engine.pause(live.key)
        self._fail(live, why, paused=True)


def _page_after(last: int) -> Callable[[Any], list[Stored]]:
    return lambda db: store.page(db, last)


def _log_bug(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("work on the torrents failed", exc_info=error)
