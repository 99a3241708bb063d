"""The daemon's key pairs, one per router: files in the state directory that only the daemon's user can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import asyncssh

from tidegate.errors import Unavailable
from tidegate.router.ssh import new_key


class RouterKeys:
    """`folder` is made, mode 0700, at the first key. A key is whole on disk before anyone sees its public half."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, router_id: str) -> asyncssh.SSHKey | None:
        """The router's key, None where there is none yet. Raises Unavailable where its file is damaged or open to others."""
        path = self._folder / router_id
        try:
            mode = path.stat().st_mode & 0o777
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise Unavailable(f"the key file {path} can be read by others (mode {mode:o}): make it 600, or remove it")
        try:
            return asyncssh.read_private_key(path)
        except (OSError, ValueError) as error:  # asyncssh's KeyImportError is a ValueError
            raise Unavailable(f"the key file {path} can't be read: {error}") from None

    def create(self, router_id: str) -> asyncssh.SSHKey:
        """Make and store a key; what was there under this id is replaced."""
        key = new_key()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._folder / f".{router_id}.{secrets.token_hex(4)}"
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(key.export_private_key())
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._folder / router_id)
        self._sync()
        return key

    def remove(self, router_id: str) -> None:
        (self._folder / router_id).unlink(missing_ok=True)
        if self._folder.exists():
            self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def public_line(key: asyncssh.SSHKey) -> str:
    """One line for an authorized_keys file."""
    return key.export_public_key().decode().strip()


def public_blob(key: asyncssh.SSHKey) -> str:
    """The base64 part of that line, by which it is found again."""
    return public_line(key).split()[1]
