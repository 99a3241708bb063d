"""The torrents in the torrent process's own journal: what must be there again after the machine lost its power."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TABLES = (
    """
    CREATE TABLE torrent (
      id INTEGER PRIMARY KEY AUTOINCREMENT, v1 TEXT UNIQUE, v2 TEXT UNIQUE, name TEXT NOT NULL, folder TEXT NOT NULL,
      paused INTEGER NOT NULL, status TEXT NOT NULL, added_at TEXT NOT NULL, completed_at TEXT, error TEXT,
      total_size INTEGER, pieces INTEGER, private INTEGER NOT NULL,
      magnet TEXT, metainfo BLOB, resume BLOB, leaving INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE life (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
    INSERT INTO life VALUES (1, 0);
    """,
)
PAGE = 200  # torrents read at once: a metainfo has up to 4 MiB


class Duplicate(Exception):
    """A torrent with one of these hashes is there already."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A torrent as it is kept. `magnet` or `metainfo` is set; `folder` is relative to the download directory.

    `status` is the last one that an event told; `total_size` and `pieces` are None until the metadata is known; `leaving`:
    removed, but its files were not deleted yet. `metainfo` and `resume` are not kept in memory once the engine has them.
    """

    id: int
    v1: str | None
    v2: str | None
    name: str
    folder: str
    paused: bool
    status: str
    added_at: datetime
    completed_at: datetime | None = None
    error: str | None = None
    total_size: int | None = None
    pieces: int | None = None
    private: bool = False
    magnet: str | None = None
    metainfo: bytes | None = None
    resume: bytes | None = None
    leaving: bool = False

    @property
    def info_hash(self) -> str:
        found = self.v1 or self.v2
        assert found is not None
        return found


_COLUMNS = ", ".join(Stored.__slots__)


def next_life(db: sqlite3.Connection) -> int:
    """The number of this start, one higher than the last one's."""
    db.execute("UPDATE life SET number = number + 1")
    number: int = db.execute("SELECT number FROM life").fetchone()[0]
    return number


def insert(db: sqlite3.Connection, torrent: Stored) -> int:
    """Keep a new torrent; its `id` is chosen here. Raises Duplicate."""
    if db.execute("SELECT 1 FROM torrent WHERE v1 = ? OR v2 = ?", (torrent.v1, torrent.v2)).fetchone():
        raise Duplicate
    names = [name for name in Stored.__slots__ if name != "id"]
    values = [value.isoformat() if isinstance(value := getattr(torrent, name), datetime) else value for name in names]
    places = ", ".join("?" * len(names))
    cursor = db.execute(f"INSERT INTO torrent ({', '.join(names)}) VALUES ({places})", values)  # noqa: S608 - constants
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def page(db: sqlite3.Connection, after: int) -> list[Stored]:
    """The next torrents after that id, oldest first; empty after the last."""
    return list(_read(db.execute(f"SELECT {_COLUMNS} FROM torrent WHERE id > ? ORDER BY id LIMIT {PAGE}", (after,))))  # noqa: S608 - constants


def _read(rows: Iterator[tuple[Any, ...]]) -> Iterator[Stored]:
    for row in rows:
        fields: dict[str, Any] = dict(zip(Stored.__slots__, row, strict=True))
        for name in ("added_at", "completed_at"):
            fields[name] = datetime.fromisoformat(text) if isinstance(text := fields[name], str) else None
        for name in ("paused", "private", "leaving"):
            fields[name] = bool(fields[name])
        yield Stored(**fields)


def set_state(db: sqlite3.Connection, now: Stored) -> None:
    """Where the torrent stands: paused or not, its status, completion and error."""
    completed = now.completed_at.isoformat() if now.completed_at else None
    state = (now.paused, now.status, completed, now.error, now.id)
    db.execute("UPDATE torrent SET paused = ?, status = ?, completed_at = ?, error = ? WHERE id = ?", state)


def set_metainfo(db: sqlite3.Connection, known: Stored) -> None:
    """What a magnet link leads to is known. Raises Duplicate where one of its hashes belongs to another torrent."""
    try:
        db.execute(
            "UPDATE torrent SET v1 = ?, v2 = ?, name = ?, total_size = ?, pieces = ?, private = ?, metainfo = ? WHERE id = ?",
            (known.v1, known.v2, known.name, known.total_size, known.pieces, known.private, known.metainfo, known.id),
        )
    except sqlite3.IntegrityError:
        raise Duplicate from None


def set_resumes(db: sqlite3.Connection, resumes: dict[int, bytes]) -> None:
    db.executemany("UPDATE torrent SET resume = ? WHERE id = ?", [(resume, id_) for id_, resume in resumes.items()])


def leave(db: sqlite3.Connection, id_: int) -> None:
    """Removed, with files that are still to be deleted."""
    db.execute("UPDATE torrent SET leaving = 1 WHERE id = ?", (id_,))


def delete(db: sqlite3.Connection, id_: int) -> None:
    db.execute("DELETE FROM torrent WHERE id = ?", (id_,))
