"""The quiet look at every router: whether it still is as it should be, and who is on its network, without anybody asking.

Each is looked at within a minute of the start and of its coming back, then every `seconds`, a little more or less so that many
routers do not answer at once; one that is not well every minute. A look is a few short exchanges - rules, queues and document;
flow offload; leases and neighbours - and it is put off while somebody else has the router's turn. What is ours and drifted is
mended, if that is wished for; one attempt at the same places an hour, where it fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from time import monotonic

import structlog

from tidegate.api.routers import Router, RouterId
from tidegate.daemon.devices import DevicesService
from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.daemon.infrastructure import InfrastructureService
from tidegate.errors import TidegateError

STEP = 2.0  # seconds at most between two looks at who is due
SOON = 45.0  # seconds within which a router is looked at that has come (back), or is not well
AT_ONCE = 8
AGAIN = 3600.0  # seconds until mending the same places is tried again after it failed

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.watch")


class Rota:
    """When each router is to be looked at, in seconds of a clock that only runs. `between` picks one number of a range."""

    def __init__(self, seconds: float, between: Callable[[float, float], float]) -> None:
        self._seconds = seconds
        self._soon = min(SOON, seconds)
        self._between = between
        self._due: dict[str, float] = {}
        self._health: dict[str, str] = {}

    def due(self, health: Mapping[str, str], now: float) -> list[str]:
        """The routers whose turn has come, longest due first, by how each fares now; they are, until `looked`."""
        for gone in self._due.keys() - health.keys():
            del self._due[gone], self._health[gone]
        for router, state in health.items():
            came = state == "reachable" and self._health.get(router) != "reachable"
            if router not in self._due or came:
                soon = now + self._between(0, self._soon)
                self._due[router] = min(self._due.get(router, soon), soon)
            self._health[router] = state
        return sorted((router for router, at in self._due.items() if at <= now), key=lambda router: self._due[router])

    def looked(self, router: str, now: float) -> None:
        """It is being looked at; until the next time."""
        pause = self._seconds if self._health[router] in ("reachable", "unknown") else self._soon
        self._due[router] = now + pause * self._between(0.8, 1.2)


class Watch:
    def __init__(
        self,
        routers: EnrolledRouters,
        infrastructure: InfrastructureService,
        devices: DevicesService,
        seconds: float,
        *,
        repair: bool,
    ) -> None:
        self._routers = routers
        self._infrastructure = infrastructure
        self._devices = devices
        self._rota = Rota(seconds, random.uniform)
        self._step = min(STEP, seconds / 4)
        self._repair = repair
        self._failed: dict[str, tuple[tuple[str, ...], float]] = {}  # places that could not be mended, and when
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(self._step)
                try:
                    self._begin({str(router.id): router for router in await self._routers.all()})
                except TidegateError as error:  # the journal: it is asked again at the next step
                    log.warning("routers are not watched for now", why=error.detail)
        finally:
            looks = list(self._looks.values())
            for task in looks:
                task.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    def _begin(self, routers: Mapping[str, Router]) -> None:
        """Look at those that are due and that nobody is talking to."""
        now = monotonic()
        for name in self._rota.due({name: router.health for name, router in routers.items()}, now):
            managed = self._routers.fleet.get(name)
            if name in self._looks or len(self._looks) >= AT_ONCE or (managed and managed.turn.locked()):
                continue
            self._rota.looked(name, now)
            self._looks[name] = task = asyncio.create_task(self._look(routers[name]), name=f"look at router {name}")
            task.add_done_callback(lambda _, name=name: self._looks.pop(name))  # type: ignore[misc]

    async def _look(self, router: Router) -> None:
        name = str(router.id)
        try:
            found = await self._infrastructure.look(router.id)
            await self._devices.discover(router.id)
            places = tuple(remark.text for remark in found.remarks if remark.text not in found.left)
            if found.seen.damage and not found.seen.damage.used:
                return  # with no good copy left, nothing is written over what is there until a person says so
            tried, when = self._failed.get(name, ((), 0.0))
            if not places or (tried == places and monotonic() < when + AGAIN) or not self._repair or router.held:
                return
            self._failed[name] = places, monotonic()
            await self._infrastructure.repair(RouterId(name))
            del self._failed[name]
        except TidegateError as error:  # its health and its events tell of it
            log.info("a router could not be looked at or mended", router=name, why=error.detail)
        except Exception:
            log.exception("looking at a router failed", router=name)
