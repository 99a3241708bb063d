"""A journal on a disk of 3 MiB that runs full and gets room again: `python -m tests.e2e.full_disk FOLDER` tells what it saw.

Wants root and a mount namespace of its own (`unshare --mount --propagation private`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.daemon.journal import Journal
from tidegate.errors import StorageFull, TidegateError
from tidegate.events import Entry, RouterReachable

SCHEMA = ("CREATE TABLE note (number INTEGER PRIMARY KEY, bulk BLOB NOT NULL) STRICT",)


def _note(number: int, size: int, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO note VALUES (?, ?)", (number, os.urandom(size)))


def _numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM note ORDER BY number")]


def _take_room(file: Path, size: int) -> None:
    """A file of that size, or as large as there is room for."""
    with file.open("wb", buffering=0) as to, suppress(OSError):
        for _ in range(size // 4_096):
            to.write(bytes(4_096))


class Observation:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.acknowledged: set[int] = set()
        self.refusals: list[str] = []
        self._number = 0

    async def commit(self, size: int) -> bool:
        self._number += 1
        number = self._number
        try:
            await self.journal.commit(partial(_note, number, size), RouterReachable(str(number)))
        except TidegateError as error:
            self.refusals.append(type(error).__name__)
            return False
        self.acknowledged.add(number)
        return True

    async def fill(self) -> None:
        """Until not even a small commit fits, in company and alone."""
        for size in (50_000, 5_000, 100):
            while all(await asyncio.gather(*(self.commit(size) for _ in range(8)))):
                pass
            while await self.commit(size):
                pass

    async def holds(self) -> bool:
        """State, events and numbers are those of the acknowledged commits and no others."""
        entries = await self.journal.entries(0, 100_000)
        told = {int(entry.event.router) for entry in entries if isinstance(entry.event, RouterReachable)}
        numbered = [entry.number for entry in entries] == list(range(1, self.journal.head + 1))
        return set(await self.journal.read(_numbers)) == self.acknowledged == told and numbered


async def observe(folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    ballast = folder / "ballast"
    journal = await Journal.open(folder / "journal.db", SCHEMA)
    observation = Observation(journal)
    follower = journal.follow()
    for round_ in ("first", "second"):
        _take_room(ballast, 600_000)
        await observation.fill()
        seen[f"{round_}: state when full"] = await observation.holds()
        seen[f"{round_}: free bytes"] = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        ballast.unlink()
        seen[f"{round_}: goes on with room"] = await observation.commit(5_000)
        seen[f"{round_}: state with room"] = await observation.holds()
    seen["refusals"] = sorted(set(observation.refusals))
    seen["refused"] = len(observation.refusals)
    seen["acknowledged"] = len(observation.acknowledged)
    followed = [await anext(follower) for _ in range(min(1_024, journal.head))]
    seen["followed"] = {
        int(n.event.router) for n in followed if isinstance(n, Entry) and isinstance(n.event, RouterReachable)
    } <= (observation.acknowledged)
    _take_room(ballast, 600_000)
    await observation.fill()
    await journal.close()
    journal = await Journal.open(folder / "journal.db", SCHEMA)  # on a full disk
    observation.journal = journal
    seen["state after a restart"] = await observation.holds()
    seen["chain"] = (await journal.verify()).broken is None
    await journal.close()
    _take_room(folder / "filler", 3 << 20)
    try:
        await Journal.open(folder / "other.db", SCHEMA)
    except StorageFull:
        seen["beginning on a full disk"] = "StorageFull"
    ballast.unlink()
    (folder / "filler").unlink(missing_ok=True)
    other = await Journal.open(folder / "other.db", SCHEMA)
    seen["beginning with room"] = other.head
    await other.close()
    return seen


def main() -> None:
    folder = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    print(json.dumps(asyncio.run(observe(folder))))


if __name__ == "__main__":
    main()
