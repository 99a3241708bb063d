"""API keys: made, listed and ended; the journal holds what is known of them, never a secret.

The last valid key of scope admin can't be revoked (Conflict): make another first. Without this rule a slip would leave a
daemon that nobody can administer over the network; a stolen last key is replaced in two calls. Where no valid admin key is
left all the same (it expired), `bootstrap` makes one at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from tidegate.api.keys import CreateKeyRequest, Key, KeyList, Keys, NewKey, ScopeName
from tidegate.contract import Scope
from tidegate.daemon.auth import Authenticator, Credential, new_id, new_secret, written
from tidegate.daemon.journal import Journal
from tidegate.daemon.secret import Secret, secret_file
from tidegate.errors import Conflict, Fault, Invalid, NotFound, StorageFull, Unavailable
from tidegate.events import KeyCreated, KeyRevoked
from tidegate.policy.device import Label

TABLES = """
CREATE TABLE key (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scope TEXT NOT NULL, created TEXT NOT NULL,
  expires TEXT, last_used TEXT, revoked TEXT
) STRICT;
CREATE TABLE pepper (one INTEGER PRIMARY KEY CHECK (one = 1), proof BLOB NOT NULL) STRICT;
"""

LIMIT = 1_000  # keys that are not revoked
LONGEST_LIFE = 36_500  # days
RECORD_EVERY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class _Row:
    key: Key
    digest: Secret


class KeysService(Keys):
    """Made by `KeysService.open`. `authenticator` knows at once what this service changes."""

    def __init__(self, journal: Journal, authenticator: Authenticator, rows: list[_Row]) -> None:
        self.authenticator = authenticator
        self._journal = journal
        self._keys = {row.key.id: row.key for row in rows}
        self._changing = asyncio.Lock()
        for row in rows:
            authenticator.add(_credential(row.key, row.digest))

    @classmethod
    async def open(cls, journal: Journal, pepper_file: Path) -> KeysService:
        """The keys in the journal, whose schema includes `TABLES`. Raises Unavailable where the pepper is missing, not this
        store's, or open to others."""
        proof = await journal.read(lambda connection: connection.execute("SELECT proof FROM pepper").fetchone())
        pepper = secret_file(pepper_file, create=proof is None)
        own = pepper.sign(b"tidegate keys")
        if proof is None:
            await journal.commit(lambda connection: _execute(connection, "INSERT INTO pepper VALUES (1, ?)", own))
        elif proof[0] != own:
            raise Unavailable(f"{pepper_file} is not the pepper of these keys: put back the right one from a backup")
        return cls(journal, Authenticator(pepper), await journal.read(_all))

    async def bootstrap(self) -> NewKey | None:
        """A key of scope admin where no valid one is left, as at the first start; None otherwise. To be shown once."""
        if any(self._is_valid_admin(key) for key in self._keys.values()):
            return None
        return await self.create(CreateKeyRequest(Label("first key"), "admin"))

    async def create(self, request: CreateKeyRequest) -> NewKey:
        days = request.expires_in_days
        if days is not None and not 1 <= days <= LONGEST_LIFE:
            fault = Fault("body/expires_in_days", f"a key lives 1 to {LONGEST_LIFE} days, or has no expiry")
            raise Invalid("the key can't be made so", [fault])
        async with self._changing:
            if sum(key.revoked_at is None for key in self._keys.values()) >= LIMIT:
                raise Conflict(f"there are {LIMIT} keys already: revoke those that are not used")
            now = datetime.now(UTC)
            key_id = next(fresh for fresh in iter(new_id, None) if fresh not in self._keys)
            expires = None if days is None else now + timedelta(days=days)
            key = Key(key_id, request.name, request.scope, now, expires, None, None)
            secret = new_secret()
            digest = self.authenticator.digest(secret)
            await self._journal.commit(
                lambda connection: _insert(connection, key, digest), KeyCreated(key.id, key.name, key.scope)
            )
            self._keys[key.id] = key
            self.authenticator.add(_credential(key, digest))
        return NewKey(key.id, written(key.id, secret), key.name, key.scope, key.expires_at)

    async def list(self) -> KeyList:
        used = self.authenticator.used()
        keys = tuple(replace(key, last_used=_minute(used[key.id])) for key in self._keys.values())
        return KeyList(keys, len(keys))

    async def revoke(self, key_id: str) -> Key:
        """Raises NotFound; Conflict where it is the last valid admin key. Revoking again changes nothing."""
        async with self._changing:
            key = self._keys.get(key_id)
            if key is None:
                raise NotFound(f"there is no key {key_id[:40]!r}")
            if key.revoked_at is not None:
                return key
            others = (other for other in self._keys.values() if other.id != key_id)
            if self._is_valid_admin(key) and not any(self._is_valid_admin(other) for other in others):
                raise Conflict("this is the last valid key of scope admin: make another before you revoke it")
            revoked = replace(key, revoked_at=datetime.now(UTC), last_used=_minute(self.authenticator.used()[key_id]))
            await self._journal.commit(lambda connection: _revoke(connection, revoked), KeyRevoked(key.id, key.name))
            self.authenticator.revoke(key_id)
            self._keys[key_id] = revoked
        return revoked

    async def record_use(self) -> None:
        """Write down which keys were used since the last time."""
        used = {
            key_id: minute
            for key_id, minute in self.authenticator.used().items()
            if _minute(minute) != self._keys[key_id].last_used
        }
        if not used:
            return
        await self._journal.commit(lambda connection: _record(connection, used))
        for key_id, minute in used.items():
            self._keys[key_id] = replace(self._keys[key_id], last_used=_minute(minute))

    async def run(self) -> None:
        """For as long as the daemon runs: write down once a minute which keys were used. A supervised task."""
        while True:
            await asyncio.sleep(RECORD_EVERY)
            try:
                await self.record_use()
            except (StorageFull, Unavailable) as error:
                logging.getLogger(__name__).warning("the last use of keys is not written down: %s", error.detail)

    def _is_valid_admin(self, key: Key) -> bool:
        expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
        return key.scope == "admin" and key.revoked_at is None and not expired


