"""Groups: from a wish to a verified router.

The order is the promise: a wish is checked, written down as intended, applied and read back on the router, and only then
recorded, together with the event that tells of it. What fails on the way leaves the router as it was and is told by an event
of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import NoReturn

from tidegate.api.groups import (
    Counters,
    Durations,
    GroupDeleteResponse,
    GroupDevicesUpdate,
    GroupList,
    GroupPolicySummary,
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
from tidegate.daemon import changes, devicerows, manywishes, wishes
from tidegate.daemon.changes import Done
from tidegate.daemon.enrolled import EnrolledRouters, wholly
from tidegate.daemon.intents import Outcome
from tidegate.daemon.manywishes import Judged
from tidegate.daemon.wishes import Wish, Wishes
from tidegate.errors import Conflict, Fault, Invalid, NotFound
from tidegate.events import GroupDeleted, GroupSynced, GroupSyncFailed, RouterChangeFailed
from tidegate.policy.desired import Place
from tidegate.policy.dialect import Parts
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.lan import Lan
from tidegate.policy.membership import DeviceChanges, device_changes, label
from tidegate.policy.plan import Remark
from tidegate.router.aside import FEW, aside
from tidegate.router.engine import Applied
from tidegate.router.fleet import ManagedRouter

SAID = 50  # groups of a failed sync that its event says something of


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
                expected_generation=policies.expected_generation,
            )

        return await self._sync(router_id, group_id, updated)

    async def _sync(
        self, router_id: RouterId, group_id: GroupId, wanted: Callable[[Wishes], GroupSyncRequest]
    ) -> GroupSyncResponse:
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known, lan = await self._wishes_and_lan(router_id)
            request = wanted(known)
            await self._must_be_at(router_id, request.expected_generation)
            wishes.check(group_id, request, known, lan)
            before = known[group_id].request if group_id in known else None

            def outcome(told: Applied) -> Outcome | None:
                if not told.words and not request.force_sync and before == wishes.kept(request):
                    return None
                words = wishes.in_short(before), wishes.in_short(request)
                synced = GroupSynced(router.id, int(group_id), told.generation, told.words, *words)
                return Outcome(told.generation, (synced,), wishes.rows(router_id, {group_id: request}, told.generation))

            done = await self._carry_out(
                router, group_id, known, {**known, group_id: Wish(request)}, outcome, request.force_sync
            )
            return GroupSyncResponse(
                router=str(router_id),
                group=group_id,
                generation=done.applied.generation,
                verified=True,
                device_changes=device_changes(before.devices if before else (), request.devices),
                applied=done.applied.words,
                durations=changes.durations(done, began),
            )

    @wholly
    async def update_group_devices(
        self, router_id: RouterId, group_id: GroupId, update: GroupDevicesUpdate
    ) -> GroupsSyncResponse:
        if update.devices is not None and (update.add or update.remove):
            raise Invalid("a list of all devices leaves none to add or remove", [Fault("body/devices", "or add and remove")])

        async def judge(known: Wishes, lan: Lan | None) -> tuple[GroupsSyncRequest, Judged]:
            if group_id not in known:
                _no_group(router_id, group_id)
            return manywishes.rearrange(group_id, update, known, lan)

        return await self._sync_many(router_id, judge)

    @wholly
    async def sync_all_groups(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsSyncResponse:
        async def judge(known: Wishes, lan: Lan | None) -> tuple[GroupsSyncRequest, Judged]:
            return request, await aside(len(request.groups), FEW, manywishes.judge, request, known, lan)

        return await self._sync_many(router_id, judge)

    async def _sync_many(
        self,
        router_id: RouterId,
        judge: Callable[[Wishes, Lan | None], Awaitable[tuple[GroupsSyncRequest, Judged]]],
    ) -> GroupsSyncResponse:
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known, lan = await self._wishes_and_lan(router_id)
            request, judged = await judge(known, lan)
            for expected in {request.expected_generation, *(wish.expected_generation for wish in request.groups)}:
                await self._must_be_at(router_id, expected)
            many = len(request.groups)
            if not judged.accepted:
                generation = (await self._routers.get(router_id)).generation
                results = _results(request, known, judged, ())
                return GroupsSyncResponse(str(router_id), generation, False, results, (), Durations())
            wanted = judged.over(known)
            states = await aside(len(wanted), FEW, wishes.states, wanted)
            force = any(wish.force_sync for wish in judged.accepted.values())

            def outcome(told: Applied) -> Outcome | None:
                if not (events := _synced(router, known, judged, told)):
                    return None
                anew = {wish.group: wish for event in events if (wish := judged.accepted.get(GroupId(event.group)))}
                return Outcome(told.generation, tuple(events), wishes.rows(router_id, anew, told.generation))

            what = f"a sync of {len(judged.accepted)} groups"
            each = [f"group {int(group)} {wishes.in_short(wish)}" for group, wish in islice(judged.accepted.items(), SAID)]
            done = await changes.carry_out(
                self._journal,
                router,
                known,
                lambda announce: router.engine.synchronise(states, force=force, announce=announce),
                outcome,
                lambda why: RouterChangeFailed(router.id, what, why, tuple(each)),
            )
            return GroupsSyncResponse(
                router=str(router_id),
                generation=done.applied.generation,
                verified=True,
                results=await aside(many, FEW, _results, request, known, judged, done.applied.remarks),
                applied=done.applied.words,
                durations=changes.durations(done, began),
            )

    async def plan(self, router_id: RouterId, request: GroupsSyncRequest) -> GroupsPlan:
        async with self._routers.at(router_id) as router:
            known, lan = await self._wishes_and_lan(router_id)
            many = len(request.groups)
            judged = await aside(many, FEW, manywishes.judge, request, known, lan)
            bundle = await router.engine.prepare(await aside(len(known) + many, FEW, wishes.states, judged.over(known)))
        change, device = bundle.change, bundle.document.interfaces.lan
        return GroupsPlan(
            router=str(router_id),
            generation=bundle.generation,
            changes=bundle.words,
            tc_before=_text(change.tc_put()),
            dialect=change.dialect.name,
            rules=_rules_text(change.rules(device)),
            tc_after=_text(change.tc_remove()),
            results=_results(request, known, judged, bundle.remarks),
        )

    @wholly
    async def delete_group(
        self, router_id: RouterId, group_id: GroupId, expected_generation: int | None = None
    ) -> GroupDeleteResponse:
        if group_id == GUESTS:
            raise Conflict("Group 0, the guests, is always there; sync it without a bandwidth policy to lift its limit")
        began = perf_counter()
        async with self._routers.changing(router_id) as router:
            known = await self._wishes(router_id)
            gone = known.get(group_id) or _no_group(router_id, group_id)
            await self._must_be_at(router_id, expected_generation)
            left = {other: wish for other, wish in known.items() if other != group_id}

            def outcome(told: Applied) -> Outcome:
                deleted = GroupDeleted(router.id, int(group_id), told.generation, told.words, wishes.in_short(gone.request))
                return Outcome(told.generation, (deleted,), removed=(group_id,))

            done = await self._carry_out(router, group_id, known, left, outcome)
            return GroupDeleteResponse(
                router=str(router_id),
                group=group_id,
                generation=done.applied.generation,
                removed=done.applied.words,
                devices_now_guests=tuple(label(device) for device in gone.request.devices),
                durations=changes.durations(done, began),
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
            effective=_effective(wish.request),
            counters=Counters(seen.sent.get(Place(record.lan, minor)), seen.sent.get(Place(record.wan, minor))),
        )

    async def list_groups(self, router_id: RouterId) -> GroupList:
        generation = (await self._routers.get(router_id)).generation
        found = tuple(_summary(group_id, wish) for group_id, wish in (await self._wishes(router_id)).items())
        return GroupList(str(router_id), found, len(found), generation)

    async def _wishes(self, router_id: RouterId) -> Wishes:
        return await wishes.load(self._journal, router_id)

    async def _wishes_and_lan(self, router_id: RouterId) -> tuple[Wishes, Lan | None]:
        lan = await self._journal.read(lambda db: devicerows.lan(db, router_id))
        return await self._wishes(router_id), lan

    async def _must_be_at(self, router_id: RouterId, expected: int | None) -> None:
        """Raises Conflict where the router is at another generation than whoever asks for a change knows of."""
        if expected is not None and (generation := (await self._routers.get(router_id)).generation) != expected:
            raise Conflict(
                f"router {router_id} is at generation {generation}, not {expected}: it was changed meanwhile; "
                "list its groups, decide again and ask with the generation that the list shows",
                generation=generation,
            )

    async def _carry_out(
        self,
        router: ManagedRouter,
        group_id: GroupId,
        before: Wishes,
        wanted: Wishes,
        outcome: Callable[[Applied], Outcome | None],
        force: bool = False,
    ) -> Done:
        states = await aside(len(wanted), FEW, wishes.states, wanted)
        words = [wishes.in_short(each[group_id].request) if group_id in each else "" for each in (before, wanted)]
        return await changes.carry_out(
            self._journal,
            router,
            before,
            lambda announce: router.engine.synchronise(states, force=force, announce=announce),
            outcome,
            lambda why: GroupSyncFailed(router.id, int(group_id), why, *words),
        )


def _no_group(router_id: RouterId, group_id: GroupId) -> NoReturn:
    raise NotFound(f"router {router_id} has no group {int(group_id)}", router=str(router_id), group=int(group_id))


def _summary(group_id: GroupId, wish: Wish) -> GroupSummary:
    request = wish.request
    effective = _effective(request)
    return GroupSummary(
        group=group_id,
        name=request.name,
        active=request.active,
        devices=len(request.devices),
        download_mbps=effective.download_mbps,
        upload_mbps=effective.upload_mbps,
        last_sync=wish.last_sync,
        internet_blocked=effective.block_all_internet,
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

    def told(number: int, group: GroupId) -> GroupSynced:
        changed = (*(() if number else nobodys), *said.get(int(group), ()))
        before = known[group].request if group in known else None
        words = wishes.in_short(before), wishes.in_short(judged.accepted.get(group, before))
        return GroupSynced(router.id, int(group), applied.generation, changed, *words)

    return [told(number, group) for number, group in enumerate([*anew, *mended])]


def _results(request: GroupsSyncRequest, known: Wishes, judged: Judged, remarks: Iterable[Remark]) -> tuple[GroupResult, ...]:
    said = _by_group(remarks)
    found = []
    for number, wish in enumerate(request.groups):
        problem = judged.problems.get(number)
        before = known[wish.group].request if wish.group in known else None
        changed = DeviceChanges()
        if problem is None:
            changed = device_changes(before.devices if before else (), wish.devices)
        texts = tuple(said.get(int(wish.group), ())) if problem is None else ()
        stands = wish if problem is None else before
        found.append(GroupResult(wish.group, problem is None, changed, texts, problem, _effective(stands)))
    return tuple(found)


def _effective(request: GroupSyncRequest | None) -> GroupPolicySummary:
    if request is None or not request.active:
        return GroupPolicySummary()
    policy = request.bandwidth_policy
    limit = policy if policy and policy.active else None
    down, up = (float(limit.limit_mbps), float(limit.upload)) if limit else (None, None)
    return GroupPolicySummary(down, up, request.blocks)


def _by_group(remarks: Iterable[Remark]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for remark in remarks:
        if remark.group is not None:
            found.setdefault(remark.group, []).append(remark.text)
    return found


def _rules_text(parts: Parts) -> str:
    """Of a dialect that has many parts, each behind its name."""
    if len(parts) == 1:
        return _text(next(iter(parts.values())))
    return _text([line for name, lines in parts.items() if lines for line in (f"# {name}", *lines)])


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
