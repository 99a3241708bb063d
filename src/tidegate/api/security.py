"""Who may connect to our torrents: lists of addresses, the blacklist over them, the whitelist over both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar, Protocol, Self

import msgspec

from tidegate.contract import delete, get, post
from tidegate.events import IpFilterLoaded, SecurityBlacklistUpdated, SecurityWhitelistUpdated
from tidegate.policy.text import Text


class Network(Text):
    """An address or a network in canonical text; of one address, without the /32 or /128. What is IPv4 in IPv6's clothes
    (::ffff:1.2.3.4) is IPv4."""

    EXPECTS = "an address or a network such as 203.0.113.7, 10.0.0.0/8 or 2001:db8::/32"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "network", "examples": ["203.0.113.7", "2001:db8::/32"]}

    def __new__(cls, text: str) -> Self:
        try:
            if "%" in text:  # which Python takes for a zone, in a network too
                raise ValueError
            network = ip_network(text) if "/" in text else ip_network(Address(text))
            if network.version == 6 and network.prefixlen >= 96 and (inner := network.network_address.ipv4_mapped):
                network = ip_network((inner, network.prefixlen - 96))
        except ValueError:
            raise ValueError(f"{text[:60]!r} is not {cls.EXPECTS}{_meant(text)}") from None
        one = network.prefixlen == network.max_prefixlen
        return str.__new__(cls, str(network.network_address) if one else str(network))


def _meant(text: str) -> str:
    try:
        return f"; did you mean {ip_network(text, strict=False)}?" if "/" in text else ""
    except ValueError:
        return ""


class Address(Text):
    """One IPv4 or IPv6 address in canonical text; IPv4 in IPv6's clothes (::ffff:1.2.3.4) is IPv4."""

    EXPECTS = "an IPv4 or IPv6 address"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "address", "examples": ["203.0.113.7", "2001:db8::1"]}

    def __new__(cls, text: str) -> Self:
        try:
            address = ip_address(text)
        except ValueError:
            raise ValueError(f"{text[:60]!r} is not {cls.EXPECTS}") from None
        if address.version == 6:
            if address.scope_id is not None:
                raise ValueError(f"{text[:60]!r} names a zone; give the address alone")
            address = address.ipv4_mapped or address
        return str.__new__(cls, str(address))


class Reason(Text):
    """Why somebody is on a list: up to 200 printable characters."""

    EXPECTS = "a reason of 1 to 200 printable characters"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "reason"}

    def __new__(cls, text: str) -> Self:
        if not 1 <= len(text) <= 200 or not text.isprintable():
            raise ValueError(f"not {cls.EXPECTS}")
        return str.__new__(cls, text)


class ListName(Text):
    """What a list of addresses is called in the settings."""

    PATTERN = r"[a-z0-9][a-z0-9_.-]{0,39}"
    EXPECTS = "a list's name: up to 40 small letters, digits, '-', '_' or '.'"


