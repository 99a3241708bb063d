"""Who may connect: lists of addresses, the blacklist over them, and the whitelist over both. Pure.

One `IpFilter` is the whole of it. It answers for one address, with its reasons, and gives an engine, whose later rules win over
its earlier ones, the rules that say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final, NamedTuple

from tidegate.torrent.iplist import AddressList

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

EVERYTHING: Final[tuple[Network, ...]] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
BLACKLIST, WHITELIST = "blacklist", "whitelist"  # what the two are called among the names of lists


class Rule(NamedTuple):
    """From the first to the last address, all of one IP version: blocked or not."""

    first: str
    last: str
    blocked: bool


class Match(NamedTuple):
    """A list that has the address: the list's name, and what stands there as "first-last" or as a network."""

    source: str
    rule: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`by`: the name of what decided; None where nothing has the address. `matches` are all that have it, the decider first."""

    blocked: bool
    by: str | None
    matches: tuple[Match, ...]


class Networks:
    """A set of networks that finds those around an address without looking at all of them. Not changed once made."""

    def __init__(self, networks: frozenset[Network] = frozenset()) -> None:
        self._networks = networks
        lengths = {(each.version, each.prefixlen) for each in networks}
        self._lengths = {version: sorted((n for v, n in lengths if v == version), reverse=True) for version in (4, 6)}

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def around(self, address: Address) -> Iterator[Network]:
        """Those that the address is in, the smallest first."""
        for length in self._lengths[address.version]:
            network = ip_network((address, length), strict=False)
            if network in self._networks:
                yield network

    def overlapping(self, network: Network) -> Iterator[Network]:
        """Those that have addresses in common with it, cut to it."""
        for each in self._networks:
            if each.version == network.version and each.overlaps(network):
                yield each if each.prefixlen > network.prefixlen else network


@dataclass(frozen=True, slots=True)
class IpFilter:
    lists: Mapping[str, AddressList] = field(default_factory=dict)
    blacklist: Networks = field(default_factory=Networks)
    whitelist: Networks = field(default_factory=Networks)

    def verdict(self, address: Address) -> Verdict:
        white = [Match(WHITELIST, str(network)) for network in self.whitelist.around(address)]
        black = [Match(BLACKLIST, str(network)) for network in self.blacklist.around(address)]
        listed = []
        for name, each in self.lists.items():
            if found := each.of(address.version).find(int(address)):
                listed.append(Match(name, "-".join(_text(address.version, end) for end in found)))
        matches = (*white, *black, *listed)
        return Verdict(bool(matches and not white), matches[0].source if matches else None, matches)

    def rules(self, network: Network) -> Iterator[Rule]:
        """How things stand within a network, for an engine that knows something else of it or nothing."""
        yield _rule(network, blocked=False)
        first, last = int(network.network_address), int(network.broadcast_address)
        for each in self.lists.values():
            for start, end in each.of(network.version).within(first, last):
                yield Rule(_text(network.version, start), _text(network.version, end), True)
        yield from self.entry_rules(network)

    def entry_rules(self, network: Network) -> Iterator[Rule]:
        """The blacklist and the whitelist within a network, for an engine that knows the lists."""
        for black in self.blacklist.overlapping(network):
            yield _rule(black, blocked=True)
        for white in self.whitelist.overlapping(network):
            yield _rule(white, blocked=False)

    @property
    def ranges(self) -> int:
        """How many ranges and networks there are in all of it."""
        return sum(each.ranges for each in self.lists.values()) + len(self.blacklist) + len(self.whitelist)


def _rule(network: Network, *, blocked: bool) -> Rule:
    return Rule(str(network.network_address), str(network.broadcast_address), blocked)


def _text(version: int, number: int) -> str:
    if version == 4:
        return inet_ntop(AF_INET, number.to_bytes(4, "big"))
    return inet_ntop(AF_INET6, number.to_bytes(16, "big"))


# ── what waits for a person

GROWTH: Final = 10
GROWTH_FROM: Final = 1_000  # ranges; a list that somebody writes by hand may grow as it likes


def suspicion(before: AddressList | None, now: AddressList) -> str | None:
    """Why a person should see this list before it is believed; None where there is nothing to say against it."""
    if any(each.addresses * 2 > 1 << bits for each, bits in ((now.v4, 32), (now.v6, 128))):
        return "it blocks more than half of all addresses"
    if before is None:
        return None
    if now.ranges * 2 < before.ranges:
        return f"it has shrunk from {before.ranges:,} to {now.ranges:,} ranges, to less than half"
    if now.ranges > max(GROWTH_FROM, GROWTH * before.ranges) and before.ranges:
        return f"it has grown from {before.ranges:,} to {now.ranges:,} ranges, to more than {GROWTH} times as many"
    return None
