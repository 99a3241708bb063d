"""Who may connect, as served inside the torrent process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

from tidegate.api.security import (
    Address,
    AddressEntry,
    AddressMatch,
    AddressVerdict,
    BlacklistAddRequest,
    BlacklistResponse,
    FilterStats,
    IPFilterLoadRequest,
    IPFilterLoadResponse,
    IPFilterStatsResponse,
    ListStats,
    LoadedList,
    Network,
    Security,
    SkippedLine,
    WhitelistAddRequest,
    WhitelistResponse,
)
from tidegate.daemon.filterlists import FilterLists, Loaded
from tidegate.daemon.filterstore import Entry
from tidegate.daemon.library import Library
from tidegate.errors import Fault, Invalid, NotFound, Refused
from tidegate.torrent.ipfilter import BLACKLIST, WHITELIST


class SecurityService(Security):
    def __init__(self, library: Library) -> None:
        self._library = library
        self._peers = library.peer_filter
        self._lists: FilterLists = library.filter_lists

    async def get_blacklist(self) -> BlacklistResponse:
        found = tuple(map(_shown, self._peers.entries(BLACKLIST)))
        return BlacklistResponse(tuple(each.ip for each in found), len(found), found)

    async def add_to_blacklist(self, request: BlacklistAddRequest) -> AddressEntry:
        ends = datetime.now(UTC) + timedelta(seconds=request.ttl_seconds) if request.ttl_seconds else None
        return await self._add(BLACKLIST, request.ip, request.reason, ends)

    async def remove_from_blacklist(self, ip: Network) -> AddressEntry:
        return await self._remove(BLACKLIST, ip)

    async def get_whitelist(self) -> WhitelistResponse:
        found = tuple(map(_shown, self._peers.entries(WHITELIST)))
        return WhitelistResponse(tuple(each.ip for each in found), len(found), found)

    async def add_to_whitelist(self, request: WhitelistAddRequest) -> AddressEntry:
        return await self._add(WHITELIST, request.ip, request.reason, None)

    async def remove_from_whitelist(self, ip: Network) -> AddressEntry:
        return await self._remove(WHITELIST, ip)

    async def load_ip_filter(self, request: IPFilterLoadRequest | None = None) -> IPFilterLoadResponse:
        wanted = request or IPFilterLoadRequest()
        faults = [
            Fault(
                f"body/sources/{at}", f"the settings name no list {name!r}; they name {', '.join(self._lists.names) or 'none'}"
            )
            for at, name in enumerate(wanted.sources)
            if name not in self._lists.names
        ]
        if faults:
            raise Invalid("these lists can't be loaded", faults)
        names = list(dict.fromkeys(map(str, wanted.sources))) or self._lists.names
        done = await self._library.wholly(self._lists.load(names, accept=wanted.accept))
        if done and all(each.error for each in done):
            raise Refused("; ".join(f"{each.name} was not loaded: {each.error}" for each in done))
        return IPFilterLoadResponse(not any(each.error for each in done), tuple(map(_loaded, done)))

    async def get_ip_filter_stats(self) -> IPFilterStatsResponse:
        counts, lists = self._peers.counts, self._peers.lists
        incoming, outgoing = counts.incoming.total(), counts.outgoing.total()
        sources = []
        for name in self._lists.names:
            stored = lists.get(name)
            sources.append(
                ListStats(
                    name=name,
                    rules=stored.found.ranges if stored else 0,
                    skipped=stored.found.skipped if stored else 0,
                    incoming=counts.incoming[name],
                    outgoing=counts.outgoing[name],
                    last_load=stored.loaded_at if stored else None,
                    next_load=self._lists.due(name),
                    last_error=self._lists.error(name),
                )
            )
        stats = FilterStats(
            sources=tuple(sources),
            blacklist=counts.incoming[BLACKLIST] + counts.outgoing[BLACKLIST],
            incoming=incoming,
            outgoing=outgoing,
            last_load=max((each.loaded_at for each in lists.values()), default=None),
            last_error=next((f"{each.name}: {each.last_error}" for each in sources if each.last_error), None),
        )
        total = self._peers.filter.ranges
        return IPFilterStatsResponse(total > 0, total, incoming + outgoing, counts.accepted, stats)

    async def test_address(self, ip: Address) -> AddressVerdict:
        verdict = self._peers.filter.verdict(ip_address(ip))
        matches = []
        for source, rule in verdict.matches:
            entry = self._peers.entry(source, ip_network(rule)) if source in (BLACKLIST, WHITELIST) else None
            matches.append(AddressMatch(source, rule, entry.reason if entry else None))
        return AddressVerdict(ip, verdict.blocked, verdict.by, tuple(matches))

    async def _add(self, name: str, ip: Network, reason: str | None, ends: datetime | None) -> AddressEntry:
        return _shown(await self._library.wholly(self._peers.add(name, ip_network(ip), reason, ends)))

    async def _remove(self, name: str, ip: Network) -> AddressEntry:
        entry = self._peers.entry(name, ip_network(ip))
        if entry is None:
            raise NotFound(f"{ip} is not on the {name}")
        await self._library.wholly(self._peers.remove(entry))
        return _shown(entry)


def _shown(entry: Entry) -> AddressEntry:
    return AddressEntry(str(Network(str(entry.network))), entry.reason, entry.added_at, entry.expires_at, entry.hits)


def _loaded(done: Loaded) -> LoadedList:
    found = done.found
    return LoadedList(
        name=done.name,
        loaded=done.error is None,
        unchanged=done.unchanged,
        rules=found.ranges if found else 0,
        lines=found.lines if found else 0,
        skipped=found.skipped if found else 0,
        faults=tuple(SkippedLine(*fault) for fault in found.faults) if found else (),
        duration_ms=round(done.seconds * 1000, 1),
        error=done.error,
    )
