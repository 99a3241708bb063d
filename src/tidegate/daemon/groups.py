"""Groups: from a wish to a verified router.

The order is the promise: a wish is checked, then applied and read back on the router, and only then written down, together
with the event that tells of it. What fails on the way leaves the router as it was and is told by an event of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from time import perf_counter

from tidegate.api.groups import (
    Counters,
    DeviceChanges,
    Durations,
    GroupDeleteResponse,
    GroupList,
    GroupPolicyUpdate,
    GroupResult,
    Groups,
    GroupsPlan,
    GroupsSyncRequest,
    GroupsSyncResponse,
    GroupStatus,
    GroupSummary,
    GroupSyncResponse,
)
from tidegate.api.routers import RouterId
from tidegate.daemon import changes, manywishes, wishes
from tidegate.daemon.enrolled import EnrolledRouters, advance, wholly
from tidegate.daemon.manywishes import Judged
from tidegate.daemon.wishes import TABLES, Wish, Wishes
from tidegate.errors import Conflict, NotFound
from tidegate.events import Event, GroupDeleted, GroupSynced, GroupSyncFailed, RouterChangeFailed
from tidegate.policy.desired import Place
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.plan import Remark
from tidegate.router.aside import FEW, aside
from tidegate.router.engine import Applied
from tidegate.router.fleet import ManagedRouter

__all__ = ["TABLES", "GroupAPIService"]


class GroupAPIService(Groups):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal

    @wholly
    async def sync_group(self, router_id: RouterId, group_id: GroupId, request: GroupSyncRequest) -> GroupSyncResponse:
        return await self._sync(router_id, group_id, lambda _: request)

    @wholly
    async def update_group_policy(
        self, router_id: RouterId, group_id: GroupId, policies: GroupPolicyUpdate
    ) -> GroupSyncResponse:
        def updated(known: Wishes) -> GroupSyncRequest:
            request = (known.get(group_id) or _no_group(router_id, group_id)).request
            return replace(
                request,
                bandwidth_policy=policies.bandwidth_policy or request.bandwidth_policy,
                access_control_policy=policies.access_control_policy or request.access_control_policy,
            )

        return await self._sync(router_id, group_id, updated)

    async def _sync(
        self, router_id: RouterId, group_id: GroupId, wanted: Callable[[Wishes], GroupSyncRequest]
    ) -> GroupSyncResponse:
        began = perf_counter()
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            request = wanted(known)
            wishes.check(group_id, request, known)
            before = known[group_id].request if group_id in known else None
            applied = await self._apply(router, group_id, {**known, group_id: Wish(request)}, force=request.force_sync)
            committing = perf_counter()
            if applied.words or request.force_sync or before != wishes.kept(request):
                rows = wishes.rows(router_id, {group_id: request}, applied.generation)

                def record(db: sqlite3.Connection) -> None:
                    wishes.save(db, rows)
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

    @wholly
    async def sync_all_groups(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsSyncResponse:
        began = perf_counter()
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            many = len(request.groups)
            judged = await aside(many, FEW, manywishes.judge, request, known)
            if not judged.accepted:
                generation = (await self._routers.get(router_id)).generation
                results = _results(request, known, judged, ())
                return GroupsSyncResponse(str(router_id), generation, False, results, (), Durations())
            wanted = judged.over(known)
            states = await aside(len(wanted), FEW, wishes.states, wanted)
            force = any(wish.force_sync for wish in judged.accepted.values())
            applied = await changes.attempt(
                self._journal,
                router.engine.synchronise(states, force=force),
                lambda why: RouterChangeFailed(router.id, f"a sync of {len(judged.accepted)} groups", why),
            )
            committing = perf_counter()
            synced = await aside(many, FEW, _synced, router, known, judged, applied)
            if synced:
                anew = {wish.group: wish for event in synced if (wish := judged.accepted.get(GroupId(event.group)))}
                rows = await aside(many, FEW, wishes.rows, router_id, anew, applied.generation)

                def write(db: sqlite3.Connection) -> None:
                    wishes.save(db, rows)
                    advance(db, router_id, applied.generation)

                await changes.record(self._journal, router, known, write, *synced)
            return GroupsSyncResponse(
                router=str(router_id),
                generation=applied.generation,
                verified=True,
                results=await aside(many, FEW, _results, request, known, judged, applied.remarks),
                applied=applied.words,
                durations=_durations(applied, began, committing),
            )

    async def plan(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsPlan:
        async with self._routers.at(router_id) as router:
            known = await self._wishes(router_id)
            many = len(request.groups)
            judged = await aside(many, FEW, manywishes.judge, request, known)
            bundle = await router.engine.prepare(await aside(len(known) + many, FEW, wishes.states, judged.over(known)))
        change, lan = bundle.change, bundle.document.interfaces.lan
        return GroupsPlan(
            router=str(router_id),
            generation=bundle.generation,
            changes=bundle.words,
            tc_before=_text(change.tc_put()),
            nft=_text(change.nft(lan)),
            tc_after=_text(change.tc_remove()),
            results=_results(request, known, judged, bundle.remarks),
        )

    @wholly
    async def delete_group(self, router_id: RouterId, group_id: GroupId) -> GroupDeleteResponse:
        if group_id == GUESTS:
            raise Conflict("Group 0, the guests, is always there; sync it without a bandwidth policy to lift its limit")
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
            states = await aside(len(known), FEW, wishes.states, known)
            seen, remarks = await router.engine.verify_router_state(states)
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
            access_control_policy=wish.request.access_control_policy,
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
        return await wishes.load(self._journal, router_id)

    async def _apply(self, router: ManagedRouter, group_id: GroupId, known: Wishes, *, force: bool) -> Applied:
        change = router.engine.synchronise(await aside(len(known), FEW, wishes.states, known), force=force)
        return await changes.attempt(self._journal, change, lambda why: GroupSyncFailed(router.id, int(group_id), why))

    async def _record(
        self, router: ManagedRouter, before: Wishes, record: Callable[[sqlite3.Connection], None], event: Event
    ) -> None:
        await changes.record(self._journal, router, before, record, event)


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
        internet_blocked=request.active and request.blocks,
    )


def _synced(router: ManagedRouter, known: Wishes, judged: Judged, applied: Applied) -> list[GroupSynced]:
    """An event for each group whose wish is another now, or of which something on the router was changed.

    What belongs to no group, the base rules put in place, say, is told with the first of them.
    """
    said = _by_group(applied.remarks)
    anew = [
        group
        for group, wish in judged.accepted.items()
        if wish.force_sync or group not in known or known[group].request != wishes.kept(wish)
    ]
    mended = [GroupId(group) for group in said if group not in anew]
    if not anew and not mended and applied.words:
        anew = [next(iter(judged.accepted))]
    theirs = {text for texts in said.values() for text in texts}
    nobodys = tuple(text for text in applied.words if text not in theirs)
    return [
        GroupSynced(router.id, int(group), applied.generation, (*(() if number else nobodys), *said.get(int(group), ())))
        for number, group in enumerate([*anew, *mended])
    ]


def _results(request: GroupsSyncRequest, known: Wishes, judged: Judged, remarks: Iterable[Remark]) -> tuple[GroupResult, ...]:
    said = _by_group(remarks)
    found = []
    for number, wish in enumerate(request.groups):
        problem = judged.problems.get(number)
        before = known[wish.group].request if wish.group in known else None
        changed = wishes.device_changes(before, wish) if problem is None else DeviceChanges()
        texts = tuple(said.get(int(wish.group), ())) if problem is None else ()
        found.append(GroupResult(wish.group, problem is None, changed, texts, problem))
    return tuple(found)


def _by_group(remarks: Iterable[Remark]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for remark in remarks:
        if remark.group is not None:
            found.setdefault(remark.group, []).append(remark.text)
    return found


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
