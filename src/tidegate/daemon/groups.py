"""Groups: from a wish to a verified router.

The order is the promise: a wish is checked, then applied and read back on the router, and only then written down, together
with the event that tells of it. What fails on the way leaves the router as it was and is told by an event of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from time import perf_counter

from tidegate.api.groups import (
    Counters,
    Durations,
    GroupDeleteResponse,
    GroupList,
    Groups,
    GroupStatus,
    GroupSummary,
    GroupSyncResponse,
)
from tidegate.api.routers import RouterId
from tidegate.daemon import wishes
from tidegate.daemon.enrolled import EnrolledRouters, advance
from tidegate.daemon.journal import nothing
from tidegate.daemon.wishes import TABLES, Wish, Wishes
from tidegate.errors import Conflict, NotFound, Refused, StorageFull, TimedOut, Unavailable
from tidegate.events import Event, GroupDeleted, GroupSynced, GroupSyncFailed
from tidegate.policy.desired import Place
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.router.engine import Applied
from tidegate.router.fleet import ManagedRouter

__all__ = ["TABLES", "GroupAPIService"]


class GroupAPIService(Groups):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal

    async def sync_group(self, router_id: RouterId, group_id: GroupId, request: GroupSyncRequest) -> GroupSyncResponse:
        return await self._routers.wholly(self._sync(router_id, group_id, request))

    async def delete_group(self, router_id: RouterId, group_id: GroupId) -> GroupDeleteResponse:
        if group_id == GUESTS:
            raise Conflict("Group 0, the guests, is always there; sync it without a bandwidth policy to lift its limit")
        return await self._routers.wholly(self._delete(router_id, group_id))

    async def _sync(self, router_id: RouterId, group_id: GroupId, request: GroupSyncRequest) -> GroupSyncResponse:
        began = perf_counter()
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            wishes.check(group_id, request, known)
            before = known[group_id].request if group_id in known else None
            applied = await self._apply(router, group_id, {**known, group_id: Wish(request)}, force=request.force_sync)
            committing = perf_counter()
            if applied.words or request.force_sync or before != wishes.kept(request):

                def record(db: sqlite3.Connection) -> None:
                    wishes.save(db, router_id, group_id, request, applied.generation)
                    advance(db, router_id, applied.generation)

                synced = GroupSynced(str(router_id), int(group_id), applied.generation, applied.words)
                await self._record(router, known, record, synced)
            return GroupSyncResponse(
                router=str(router_id),
                group=group_id,
                generation=applied.generation,
                verified=True,
                device_changes=wishes.device_changes(before, request),
                applied=applied.words,
                durations=_durations(applied, began, committing),
            )

    async def _delete(self, router_id: RouterId, group_id: GroupId) -> GroupDeleteResponse:
        began = perf_counter()
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            gone = known.get(group_id) or _no_group(router_id, group_id)
            left = {other: wish for other, wish in known.items() if other != group_id}
            applied = await self._apply(router, group_id, left, force=False)
            committing = perf_counter()

            def record(db: sqlite3.Connection) -> None:
                wishes.remove(db, router_id, group_id)
                advance(db, router_id, applied.generation)

            deleted = GroupDeleted(str(router_id), int(group_id), applied.generation, applied.words)
            await self._record(router, known, record, deleted)
            return GroupDeleteResponse(
                router=str(router_id),
                group=group_id,
                generation=applied.generation,
                removed=applied.words,
                devices_now_guests=tuple(wishes.label(device) for device in gone.request.devices),
                durations=_durations(applied, began, committing),
            )

    async def get_group_status(self, router_id: RouterId, group_id: GroupId) -> GroupStatus:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            wish = known.get(group_id) or _no_group(router_id, group_id)
            seen, remarks = await router.engine.verify_router_state(wishes.states(known))
        record = await self._routers.get(router_id)
        drift = tuple(remark.text for remark in remarks if remark.group in (None, int(group_id)))
        minor = group_id.class_minor
        return GroupStatus(
            router=str(router_id),
            group=group_id,
            name=wish.request.name,
            active=wish.request.active,
            devices=wish.request.devices,
            bandwidth_policy=wish.request.bandwidth_policy,
            mark=group_id.mark,
            traffic_class=f"1:{minor}",
            generation=seen.generation,
            last_sync=wish.last_sync,
            verified=not drift,
            drift=drift,
            counters=Counters(seen.sent.get(Place(record.lan, minor)), seen.sent.get(Place(record.wan, minor))),
        )

    async def list_groups(self, router_id: RouterId) -> GroupList:
        await self._routers.get(router_id)
        found = tuple(_summary(group_id, wish) for group_id, wish in (await self._wishes(router_id)).items())
        return GroupList(str(router_id), found, len(found))

    async def _wishes(self, router_id: RouterId) -> Wishes:
        return await self._journal.read(lambda db: wishes.load(db, router_id))

    async def _apply(self, router: ManagedRouter, group_id: GroupId, known: Wishes, *, force: bool) -> Applied:
        try:
            return await router.engine.synchronise(wishes.states(known), force=force)
        except (Refused, Conflict, Unavailable, TimedOut) as error:
            with suppress(StorageFull):  # why the router refused is what the caller should learn
                await self._journal.commit(nothing, GroupSyncFailed(router.id, int(group_id), error.detail))
            raise

    async def _record(
        self, router: ManagedRouter, before: Wishes, record: Callable[[sqlite3.Connection], None], event: Event
    ) -> None:
        """Write down what the router already runs. Where that can't be done, the router goes back to what was before."""
        try:
            await self._journal.commit(record, event)
        except (StorageFull, Unavailable):
            await router.engine.synchronise(wishes.states(before))
            raise


def _no_group(router_id: RouterId, group_id: GroupId) -> Wish:
    raise NotFound(f"router {router_id} has no group {int(group_id)}", router=str(router_id), group=int(group_id))


def _durations(applied: Applied, began: float, committing: float) -> Durations:
    now = perf_counter()
    return Durations(**asdict(applied.stages), commit=round((now - committing) * 1000, 3), total=round((now - began) * 1000, 3))


def _summary(group_id: GroupId, wish: Wish) -> GroupSummary:
    request = wish.request
    policy = request.bandwidth_policy if request.active else None
    limit = policy if policy and policy.active else None
    return GroupSummary(
        group=group_id,
        name=request.name,
        active=request.active,
        devices=len(request.devices),
        download_mbps=float(limit.limit_mbps) if limit else None,
        upload_mbps=float(limit.upload) if limit else None,
        last_sync=wish.last_sync,
    )
