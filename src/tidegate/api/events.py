"""Everything that happens, as it happens; and the trail of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from tidegate.contract import ADMIN, get, stream
from tidegate.events import Entry, Notice


@dataclass(frozen=True, slots=True)
class AuditPage:
    """`head` is the newest number; `hash` seals every entry up to it."""

    entries: tuple[Entry, ...]
    head: int
    hash: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """`intact` or, where not, the number of the first entry that does not fit and why."""

    intact: bool
    checked: int
    head: int
    hash: str
    broken_at: int | None = None
    why: str | None = None


class Events(Protocol):
    """Everything that happens, as it happens."""

    @stream("/events")
    def follow(
        self,
        since: int | None = None,
        types: str | None = None,
        router: str | None = None,
        info_hash: str | None = None,
    ) -> AsyncIterator[Notice]:
        """Every change of either half, in order. With `since` first what came after it (`resync`: that is gone).

        `types` is a comma-separated list of event types; `router` and `info_hash` leave out the events of others.
        """
        ...


class Audit(Protocol):
    """The trail of everything that was changed."""

    @get("/audit", scope=ADMIN)
    async def list(self, since: int = 0, limit: int = 100) -> AuditPage:
        """Who changed what and when, oldest first, after the number `since`."""
        ...

    @get("/audit/verify", scope=ADMIN)
    async def verify(self, number: int | None = None, hash: str | None = None) -> AuditVerdict:
        """Recompute the chain of hashes over every entry kept.

        With `number` and `hash`, a `head` and `hash` that were noted elsewhere before, also that the chain still passes
        through them: only this shows an end that was cut off by someone who holds the daemon's own key.
        """
        ...