class Seconds(int):
    """A time to live: a second to ten years."""

    SCHEMA: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": 315_360_000, "description": "seconds"}

    def __new__(cls, value: int | str) -> Self:
        if isinstance(value, bool) or not 1 <= int(value) <= 315_360_000:
            raise ValueError("a number of seconds from 1 to 315360000")
        return super().__new__(cls, value)

    def to_wire(self) -> int:
        return int(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        return cls(value)


@dataclass(frozen=True, slots=True)
class BlacklistAddRequest:
    """With `ttl_seconds` the ban ends by itself."""

    ip: Network
    reason: Reason | None = None
    ttl_seconds: Seconds | None = None


@dataclass(frozen=True, slots=True)
class WhitelistAddRequest:
    ip: Network
    reason: Reason | None = None


class AddressEntry(msgspec.Struct, frozen=True):
    """Somebody on the blacklist or the whitelist. `hits`: connections that were refused, or let in, because of it."""

    ip: str
    reason: str | None
    added_at: datetime
    expires_at: datetime | None
    hits: int


class BlacklistResponse(msgspec.Struct, frozen=True):
    """`ips` are those of `entries`, the oldest first."""

    ips: tuple[str, ...]
    count: int
    entries: tuple[AddressEntry, ...]


class WhitelistResponse(msgspec.Struct, frozen=True):
    """`ips` are those of `entries`, the oldest first."""

    ips: tuple[str, ...]
    count: int
    entries: tuple[AddressEntry, ...]


@dataclass(frozen=True, slots=True)
class IPFilterLoadRequest:
    """The lists to load, all of them if none is named. `accept`: take a list that waits for a person, too."""

    sources: tuple[ListName, ...] = ()
    accept: bool = False


class SkippedLine(msgspec.Struct, frozen=True):
    """A line that is no address, counted from 1."""

    line: int
    why: str


class LoadedList(msgspec.Struct, frozen=True):
    """What came of loading one list; where there is an `error`, what was loaded before is in force. `faults` are the first five
    of the lines skipped; `unchanged`: its server says that it is as it was."""

    name: str
    loaded: bool
    unchanged: bool
    rules: int
    lines: int
    skipped: int
    faults: tuple[SkippedLine, ...]
    duration_ms: float
    error: str | None


class IPFilterLoadResponse(msgspec.Struct, frozen=True):
    """`loaded`: every list that was asked for."""

    loaded: bool
    sources: tuple[LoadedList, ...]


class ListStats(msgspec.Struct, frozen=True):
    """A list that the settings name. `rules` are ranges in force; `incoming` and `outgoing` count refused connections."""

    name: str
    rules: int
    skipped: int
    incoming: int
    outgoing: int
    last_load: datetime | None
    next_load: datetime | None
    last_error: str | None


class FilterStats(msgspec.Struct, frozen=True):
    """`incoming` and `outgoing` count refused connections, whatever refused them; `blacklist` those of the blacklist."""

    sources: tuple[ListStats, ...]
    blacklist: int
    incoming: int
    outgoing: int
    last_load: datetime | None
    last_error: str | None


class IPFilterStatsResponse(msgspec.Struct, frozen=True):
    """`total_rules`: ranges and networks in force. Refused connections are counted since the torrent process started, accepted
    ones since a list was loaded or the process started."""

    enabled: bool
    total_rules: int
    blocked_count: int
    allowed_count: int
    stats: FilterStats


class AddressMatch(msgspec.Struct, frozen=True):
    """A list that has the address: its name (or blacklist, or whitelist), what stands there, and why where that is known."""

    source: str
    rule: str
    reason: str | None


class AddressVerdict(msgspec.Struct, frozen=True):
    """`by`: what decides; None where nothing has the address. `matches`: all that have it, what decides first."""

    ip: str
    blocked: bool
    by: str | None
    matches: tuple[AddressMatch, ...]


class Security(Protocol):
    """Who may connect to our torrents."""

    @get("/security/blacklist")
    async def get_blacklist(self) -> BlacklistResponse:
        """The addresses and networks that may not connect, the oldest first."""
        ...

    @post("/security/blacklist", emits=(SecurityBlacklistUpdated,))
    async def add_to_blacklist(self, request: BlacklistAddRequest) -> AddressEntry:
        """Refuse an address or a network and end its connections; adding it again updates the reason and the end."""
        ...

    @delete("/security/blacklist/{ip}", emits=(SecurityBlacklistUpdated,))
    async def remove_from_blacklist(self, ip: Network) -> AddressEntry:
        """Refuse an address or a network no more. Raises NotFound where it does not stand there as such."""
        ...

    @get("/security/whitelist")
    async def get_whitelist(self) -> WhitelistResponse:
        """The addresses and networks that may connect whatever else says no, the oldest first."""
        ...

    @post("/security/whitelist", emits=(SecurityWhitelistUpdated,))
    async def add_to_whitelist(self, request: WhitelistAddRequest) -> AddressEntry:
        """Let an address or a network connect whatever else says no; adding it again updates the reason."""
        ...

    @delete("/security/whitelist/{ip}", emits=(SecurityWhitelistUpdated,))
    async def remove_from_whitelist(self, ip: Network) -> AddressEntry:
        """Take an address or a network off the whitelist. Raises NotFound where it does not stand there as such."""
        ...

    @post("/security/ip-filter/load", emits=(IpFilterLoaded,), long=True)
    async def load_ip_filter(self, request: IPFilterLoadRequest | None = None) -> IPFilterLoadResponse:
        """Load the lists that the settings name, each old or new and never between.

        Raises Refused where none could be loaded; a list that has shrunk to less than half, has grown tenfold, or blocks most
        of all addresses waits for `accept`.
        """
        ...

    @get("/security/ip-filter/stats")
    async def get_ip_filter_stats(self) -> IPFilterStatsResponse:
        """What is in force, and whom it has refused."""
        ...

    @get("/security/test/{ip}")
    async def test_address(self, ip: Address) -> AddressVerdict:
        """Whether an address may connect, and everything that says so."""
        ...
