"""The torrent process: `python -m tidegate.daemon.torrentprocess`, started by `TorrentNode` and by nobody else.

It reads its settings as one line of JSON on standard input, writes one line of JSON on standard output once it serves
(`torrents`: how many were brought back) or why it can't (`failed`), and ends in order at SIGTERM or when its standard input
ends, which happens when its parent is gone, however that died. It holds no keys: its folder has its own journal, and nothing
else is its.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tidegate.api.events import Events
from tidegate.api.security import Security
from tidegate.api.session import Session
from tidegate.api.torrent import Torrent
from tidegate.contract import codec
from tidegate.contract.serve import application
from tidegate.daemon import log
from tidegate.daemon.events import EventsService
from tidegate.daemon.journal import Journal
from tidegate.daemon.library import MIGRATIONS, Library
from tidegate.daemon.listen import serving, unix_socket
from tidegate.daemon.listsource import ListSettings
from tidegate.daemon.security import SecurityService
from tidegate.daemon.torrentlink import LinkDoor
from tidegate.daemon.torrents import SessionService, TorrentService
from tidegate.errors import TidegateError
from tidegate.settings import Settings
from tidegate.torrent.engine import EngineSettings

END_LIMIT = 9  # seconds from the wish to end to the end, whatever the engine or the disk do
PATIENCE = 2.5  # seconds for the resume data of all torrents, and again for the journal to take it


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What the control process tells its torrent process. `folder` holds the journal, `save_every` is in seconds."""

    folder: str
    socket: str
    download_dir: str
    engine: EngineSettings
    save_every: float
    lists: ListSettings
    log_format: Literal["auto", "console", "json"]


@dataclass(frozen=True, slots=True)
class Report:
    """The one line that the process says of itself."""

    torrents: int = 0
    failed: str | None = None


async def run(settings: ProcessSettings) -> None:
    """Serve until told to end."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    loop.add_reader(sys.stdin.fileno(), _read_parent, ending)
    journal = await Journal.open(Path(settings.folder) / "torrents.db", MIGRATIONS)
    downloads = Path(settings.download_dir)
    library = await Library.open(journal, downloads, settings.engine, settings.save_every, settings.lists)
    services = [
        (Torrent, TorrentService(library)),
        (Session, SessionService(library)),
        (Security, SecurityService(library)),
        (Events, EventsService(journal)),
    ]
    async with serving(application(services, LinkDoor()), unix_socket(Path(settings.socket))):
        _report(Report(torrents=len(library.rows)))
        await ending.wait()
        # By default this signal kills, also where the engine holds the interpreter or the disk does not answer.
        signal.alarm(END_LIMIT)
        library.rows.close()
    await library.close(PATIENCE)
    await journal.close()


def _read_parent(ending: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        ending.set()


def _report(report: Report) -> None:
    sys.stdout.buffer.write(codec.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _first_line() -> bytes:
    """The settings, read byte by byte: nothing behind the line may be lost in a buffer."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte
    return line


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    settings = codec.decode(_first_line(), ProcessSettings)
    log.configure(Settings(log_format=settings.log_format, log_level="warning"))
    try:
        asyncio.run(run(settings))
    except (TidegateError, OSError) as error:
        _report(Report(failed=error.detail if isinstance(error, TidegateError) else str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
