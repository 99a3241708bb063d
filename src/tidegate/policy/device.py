"""Devices: who is meant. A device is its MAC address; its IP addresses may change and are the fallback."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

from tidegate.policy.text import Text

# A sync of 1,000 groups makes each of its 20,000 addresses five times over: out of the request, into the rules, out of the
# rules, and once more each to undo and compare. What was found good is remembered; what was refused is looked at again.
REMEMBERED = 1 << 16


@lru_cache(REMEMBERED)
def _canonical_mac(text: str) -> str:
    if not re.fullmatch(MacAddress.PATTERN, text, re.ASCII):
        raise ValueError(f"{text[:60]!r} is not {MacAddress.EXPECTS}")
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise ValueError(f"{text!r} is no device's own address: multicast, broadcast or zero")
    return text


@lru_cache(REMEMBERED)
def _canonical_ip(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an IPv4 or IPv6 address") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or str(address) == "255.255.255.255":
        raise ValueError(f"{address} can't be a device's address")
    if getattr(address, "scope_id", None):
        raise ValueError(f"{address} names a zone; give the address alone")
    return str(address)


class MacAddress(Text):
    """A device's own hardware address, lower case with colons. Multicast and all-zero addresses are refused."""

    PATTERN = r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}"
    EXPECTS = "a device's MAC address such as 02:11:22:33:44:55"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "mac", "examples": ["02:11:22:33:44:55"]}

    def __new__(cls, text: str) -> Self:
        return str.__new__(cls, _canonical_mac(text.lower().replace("-", ":")))

    @property
    def random(self) -> bool:
        """Made up by the device instead of given by its maker (IEEE 802: the locally administered bit)."""
        return bool(int(self[:2], 16) & 2)


class IpAddress(Text):
    """One IPv4 or IPv6 host address in canonical text. What can't be a device on a network is refused."""

    EXPECTS = "a device's IPv4 or IPv6 address"
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "string",
        "format": "ip-address",
        "examples": ["192.168.1.20", "2001:db8::20"],
    }

    def __new__(cls, text: str) -> Self:
        return str.__new__(cls, _canonical_ip(text))

    @property
    def version(self) -> int:
        return 6 if ":" in self else 4


class Label(Text):
    """A name that people give: 1 to 100 printable characters. It stays on the controller; no router ever sees it."""

    EXPECTS = "a name of 1 to 100 printable characters"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "format": "label"}

    def __new__(cls, text: str) -> Self:
        if not 1 <= len(text) <= 100 or not text.isprintable():
            raise ValueError("a name is 1 to 100 printable characters")
        return str.__new__(cls, text)


@dataclass(frozen=True, slots=True)
class DeviceRef:
    """How an upper layer names a device: by MAC, by addresses where the MAC is not known, or by both."""

    mac: MacAddress | None = None
    ip: tuple[IpAddress, ...] = ()
    name: Label | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A MAC, addresses, or both, with commas between: `02:11:22:33:44:55,192.168.1.20`."""
        mac: MacAddress | None = None
        ip: list[IpAddress] = []
        for part in text.split(","):
            if part.count(":") == 5 and "::" not in part:
                mac = MacAddress(part)
            else:
                ip.append(IpAddress(part))
        return cls(mac, tuple(ip))
