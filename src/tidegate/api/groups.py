"""Groups of devices on a router and what they may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import delete, get, post
from tidegate.events import GroupDeleted, GroupSynced
from tidegate.policy.device import DeviceRef
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest


@dataclass(frozen=True, slots=True)
class DeviceChanges:
    """What a sync changed among a group's devices, each as its MAC or, where none is known, its first address."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    ip_changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Durations:
    """Milliseconds per stage."""

    observe: float = 0.0
    plan: float = 0.0
    apply: float = 0.0
    verify: float = 0.0
    confirm: float = 0.0
    commit: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupSyncResponse:
    """`applied` says in words what changed on the router; empty when it held already and nothing was sent."""

    router: str
    group: GroupId
    generation: int
    verified: bool
    device_changes: DeviceChanges
    applied: tuple[str, ...]
    durations: Durations


@dataclass(frozen=True, slots=True)
class GroupDeleteResponse:
    router: str
    group: GroupId
    generation: int
    removed: tuple[str, ...]
    devices_now_guests: tuple[str, ...]
    durations: Durations


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes that the group's class let through since it was made. `None`: the group has no class of its own."""

    download_bytes: int | None = None
    upload_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group's state and whether the router, asked just now, holds to it; `drift` names every place where it does not."""

    router: str
    group: GroupId
    name: str
    active: bool
    devices: tuple[DeviceRef, ...]
    bandwidth_policy: BandwidthPolicy | None
    mark: int
    traffic_class: str
    generation: int
    last_sync: datetime | None
    verified: bool
    drift: tuple[str, ...] = ()
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group in a list: the controller's knowledge, without asking the router."""

    group: GroupId
    name: str
    active: bool
    devices: int
    download_mbps: float | None
    upload_mbps: float | None
    last_sync: datetime | None


@dataclass(frozen=True, slots=True)
class GroupList:
    router: str
    groups: tuple[GroupSummary, ...]
    total: int


class Groups(Protocol):
    """Groups of devices on a router and what they may use."""

    @post("/routers/{router_id}/groups/{group_id}/sync", emits=(GroupSynced,), limit=1 << 20, long=True)
    async def sync_group(self, router_id: RouterId, group_id: GroupId, request: GroupSyncRequest) -> GroupSyncResponse:
        """Make the group on the router be as the request says; answers once that was verified on the router.

        An unchanged wish sends nothing, unless `force_sync` asks to compare with the router. Raises Invalid, NotFound
        (router), Conflict (a device belongs to another group), Refused (the router, which runs what it ran before), or
        Unavailable or TimedOut (nobody answers: where the line was cut in mid-change, `get_group_status` tells which it is).
        """
        ...

    @get("/routers/{router_id}/groups/{group_id}/status")
    async def get_group_status(self, router_id: RouterId, group_id: GroupId) -> GroupStatus:
        """The group's state, its counters, and whether the router holds to it right now (drift named place by place)."""
        ...

    @get("/routers/{router_id}/groups")
    async def list_groups(self, router_id: RouterId) -> GroupList:
        """All groups of the router with their effective limits, Group 0 (the guests) first."""
        ...

    @delete("/routers/{router_id}/groups/{group_id}", emits=(GroupDeleted,), long=True)
    async def delete_group(self, router_id: RouterId, group_id: GroupId) -> GroupDeleteResponse:
        """Take everything of the group off the router; its devices become guests. Group 0 can't be deleted (Conflict)."""
        ...
