"""The devices on a router's network: who is there, how they are called, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import READ, get, post, put
from tidegate.events import DeviceDiscovered, DeviceRenamed
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.hints import DeviceHint
from tidegate.policy.membership import DeviceChanges, MassChange

Order = Literal["name", "group", "ip", "mac", "first_seen", "last_seen"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device, which is its MAC address. `name` is what people call it, or else what it calls itself (`hostname`: anybody's
    device can say anything). Whoever is in no group is in group 0, the guests.

    `ip`: its addresses when it was last heard. `random_mac`: it made its address up (a phone's "private address"), so no
    `vendor` can be told from it, and it may come back under another one. `last_seen`: when the router last had an answer of
    it, to the minute; None where only a lease or a group tells of it. `first_seen` None: a group names it, nobody has met it.
    """

    mac: MacAddress
    name: str | None
    group_name: str
    last_seen: datetime | None
    vendor: str | None
    random_mac: bool
    ip: tuple[str, ...]
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
class GroupHint(DeviceHint):
    """A hint about a group's device list as it stands; `at` is the place in that list ("devices/3/ip/0")."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class DeviceDiscovery:
    """What the router answered. `here`: devices that it has heard of; `known`: all that are remembered, those included.

    `hints`: what that says of groups' device lists: MACs of devices that are known by their address alone, addresses that went
    over to another device. `networks`: the router's own addresses on that network, each with the length of its prefix.
    `unread`: lines of its lease files and neighbour table that could not be read, and were left out.
    """

    router: str
    here: int
    known: int
    new: tuple[DeviceInfo, ...]
    moved: tuple[DeviceMove, ...]
    hints: tuple[GroupHint, ...]
    networks: tuple[str, ...]
    unread: int


@dataclass(frozen=True, slots=True)
class DeviceName:
    """`name` None takes the name away again."""

    name: Label | None = None


@dataclass(frozen=True, slots=True)
class GroupDevices:
    """All the devices that a group is to have."""

    devices: tuple[DeviceRef, ...]
    confirm_mass_change: bool = False


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """One thing in the way: `at` is its place ("body/devices/1/mac"), `why` says what would be right; `owner` is the group that
    has the device already."""

    at: str
    why: str
    owner: GroupId | None = None


@dataclass(frozen=True, slots=True)
class DeviceVerificationResult:
    """Whether a group could have these devices: `valid`, or every fault. `mass_change`: it would need to be confirmed, or was.

    `changes`: against the group as it is in force. `hints` are no faults: what discovery has shown of these devices.
    """

    router: str
    group: GroupId
    valid: bool
    faults: tuple[DeviceFault, ...]
    mass_change: MassChange | None
    changes: DeviceChanges
    hints: tuple[DeviceHint, ...]


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

    @post("/routers/{router_id}/groups/{group_id}/devices/verify", scope=READ, limit=1 << 20, changes=False)
    async def verify_devices(self, router_id: RouterId, group_id: GroupId, request: GroupDevices) -> DeviceVerificationResult:
        """Judge a device list as a sync would, and answer with every fault at once; nothing is changed, no router asked.

        Addresses are held against the router's networks as it last told of them.
        """
        ...

    @post("/routers/{router_id}/groups/{group_id}/devices/changes", scope=READ, limit=1 << 20, changes=False)
    async def get_device_changes(self, router_id: RouterId, group_id: GroupId, request: GroupDevices) -> DeviceChanges:
        """What a device list would change against the group as it is in force; nothing is changed, no router asked."""
        ...

    @put("/routers/{router_id}/devices/{mac}/name", emits=(DeviceRenamed,))
    async def rename(self, router_id: RouterId, mac: MacAddress, request: DeviceName) -> DeviceInfo:
        """Call a device by a name of your own, or (no `name`) no longer. No router is told. NotFound: a device nobody knows."""
        ...
