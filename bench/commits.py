"""A journal commit beside a bare SQLite one of the same rows: both durable (WAL, synchronous FULL) before they return."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Row, Told, compared, in_turns
from tidegate.daemon.journal import Journal
from tidegate.events import GroupSynced

TABLE = "CREATE TABLE bench (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"
ENTRIES = "CREATE TABLE entry (number INTEGER PRIMARY KEY, at TEXT, by TEXT, request TEXT, type TEXT, data TEXT) STRICT"
TEXT = "x" * 500


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    plain = sqlite3.connect(folder / "plain.db", isolation_level=None)
    plain.execute("PRAGMA journal_mode = WAL")
    plain.execute("PRAGMA synchronous = FULL")
    plain.execute(TABLE)
    plain.execute(ENTRIES)
    journal = await Journal.open(folder / "journal.db", (TABLE,))

    async def ours(number: int) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO bench VALUES (?, ?)", (number, TEXT))

        await journal.commit(change, _event(number))

    async def other(number: int) -> None:
        plain.execute("BEGIN IMMEDIATE")
        plain.execute("INSERT INTO bench VALUES (?, ?)", (number, TEXT))
        data = json.dumps({"router": "home", "group": 1, "generation": number, "changes": ["a"]})
        values = (number, datetime.now(UTC).isoformat(), "daemon", "", "group.synced", data)
        plain.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", values)
        plain.execute("COMMIT")

    try:
        found = await in_turns(ours, other, 300 if quick else 1500, lambda how_far: told(f"commits {how_far}"), warm_up=20)
    finally:
        await journal.close()
        plain.close()
    return [compared("commit state and an event, sealed, and tell it", *found, "bare SQLite, same rows", tail=0.99)]


def _event(number: int) -> GroupSynced:
    return GroupSynced("home", 1, number, ("a",))
