"""The base set-up of a router, as the router itself answers for it."""

from __future__ import annotations

from time import perf_counter

from tidegate.api.infrastructure import Infrastructure, InfrastructureStatus
from tidegate.api.routers import RouterId
from tidegate.daemon import wishes
from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.policy.state import StateDocument
from tidegate.router.statefile import StateFileManager

CLASSES = 9900  # one for each group that a traffic class can be named after


class InfrastructureService(Infrastructure):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers

    async def get_status(self, router_id: RouterId) -> InfrastructureStatus:
        async with self._routers.at(router_id) as router:
            known = await self._routers.journal.read(lambda db: wishes.load(db, router_id))
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


def _active(document: StateDocument) -> int:
    return sum(group.active for group in document.groups)
