"""Who may connect, kept in step with the journal on one side and the engine on the other.

- What the engine has is replaced as a whole, so there is no moment between the old and the new.
- An edit teaches the engine's filter the network that it is about and nothing else; edits that come together go together.
- A list is taught to a filter of its own while the one before is in force.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import ip_address
from itertools import chain

from tidegate.daemon import filterstore as store
from tidegate.daemon.filterstore import Entry, StoredList
from tidegate.daemon.journal import Journal
from tidegate.daemon.recorder import Recorder
from tidegate.errors import Conflict
from tidegate.events import (
    Event,
    IpFilterDropped,
    IpFilterLoaded,
    SecurityBlacklistUpdated,
    SecurityWhitelistUpdated,
)
from tidegate.torrent.alerts import PeerBlocked, PeerConnected
from tidegate.torrent.engine import Engine
from tidegate.torrent.enginefilter import EngineFilter
from tidegate.torrent.ipfilter import BLACKLIST, EVERYTHING, WHITELIST, IpFilter, Network, Networks
from tidegate.torrent.iplist import AddressList

ENTRY_LIMIT = 10_000  # of a list; what is longer is better loaded than typed
COUNT_EVERY = 30.0  # seconds between two records of hits


@dataclass(slots=True)
class Counts:
    """Since the process started, `accepted` since a list was loaded: connections refused, by what refused them."""

    incoming: Counter[str] = field(default_factory=Counter)
    outgoing: Counter[str] = field(default_factory=Counter)
    accepted: int = 0


class _Desk:
    """The entries and lists as of one edit; the filter that they make is made when it is first asked for."""

    def __init__(self, entries: dict[tuple[str, Network], Entry], lists: dict[str, StoredList]) -> None:
        self.entries = entries
        self.lists = lists

    @cached_property
    def filter(self) -> IpFilter:
        black, white = (Networks(frozenset(net for at, net in self.entries if at == name)) for name in (BLACKLIST, WHITELIST))
        return IpFilter({name: each.found for name, each in self.lists.items()}, black, white)


class PeerFilter:
    """Made by `open`; in force from `start` on. `counts` is what it has refused."""

    def __init__(self, entries: Iterable[Entry], lists: Iterable[StoredList], known: EngineFilter) -> None:
        self.counts = Counts()
        self._desk = _Desk({(each.list, each.network): each for each in entries}, {each.name: each for each in lists})
        self.known = known
        self._stale: list[Network] = []
        self._teaching = asyncio.Lock()
        self._counted: set[tuple[str, Network]] = set()
        self._edited = asyncio.Event()

    @classmethod
    async def open(cls, journal: Journal, sources: Sequence[str]) -> PeerFilter:
        """What the journal has, ready for the engine to start with; lists that no source has the name of are dropped."""
        entries, lists = await journal.read(store.entries), await journal.read(store.lists)
        for gone in (each for each in lists if each.name not in sources):
            await journal.commit(_drop(gone.name), IpFilterDropped(gone.name))
        found = cls(entries, (each for each in lists if each.name in sources), EngineFilter())
        await _teach(found.known, found.filter, EVERYTHING)
        return found

    def start(self, engine: Engine, recorder: Recorder) -> None:
        """From now on edits reach this engine, which has `known` already."""
        self._engine, self._recorder = engine, recorder

    async def run(self) -> None:
        """End bans whose time has come, and record hits, until cancelled."""
        while True:
            self._edited.clear()
            now = datetime.now(UTC)
            over = [each for each in self.entries(BLACKLIST) if each.expires_at and each.expires_at <= now]
            for entry in over:
                self._take(entry, None)
                self._recorder.note(_remove(entry), _told(entry, "expired"))
            if over:
                await self._enforce(*(entry.network for entry in over))
            self.record_hits()
            ends = [(each.expires_at - now).total_seconds() for each in self.entries(BLACKLIST) if each.expires_at]
            with suppress(TimeoutError):
                # No longer than that: the clock may be set meanwhile.
                await asyncio.wait_for(self._edited.wait(), max(0.0, min([COUNT_EVERY, *ends])))

    def record_hits(self) -> None:
        """Have the journal take what was counted since the last time."""
        counted = {key: entry.hits for key in self._counted if (entry := self._desk.entries.get(key))}
        self._counted.clear()
        if counted:
            self._recorder.note(lambda db: store.count(db, counted))

    # ── what is there

    @property
    def filter(self) -> IpFilter:
        return self._desk.filter

    @property
    def lists(self) -> dict[str, StoredList]:
        return self._desk.lists

    def entries(self, name: str) -> list[Entry]:
        """The entries of the blacklist or the whitelist, the oldest first."""
        return [each for each in self._desk.entries.values() if each.list == name]

    def entry(self, name: str, network: Network) -> Entry | None:
        return self._desk.entries.get((name, network))

    # ── edits

    async def add(self, name: str, network: Network, reason: str | None, expires_at: datetime | None) -> Entry:
        """Put an entry there, or give the one that is there another reason and end. In force, and on the disk, on return.

        Raises Conflict where there are too many.
        """
        before = self.entry(name, network)
        if before is None:
            if len(self.entries(name)) >= ENTRY_LIMIT:
                raise Conflict(f"the {name} is full, at {ENTRY_LIMIT:,} entries: add networks instead, or load them as a list")
            now = Entry(name, network, reason, datetime.now(UTC), expires_at)
        else:
            now = replace(before, reason=reason, expires_at=expires_at)
        if now != before:
            await self._edit(before, now, lambda db: store.put(db, now), _told(now, "updated" if before else "added"))
        await self._enforce(network)
        return now

    async def remove(self, entry: Entry) -> None:
        """Take an entry off. In force, and on the disk, on return."""
        await self._edit(entry, None, _remove(entry), _told(entry, "removed"))
        await self._enforce(entry.network)

    async def _edit(self, before: Entry | None, now: Entry | None, change: Callable[..., None], event: Event) -> None:
        self._take(before, now)
        try:
            await self._recorder.commit(change, event)
        except BaseException:
            self._take(now, before)
            self._stale += (each.network for each in (before or now,) if each)  # a list may have taken it along meanwhile
            raise

    def _take(self, before: Entry | None, now: Entry | None) -> None:
        key = next((each.list, each.network) for each in (before, now) if each)
        entries = dict(self._desk.entries)
        if now is None:
            entries.pop(key, None)
        else:
            entries[key] = now
        self._desk = _Desk(entries, self._desk.lists)
        self._edited.set()

    async def _enforce(self, *networks: Network) -> None:
        """Have the engine know how things stand in these networks; who waits meanwhile goes along."""
        self._stale += networks
        async with self._teaching:
            stale, self._stale = self._stale, []
            if stale:
                await _teach(self.known, self.filter, frozenset(stale))
                await self._engine.obey(self.known)

    # ── lists

    async def put_list(self, stored: StoredList, known: EngineFilter) -> None:
        """A list was loaded: in force, and on the disk, on return. `known` is a filter that has this list and all others."""
        v4, v6 = await asyncio.to_thread(lambda: (stored.found.v4.to_bytes(), stored.found.v6.to_bytes()))
        event = IpFilterLoaded(stored.name, stored.found.ranges, stored.found.skipped)
        async with self._teaching:
            await self._recorder.commit(lambda db: store.put_list(db, stored, v4, v6), event)
            self._desk = _Desk(self._desk.entries, {**self._desk.lists, stored.name: stored})
            now, self._stale = self.filter, []
            await asyncio.to_thread(known.learn, chain.from_iterable(map(now.entry_rules, EVERYTHING)))
            self.known = known
            await self._engine.obey(known)
            self.counts.accepted = 0

    async def put_checked(self, name: str, at: datetime) -> None:
        """A list was found to be as it was."""
        await self._recorder.commit(lambda db: store.checked(db, name, at))
        self._desk.lists[name] = replace(self._desk.lists[name], checked_at=at)

    async def others(self, name: str) -> EngineFilter:
        """A filter that knows all lists but this one, for it to be taught."""
        lists = {each: stored.found for each, stored in self.lists.items() if each != name}
        known = EngineFilter()
        if lists:
            await _teach(known, IpFilter(lists), EVERYTHING)
        return known

    def found(self, name: str) -> AddressList | None:
        """What a list blocks now."""
        return self.lists[name].found if name in self.lists else None

    # ── what the engine says

    def saw(self, happening: PeerBlocked | PeerConnected) -> None:
        address = ip_address(happening.ip)
        if isinstance(happening, PeerBlocked):
            verdict = self.filter.verdict(address)
            by = verdict.by if verdict.blocked and verdict.by else ""  # without: a list has been changed since
            (self.counts.incoming if happening.incoming else self.counts.outgoing)[by] += 1
            if by == BLACKLIST:
                self._hit(BLACKLIST, next(self.filter.blacklist.around(address)))
        else:
            self.counts.accepted += 1
            for network in self.filter.whitelist.around(address):
                self._hit(WHITELIST, network)

    def _hit(self, name: str, network: Network) -> None:
        if entry := self.entry(name, network):
            self._desk.entries[name, network] = replace(entry, hits=entry.hits + 1)
            self._counted.add((name, network))


async def _teach(known: EngineFilter, now: IpFilter, networks: Iterable[Network]) -> None:
    """Tell it how things stand in these networks; in a thread, for lists are long."""
    await asyncio.to_thread(known.learn, chain.from_iterable(map(now.rules, networks)))


def _remove(entry: Entry) -> Callable[..., None]:
    return lambda db: store.remove(db, entry)


def _drop(name: str) -> Callable[..., None]:
    return lambda db: store.drop_list(db, name)


def _told(entry: Entry, action: str) -> Event:
    one = entry.network.prefixlen == entry.network.max_prefixlen
    ip = str(entry.network.network_address) if one else str(entry.network)
    kind = SecurityBlacklistUpdated if entry.list == BLACKLIST else SecurityWhitelistUpdated
    return kind(ip, action, entry.reason)
