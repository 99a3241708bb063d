"""Small and large answers over HTTP: one kept connection with a key, one request at a time, each body read whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import libtorrent as lt

import tidegate
from bench.downloads import QUIET
from bench.figures import Row, Samples, Told, compared
from bench.processes import BenchError, daemon_process, helper
from bench.wire import KeptConnection
from tidegate.api.torrent import InfoHash

TORRENTS = 1000
TOGETHER = 20  # uploads at once
PIECES, PIECE = 64, 1 << 18


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    files = dict(_torrents(TORRENTS))
    with daemon_process(folder, QUIET) as running, KeptConnection(running.address, running.key) as line:
        async with tidegate.connect(running.url, key=running.key) as daemon:
            waiting = list(files.values())
            for first in range(0, TORRENTS, TOGETHER):
                told(f"{first} of {TORRENTS} torrents are in")
                together = waiting[first : first + TOGETHER]
                await asyncio.gather(*(daemon.torrent.upload(file, paused=True) for file in together))
            # Before all: as many torrents as will be listed stand behind the figures of the statistics, too.
            stats = _statistics(line, 20 if quick else 60, told)
            naive = _Naive(folder, waiting)
            same = _same_list(line, naive, 10 if quick else 40, told)
            one = InfoHash(next(iter(files)))
            taken = Samples(), Samples()
            for number in range(30 if quick else 150):
                told(f"a list with a change {number}")
                await (daemon.torrent.pause if number % 2 else daemon.torrent.resume)(one)
                line.time("/api/v1/torrents", 1, taken[0])
                naive.time(1, taken[1])
            than = "asking libtorrent, in process"
            changed = compared(f"list {TORRENTS:,} torrents, one changed just now", *taken, than, most_ms=5)
            return [same, changed, stats]


def _same_list(line: KeptConnection, naive: _Naive, blocks: int, told: Told) -> Row:
    listed = json.loads(line.get("/api/v1/torrents"))
    if listed["total"] != TORRENTS or len(json.loads(naive.list())) != TORRENTS:
        raise BenchError(f"{listed['total']} torrents are listed instead of {TORRENTS}")
    ours, other = Samples(), Samples()
    for number in range(blocks):
        told(f"list of {TORRENTS:,} {number}/{blocks}")
        line.time("/api/v1/torrents", 20, ours)
        naive.time(5, other)
    return compared(f"list {TORRENTS:,} torrents over HTTP", ours, other, "asking libtorrent, in process", most_ms=5)


def _statistics(line: KeptConnection, blocks: int, told: Told) -> Row:
    """Beside the floor, which has no key to check, no log to write and nothing to tell."""
    ours, other = Samples(), Samples()
    with helper("bench.floor") as (_, port), KeptConnection(("127.0.0.1", int(port))) as floor:
        for number in range(blocks):
            told(f"statistics {number}/{blocks}")
            line.time("/api/v1/session/stats", 200, ours)
            floor.time("/", 200, other)
    return compared("global statistics over HTTP", ours, other, "empty Starlette route, no key", most_ms=0.2)


class _Naive:
    """A list that is asked of libtorrent whenever somebody wants it: in process, with no HTTP around it."""

    def __init__(self, folder: Path, files: list[bytes]) -> None:
        quiet = dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False)
        self._session: Any = lt.session(cast(Any, {"listen_interfaces": "127.0.0.1:0", **quiet}))
        for file in files:
            parameters = lt.load_torrent_buffer(file)
            parameters.save_path = str(folder)
            parameters.flags = lt.torrent_flags.paused
            self._session.add_torrent(parameters)

    def list(self) -> bytes:
        return json.dumps([_told(status) for status in self._session.get_torrent_status(lambda _: True)]).encode()

    def time(self, times: int, into: Samples) -> None:
        for _ in range(times):
            with into.timed():
                self.list()


def _told(status: Any) -> dict[str, Any]:
    """The same facts of a torrent that our rows have."""
    return {
        "info_hash": str(status.info_hashes.v1),
        "info_hash_v2": None,
        "name": status.name,
        "status": str(status.state),
        "progress": status.progress,
        "download_rate": status.download_payload_rate,
        "upload_rate": status.upload_payload_rate,
        "num_peers": status.num_peers,
        "num_seeds": status.num_seeds,
        "total_size": status.total,
        "downloaded": status.all_time_download,
        "uploaded": status.all_time_upload,
        "left": status.total_wanted - status.total_wanted_done,
        "eta_seconds": None,
        "is_private": False,
        "output_dir": status.save_path,
        "pieces_completed": status.num_pieces,
        "pieces_total": PIECES,
        "added_at": status.added_time,
        "completed_at": status.completed_time,
        "error": status.errc.message() if status.errc.value() else None,
    }


def _torrents(count: int) -> Iterator[tuple[str, bytes]]:
    """Info hashes and .torrent files of torrents that nobody has."""
    for number in range(count):
        name = f"A torrent with a name of the usual length, number {number:05}.mkv"
        info: Any = {
            b"length": PIECES * PIECE,
            b"name": name.encode(),
            b"piece length": PIECE,
            b"pieces": hashlib.sha1(name.encode()).digest() * PIECES,
        }
        yield hashlib.sha1(lt.bencode(info)).hexdigest(), lt.bencode({b"info": info})
