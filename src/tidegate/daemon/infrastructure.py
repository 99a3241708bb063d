"""The base set-up of a router, as the router itself answers for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter

from tidegate.api.infrastructure import (
    Drift,
    Infrastructure,
    InfrastructureChange,
    InfrastructureStatus,
    InfrastructureVerification,
)
from tidegate.api.routers import RouterId
from tidegate.daemon import changes, wishes
from tidegate.daemon.changes import Done
from tidegate.daemon.enrolled import EnrolledRouters, wholly
from tidegate.daemon.health import in_short
from tidegate.daemon.intents import Outcome
from tidegate.daemon.wishes import Wishes
from tidegate.events import (
    Event,
    GroupDeleted,
    InfrastructureRepaired,
    InfrastructureSetUp,
    InfrastructureTornDown,
    RouterChangeFailed,
)
from tidegate.policy.group import GUESTS
from tidegate.router.engine import Announce, Applied
from tidegate.router.fleet import ManagedRouter
from tidegate.router.inspection import Inspection
from tidegate.router.statefile import StateFileManager


class InfrastructureService(Infrastructure):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal

    async def get_status(self, router_id: RouterId) -> InfrastructureStatus:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            asked = perf_counter()
            seen, remarks = await router.engine.verify_router_state(wishes.states(known))
            answered = perf_counter()
        record = await self._routers.get(router_id)
        state = StateFileManager(seen.document.groups if seen.document else ())
        following = state.next_group()
        queues = record.capabilities is None or record.capabilities.htb
        return InfrastructureStatus(
            router=str(router_id),
            health="degraded" if remarks else record.health,
            why=in_short(tuple(remark.text for remark in remarks)) or record.why,
            since=record.since,
            capabilities=record.capabilities,
            base=bool(seen.resources.rules) and (not queues or {record.lan, record.wan} <= seen.resources.roots),
            generation=seen.generation,
            groups_active=state.groups_active(),
            classes_in_use=state.classes_in_use(),
            classes_free=state.classes_free(),
            next_mark=following.mark if following else None,
            verified=not remarks,
            drift=tuple(remark.text for remark in remarks),
            exchange_ms=round((answered - asked) * 1000, 3),
        )

    @wholly
    async def setup(self, router_id: RouterId) -> InfrastructureChange:
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known = await self._wishes(router_id)

            def outcome(told: Applied) -> Outcome | None:
                event = InfrastructureSetUp(router.id, told.generation, told.words)
                return Outcome(told.generation, (event,)) if told.words else None

            done = await self._carry_out(
                router,
                known,
                lambda announce: router.engine.synchronise(wishes.states(known), force=True, announce=announce),
                outcome,
                "set-up",
            )
        took, lan = changes.durations(done, began), done.applied.lan
        return InfrastructureChange(str(router_id), done.applied.generation, done.applied.words, durations=took, lan=lan)

    @wholly
    async def teardown(self, router_id: RouterId) -> InfrastructureChange:
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known = await self._wishes(router_id)

            def outcome(told: Applied) -> Outcome:
                gone = [group for group in known if group != GUESTS]
                said = {group: tuple(remark.text for remark in told.remarks if remark.group == group) for group in gone}
                events: list[Event] = [
                    GroupDeleted(router.id, int(group), told.generation, said[group], wishes.in_short(known[group].request))
                    for group in gone
                ]
                events.append(InfrastructureTornDown(router.id, told.generation, told.words))
                return Outcome(told.generation, tuple(events), removed=tuple(known))

            done = await self._carry_out(router, known, router.engine.remove_base, outcome, "teardown")
        took, lan = changes.durations(done, began), done.applied.lan
        return InfrastructureChange(str(router_id), done.applied.generation, done.applied.words, durations=took, lan=lan)

    async def verify(self, router_id: RouterId) -> InfrastructureVerification:
        found = await self.look(router_id)
        drift = tuple(Drift(remark.group, remark.text) for remark in found.remarks)
        return InfrastructureVerification(
            str(router_id), found.seen.generation, not drift, drift, "degraded" if found.seen.damage else "sound"
        )

    @wholly
    async def repair(self, router_id: RouterId) -> InfrastructureChange:
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known = await self._wishes(router_id)
            groups = wishes.states(known)
            generation = (await self._routers.get(router_id)).generation
            found: Inspection | None = None

            async def mend(announce: Announce) -> Applied:
                nonlocal found
                found = await router.engine.inspect(groups)
                return await router.engine.repair(found, groups, generation, announce)

            def outcome(told: Applied) -> Outcome | None:
                event = InfrastructureRepaired(router.id, told.generation, _mended(found))
                return Outcome(told.generation, (event,)) if event.mended else None

            done = await self._carry_out(router, known, mend, outcome, "repair")
            left = found.left if found else ()
            self._routers.mended(str(router_id), left)
        mended = done.applied.words or _mended(found)
        took = changes.durations(done, began)
        return InfrastructureChange(str(router_id), done.applied.generation, mended, left, took, done.applied.lan)

    async def look(self, router_id: RouterId) -> Inspection:
        """Compare the router with what it should be, and let its health and the events say what came of it.

        A router from which everything was taken down, and of which nothing is asked, is well as it is.
        """
        async with self._routers.at(router_id) as router:
            groups = wishes.states(await self._wishes(router_id))
            found = await router.engine.inspect(groups)
            if not groups and found.bare:
                found = replace(found, remarks=())
            await self._routers.looked(str(router_id), found.places)
        return found

    async def _carry_out(
        self,
        router: ManagedRouter,
        known: Wishes,
        work: Callable[[Announce], Awaitable[Applied]],
        outcome: Callable[[Applied], Outcome | None],
        what: str,
    ) -> Done:
        return await changes.carry_out(
            self._journal, router, known, work, outcome, lambda why: RouterChangeFailed(router.id, what, why)
        )

    async def _wishes(self, router_id: RouterId) -> Wishes:
        return await wishes.load(self._journal, router_id)


def _mended(found: Inspection | None) -> tuple[str, ...]:
    return tuple(remark.text for remark in found.remarks if remark.text not in found.left) if found else ()
