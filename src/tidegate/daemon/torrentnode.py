"""The torrent process seen from the control process: started, watched, and started again.

- A torrent process that ends unasked, or that hangs, is noticed at once, told as `TorrentEngineDown`, and started again with
  growing pauses; when it answers again, that is told as `TorrentEngineUp`. Nothing else of the daemon waits for it.
- It never outlives this process: its standard input ends with it.
- Its events enter this process's journal by number (`takeover.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from tidegate.api.events import Events
from tidegate.api.security import Security
from tidegate.api.session import Session
from tidegate.api.system import Node
from tidegate.api.torrent import Torrent
from tidegate.contract import codec
from tidegate.contract.client import remote
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.library import SAVE_EVERY
from tidegate.daemon.listsource import ListSettings, sources
from tidegate.daemon.takeover import OutOfStep, Takeover
from tidegate.daemon.torrentlink import Link
from tidegate.daemon.torrentmirror import PATIENCE, Hanging, SessionMirror, Through, TorrentMirror, View
from tidegate.daemon.torrentprocess import END_LIMIT, ProcessSettings, Report
from tidegate.errors import TidegateError
from tidegate.events import TorrentEngineDown, TorrentEngineUp
from tidegate.settings import Settings
from tidegate.torrent.engine import EngineSettings

NAME = "torrent"
START_LIMIT = 60.0  # seconds from the start until it serves, with all torrents back
FIRST_START = 10.0  # seconds that the daemon's own start waits for it
PAUSES = (0.1, 0.5, 2.0, 5.0, 15.0, 30.0)  # seconds before the first, second, ... try after an end
STEADY = 30.0  # seconds after which an end counts as the first again
RETRY_TAKEOVER = 0.5  # seconds until the stream of events is begun anew

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.torrent")


class NotStarted(Exception):
    """The process did not come so far as to serve."""


class TorrentNode:
    """`torrent`, `session` and `security` are the contracts as this process serves them.

    `save_every` is how many seconds of a download a crash may cost at most; `patience` how many seconds without an answer make
    the process one that hangs.
    """

    def __init__(
        self, settings: Settings, journal: Journal, save_every: float = SAVE_EVERY, patience: float = PATIENCE
    ) -> None:
        self._view = View(patience)
        self.torrent: Torrent = TorrentMirror(self._view)
        self.session: Session = SessionMirror(self._view)
        self.security: Security = remote(Security, Through(self._view))
        self._journal = journal
        self._command = [*settings.torrent.command_prefix, sys.executable, "-I", "-m", "tidegate.daemon.torrentprocess"]
        self._folder = settings.state_dir / "torrent"
        self._settings = _process_settings(settings, self._folder, save_every)
        self._takeover = Takeover(journal, NAME, self._view.refresh)
        self._process: Process | None = None
        self._state = "starting"
        self._up = False  # whether its present life came so far as to serve
        self._starts = 0
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def node(self) -> Node:
        """How the process fares, for `system.status`."""
        pid = self._process.pid if self._process else None
        return Node(NAME, self._state, pid, max(0, self._starts - 1), None if self._state == "up" else self._view.why)

    async def start(self) -> None:
        """Begin to run the process; returns once it serves, has failed to, or takes long."""
        self._task = asyncio.create_task(self._supervise())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), FIRST_START)

    async def close(self) -> None:
        """End the process in order; returns when it is gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._view.lose("the daemon is stopping")

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        tries = 0
        told_down = False
        while True:
            began = loop.time()
            try:
                why = await self._run()
            except NotStarted as error:
                why = str(error)
            except Exception:
                # Whatever goes wrong here must not leave the daemon without its torrent half.
                log.exception("keeping up with the torrent process failed")
                why = "could not be followed"
            was_up = self._up
            self._lost(why)
            tries = 0 if was_up and loop.time() - began > STEADY else tries
            log.error("the torrent process is gone", why=why, again_in=PAUSES[min(tries, len(PAUSES) - 1)])
            if was_up or not told_down:
                told_down = True
                await self._tell(TorrentEngineDown(why))
            self._tried.set()
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1
            self._state, self._up = "starting", False

    def _lost(self, why: str) -> None:
        self._state = "down"
        self._view.lose(f"it {why}, and is being started again")

    async def _run(self) -> str:
        """One life of the process; how it ended."""
        self._starts += 1
        process = self._process = await self._spawn()
        link = Link(Path(self._settings.socket))
        try:
            report = await self._report(process)
            try:
                await self._view.gain(link)
            except TidegateError as error:
                raise NotStarted(f"could not be asked: {error.detail}") from error
            self._state, self._up = "up", True
            await self._tell(TorrentEngineUp(report.torrents))
            self._tried.set()
            return await self._attend(process, link)
        finally:
            self._process = None
            await asyncio.shield(_end(process))
            await link.close()

    async def _attend(self, process: Process, link: Link) -> str:
        """Keep up with the process until it ends, or hangs."""
        ended = asyncio.create_task(process.wait())
        following = asyncio.create_task(self._view.follow())
        taking = asyncio.create_task(self._take_over(remote(Events, link)))
        ours = (following, taking)
        try:
            await asyncio.wait({ended, *ours}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                why = _how_it_ended(ended.result())
            elif following.done() and isinstance(following.exception(), Hanging):
                why = "did not answer any more"
                process.kill()
            else:
                why = "could not be followed"
            self._lost(why)
            # Both come upon the end by themselves; cut off in the middle of it, anyio logs an error that is none.
            await asyncio.wait(ours, timeout=1)
            for task in ours:
                if task.done() and not isinstance(task.exception(), Hanging):
                    task.result()
            return why
        finally:
            for each in (ended, *ours):
                each.cancel()
            await asyncio.gather(ended, *ours, return_exceptions=True)

    async def _take_over(self, events: Events) -> None:
        while self._state == "up":
            try:
                await self._takeover.run(events)
            except (TidegateError, OutOfStep) as error:
                if self._state != "up":
                    return
                log.warning("events of the torrent process wait to be taken over", why=str(error))
            await asyncio.sleep(RETRY_TAKEOVER)

    async def _tell(self, event: TorrentEngineDown | TorrentEngineUp) -> None:
        try:
            await self._journal.commit(nothing, event)
        except TidegateError as error:
            log.error("an event could not be recorded", lost=type(event).__name__, why=error.detail)

    async def _spawn(self) -> Process:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(self._settings.lists.folder).mkdir(mode=0o700, exist_ok=True)
        kept = {name: value for name in ("PATH", "LANG", "LC_ALL", "TZ") if (value := os.environ.get(name)) is not None}
        try:
            # A session of its own: Ctrl-C in the terminal is for the daemon, which then ends this process in order.
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, cwd=self._folder, env=kept, start_new_session=True
            )
        except OSError as error:
            raise NotStarted(f"could not be started: {error}") from error
        assert process.stdin is not None
        process.stdin.write(codec.encode(self._settings) + b"\n")
        return process

    async def _report(self, process: Process) -> Report:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_LIMIT)
        except TimeoutError:
            raise NotStarted(f"did not come up within {START_LIMIT:.0f} s") from None
        if not line:
            raise NotStarted(_how_it_ended(await process.wait()))
        report = codec.decode(line, Report)
        if report.failed is not None:
            raise NotStarted(f"could not start: {report.failed}")
        return report


