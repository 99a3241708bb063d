"""Files that requests and settings name, opened inside one folder and nowhere else (SEC-20)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from tidegate.errors import Fault, Invalid, NotFound, TooLarge

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer does not hold us up


def steps(name: str) -> list[str]:
    """The parts of a relative path. Raises ValueError for what is none, or leads outside."""
    parts = name.split("/")
    if len(name) > 1_024 or not name.isprintable() or "\\" in name:
        raise ValueError("a relative path of printable characters")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("a relative path without empty, '.' or '..' parts")
    return parts


def open_inside(folder: Path, name: str, limit: int) -> BinaryIO:
    """Open a regular file below the folder for reading.

    Each part is opened inside the one before and none may be a symbolic link, so no change of names meanwhile leads outside.
    Raises Invalid, NotFound, TooLarge above `limit` bytes.
    """
    try:
        *ways, last = steps(name)
    except ValueError as error:
        raise Invalid("that file can't be named so", [Fault("path", f"{name[:60]!r}: {error}")]) from None
    try:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for way in ways:
                inner = os.open(way, _FOLDER, dir_fd=here)
                os.close(here)
                here = inner
            found = os.open(last, _FILE, dir_fd=here)
        finally:
            os.close(here)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise Invalid(f"{name} is not a file inside {folder}: links and devices are not followed") from None
        raise NotFound(f"there is no file {name} in {folder} that can be read: {error.strerror}") from None
    try:
        kept = os.fstat(found)
        if not stat.S_ISREG(kept.st_mode):
            raise Invalid(f"{name} is not a file inside {folder}: links and devices are not followed")
        if kept.st_size > limit:
            raise TooLarge(f"{name} is larger than {limit >> 20} MiB")
    except BaseException:
        os.close(found)
        raise
    return os.fdopen(found, "rb")
