"""The base set-up of a router, as the router itself answers for it."""

from __future__ import annotations

import sqlite3
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
from tidegate.daemon.enrolled import EnrolledRouters, advance, wholly
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
from tidegate.policy.state import StateDocument
from tidegate.router.statefile import StateFileManager

CLASSES = 9900  # one for each group that a traffic class can be named after


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
        classes: tuple[str, ...] = ()
        active, next_mark = 0, 101
        if seen.document:
            state = StateFileManager(seen.document)
            classes, next_mark, active = state.classes_in_use(), state.next_group().mark, _active(seen.document)
        return InfrastructureStatus(
            router=str(router_id),
            health=record.health,
            capabilities=record.capabilities,
            base=bool(seen.resources.rules) and {record.lan, record.wan} <= seen.resources.roots,
            generation=seen.generation,
            groups_active=active,
            classes_in_use=classes,
            classes_free=CLASSES - len(classes),
            next_mark=next_mark,
            verified=not remarks,
            drift=tuple(remark.text for remark in remarks),
            exchange_ms=round((answered - asked) * 1000, 3),
        )

    @wholly
    async def setup(self, router_id: RouterId) -> InfrastructureChange:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            putting = router.engine.synchronise(wishes.states(known), force=True)
            applied = await changes.attempt(self._journal, putting, lambda why: RouterChangeFailed(router.id, "set-up", why))
            if applied.words:
                event = InfrastructureSetUp(router.id, applied.generation, applied.words)
                await self._advance(router_id, applied.generation, event)
        return InfrastructureChange(str(router_id), applied.generation, applied.words)

    @wholly
    async def teardown(self, router_id: RouterId) -> InfrastructureChange:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            taking = router.engine.remove_base()
            applied = await changes.attempt(self._journal, taking, lambda why: RouterChangeFailed(router.id, "teardown", why))

            def write(db: sqlite3.Connection) -> None:
                wishes.remove(db, router_id)
                advance(db, router_id, applied.generation)

            gone = [group for group in known if group != GUESTS]
            said = {group: tuple(remark.text for remark in applied.remarks if remark.group == group) for group in gone}
            events: list[Event] = [GroupDeleted(router.id, int(group), applied.generation, said[group]) for group in gone]
            events.append(InfrastructureTornDown(router.id, applied.generation, applied.words))
            await changes.record(self._journal, router, known, write, *events)
        return InfrastructureChange(str(router_id), applied.generation, applied.words)

    async def verify(self, router_id: RouterId) -> InfrastructureVerification:
        async with self._routers.at(router_id) as router:
            found = await router.engine.inspect(wishes.states(await self._wishes(router_id)))
        generation = found.damaged[0] if found.damaged else found.seen.generation
        drift = tuple(Drift(remark.group, remark.text) for remark in found.remarks)
        return InfrastructureVerification(str(router_id), generation, not drift, drift)

    @wholly
    async def repair(self, router_id: RouterId) -> InfrastructureChange:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            mending = router.engine.repair(wishes.states(known))
            applied, found = await changes.attempt(
                self._journal, mending, lambda why: RouterChangeFailed(router.id, "repair", why)
            )
            mended = tuple(remark.text for remark in found.remarks if remark.text not in found.left)
            if mended:
                event = InfrastructureRepaired(router.id, applied.generation, mended)
                await self._advance(router_id, applied.generation, event)
        return InfrastructureChange(str(router_id), applied.generation, applied.words or mended, found.left)

    async def _wishes(self, router_id: RouterId) -> Wishes:
        return await wishes.load(self._journal, router_id)

    async def _advance(self, router_id: RouterId, generation: int, event: Event) -> None:
        await self._journal.commit(lambda db: advance(db, router_id, generation), event)


def _active(document: StateDocument) -> int:
    return sum(group.active for group in document.groups)
