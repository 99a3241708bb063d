"""What SQLite's errors mean to callers: a full disk, a failing one, or a fault in their own statement."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from tidegate.errors import StorageFull, TidegateError, Unavailable

_STORAGE = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
}


def code_of(error: Exception) -> int:
    """SQLite's extended result code; the plain SQLITE_ERROR where Python's own module raised the error."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


def failure(error: sqlite3.Error, path: Path) -> TidegateError | None:
    """The failure that a caller meets where SQLite's error is the storage's; None where it is the caller's statement's."""
    code = code_of(error)
    # A full disk is an I/O error to SQLite where it can't grow its shared memory file.
    full = code & 0xFF == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_FSYNC and _is_full(path)
    if code == sqlite3.SQLITE_FULL or full:
        return StorageFull("the disk that holds the state is full; nothing was changed")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Unavailable(f"{path} is damaged: {error}; restore it from a backup")
    if code & 0xFF in _STORAGE:
        return Unavailable(f"the state can't be read or written at the moment: {error}")
    return None


def shakes_trust(error: Exception) -> bool:
    """After this error the connection is not to be used again."""
    return code_of(error) & 0xFF in _STORAGE


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 64 * 1024
