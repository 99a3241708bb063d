"""The base set-up on a router that groups stand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import get
from tidegate.policy.router import Capabilities


@dataclass(frozen=True, slots=True)
class InfrastructureStatus:
    """`base` is whether our table and root classes are there; `verified` whether the router, asked now, is as it should be."""

    router: str
    health: str
    capabilities: Capabilities | None
    base: bool
    generation: int
    groups_active: int
    classes_in_use: tuple[str, ...]
    classes_free: int
    next_mark: int
    verified: bool
    drift: tuple[str, ...]
    exchange_ms: float


class Infrastructure(Protocol):
    """The base set-up on a router that groups stand on."""

    @get("/routers/{router_id}/infrastructure/status")
    async def get_status(self, router_id: RouterId) -> InfrastructureStatus:
        """Ask the router: what it can do, the base set-up, classes in use and free, the next mark, drift."""
        ...
