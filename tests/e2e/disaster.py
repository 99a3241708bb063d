"""Runs a writer, ends it badly, and compares what it had acknowledged with what is found afterwards.

    python -m tests.e2e.disaster kill  FOLDER ROUNDS WRITER     SIGKILL at a random moment
    python -m tests.e2e.disaster power FOLDER ROUNDS WRITER     the file system stops as in a power cut
    python -m tests.e2e.disaster rot   FOLDER ROUNDS WRITER     writing to the disk fails from some block on

One JSON line per round. A power cut is ext4's shutdown ioctl without a flush of its log (include/uapi/linux/ext4.h,
EXT4_IOC_SHUTDOWN, flag 2) on a loop device: what was not synced by then is gone at the next mount. A rotting disk is a
loop device whose image can't grow any more: the kernel takes writes and reports at some later fsync that they failed, once.
Both want root and a mount namespace of their own, since another process's namespace would keep the dead file system in use.
WRITER is `journal` (`bulky_journal` writes more and goes on after errors), `wishes` (what a daemon writes of its routers), or
one of two careless ones that are there to show that the experiment can fail.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from tidegate.daemon import intents
from tidegate.daemon.app import MIGRATIONS
from tidegate.daemon.intents import Intent, Outcome
from tidegate.daemon.journal import Journal
from tidegate.daemon.wishes import rows
from tidegate.errors import StorageFull, Unavailable
from tidegate.events import Entry, GroupSynced, GroupSyncFailed, RouterReachable
from tidegate.policy.device import Label
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = struct.pack("I", 2)
SCHEMA = ("CREATE TABLE note (number INTEGER NOT NULL, bulk BLOB NOT NULL) STRICT",)

Acknowledge = Callable[[int], None]


# ── writers: each counts up for ever, from where it left off, and says when a number is safe


def journal(folder: Path, acknowledge: Acknowledge) -> None:
    asyncio.run(_commit_for_ever(folder / "journal.db", acknowledge))


def bulky_journal(folder: Path, acknowledge: Acknowledge) -> None:
    asyncio.run(_commit_for_ever(folder / "journal.db", acknowledge, bulk=20_000))


async def _commit_for_ever(path: Path, acknowledge: Acknowledge, bulk: int = 0) -> None:
    store = await Journal.open(path, SCHEMA)
    numbers = iter(range((await store.read(_newest)) + 1, 1 << 62))

    async def one_after_another() -> None:
        for number in numbers:
            try:
                await store.commit(partial(_note, number, os.urandom(bulk)), RouterReachable(str(number)))
            except (StorageFull, Unavailable):
                if not bulk:
                    raise
                await asyncio.sleep(0.005)
            else:
                acknowledge(number)

    await asyncio.gather(*(one_after_another() for _ in range(8)))


def _note(number: int, bulk: bytes, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO note VALUES (?, ?)", (number, bulk))


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM note").fetchone()[0])


def wishes(folder: Path, acknowledge: Acknowledge) -> None:
    asyncio.run(_wish_for_ever(folder / "journal.db", acknowledge))


async def _wish_for_ever(path: Path, acknowledge: Acknowledge) -> None:
    """What a daemon writes of a router's changes: the intent, and then the wish with its event. Numbers are generations."""
    store = await Journal.open(path, MIGRATIONS)
    entries = await _all_entries(store)
    numbers = iter(
        range(1 + max((e.event.generation for e in entries if isinstance(e.event, GroupSynced)), default=0), 1 << 62)
    )

    async def one_router(router: str) -> None:
        await store.commit(partial(_enrolled, router), RouterReachable(router))
        for number in numbers:
            group = GroupId(1 + number % 20)
            request = GroupSyncRequest(Label(str(number)), bandwidth_policy=BandwidthPolicy(Mbps(1 + number % 900)))
            event = GroupSynced(router, int(group), number, ("a limit",))
            outcome = Outcome(number, (event,), rows(router, {group: request}, number))
            intent = Intent(f"{number:016x}", outcome, GroupSyncFailed(router, int(group), "cut"), "local:0", "")
            await store.commit(lambda db, i=intent: intents.put(db, router, i, i.to_text()))  # type: ignore[misc]
            await store.commit(lambda db, o=outcome: o.write(db, router), *outcome.events)  # type: ignore[misc]
            acknowledge(number)

    await asyncio.gather(*(one_router(f"r{number}") for number in range(8)))


