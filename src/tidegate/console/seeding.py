"""A seeder in the lab's internet: somebody to download from."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.lab import Lab


@dataclass(frozen=True, slots=True)
class Seeder:
    """`torrent` is the bytes of the .torrent file; it names the seeder's own tracker. `size` is its content's, in bytes."""

    torrent: bytes
    magnet: str
    info_hash: str
    size: int


@asynccontextmanager
async def seeding(lab: Lab, folder: Path, *, mib: int) -> AsyncIterator[Seeder]:
    """A separate libtorrent session in the lab's internet that has a torrent of `mib` MiB, until the block is left."""
    folder.mkdir(parents=True)
    listen = f"{lab.internet.ipv4}:6999"
    words = [sys.executable, "-m", "tidegate.lab.seeder", "--listen", listen, "--size", str(mib), "--dir", str(folder)]
    process = lab.internet.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(await asyncio.to_thread(process.stdout.readline))
        yield Seeder(Path(told["torrent"]).read_bytes(), told["magnet"], told["info_hash"], told["size"])
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
