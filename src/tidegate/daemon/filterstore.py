"""The blacklist, the whitelist and the lists that were loaded, in the torrent process's own journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network

from tidegate.torrent.ipfilter import Network
from tidegate.torrent.iplist import AddressList
from tidegate.torrent.ranges import Ranges

TABLES = (
    """
    CREATE TABLE filter_entry (
      list TEXT NOT NULL, network TEXT NOT NULL, reason TEXT, added_at TEXT NOT NULL, expires_at TEXT, hits INTEGER NOT NULL,
      PRIMARY KEY (list, network)
    ) STRICT;
    CREATE TABLE filter_list (
      name TEXT PRIMARY KEY, origin TEXT NOT NULL, version TEXT NOT NULL, loaded_at TEXT NOT NULL, checked_at TEXT NOT NULL,
      lines INTEGER NOT NULL, skipped INTEGER NOT NULL, v4 BLOB NOT NULL, v6 BLOB NOT NULL
    ) STRICT;
    """,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody on the blacklist or the whitelist (`list`)."""

    list: str
    network: Network
    reason: str | None
    added_at: datetime
    expires_at: datetime | None = None
    hits: int = 0


@dataclass(frozen=True, slots=True)
class StoredList:
    """A list as it was loaded last. `origin`: the file or URL; `version`: what that calls this state of it, an ETag or a time
    and a size; `checked_at`: when it was last found to be as it is."""

    name: str
    origin: str
    version: str
    loaded_at: datetime
    checked_at: datetime
    found: AddressList


def entries(db: sqlite3.Connection) -> list[Entry]:
    """All entries, the oldest first."""
    rows = db.execute("SELECT list, network, reason, added_at, expires_at, hits FROM filter_entry ORDER BY added_at, network")
    return [
        Entry(name, ip_network(network), reason, datetime.fromisoformat(added), _time(expires), hits)
        for name, network, reason, added, expires, hits in rows
    ]


def put(db: sqlite3.Connection, entry: Entry) -> None:
    expires = entry.expires_at.isoformat() if entry.expires_at else None
    values = (entry.list, str(entry.network), entry.reason, entry.added_at.isoformat(), expires, entry.hits)
    db.execute("INSERT OR REPLACE INTO filter_entry VALUES (?, ?, ?, ?, ?, ?)", values)


def remove(db: sqlite3.Connection, entry: Entry) -> None:
    db.execute("DELETE FROM filter_entry WHERE list = ? AND network = ?", (entry.list, str(entry.network)))


def count(db: sqlite3.Connection, hits: Mapping[tuple[str, Network], int]) -> None:
    rows = [(number, name, str(network)) for (name, network), number in hits.items()]
    db.executemany("UPDATE filter_entry SET hits = ? WHERE list = ? AND network = ?", rows)


def lists(db: sqlite3.Connection) -> list[StoredList]:
    rows = db.execute("SELECT name, origin, version, loaded_at, checked_at, lines, skipped, v4, v6 FROM filter_list")
    return [
        StoredList(
            name,
            origin,
            version,
            datetime.fromisoformat(loaded),
            datetime.fromisoformat(checked),
            AddressList(Ranges.from_bytes(4, v4), Ranges.from_bytes(6, v6), lines, skipped),
        )
        for name, origin, version, loaded, checked, lines, skipped, v4, v6 in rows
    ]


def put_list(db: sqlite3.Connection, stored: StoredList, v4: bytes, v6: bytes) -> None:
    """`v4` and `v6` are its ranges as bytes: made by the caller, in a thread where they are many."""
    times = (stored.loaded_at.isoformat(), stored.checked_at.isoformat())
    values = (stored.name, stored.origin, stored.version, *times, stored.found.lines, stored.found.skipped, v4, v6)
    db.execute("INSERT OR REPLACE INTO filter_list VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def checked(db: sqlite3.Connection, name: str, at: datetime) -> None:
    """It was found to be as it is."""
    db.execute("UPDATE filter_list SET checked_at = ? WHERE name = ?", (at.isoformat(), name))


def drop_list(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM filter_list WHERE name = ?", (name,))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
