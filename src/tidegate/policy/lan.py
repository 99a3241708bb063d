"""A router's own network: its addresses there, and which address a device on it can have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from typing import Any, ClassVar, Self

from tidegate.policy.device import IpAddress, MacAddress
from tidegate.policy.text import Text


class InterfaceAddress(Text):
    """An address of a router with the length of its network's prefix: `192.168.1.1/24`."""

    EXPECTS = "an address with its prefix length such as 192.168.1.1/24"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "examples": ["192.168.1.1/24"]}

    def __new__(cls, text: str) -> Self:
        try:
            interface = ip_interface(text)
        except ValueError:
            raise ValueError(f"{text[:60]!r} is not {cls.EXPECTS}") from None
        IpAddress(str(interface.ip))
        return str.__new__(cls, str(interface))


@dataclass(frozen=True)
class Lan:
    """The router's hardware address and its addresses on the interface that its devices are behind."""

    mac: MacAddress | None
    addresses: tuple[InterfaceAddress, ...]

    @cached_property
    def _interfaces(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        return tuple(ip_interface(address) for address in self.addresses)

    @cached_property
    def _own(self) -> frozenset[tuple[int, int]]:
        return frozenset((own.version, int(own.ip)) for own in self._interfaces)

    @cached_property
    def _spans(self) -> dict[int, list[tuple[int, int, IPv4Network | IPv6Network]]]:
        """By version, the first and the last address of each network that devices are given addresses of."""
        found: dict[int, list[tuple[int, int, IPv4Network | IPv6Network]]] = {4: [], 6: []}
        for own in self._interfaces:
            itself = IpAddress(str(own.ip))
            if not (itself.link_local or itself.unique_local):
                span = int(own.network.network_address), int(own.network.broadcast_address), own.network
                found[own.version].append(span)
        return found

    def objection(self, address: IpAddress) -> str | None:
        """Why no device on this network has that address; None where one may have it.

        Link-local and unique local IPv6 addresses are taken as they are: a device makes the first up by itself on every
        network, and the second may come from another router of the house (a smart home's hub, say). Global ones are held
        against the router's prefixes, as far as it has any: its provider may just not have given it one yet.
        """
        version, number = address.version, address.number
        if (version, number) in self._own:
            return f"{address} is the router's own address"
        if address.link_local or address.unique_local:
            return None
        spans = self._spans[version]
        for first, last, network in spans:
            if first <= number <= last:
                if version == 4 and network.prefixlen < 31 and number in (first, last):
                    return f"{address} is the network's own address, not a device's"
                return None
        if not spans:
            return None
        return f"{address} is not in the router's network ({', '.join(str(network) for _, _, network in spans)})"
