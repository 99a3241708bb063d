"""Devices: what a router says of its network, what is remembered of it, and what groups make of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tidegate.api.devices import (
    DeviceDiscovery,
    DeviceFault,
    DeviceInfo,
    DeviceList,
    DeviceMove,
    DeviceName,
    Devices,
    DeviceVerificationResult,
    GroupDevices,
    GroupHint,
    Order,
)
from tidegate.api.routers import RouterId
from tidegate.daemon import devicerows, vendors, wishes
from tidegate.daemon.devicerows import TABLES
from tidegate.daemon.enrolled import EnrolledRouters, wholly
from tidegate.daemon.wishes import Wishes
from tidegate.errors import Fault, Invalid, NotFound
from tidegate.events import DeviceAddressMoved, DeviceChanged, DeviceDiscovered, DeviceRenamed, Event
from tidegate.policy.device import IpAddress, Label, MacAddress
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.hints import hints
from tidegate.policy.known import AddressHolder, KnownDevice, News, held, holders, news
from tidegate.policy.membership import Asked, DeviceChanges, device_changes, judge, mass_change
from tidegate.policy.neighbours import rank

__all__ = ["TABLES", "DevicesService"]


class DevicesService(Devices):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal

    async def list(
        self,
        router_id: RouterId,
        group: GroupId | None = None,
        search: str | None = None,
        sort: Order = "name",
        limit: int | None = None,
        offset: int = 0,
    ) -> DeviceList:
        if offset < 0 or (limit is not None and limit < 0):
            raise Invalid("there is no such page", [Fault("query", "limit and offset are 0 or more")])
        await self._routers.get(router_id)
        await vendors.load()
        directory = await self._directory(router_id)
        found = [device for device in directory.devices() if group is None or device.group == group]
        if search:
            found = [device for device in found if search.casefold() in _searched(device)]
        found.sort(key=lambda device: _place(device, sort))
        page = found[offset : None if limit is None else offset + limit]
        return DeviceList(str(router_id), tuple(page), len(found))

    @wholly
    async def discover(self, router_id: RouterId) -> DeviceDiscovery:
        await vendors.load()
        async with self._routers.at(router_id) as router:
            around = await router.engine.look_around()
            before, now = await self._directory(router_id), datetime.now(UTC)
            found = news(before.known, around, now, before.grouped)
            has = {**holders(before.known.values()), **around.holders()}
            held_now = held(before.by_address_alone.keys(), before.held, has, now)

            def write(db: sqlite3.Connection) -> None:
                devicerows.save_lan(db, router_id, around.lan)
                devicerows.save(db, router_id, found.written)
                devicerows.forget(db, router_id, found.forgotten)
                devicerows.save_held(db, router_id, held_now)

            await self._journal.commit(write, *_told(router_id, found), *before.moves(router_id, held_now))
        after = await self._directory(router_id)
        return DeviceDiscovery(
            router=str(router_id),
            here=len(around.devices),
            known=len(after.known),
            new=tuple(after.info(device.mac) for device in found.new if device.mac in after.known),
            moved=tuple(DeviceMove(now.mac, after.info(now.mac).name, was.ipv4, now.ipv4) for was, now in found.moved),
            hints=tuple(after.hints()),
            networks=tuple(map(str, around.lan.addresses)),
            unread=around.unread,
        )

    async def verify_devices(self, router_id: RouterId, group_id: GroupId, request: GroupDevices) -> DeviceVerificationResult:
        await self._routers.get(router_id)
        directory, lan = await self._directory(router_id), await self._journal.read(lambda db: devicerows.lan(db, router_id))
        known = wishes.requests(directory.groups)
        before = known.get(group_id) or GroupSyncRequest(Label(f"Group {int(group_id)}"))
        wanted = replace(before, devices=request.devices, confirm_mass_change=request.confirm_mass_change)
        objections = [each for found in judge([Asked(group_id, wanted)], known, lan).values() for each in found]
        return DeviceVerificationResult(
            router=str(router_id),
            group=group_id,
            valid=not objections,
            faults=tuple(DeviceFault(each.at, each.why, each.owner) for each in objections[: wishes.MOST_FAULTS]),
            mass_change=mass_change(before.devices, request.devices),
            changes=device_changes(before.devices, request.devices),
            hints=tuple(hints(request.devices, directory.known, directory.held)),
        )

    async def get_device_changes(self, router_id: RouterId, group_id: GroupId, request: GroupDevices) -> DeviceChanges:
        await self._routers.get(router_id)
        known = await wishes.load(self._journal, router_id)
        before = known[group_id].request.devices if group_id in known else ()
        return device_changes(before, request.devices)

    @wholly
    async def rename(self, router_id: RouterId, mac: MacAddress, request: DeviceName) -> DeviceInfo:
        await self._routers.get(router_id)
        await vendors.load()
        if mac not in {*(directory := await self._directory(router_id)).known, *directory.grouped}:
            raise NotFound(f"router {router_id} has no device {mac}: discover its devices, or add it to a group", mac=str(mac))
        event = DeviceRenamed(str(router_id), str(mac), str(request.name or ""))
        await self._journal.commit(lambda db: devicerows.rename(db, router_id, mac, request.name), event)
        return (await self._directory(router_id)).info(mac)

    async def _directory(self, router_id: RouterId) -> Directory:
        known, held = await self._journal.read(lambda db: (devicerows.load(db, router_id), devicerows.load_held(db, router_id)))
        return Directory(known, held, await wishes.load(self._journal, router_id))


class Directory:
    """A router's devices as people are told of them: what was heard of each, and what groups say of it."""

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

    def devices(self) -> Iterator[DeviceInfo]:
        """All that were met or that a group names by MAC."""
        for mac in {**self.known, **self._by_mac}:
            yield self.info(mac)

    def hints(self) -> Iterator[GroupHint]:
        """What was heard that groups' device lists do not know."""
        for group, wish in self.groups.items():
            for hint in hints(wish.request.devices, self.known, self.held, "devices"):
                if hint.kind != "random_mac":
                    yield GroupHint(hint.at, hint.kind, hint.device, hint.mac, hint.why, group)

    def moves(self, router_id: RouterId, now: Mapping[IpAddress, AddressHolder]) -> Iterator[Event]:
        """What is to be told where `now` says who has the addresses that groups name alone."""
        for address, holder in now.items():
            if holder.before and holder != self.held.get(address):
                group = self.by_address_alone[address]
                yield DeviceAddressMoved(str(router_id), int(group), str(address), str(holder.mac), str(holder.before))

    def info(self, mac: MacAddress) -> DeviceInfo:
        found = self.known.get(mac)
        group, called = self._owner(mac, found)
        return DeviceInfo(
            name=(found.name if found else None) or called or (found.hostname if found else None),
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

    def _owner(self, mac: MacAddress, found: KnownDevice | None) -> tuple[GroupId, Label | None]:
        """As the router's rules have it: the MAC says more than the addresses."""
        if owner := self._by_mac.get(mac):
            return owner
        addresses = found.ip if found else ()
        return next((owner for address in addresses if (owner := self._by_address.get(address))), (GUESTS, None))


def _searched(device: DeviceInfo) -> str:
    return "\n".join(filter(None, (device.name, device.hostname, device.mac, device.vendor, *device.ip))).casefold()


def _place(device: DeviceInfo, order: Order) -> tuple[Any, ...]:
    """What has nothing to be sorted by comes last, and what is alike in that by its MAC."""
    last = (str(device.mac),)
    match order:
        case "name":
            return (device.name is None, (device.name or "").casefold(), *last)
        case "group":
            return (device.group, device.name is None, (device.name or "").casefold(), *last)
        case "ip":
            return (not device.ip, rank(IpAddress(device.ip[0])) if device.ip else (), *last)
        case "first_seen":
            return (-device.first_seen.timestamp() if device.first_seen else 0, *last)
        case "last_seen":
            return (-device.last_seen.timestamp() if device.last_seen else 0, *last)
        case _:
            return last


def _told(router_id: RouterId, found: News) -> Iterator[Event]:
    for device in found.new:
        yield DeviceDiscovered(str(router_id), str(device.mac), device.ip, device.hostname or "", device.mac.random)
    for before, now in found.moved:
        yield DeviceChanged(str(router_id), str(now.mac), now.ipv4, before.ipv4)
