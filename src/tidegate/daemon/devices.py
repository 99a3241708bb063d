"""Devices: what a router says of its network, what is remembered of it, and what groups make of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

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
    Order,
)
from tidegate.api.routers import RouterId
from tidegate.daemon import devicerows, vendors, wishes
from tidegate.daemon.devicerows import TABLES
from tidegate.daemon.directory import MANY, Directory, directory
from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.errors import Fault, Invalid, NotFound
from tidegate.events import DeviceChanged, DeviceDiscovered, DeviceRenamed, Event
from tidegate.policy.device import Label, MacAddress
from tidegate.policy.group import GroupId, GroupSyncRequest
from tidegate.policy.hints import hints
from tidegate.policy.known import News, held, holders, news
from tidegate.policy.lan import Lan
from tidegate.policy.membership import Asked, DeviceChanges, device_changes, judge, mass_change
from tidegate.router.aside import aside

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
        found = await self._directory(router_id)
        page, total = await aside(len(found.known), MANY, found.page, group, search, sort, limit, offset)
        return DeviceList(str(router_id), page, total)

    async def discover(self, router_id: RouterId) -> DeviceDiscovery:
        await vendors.load()
        async with self._routers.at(router_id) as router:
            around = await router.engine.look_around()
            before, now = await self._directory(router_id), datetime.now(UTC)
            found = await aside(len(around.devices), MANY, news, before.known, around, now, before.grouped)
            rows = devicerows.rows(router_id, found.written)
            has = {**holders(before.known.values()), **around.holders()}
            held_now = held(before.by_address_alone.keys(), before.held, has, now)

            def write(db: sqlite3.Connection) -> None:
                devicerows.save_lan(db, router_id, around.lan)
                devicerows.save(db, rows)
                devicerows.forget(db, router_id, found.forgotten)
                devicerows.save_held(db, router_id, held_now)

            if rows or found.forgotten or held_now != before.held or around.lan != await self._lan(router_id):
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
        now, lan = await self._directory(router_id), await self._lan(router_id)
        known = wishes.requests(now.groups)
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
            hints=tuple(hints(request.devices, now.known, now.held)),
        )

    async def get_device_changes(self, router_id: RouterId, group_id: GroupId, request: GroupDevices) -> DeviceChanges:
        await self._routers.get(router_id)
        known = await wishes.load(self._journal, router_id)
        before = known[group_id].request.devices if group_id in known else ()
        return device_changes(before, request.devices)

    async def rename(self, router_id: RouterId, mac: MacAddress, request: DeviceName) -> DeviceInfo:
        await self._routers.get(router_id)
        await vendors.load()
        known = await self._directory(router_id)
        if mac not in known.known and mac not in known.grouped:
            raise NotFound(f"router {router_id} has no device {mac}: discover its devices, or add it to a group", mac=str(mac))
        event = DeviceRenamed(str(router_id), str(mac), str(request.name or ""))
        await self._journal.commit(lambda db: devicerows.rename(db, router_id, mac, request.name), event)
        return (await self._directory(router_id)).info(mac)

    async def _lan(self, router_id: RouterId) -> Lan | None:
        return await self._journal.read(lambda db: devicerows.lan(db, router_id))

    async def _directory(self, router_id: RouterId) -> Directory:
        rows, held = await self._journal.read(lambda db: (devicerows.read(db, router_id), devicerows.load_held(db, router_id)))
        return await aside(len(rows), MANY, directory, rows, held, await wishes.load(self._journal, router_id))


def _told(router_id: RouterId, found: News) -> Iterator[Event]:
    for device in found.new:
        yield DeviceDiscovered(str(router_id), str(device.mac), device.ip, device.hostname or "", device.mac.random)
    for before, now in found.moved:
        yield DeviceChanged(str(router_id), str(now.mac), now.ipv4, before.ipv4)
