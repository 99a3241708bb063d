"""Secrets in memory and on disk: a type that does not leak, and files that only their owner can read."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from tidegate.errors import Unavailable


class Secret:
    """Bytes that never show themselves (SEC-02): `==`, hashing, pickling and copying raise, text forms are masked.

    Compare with `matches` (constant time); `reveal` is the one way to the bytes.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def matches(self, other: Secret) -> bool:
        return hmac.compare_digest(self._value, other._value)

    def sign(self, message: bytes) -> bytes:
        """HMAC-SHA-256 of the message with this secret as the key: 32 bytes."""
        return hmac.digest(self._value, message, "sha256")

    def __eq__(self, other: object) -> bool:
        raise TypeError("a secret is compared by matches(), in constant time")

    def __hash__(self) -> int:
        raise TypeError("a secret is no key of a dictionary")

    def __repr__(self) -> str:
        return "Secret(...)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


def secret_file(path: Path, *, create: bool) -> Secret:
    """The 32 random bytes kept in the file; made first where there is none and `create` says so.

    Refused (Unavailable, with what to do): a missing file, another length, a link, another owner, or a file that others
    may read (SEC-37).
    """
    if create and not os.path.lexists(path):
        _write_new(path, secrets.token_bytes(32))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"the secret file {path} can't be read: {error.strerror}; put it back from a backup") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise Unavailable(f"the secret file {path} is not a file of the daemon's own user")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise Unavailable(f"others may read the secret file {path} (mode {mode:04o}): make it anew, or chmod 600 it")
        value = file.read(33)
    if len(value) != 32:
        raise Unavailable(f"the secret file {path} is damaged: it should hold 32 bytes; put it back from a backup")
    return Secret(value)


def _write_new(path: Path, value: bytes) -> None:
    """Whole or not at all, also across a power cut: written beside, synced, renamed, and the folder synced."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A name in a folder is durable once the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