@asynccontextmanager
async def torrent_node(
    settings: Settings, journal: Journal, save_every: float = SAVE_EVERY, patience: float = PATIENCE
) -> AsyncIterator[TorrentNode]:
    """A running torrent process; `journal` must have the tables of `takeover.TABLES`."""
    node = TorrentNode(settings, journal, save_every, patience)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


def _process_settings(settings: Settings, folder: Path, save_every: float) -> ProcessSettings:
    chosen = settings.torrent
    return ProcessSettings(
        folder=str(folder.absolute()),
        socket=str((settings.state_dir / "torrent.sock").absolute()),
        download_dir=str((chosen.download_dir or settings.state_dir / "downloads").absolute()),
        engine=EngineSettings(
            chosen.listen, chosen.dht, chosen.lsd, chosen.upnp, chosen.natpmp, chosen.utp, chosen.ip_filter_trackers
        ),
        save_every=save_every,
        lists=ListSettings(
            sources(chosen.ip_filter),
            str((settings.state_dir / "lists").absolute()),
            chosen.ip_filter_hosts,
            str(chosen.ip_filter_authority) if chosen.ip_filter_authority else None,
            chosen.ip_filter_refresh_hours,
        ),
        log_format=settings.log_format,
    )


async def _end(process: Process) -> None:
    """End the process in order, and by force where it does not end within its own limit."""
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_LIMIT + 1)
        except TimeoutError:
            process.kill()
            await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _how_it_ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
