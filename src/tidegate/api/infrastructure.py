"""The base set-up on a router that groups stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tidegate.api.groups import Durations
from tidegate.api.routers import RouterId
from tidegate.contract import READ, get, post
from tidegate.events import GroupDeleted, InfrastructureRepaired, InfrastructureSetUp, InfrastructureTornDown
from tidegate.policy.router import Capabilities


@dataclass(frozen=True, slots=True)
class InfrastructureStatus:
    """`base` is whether our table and root classes are there; `verified` whether the router, asked now, is as it should be.
    `health` is "degraded" where its state document is damaged: `drift` says in what way, and which copy of it is used.

    `next_mark`: of the lowest group number that nobody has, None where all are taken; its class has the same digits.
    """

    router: str
    health: str
    why: str
    since: datetime
    capabilities: Capabilities | None
    base: bool
    generation: int
    groups_active: int
    classes_in_use: tuple[str, ...]
    classes_free: int
    next_mark: int | None
    verified: bool
    drift: tuple[str, ...]
    exchange_ms: float


@dataclass(frozen=True, slots=True)
class Drift:
    """One place where the router is not as it should be. `group`: whose it is, None where it is the base set-up's."""

    group: int | None
    place: str


@dataclass(frozen=True, slots=True)
class InfrastructureVerification:
    """What a router was compared against: this controller's groups. `verified` where not one place differs; `document` is
    "degraded" where its state document is damaged, "sound" otherwise."""

    router: str
    generation: int
    verified: bool
    drift: tuple[Drift, ...]
    document: str = "sound"


@dataclass(frozen=True, slots=True)
class InfrastructureChange:
    """`changed` says in words what was done, empty where nothing had to be. `left`: places that only a person can mend.
    `lan`: who on the LAN answered before and after, where the change could have cut it off."""

    router: str
    generation: int
    changed: tuple[str, ...]
    left: tuple[str, ...] = ()
    durations: Durations = field(default_factory=Durations)
    lan: str = ""


class Infrastructure(Protocol):
    """The base set-up on a router that groups stand on."""

    @get("/routers/{router_id}/infrastructure/status")
    async def get_status(self, router_id: RouterId) -> InfrastructureStatus:
        """Ask the router: what it can do, the base set-up, classes in use and free, the next mark, drift."""
        ...

    @post("/routers/{router_id}/infrastructure/setup", emits=(InfrastructureSetUp,), long=True)
    async def setup(self, router_id: RouterId) -> InfrastructureChange:
        """Put the base set-up back in place, with every group that the controller knows; what stands is left as it is.

        Raises Conflict (another controller has taken the router up), Refused, Unavailable or TimedOut.
        """
        ...

    @post("/routers/{router_id}/infrastructure/teardown", emits=(GroupDeleted, InfrastructureTornDown), long=True)
    async def teardown(self, router_id: RouterId) -> InfrastructureChange:
        """Take all groups and the base set-up off the router; it stays enrolled, and restricts nobody.

        The next sync of a group puts the base set-up back. `routers.remove` also takes the agent and the log-in key away.
        Raises what `setup` raises.
        """
        ...

    @post("/routers/{router_id}/infrastructure/verify", scope=READ, changes=False)
    async def verify(self, router_id: RouterId) -> InfrastructureVerification:
        """Compare the router with what it should be, place by place: rules, queues, the state document, flow offload."""
        ...

    @post("/routers/{router_id}/infrastructure/repair", emits=(InfrastructureRepaired,), long=True)
    async def repair(self, router_id: RouterId) -> InfrastructureChange:
        """Mend every place where the router drifted, and nothing else; what is not ours (flow offload, say) is only named.

        Raises what `setup` raises; a root queue of somebody else in our place is Refused, with how to remove it.
        """
        ...
