"""Groups of devices on a router and what they may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import READ, delete, get, post, put
from tidegate.events import GroupDeleted, GroupSynced
from tidegate.policy.device import DeviceKey, DeviceRef
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest
from tidegate.policy.membership import DeviceChanges

MANY = 8 << 20  # bytes: 1,000 groups of 10 devices, each with its addresses and names, are about 2 MB


@dataclass(frozen=True, slots=True)
class Durations:
    """Milliseconds per stage: the router asked, the change worked out, written down as intended, applied, compared with what
    was read back, confirmed over a new connection, recorded; and from the request to its answer."""

    observe: float = 0.0
    plan: float = 0.0
    intend: float = 0.0
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
class GroupPolicyUpdate:
    """Only what is given is changed. A policy is lifted by giving it with `active: false`."""

    bandwidth_policy: BandwidthPolicy | None = None
    access_control_policy: AccessControlPolicy | None = None
    expected_generation: int | None = None


@dataclass(frozen=True, slots=True)
class GroupDevicesUpdate:
    """`devices`: all that the group shall have. Or some to `add` (an entry of the same MAC is replaced) and to `remove`, each
    by its MAC or an address.

    `move` takes devices away from the groups that have them; without it that is a Conflict. `confirm_mass_change`: as in a
    sync, for every group that loses devices.
    """

    devices: tuple[DeviceRef, ...] | None = None
    add: tuple[DeviceRef, ...] = ()
    remove: tuple[DeviceKey, ...] = ()
    move: bool = False
    confirm_mass_change: bool = False


@dataclass(frozen=True, slots=True)
class GroupWish(GroupSyncRequest):
    """The wish for one group of many: its number and what `sync_group` takes."""

    group: GroupId = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class GroupsSyncRequest:
    """Wishes for many groups; those that are not named stay as they are.

    `atomic`: one fault anywhere and nothing is done. Otherwise each group is taken on its own merits, and those that can be
    are made so in one change; of two that claim the same device, the one that has it (or is named first) keeps it.
    `expected_generation`: as in a sync of one group, for all of them.
    """

    groups: tuple[GroupWish, ...]
    atomic: bool = True
    expected_generation: int | None = None


@dataclass(frozen=True, slots=True)
class GroupFault:
    """One thing in the way: `at` is its place ("body/groups/3/devices/1/mac"), `why` says what would be right."""

    at: str
    why: str


@dataclass(frozen=True, slots=True)
class GroupProblem:
    """Why a group can't be as asked. `type` is a problem document's: `urn:tidegate:invalid` or `urn:tidegate:conflict`."""

    type: str
    detail: str
    faults: tuple[GroupFault, ...]


@dataclass(frozen=True, slots=True)
class GroupPolicySummary:
    """What holds for a group in a few fields, its policies taken together. No rate is no limit."""

    download_mbps: float | None = None
    upload_mbps: float | None = None
    block_all_internet: bool = False


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One group of a sync of many. `effective`: what holds for it then; `problem`: why it was left as it was."""

    group: GroupId
    ok: bool
    device_changes: DeviceChanges
    applied: tuple[str, ...]
    problem: GroupProblem | None = None
    effective: GroupPolicySummary = field(default_factory=GroupPolicySummary)


@dataclass(frozen=True, slots=True)
class GroupsSyncResponse:
    """`applied` says in words what changed on the router, for all groups together; empty when nothing was sent.

    `verified`: what was taken on was read back on the router; false only where no group could be taken on.
    """

    router: str
    generation: int
    verified: bool
    results: tuple[GroupResult, ...]
    applied: tuple[str, ...]
    durations: Durations


@dataclass(frozen=True, slots=True)
class GroupsPlan:
    """What a sync of these groups would do to the router as it is now, at this generation of its state document.

    `changes`: in words; empty when nothing would be sent. `tc_before`, `rules` and `tc_after`: the very text that would run, in
    this order: batches for `tc -batch`, and between them what the router's `dialect` is told: "nftables", one transaction for
    `nft -f`; "iptables", parts behind their names for `iptables-restore`, `ip6tables-restore` and `ipset restore`.
    `results`: as the sync would answer, `applied` meaning what would be.
    """

    router: str
    generation: int
    changes: tuple[str, ...]
    tc_before: str
    dialect: str
    rules: str
    tc_after: str
    results: tuple[GroupResult, ...]


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
    """A group's state and whether the router, asked just now, holds to it; `drift` names every place where it does not.

    `effective`: what its policies come to together.
    """

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
    access_control_policy: AccessControlPolicy | None = None
    effective: GroupPolicySummary = field(default_factory=GroupPolicySummary)


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
    internet_blocked: bool = False


@dataclass(frozen=True, slots=True)
class GroupList:
    """`generation`: the router's, as of the last change; for `expected_generation` in the next."""

    router: str
    groups: tuple[GroupSummary, ...]
    total: int
    generation: int = 0


class Groups(Protocol):
    """Groups of devices on a router and what they may use."""

    @post("/routers/{router_id}/groups/{group_id}/sync", emits=(GroupSynced,), limit=1 << 20, long=True)
    async def sync_group(self, router_id: RouterId, group_id: GroupId, request: GroupSyncRequest) -> GroupSyncResponse:
        """Make the group on the router be as the request says; answers once that was verified on the router.

        An unchanged wish sends nothing, unless `force_sync` asks to compare with the router. Raises Invalid, NotFound
        (router), Conflict (a device belongs to another group; a mass change is not confirmed), Refused (the router, which runs
        what it ran before), or Unavailable or TimedOut (nobody answers: where the line was cut in mid-change,
        `get_group_status` tells which it is).
        """
        ...

    @put("/routers/{router_id}/groups/{group_id}/policy", emits=(GroupSynced,), long=True)
    async def update_group_policy(
        self, router_id: RouterId, group_id: GroupId, policies: GroupPolicyUpdate
    ) -> GroupSyncResponse:
        """Change only the policies that are given; the group's devices and its other policies stay as they are.

        Raises what `sync_group` raises, and NotFound for a group that was never synced.
        """
        ...

    @put("/routers/{router_id}/groups/{group_id}/devices", emits=(GroupSynced,), limit=1 << 20, long=True)
    async def update_group_devices(
        self, router_id: RouterId, group_id: GroupId, update: GroupDevicesUpdate
    ) -> GroupsSyncResponse:
        """Change only which devices the group has; its policies stay as they are. One change, all or nothing.

        Answers for this group first, then for those that lost devices to it. Raises what `sync_all_groups` raises, and NotFound
        for a group that was never synced.
        """
        ...

    @post("/routers/{router_id}/groups/sync-all", emits=(GroupSynced,), limit=MANY, long=True)
    async def sync_all_groups(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsSyncResponse:
        """Make many groups be as asked, as one change on the router: all or nothing, or (`atomic: false`) each on its merits.

        Raises Invalid with every fault of every group, Conflict (devices of groups that the request does not name), and
        otherwise what `sync_group` raises; the groups then all stay as they were.
        """
        ...

    @post("/routers/{router_id}/groups/plan", scope=READ, limit=MANY, changes=False)
    async def plan(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsPlan:
        """Show what `sync_all_groups` with the same input would change, in words and as the text that would run.

        The router is asked, nothing is applied. Raises what `sync_all_groups` raises before it sends anything.
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
    async def delete_group(
        self, router_id: RouterId, group_id: GroupId, expected_generation: int | None = None
    ) -> GroupDeleteResponse:
        """Take everything of the group off the router; its devices become guests. Group 0 can't be deleted (Conflict)."""
        ...
