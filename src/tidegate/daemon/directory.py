"""A router's devices as people are told of them: what was heard of each, and what groups make of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tidegate.api.devices import DeviceInfo, GroupHint, Order
from tidegate.daemon import devicerows, vendors
from tidegate.daemon.devicerows import Row
from tidegate.daemon.wishes import Wishes
from tidegate.events import DeviceAddressMoved
from tidegate.policy.device import IpAddress, Label, MacAddress
from tidegate.policy.group import GUESTS, GroupId
from tidegate.policy.hints import hints
from tidegate.policy.known import AddressHolder, KnownDevice
from tidegate.policy.neighbours import rank

MANY = 500
"""Devices that are looked through where they are asked for; more of them beside the event loop (`router/aside.py`)."""


def directory(rows: Iterable[Row], held: Mapping[IpAddress, AddressHolder], groups: Wishes) -> Directory:
    return Directory(devicerows.devices(rows), held, groups)


class Directory:
    """`known`: who was heard of; `held`: who holds the addresses that groups go by; `by_address_alone`: those, and whose."""

    def __init__(
        self, known: Mapping[MacAddress, KnownDevice], held: Mapping[IpAddress, AddressHolder], groups: Wishes
    ) -> None:
        self.known = known
        self.held = held
        self.groups = groups
        self.by_address_alone: dict[IpAddress, GroupId] = {}
        self._by_mac: dict[MacAddress, tuple[GroupId, Label | None]] = {}
        self._by_address: dict[IpAddress, tuple[GroupId, Label | None]] = {}
        for group, wish in groups.items():
            for device in wish.request.devices:
                self._by_address.update((address, (group, device.name)) for address in device.ip)
                if device.mac:
                    self._by_mac[device.mac] = group, device.name
                else:
                    self.by_address_alone.update((address, group) for address in device.ip)

    @property
    def grouped(self) -> Collection[MacAddress]:
        """Whom a group names by MAC."""
        return self._by_mac.keys()

    def page(
        self, group: GroupId | None, search: str | None, order: Order, limit: int | None, offset: int
    ) -> tuple[tuple[DeviceInfo, ...], int]:
        """One page of those that were met or that a group names by MAC, and how many there are on all pages."""
        found: Iterable[MacAddress] = {**self.known, **self._by_mac}
        if group is not None:
            found = [mac for mac in found if self._owner(mac)[0] == group]
        if search:
            found = [mac for mac in found if search.casefold() in self._searched(mac)]
        places = sorted((self._place(mac, order), mac) for mac in found)
        shown = places[offset : None if limit is None else offset + limit]
        return tuple(self.info(mac) for _, mac in shown), len(places)

    def hints(self) -> Iterator[GroupHint]:
        """What was heard that groups' device lists do not know."""
        for group, wish in self.groups.items():
            for hint in hints(wish.request.devices, self.known, self.held, "devices"):
                if hint.kind != "random_mac":
                    yield GroupHint(hint.at, hint.kind, hint.device, hint.mac, hint.why, group)

    def moves(self, router_id: str, now: Mapping[IpAddress, AddressHolder]) -> Iterator[DeviceAddressMoved]:
        """What is to be told where `now` says who has the addresses that groups name alone."""
        for address, holder in now.items():
            if holder.before and holder != self.held.get(address):
                group = self.by_address_alone[address]
                yield DeviceAddressMoved(str(router_id), int(group), str(address), str(holder.mac), str(holder.before))

    def info(self, mac: MacAddress) -> DeviceInfo:
        found = self.known.get(mac)
        group, _ = self._owner(mac)
        return DeviceInfo(
            name=self._name(mac),
            group_name=str(self.groups[group].request.name),
            ip=found.ip if found else (),
            mac=mac,
            random_mac=mac.random,
            vendor=vendors.vendor(mac),
            last_seen=found.last_seen if found else None,
            first_seen=found.first_seen if found else None,
            hostname=found.hostname if found else None,
            group=group,
        )

    def _owner(self, mac: MacAddress) -> tuple[GroupId, Label | None]:
        """Its group, and what that calls it. As the router's rules have it: the MAC says more than the addresses."""
        if owner := self._by_mac.get(mac):
            return owner
        if self._by_address and (found := self.known.get(mac)):
            return next((owner for address in found.ip if (owner := self._by_address.get(address))), (GUESTS, None))
        return GUESTS, None

    def _name(self, mac: MacAddress) -> str | None:
        found = self.known.get(mac)
        return (found.name if found else None) or self._owner(mac)[1] or (found.hostname if found else None)

    def _searched(self, mac: MacAddress) -> str:
        found = self.known.get(mac)
        said = (found.hostname, *found.ip) if found else ()
        return "\n".join(filter(None, (self._name(mac), mac, vendors.vendor(mac), *said))).casefold()

    def _place(self, mac: MacAddress, order: Order) -> tuple[Any, ...]:
        """What has nothing to be sorted by comes last."""
        found, name = self.known.get(mac), self._name(mac)
        match order:
            case "name":
                return name is None, (name or "").casefold()
            case "group":
                return self._owner(mac)[0], name is None, (name or "").casefold()
            case "ip":
                return rank(found.ip[0]) if found and found.ip else (9, 0)
            case "first_seen":
                return (-found.first_seen.timestamp() if found and found.first_seen else 0,)
            case "last_seen":
                return (-found.last_seen.timestamp() if found and found.last_seen else 0,)
            case _:
                return ()
