"""The schema of a journal's file, brought up to date step by step, with a backup taken before."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tidegate.daemon.secret import sync_folder
from tidegate.errors import Unavailable

APPLICATION_ID = 0x54696465  # "Tide": says whose file this is
LAYOUT = 1

# Marked, so that a change that says COMMIT does not get at the connection's own prepared statement, which has passed the
# authorizer already.
BEGIN, COMMIT, ROLLBACK = ("BEGIN IMMEDIATE /* journal */", "COMMIT /* journal */", "ROLLBACK /* journal */")

TABLES = f"""
CREATE TABLE entry (
  number INTEGER PRIMARY KEY, at TEXT NOT NULL, by TEXT NOT NULL, request TEXT NOT NULL, type TEXT NOT NULL,
  data TEXT NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE chain (
  one INTEGER PRIMARY KEY CHECK (one = 1), layout INTEGER NOT NULL, floor INTEGER NOT NULL, floor_hash BLOB NOT NULL,
  head INTEGER NOT NULL, head_hash BLOB NOT NULL, size INTEGER NOT NULL, broken_at INTEGER, broken_why TEXT,
  seal BLOB NOT NULL, key_check BLOB NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
"""


def lost(path: Path) -> str:
    key = path.with_suffix(".key")
    return f"{path} is missing or empty, but {key} is there: restore it from a backup, or remove the key to begin with nothing"


def upgrade(connection: sqlite3.Connection, path: Path, migrations: Sequence[str], *, begun: bool) -> None:
    """Run the steps that the file has not had yet. `begun`: it held a journal before, so it can't be empty.

    Raises Unavailable where it is not ours, has lost its content, or is of a newer version.
    """
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner not in (0, APPLICATION_ID) or (owner == 0 and tables):
        raise Unavailable(f"{path} is a database of another program")
    if version > len(migrations):
        raise Unavailable(
            f"{path} was written by a newer Tidegate (schema {version}, this one knows {len(migrations)}): "
            "install that version, or restore the backup from before its upgrade"
        )
    if owner == 0 and begun:
        raise Unavailable(lost(path))
    if owner == 0:
        _step(connection, TABLES)
    elif connection.execute("SELECT max(layout) FROM chain").fetchone()[0] not in (None, LAYOUT):
        raise Unavailable(f"{path} was written by a newer Tidegate: install that version")
    elif version < len(migrations):
        _back_up(connection, path, version)
    for number, step in enumerate(migrations[version:], version + 1):
        _step(connection, f"{step}\n;PRAGMA user_version = {number};")


def _step(connection: sqlite3.Connection, script: str) -> None:
    """All statements of the script, or none."""
    connection.execute(BEGIN)
    try:
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute(COMMIT)
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute(ROLLBACK)
        raise


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """A whole copy of the file as it is, beside it, durable before the upgrade begins."""
    kept = path.with_name(f"{path.name}.schema-{version}.backup")
    beside = kept.with_name(f".{kept.name}.part")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    copy = sqlite3.connect(beside, isolation_level=None)
    try:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with no WAL beside it
    finally:
        copy.close()
    descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(beside, kept)
    sync_folder(kept.parent)


def _statements(script: str) -> list[str]:
    """The script's statements, each whole; SQLite itself says where one ends."""
    found, part = [], ""
    for piece in script.split(";"):
        part += piece + ";"
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found