def _enrolled(router: str, connection: sqlite3.Connection) -> None:
    row = (router, "127.0.0.1", 22, "root", "", "br-lan", "wan", "null", 0, "")
    connection.execute("INSERT OR IGNORE INTO routers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


async def _all_entries(store: Journal) -> list[Entry]:
    entries: list[Entry] = []
    while page := await store.entries(len(entries), 5_000):
        entries += page
    return entries


def unsynced_database(folder: Path, acknowledge: Acknowledge) -> None:
    store = sqlite3.connect(folder / "careless.db", isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = OFF")
    store.execute("CREATE TABLE IF NOT EXISTS note (number INTEGER)")
    for number in range(_newest(store) + 1, 1 << 62):
        store.execute("INSERT INTO note VALUES (?)", (number,))
        acknowledge(number)


def unsynced_rename(folder: Path, acknowledge: Acknowledge) -> None:
    file, beside = folder / "careless.json", folder / "careless.json.new"
    for number in range(_counted(folder) + 1, 1 << 62):
        beside.write_text(json.dumps({"newest": number, "filler": "x" * 2000}))
        os.rename(beside, file)
        acknowledge(number)


# ── findings: the numbers that are there, and what else is wrong


def _found_by_journal(folder: Path) -> tuple[set[int], str]:
    return asyncio.run(_examine(folder / "journal.db"))


async def _examine(path: Path) -> tuple[set[int], str]:
    try:
        store = await Journal.open(path, SCHEMA)
    except Unavailable as error:
        return set(), error.detail
    try:
        notes = await store.read(lambda c: [number for (number,) in c.execute("SELECT number FROM note")])
        entries = await _all_entries(store)
        told = {int(entry.event.router) for entry in entries if isinstance(entry.event, RouterReachable)}
        audit = await store.verify()
    finally:
        await store.close()
    wrong = [
        "a number is there twice" if len(set(notes)) != len(notes) else "",
        "state and events differ" if set(notes) != told else "",
        "event numbers have gaps" if [entry.number for entry in entries] != list(range(1, len(entries) + 1)) else "",
        str(audit.broken or ""),
    ]
    return set(notes), "; ".join(filter(None, wrong))


def _found_wishes(folder: Path) -> tuple[set[int], str]:
    return asyncio.run(_examine_wishes(folder / "journal.db"))


async def _examine_wishes(path: Path) -> tuple[set[int], str]:
    try:
        store = await Journal.open(path, MIGRATIONS)
    except Unavailable as error:
        return set(), error.detail
    try:
        entries = await _all_entries(store)
        written = await store.read(lambda c: c.execute("SELECT router, id, generation, wish FROM groups").fetchall())
        routers = await store.read(intents.waiting)
        waiting = [await store.read(partial(_generation_of, router)) for router in routers]
        audit = await store.verify()
    finally:
        await store.close()
    told = [entry.event for entry in entries if isinstance(entry.event, GroupSynced)]
    newest = {(event.router, event.group): event.generation for event in told}
    wrong = [
        "a wish is not the newest that was told" if {(r, g): n for r, g, n, _ in written} != newest else "",
        "a wish is half" if any(json.loads(wish)["name"] != str(n) for _, _, n, wish in written) else "",
        "an intent is left of what was done" if set(waiting) & {event.generation for event in told} else "",
        "event numbers have gaps" if [entry.number for entry in entries] != list(range(1, len(entries) + 1)) else "",
        str(audit.broken or ""),
    ]
    return {event.generation for event in told}, "; ".join(filter(None, wrong))


def _generation_of(router: str, connection: sqlite3.Connection) -> int:
    intent = intents.load(connection, router)
    return intent.outcome.generation if intent else 0


def _found_in_database(folder: Path) -> tuple[set[int], str]:
    if not (folder / "careless.db").exists():
        return set(), ""
    store = sqlite3.connect(folder / "careless.db")
    try:
        return {number for (number,) in store.execute("SELECT number FROM note")}, ""
    except sqlite3.DatabaseError as error:
        return set(), str(error)
    finally:
        store.close()


def _found_in_json(folder: Path) -> tuple[set[int], str]:
    return set(range(1, _counted(folder) + 1)), ""


def _counted(folder: Path) -> int:
    try:
        return int(json.loads((folder / "careless.json").read_text())["newest"])
    except (FileNotFoundError, ValueError):
        return 0


WRITERS = {
    "journal": (journal, _found_by_journal),
    "bulky_journal": (bulky_journal, _found_by_journal),
    "wishes": (wishes, _found_wishes),
    "unsynced_database": (unsynced_database, _found_in_database),
    "unsynced_rename": (unsynced_rename, _found_in_json),
}


# ── disasters


class Child:
    """A writer in a process of its own, whose acknowledgements, each with its time, come through a pipe."""

    def __init__(self, write: Callable[[Path, Acknowledge], None], folder: Path) -> None:
        self._pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            self._be(write, folder, theirs)
        os.close(theirs)

    def _be(self, write: Callable[[Path, Acknowledge], None], folder: Path, pipe: int) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

        def acknowledge(number: int) -> None:
            os.write(pipe, b"%d %d\n" % (number, time.monotonic_ns()))

        try:
            write(folder, acknowledge)
        finally:
            os._exit(3)

    def wait_for_first(self) -> bytes:
        return os.read(self._pipe, 1)

    def end(self, first: bytes) -> dict[int, int]:
        """Kill it. What it acknowledged, and when."""
        os.kill(self.pid, signal.SIGKILL)
        text = first
        while part := os.read(self._pipe, 1 << 16):
            text += part
        os.close(self._pipe)
        os.waitpid(self.pid, 0)
        whole = text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]
        return {int(number): int(at) for number, at in (line.split() for line in whole)}


def kill(folder: Path, rounds: int, writer: str) -> Iterator[tuple[set[int], set[int], str]]:
    write, find = WRITERS[writer]
    picks = random.Random()
    for number in range(rounds):
        store = folder / f"store{number // 4}"  # each store is begun, and gone on with
        store.mkdir(exist_ok=True)
        child = Child(write, store)
        if number % 4:
            first = child.wait_for_first()
            time.sleep(picks.uniform(0, 0.06))
        else:  # somewhere in its first start
            first = b""
            time.sleep(picks.uniform(0, 0.04))
        acknowledged = child.end(first)
        yield (set(acknowledged), *find(store))


def power(folder: Path, rounds: int, writer: str) -> Iterator[tuple[set[int], set[int], str]]:
    write, find = WRITERS[writer]
    picks = random.Random()
    _run("mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder))  # the disk itself is none of this test's business
    image, disk = folder / "disk.img", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _run("mkfs.ext4", "-q", "-F", str(image))
    for number in range(rounds):
        _run("mount", "-o", "loop", str(image), str(disk))
        store = disk / f"store{number // 5}"
        store.mkdir(exist_ok=True)
        child = Child(write, store)
        first = child.wait_for_first() if number % 5 else b""  # or somewhere in its first start
        time.sleep(picks.uniform(0, 0.08))
        root = os.open(disk, os.O_RDONLY)
        cut_at = time.monotonic_ns()
        fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
        os.close(root)
        acknowledged = child.end(first)
        _run("umount", str(disk))
        _run("mount", "-o", "loop", str(image), str(disk))
        store.mkdir(exist_ok=True)
        found, wrong = find(store)
        _run("umount", str(disk))
        yield {number for number, at in acknowledged.items() if at < cut_at}, found, wrong


def rot(folder: Path, rounds: int, writer: str) -> Iterator[tuple[set[int], set[int], str]]:
    write, find = WRITERS[writer]
    for number in range(rounds):
        room = folder / f"room{number}"
        image, disk = room / "disk.img", folder / f"disk{number}"
        for made in (room, disk):
            made.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={4_500 + 150 * number}k", "tmpfs", str(room))
        with image.open("wb") as file:
            file.truncate(64 << 20)
        _run("mkfs.ext4", "-q", "-F", "-J", "size=1", str(image))
        _run("mount", "-o", "loop", str(image), str(disk))
        child = Child(write, disk)
        first = child.wait_for_first()
        time.sleep(0.5)
        acknowledged = child.end(first)
        _run("mount", "-o", "remount,size=100m", str(room))
        _run("umount", str(disk))
        _run("mount", "-o", "loop", str(image), str(disk))
        found, wrong = find(disk)
        _run("umount", str(disk))
        _run("umount", str(room))
        yield set(acknowledged), found, wrong


def _run(*command: str) -> None:
    for attempt in range(20):  # a loop device may be busy for a moment
        if subprocess.run(command, capture_output=True).returncode == 0:
            return
        time.sleep(0.02 * attempt)
    subprocess.run(command, check=True)


def main() -> None:
    disaster, folder, rounds, writer = sys.argv[1:]
    for acknowledged, found, wrong in {"kill": kill, "power": power, "rot": rot}[disaster](Path(folder), int(rounds), writer):
        lost = sorted(acknowledged - found)
        print(json.dumps({"acknowledged": len(acknowledged), "lost": len(lost), "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
