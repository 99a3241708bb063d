"""The devices on a router's network: who is there, how they are called, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import get, post, put
from tidegate.events import DeviceDiscovered, DeviceRenamed
from tidegate.policy.device import Label, MacAddress
from tidegate.policy.group import GroupId

Order = Literal["name", "group", "ip", "mac", "first_seen", "last_seen"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device, which is its MAC address. `name` is what people call it, or else what it calls itself (`hostname`: anybody's
    device can say anything). Whoever is in no group is in group 0, the guests.

    `ip`: its addresses when it was last heard. `random_mac`: it made its address up (a phone's "private address"), so no
    `vendor` can be told from it, and it may come back under another one. `last_seen`: when the router last had an answer of
    it, to the minute; None where only a lease or a group tells of it. `first_seen` None: a group names it, nobody has met it.
    """

    name: str | None
    group_name: str
    ip: tuple[str, ...]
    mac: MacAddress
    random_mac: bool
    vendor: str | None
    last_seen: datetime | None
    first_seen: datetime | None
    hostname: str | None
    group: GroupId


@dataclass(frozen=True, slots=True)
class DeviceList:
    """A page of the devices; `total` is how many there are on all pages."""

    router: str
    devices: tuple[DeviceInfo, ...]
    total: int


@dataclass(frozen=True, slots=True)
class DeviceMove:
    """A device that has other IPv4 addresses than before. Its group holds on: it goes by the MAC address."""

    mac: MacAddress
    name: str | None
    before: tuple[str, ...]
    now: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceDiscovery:
    """What the router answered. `here`: devices that it has heard of; `known`: all that are remembered, those included.

    `networks`: the router's own addresses on that network, each with the length of its prefix. `unread`: lines of its lease
    files and neighbour table that could not be read, and were left out.
    """

    router: str
    here: int
    known: int
    new: tuple[DeviceInfo, ...]
    moved: tuple[DeviceMove, ...]
    networks: tuple[str, ...]
    unread: int


@dataclass(frozen=True, slots=True)
class DeviceName:
    """`name` None takes the name away again."""

    name: Label | None = None


class Devices(Protocol):
    """The devices on a router's network: who is there, how they are called, and whose they are."""

    @get("/routers/{router_id}/devices")
    async def list(
        self,
        router_id: RouterId,
        group: GroupId | None = None,
        search: str | None = None,
        sort: Order = "name",
        limit: int | None = None,
        offset: int = 0,
    ) -> DeviceList:
        """All devices that are known, without asking the router; `discover` asks.

        `group` keeps one group's; `search` those with this text in their name, MAC, addresses or vendor. Times sort newest
        first. `limit` and `offset` page.
        """
        ...

    @post("/routers/{router_id}/devices/discover", emits=(DeviceDiscovered,))
    async def discover(self, router_id: RouterId) -> DeviceDiscovery:
        """Ask the router who is on its network: its DHCP leases and its neighbours, IPv4 and IPv6. Nothing on it changes.

        Raises NotFound, Refused (an answer that can't be read), Unavailable or TimedOut.
        """
        ...

    @put("/routers/{router_id}/devices/{mac}/name", emits=(DeviceRenamed,))
    async def rename(self, router_id: RouterId, mac: MacAddress, request: DeviceName) -> DeviceInfo:
        """Call a device by a name of your own, or (no `name`) no longer. No router is told. NotFound: a device nobody knows."""
        ...
