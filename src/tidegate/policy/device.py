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
def _read_ip(text: str) -> tuple[str, int]:
    """The address in canonical text and as a number."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an IPv4 or IPv6 address") from None
    number = int(address)
    if address.version == 4:
        # 0/8, loopback, and from 224.0.0.0 on multicast, reserved and broadcast: RFC 6890 2.2.2.
        possible = 0 < number >> 24 < 224 and number >> 24 != 127
    else:
        # Global unicast, unique local, link-local: all else is multicast, loopback, or given to nobody (RFC 4291 2.4).
        possible = number >> 125 == 1 or number >> 121 == _UNIQUE_LOCAL or number >> 118 == _LINK_LOCAL
    if not possible:
        raise ValueError(f"{address} can't be a device's address")
    if getattr(address, "scope_id", None):
        raise ValueError(f"{address} names a zone; give the address alone")
    return str(address), number


_LINK_LOCAL = 0x3FA  # fe80::/10
_UNIQUE_LOCAL = 0x7E  # fc00::/7


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
        return str.__new__(cls, _read_ip(text)[0])

    @property
    def version(self) -> int:
        return 6 if ":" in self else 4

    @property
    def number(self) -> int:
        """The address as the number that its 32 or 128 bits are."""
        return _read_ip(str(self))[1]  # a plain str, as it was read: the cache tells the types apart

    @property
    def link_local(self) -> bool:
        """IPv6, and good on one network only: RFC 4291 2.5.6."""
        return self.version == 6 and self.number >> 118 == _LINK_LOCAL

    @property
    def unique_local(self) -> bool:
        """IPv6, and of a house's own making: RFC 4193."""
        return self.version == 6 and self.number >> 121 == _UNIQUE_LOCAL


class DeviceKey(Text):
    """What one device of a list is named by: its MAC or one of its addresses."""

    EXPECTS = "a device's MAC address or one of its IP addresses"
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "string",
        "format": "device-key",
        "examples": ["02:11:22:33:44:55", "192.168.1.20"],
    }

    def __new__(cls, text: str) -> Self:
        mac = re.fullmatch(MacAddress.PATTERN, text, re.ASCII)
        return str.__new__(cls, str(MacAddress(text) if mac else IpAddress(text)))


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
