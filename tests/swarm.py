"""A swarm on loopback for tests: a seeder in a process of its own, and settings that talk to nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.api.torrent import AddTorrentRequest, InfoHash, Magnet, Torrent, TorrentStatus
from tidegate.daemon.journal import Journal
from tidegate.daemon.library import MIGRATIONS, Library
from tidegate.daemon.listsource import NO_LISTS, ListSettings
from tidegate.daemon.security import SecurityService
from tidegate.daemon.torrents import TorrentService
from tidegate.events import Event
from tidegate.settings import Settings, TorrentSettings
from tidegate.torrent.engine import EngineSettings

PATIENCE = 30.0  # seconds for what takes a second or two on a quiet machine
QUIET = EngineSettings("127.0.0.1:0", dht=False, lsd=False, upnp=False, natpmp=False, utp=False)


@dataclass(frozen=True, slots=True)
class Seeder:
    """Who has the torrent. `torrent` is the .torrent file's bytes, `sha256` its content's, `size` in bytes."""

    magnet: str
    torrent: bytes
    info_hash: InfoHash
    name: str
    size: int
    sha256: str

    @property
    def request(self) -> AddTorrentRequest:
        return AddTorrentRequest(Magnet(self.magnet))


@contextmanager
def seeder(folder: Path, *, mib: float, rate_kib: int = 0, host: str = "127.0.0.1") -> Iterator[Seeder]:
    words = ["--dir", str(folder), "--size", str(mib), "--rate", str(rate_kib), "--listen", f"{host}:0"]
    command = [sys.executable, "-m", "tidegate.lab.seeder", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            told = json.loads(process.stdout.readline())
            path = Path(told["torrent"])
            content = path.with_suffix("")
            yield Seeder(
                magnet=told["magnet"],
                torrent=path.read_bytes(),
                info_hash=InfoHash(told["info_hash"]),
                name=content.name,
                size=told["size"],
                sha256=hashlib.sha256(content.read_bytes()).hexdigest(),
            )
        finally:
            process.stdin.close()
            process.wait(20)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def link(number: int) -> AddTorrentRequest:
    """A magnet link that leads to nobody, another one for each number."""
    return AddTorrentRequest(Magnet(f"magnet:?xt=urn:btih:{number:040x}&dn=nobody-{number}"))


def quiet_settings(state_dir: Path, *prefix: str) -> Settings:
    torrent = TorrentSettings(
        listen="127.0.0.1:0", dht=False, lsd=False, upnp=False, natpmp=False, utp=False, command_prefix=prefix
    )
    return Settings(state_dir=state_dir, torrent=torrent)


@dataclass(frozen=True, slots=True)
class Service:
    """The torrent service in this process, with what it stands on."""

    torrent: TorrentService
    security: SecurityService
    library: Library
    journal: Journal
    downloads: Path

    async def events(self) -> list[Event]:
        """All that was told, oldest first."""
        return [entry.event for entry in await self.journal.entries(0, 100_000)]


@asynccontextmanager
async def service(folder: Path, save_every: float = 60.0, lists: ListSettings = NO_LISTS) -> AsyncIterator[Service]:
    """Open the service on a folder; what it knew before is there again."""
    journal = await Journal.open(folder / "torrents.db", MIGRATIONS)
    library = await Library.open(journal, folder / "downloads", QUIET, save_every, lists)
    try:
        yield Service(TorrentService(library), SecurityService(library), library, journal, folder / "downloads")
    finally:
        await library.close(patience=2)
        await journal.close()


async def until(torrent: Torrent, info_hash: InfoHash, holds: Callable[[TorrentStatus], bool]) -> TorrentStatus:
    """The torrent's row once that holds of it."""
    async with asyncio.timeout(PATIENCE):
        found = await torrent.list()
        while True:
            row = await torrent.status(info_hash)
            if holds(row):
                return row
            found = await torrent.list(since=found.revision, wait_seconds=5)


def is_seeding(row: TorrentStatus) -> bool:
    return row.status == "seeding"