def _credential(key: Key, digest: Secret) -> Credential:
    return Credential(
        key_id=key.id,
        digest=digest,
        scope=Scope[key.scope.upper()],
        expires=key.expires_at.timestamp() if key.expires_at else None,
        revoked=key.revoked_at is not None,
        used=int(key.last_used.timestamp()) // 60 if key.last_used else 0,
    )


def _minute(minute: int) -> datetime | None:
    return datetime.fromtimestamp(minute * 60, UTC) if minute else None


def _text(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _all(connection: sqlite3.Connection) -> list[_Row]:
    rows = connection.execute(
        "SELECT id, name, scope, created, expires, last_used, revoked, digest FROM key ORDER BY created, id"
    )
    return [
        _Row(Key(id_, name, cast(ScopeName, scope), datetime.fromisoformat(created), *map(_time, times)), Secret(digest))
        for id_, name, scope, created, *times, digest in rows
    ]


def _execute(connection: sqlite3.Connection, statement: str, *values: object) -> None:
    connection.execute(statement, values)


def _insert(connection: sqlite3.Connection, key: Key, digest: Secret) -> None:
    values = (key.id, key.name, digest.reveal(), key.scope, _text(key.created_at), _text(key.expires_at))
    _execute(connection, "INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)", *values)


def _revoke(connection: sqlite3.Connection, key: Key) -> None:
    values = (_text(key.revoked_at), _text(key.last_used), key.id)
    _execute(connection, "UPDATE key SET revoked = ?, last_used = ? WHERE id = ?", *values)


def _record(connection: sqlite3.Connection, used: dict[str, int]) -> None:
    rows = [(_text(_minute(minute)), key_id) for key_id, minute in used.items()]
    connection.executemany("UPDATE key SET last_used = ? WHERE id = ?", rows)
