"""A download by the daemon's torrent process beside one by a plain libtorrent session, from the same seeder over loopback.

Both are measured from the wish (a magnet link with the seeder's address) to the whole file: the metadata, the first
connection, every piece's hash, the cache written out and, with us, the journal and the event are all in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from subprocess import Popen
from time import perf_counter

import tidegate
from bench.figures import Row, Samples, Told, in_turns, short
from bench.processes import BenchError, daemon_process, helper
from tidegate.api import Tidegate
from tidegate.api.torrent import AddTorrentRequest, InfoHash, Magnet
from tidegate.events import Entry, Notice, TorrentCompleted

SIZE = 256  # MiB
PATIENCE = 60.0  # seconds for one download

# A daemon that talks to nobody but the seeder.
QUIET = {
    "TORRENT__LISTEN": "127.0.0.1:0",
    "TORRENT__DHT": "false",
    "TORRENT__LSD": "false",
    "TORRENT__UPNP": "false",
    "TORRENT__NATPMP": "false",
    "TORRENT__UTP": "false",
}


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    pairs = 3 if quick else 7
    async with AsyncExitStack() as stack:
        told("a seeder")
        options = ("--size", str(SIZE), "--dir", str(folder / "seed"))
        _, line = stack.enter_context(helper("tidegate.lab.seeder", *options))
        facts = json.loads(line)
        running = stack.enter_context(daemon_process(folder, QUIET))
        daemon = await stack.enter_async_context(tidegate.connect(running.url, key=running.key))
        plain, _ = stack.enter_context(helper("bench.plain", str(folder)))
        ours = _Ours(daemon, facts["magnet"], facts["info_hash"])
        other = _Plain(plain, facts["magnet"])
        stack.push_async_callback(ours.close)
        taken = await in_turns(ours.download, other.download, pairs, lambda how_far: told(f"{SIZE} MiB {how_far}"), warm_up=1)
        return [_row(*taken)]


class _Ours:
    def __init__(self, daemon: Tidegate, link: str, info_hash: str) -> None:
        self._daemon = daemon
        self._link = Magnet(link)
        self._hash = InfoHash(info_hash)
        self._notices: AsyncIterator[Notice] = daemon.events.follow()

    async def download(self, _: int) -> float:
        began = perf_counter()
        await self._daemon.torrent.add(AddTorrentRequest(self._link))
        async with asyncio.timeout(PATIENCE):
            await self._completed()
        took = perf_counter() - began
        await self._daemon.torrent.remove(self._hash, delete_data=True)
        return took

    async def _completed(self) -> None:
        async for notice in self._notices:
            if isinstance(notice, Entry) and isinstance(notice.event, TorrentCompleted):
                return
        raise BenchError("the daemon's events ended")

    async def close(self) -> None:
        await self._notices.aclose()  # type: ignore[attr-defined]


class _Plain:
    def __init__(self, process: Popen[str], link: str) -> None:
        self._process = process
        self._link = link

    async def download(self, _: int) -> float:
        return await asyncio.to_thread(self._download)

    def _download(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began = perf_counter()
        self._process.stdin.write(f"{self._link}\n")
        self._process.stdin.flush()
        self._expect("done")
        took = perf_counter() - began
        self._expect("forgotten")
        return took

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        if (line := self._process.stdout.readline().strip()) != word:
            raise BenchError(f"the plain session says {line!r} instead of {word!r}")


def _row(ours: Samples, other: Samples) -> Row:
    """The ratio is the median over pairs that ran one right after the other: what the machine does meanwhile hits both."""
    ratio = median(theirs / mine for mine, theirs in zip(ours, other, strict=True))
    rates = [[SIZE / (took / 1000) for took in side] for side in (ours, other)]
    texts = [f"{short(median(side))} MiB/s ({short(min(side))} to {short(max(side))})" for side in rates]
    figures = {"ours_median_mib_per_s": median(rates[0]), "other_median_mib_per_s": median(rates[1]), "pairs": len(ours)}
    what = f"download {SIZE} MiB from a seeder on loopback"
    return Row(what, texts[0], f"{texts[1]} plain libtorrent", ratio, "≥ 0.9x", ratio >= 0.9, figures)
