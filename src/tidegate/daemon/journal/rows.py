"""Reading what the journal holds. Nothing in a row is sure: it may be damaged, altered, or of another version."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from tidegate.daemon.journal.chain import Anchor, Break, Chain, Row
from tidegate.daemon.secret import Secret
from tidegate.events import Entry, Unreadable, event_from

# As blobs, so that no byte in a row can make the reading of it fail.
RAW = (
    "SELECT number, CAST(at AS BLOB), CAST(by AS BLOB), CAST(request AS BLOB), CAST(type AS BLOB), CAST(data AS BLOB), "
    "CAST(hash AS BLOB) FROM entry WHERE number > ? ORDER BY number LIMIT ?"
)


def read_connection(path: Path) -> sqlite3.Connection:
    """A connection for reading; it can't write."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=5)
    connection.execute("PRAGMA query_only = ON")
    return connection


def entry_of(row: Row) -> Entry:
    """The row as an entry; as `Unreadable` where this version can't read it, so that its number is not lost."""
    number, *fields, _ = row
    at, by, request, kind, data = (field.decode(errors="replace") if isinstance(field, bytes) else "" for field in fields)
    try:
        when = datetime.fromisoformat(at)
        return Entry(number, when, by, request, event_from(kind, json.loads(data)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Entry(number, datetime.fromtimestamp(0, UTC), by, request, Unreadable(kind, type(error).__name__))


def chain_in(connection: sqlite3.Connection, key: Secret) -> tuple[Chain, bool] | None:
    """The chain row and whether its seal is right; None where there is no row that can be read."""
    row = connection.execute(
        "SELECT floor, CAST(floor_hash AS BLOB), head, CAST(head_hash AS BLOB), size, broken_at, CAST(broken_why AS BLOB), "
        "CAST(seal AS BLOB) FROM chain"
    ).fetchone()
    if row is None or not all(isinstance(row[place], int) for place in (0, 2, 4)):
        return None
    floor, floor_hash, head, head_hash, size, broken_at, broken_why, seal = row
    broken = Break(broken_at, (broken_why or b"").decode(errors="replace")) if isinstance(broken_at, int) else None
    chain = Chain(Anchor(floor, floor_hash or b""), Anchor(head, head_hash or b""), size, broken)
    return chain, Secret(chain.seal(key)).matches(Secret(seal or b""))
