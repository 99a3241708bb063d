"""API keys: who may do what."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from tidegate.contract import ADMIN, delete, get, post
from tidegate.events import KeyCreated, KeyRevoked
from tidegate.policy.device import Label

ScopeName = Literal["read", "operate", "admin"]


@dataclass(frozen=True, slots=True)
class CreateKeyRequest:
    """`expires_in_days` without a value: it does not expire."""

    name: Label
    scope: ScopeName = "read"
    expires_in_days: int | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """`key` is shown this once; the daemon keeps no copy of it."""

    id: str
    key: str = field(repr=False)
    name: str
    scope: ScopeName
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """`last_used` has the grain of a minute."""

    id: str
    name: str
    scope: ScopeName
    created_at: datetime
    expires_at: datetime | None
    last_used: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyList:
    keys: tuple[Key, ...]
    total: int


class Keys(Protocol):
    """API keys: who may do what."""

    @post("/keys", scope=ADMIN, emits=(KeyCreated,))
    async def create(self, request: CreateKeyRequest) -> NewKey:
        """Make a key; it is shown once."""
        ...

    @get("/keys", scope=ADMIN)
    async def list(self) -> KeyList:
        """All keys, without their secrets."""
        ...

    @delete("/keys/{key_id}", scope=ADMIN, emits=(KeyRevoked,))
    async def revoke(self, key_id: str) -> Key:
        """End a key at once, on open connections too."""
        ...
