"""The event stream and the audit trail: two views of the one journal."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable

from tidegate.api.events import Audit, AuditPage, AuditVerdict, Events
from tidegate.daemon.journal import Journal
from tidegate.daemon.journal.chain import Anchor
from tidegate.errors import Fault, Invalid
from tidegate.events import KINDS, Entry, Notice

PAGE_LIMIT = 1_000


class EventsService(Events):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def follow(
        self,
        since: int | None = None,
        types: str | None = None,
        router: str | None = None,
        info_hash: str | None = None,
    ) -> AsyncIterator[Notice]:
        """With `router` or `info_hash` only events that name it; with both, those that name one of the two.

        A `Resync` reaches every follower: what was missed may have been of interest. Raises Invalid at once, not at the first
        event.
        """
        faults = [Fault("query/since", "a number of an event: 0 or more")] if since is not None and since < 0 else []
        kinds = None if types is None else frozenset(name.strip() for name in types.split(","))
        faults += [Fault("query/types", _unknown(name)) for name in sorted(kinds or ()) if name not in KINDS]
        if faults:
            raise Invalid("these events can't be followed", faults)
        subjects = {"router": router, "info_hash": info_hash.lower() if info_hash else None}
        wanted = {name: value for name, value in subjects.items() if value is not None}

        def passes(entry: Entry) -> bool:
            named = not wanted or any(getattr(entry.event, name, None) == value for name, value in wanted.items())
            return named and (kinds is None or entry.type in kinds)

        return _chosen(self._journal.follow(since), passes)


async def _chosen(notices: AsyncIterator[Notice], passes: Callable[[Entry], bool]) -> AsyncIterator[Notice]:
    async for notice in notices:
        if not isinstance(notice, Entry) or passes(notice):
            yield notice


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name[:60], KINDS, 1)
    return f"{name[:60]!r} is no type of event" + (f"; did you mean {near[0]!r}?" if near else "")


class AuditService(Audit):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def list(self, since: int = 0, limit: int = 100) -> AuditPage:
        faults = [Fault("query/since", "a number of an entry: 0 or more")] if since < 0 else []
        faults += [Fault("query/limit", f"1 to {PAGE_LIMIT}")] if not 1 <= limit <= PAGE_LIMIT else []
        if faults:
            raise Invalid("the trail can't be listed so", faults)
        entries, chain = await self._journal.trail(since, limit)
        return AuditPage(tuple(entries), chain.head.number, chain.head.hash.hex())

    async def verify(self, number: int | None = None, hash: str | None = None) -> AuditVerdict:
        found = await self._journal.verify(_anchor(number, hash))
        broken = found.broken
        return AuditVerdict(
            intact=broken is None,
            checked=found.checked,
            head=found.head.number,
            hash=found.head.hash.hex(),
            broken_at=broken.at if broken else None,
            why=broken.why if broken else None,
        )


def _anchor(number: int | None, sealed: str | None) -> Anchor | None:
    if number is None and sealed is None:
        return None
    try:
        if number is None or number < 1 or sealed is None or len(sealed) != 64:
            raise ValueError
        return Anchor(number, bytes.fromhex(sealed))
    except ValueError:
        why = "`number` and `hash` together, as the audit trail gave them as `head` and `hash`"
        raise Invalid("that is no place in the chain", [Fault("query/hash", why)]) from None
