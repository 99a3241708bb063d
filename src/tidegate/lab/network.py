"""The lab's address plan, and the names its internet answers for.

Every address is inside namespaces; the documentation ranges are used where a real network would not mind, so that a
leak would be seen at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

LAN: Final = "br-lan"
WAN: Final = "wan"

ROUTER_LAN: Final = ("192.168.1.1", "2001:db8:1::1")
ROUTER_WAN: Final = ("203.0.113.2", "2001:db8:ffff::2")
PROVIDER: Final = ("203.0.113.1", "2001:db8:ffff::1")
ROUTER_MAC: Final = "02:00:5e:10:00:01"
WAN_MAC: Final = "02:00:5e:20:00:02"
PROVIDER_MAC: Final = "02:00:5e:20:00:01"
LAN6: Final = "2001:db8:1::/64"

_RESERVED = frozenset({"router", "internet", "controller"})


@dataclass(frozen=True, slots=True)
class Site:
    """A server of the lab's internet: where its name leads."""

    ipv4: str
    ipv6: str


def _site(number: int) -> Site:
    return Site(f"198.51.100.{number}", f"2001:db8:2::{number}")


SITES: Final[Mapping[str, Site]] = MappingProxyType(
    {
        "example.com": _site(10),
        "school.example": _site(11),
        "games.example": _site(12),
        "video.example": _site(13),
        "social.example": _site(14),
        "ads.example": _site(15),
        "dns.google": Site("8.8.8.8", "2001:4860:4860::8888"),
        "one.one.one.one": Site("1.1.1.1", "2606:4700:4700::1111"),
        "cloudflare-dns.com": Site("1.1.1.1", "2606:4700:4700::1111"),
        "dns.quad9.net": Site("9.9.9.9", "2620:fe::fe"),
    }
)
"""Name -> where it leads, its subdomains too. Every other name does not exist."""

RESOLVERS: Final = (
    Site("8.8.8.8", "2001:4860:4860::8888"),
    Site("8.8.4.4", "2001:4860:4860::8844"),
    Site("1.1.1.1", "2606:4700:4700::1111"),
    Site("1.0.0.1", "2606:4700:4700::1001"),
    Site("9.9.9.9", "2620:fe::fe"),
    Site("149.112.112.112", "2620:fe::9"),
)
"""The public resolvers that devices are set to; each answers as the lab's DNS does."""


@dataclass(frozen=True, slots=True)
class Place:
    """A host's place on the LAN: its name, its port on the router and its fixed addresses."""

    name: str
    port: str
    port_mac: str
    mac: str
    ipv4: str
    ipv6: str


def places(names: tuple[str, ...]) -> list[Place]:
    """A place for the controller (192.168.1.2) and each client (from 192.168.1.11), in the order given."""
    if len(set(names)) != len(names) or len(names) > 180:
        raise ValueError("clients need names of their own, at most 180")
    for name in names:
        if name in _RESERVED or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise ValueError(f"{name!r} cannot be a client's name: a-z, 0-9 and -, and not {sorted(_RESERVED)}")
    numbered = [("controller", 2), *((name, 11 + index) for index, name in enumerate(names))]
    return [
        Place(
            name=name,
            port=f"lan{index}",
            port_mac=f"02:00:5e:10:01:{number:02x}",
            mac=f"02:00:5e:10:00:{number:02x}",
            ipv4=f"192.168.1.{number}",
            ipv6=f"2001:db8:1::{number:x}",
        )
        for index, (name, number) in enumerate(numbered)
    ]
