"""State documents: shown, taken in, and gone back to. Whatever is taken in becomes the router's by a change like any other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import NamedTuple

from tidegate.api.routers import RouterId
from tidegate.api.state import (
    State,
    StateBackup,
    StateBackups,
    StateChange,
    StateExport,
    StateFile,
    StateGroup,
    StateRestoreRequest,
)
from tidegate.contract.codec import read_body
from tidegate.daemon import changes, devicerows, wishes
from tidegate.daemon.enrolled import EnrolledRouters, wholly
from tidegate.daemon.intents import Outcome
from tidegate.daemon.journal import nothing
from tidegate.daemon.wishes import Wish, Wishes
from tidegate.errors import Fault, Invalid, NotFound, Refused
from tidegate.events import (
    Event,
    FormerServiceCleared,
    GroupDeleted,
    GroupSynced,
    RouterChangeFailed,
    StateImported,
    StateRestored,
)
from tidegate.policy.fields import parsed
from tidegate.policy.former import Unreadable, is_former, read_former
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.membership import Asked, judge, label
from tidegate.policy.recovery import Copy
from tidegate.policy.state import Damaged, Newer, StateDocument, from_text, group_state, to_text
from tidegate.router.aside import FEW, aside
from tidegate.router.engine import Announce, Applied
from tidegate.router.fleet import ManagedRouter


class Taken(NamedTuple):
    """What a document asks for. `former`: it is the former service's, whose rules are to go."""

    wanted: Wishes
    source: str
    notes: tuple[str, ...] = ()
    former: bool = False


class StateService(State):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal

    async def export(self, router_id: RouterId) -> StateExport:
        async with self._routers.at(router_id) as router:
            document, damage = await router.engine.documents.standing()
        if document is None:
            if damage:
                raise Refused(f"{damage}; `tidegate infrastructure repair` writes it anew from this controller's groups")
            raise NotFound(f"router {router_id} has no state document: it was removed, or the router was reset")
        text = to_text(document)
        return StateExport(
            router=str(router_id),
            generation=document.generation,
            controller=str(document.controller),
            written=document.stamp.written,
            checksum=text.split('"')[3],
            health="degraded" if damage else "sound",
            why=str(damage or ""),
            document=text,
        )

    async def backups(self, router_id: RouterId) -> StateBackups:
        async with self._routers.at(router_id) as router:
            found, _ = await router.engine.documents.copies()
        return StateBackups(str(router_id), tuple(_backup(copy) for copy in found), len(found))

    @wholly
    async def import_(self, router_id: RouterId, document: StateFile, dry_run: bool = False) -> StateChange:
        text = _as_text(document)
        async with self._at(router_id, dry_run) as router:
            known = await self._wishes(router_id)
            taken = await aside(len(text) // 100, FEW, _taken, text, known)
            asked = [Asked(group, wish.request, f"body/groups/{int(group)}/devices") for group, wish in taken.wanted.items()]
            lan = await self._journal.read(lambda db: devicerows.lan(db, router_id))
            wishes.refuse(await aside(len(asked), FEW, judge, asked, {}, lan), "the document's devices can't be this router's")
            made = await self._make_so(router, known, taken, dry_run)
            if not taken.former:
                return made
            left = await router.engine.former_rules(remove=not dry_run)
            if left and not dry_run:
                await self._journal.commit(nothing, FormerServiceCleared(router.id, left))
            return replace(made, changes=(*made.changes, *(f"of the former service: {each} taken away" for each in left)))

    @wholly
    async def restore(self, router_id: RouterId, request: StateRestoreRequest) -> StateChange:
        async with self._at(router_id, request.dry_run) as router:
            known = await self._wishes(router_id)
            copies, _ = await router.engine.documents.copies()
            good = {copy.document.generation: copy.document for copy in reversed(copies) if copy.document}
            if (document := good.get(request.generation)) is None:
                there = ", ".join(map(str, sorted(good))) or "none"
                raise NotFound(f"no good document of generation {request.generation} is on the router; there is {there}")
            taken = Taken(_wishes_of(document, known), f"the router's document of generation {request.generation}")
            return await self._make_so(router, known, taken, request.dry_run, request.generation)

    def _at(self, router_id: RouterId, dry_run: bool) -> AbstractAsyncContextManager[ManagedRouter]:
        return self._routers.at(router_id) if dry_run else self._routers.changing(router_id)

    async def _make_so(
        self, router: ManagedRouter, known: Wishes, taken: Taken, dry_run: bool, restored: int | None = None
    ) -> StateChange:
        states = await aside(len(taken.wanted), FEW, wishes.states, taken.wanted)
        groups = _groups(known, taken.wanted)
        if dry_run:
            bundle = await router.engine.prepare(states)
            return StateChange(router.id, taken.source, bundle.generation, False, bundle.words, taken.notes, groups)

        def outcome(told: Applied) -> Outcome | None:
            told_of = _events(router, known, taken.wanted, told)
            if not told_of and not told.words:
                return None
            last: Event = StateImported(router.id, told.generation, taken.source, told.words)
            if restored is not None:
                last = StateRestored(router.id, told.generation, restored, told.words)
            anew = {GroupId(event.group) for event in told_of if isinstance(event, GroupSynced)}
            rows = wishes.rows(router.id, {group: taken.wanted[group].request for group in anew}, told.generation)
            gone = tuple(group for group in known if group not in taken.wanted)
            return Outcome(told.generation, (*told_of, last), rows, gone)

        async def work(announce: Announce) -> Applied:
            return await router.engine.synchronise(states, force=True, announce=announce)

        what = "an import" if restored is None else f"a restore of generation {restored}"
        done = await changes.carry_out(
            self._journal, router, known, work, outcome, lambda why: RouterChangeFailed(router.id, what, why)
        )
        return StateChange(router.id, taken.source, done.applied.generation, True, done.applied.words, taken.notes, groups)

    async def _wishes(self, router_id: RouterId) -> Wishes:
        return await wishes.load(self._journal, router_id)


def _as_text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid("this is no state document", [Fault("body", "is no text (UTF-8)")]) from None
    # As `state export --json` prints it: the file is one of the answer's fields.
    return read_body(data, StateExport).document if text.startswith('{"router":') else text


def _taken(text: str, known: Wishes) -> Taken:
    """Raises Invalid with every fault."""
    try:
        if _claims_to_be_former(text):
            found = read_former(text)
            return Taken(_with_names(found.groups, known), found.source, found.notes, former=True)
        document = from_text(text)
    except Unreadable as error:
        raise Invalid(str(error), _placed(error.faults)) from None
    except Damaged as damage:
        raise Invalid(str(damage), _placed(damage.faults) or [Fault("body", str(damage))]) from None
    except Newer as newer:
        raise Invalid(str(newer), [Fault("body/schema", "is of a later version")]) from None
    source = f"the document of router {document.router}, generation {document.generation}"
    return Taken(_wishes_of(document, known), source)


def _claims_to_be_former(text: str) -> bool:
    try:
        return is_former(parsed(text))
    except ValueError:
        return False


def _placed(faults: tuple[Fault, ...]) -> list[Fault]:
    return [Fault(f"body/{fault.at}".rstrip("/"), fault.why) for fault in faults]


def _wishes_of(document: StateDocument, known: Wishes) -> Wishes:
    """A document's groups as wishes. One that is as we know it stays as we know it; names are ours, no router has them."""
    requests = {}
    for group in document.groups:
        was = known[group.id].request if group.id in known else None
        same = was is not None and group_state(group.id, was) == group
        requests[group.id] = was if was is not None and same else wishes.taken_up(group)
    return _with_names(requests, known)


def _with_names(requests: Mapping[GroupId, GroupSyncRequest], known: Wishes) -> Wishes:
    """The same, groups and devices called as they were where the file does not say; Group 0 is always there."""
    names = {label(device): device.name for wish in known.values() for device in wish.request.devices}
    found = {GUESTS: Wish(wishes.GUESTS_WISH)}
    for group, request in requests.items():
        named = tuple(replace(device, name=device.name or names.get(label(device))) for device in request.devices)
        name = known[group].request.name if group in known and request.name == wishes.unnamed(group) else request.name
        found[group] = Wish(replace(request, devices=named, name=name))
    return found


def _groups(known: Wishes, wanted: Wishes) -> tuple[StateGroup, ...]:
    found = [_group(group, _was(group, wish, known), wish.request) for group, wish in wanted.items()]
    found += [_group(group, "removed", wish.request) for group, wish in known.items() if group not in wanted]
    return tuple(sorted(found, key=lambda row: row.group))


def _was(group: GroupId, wish: Wish, known: Wishes) -> str:
    if group not in known:
        return "new"
    return "kept" if wishes.kept(known[group].request) == wishes.kept(wish.request) else "changed"


def _group(group: GroupId, was: str, request: GroupSyncRequest) -> StateGroup:
    policy = request.bandwidth_policy if request.bandwidth_policy and request.bandwidth_policy.active else None
    down, up = (float(policy.limit_mbps), float(policy.upload)) if policy else (None, None)
    return StateGroup(int(group), was, request.name, len(request.devices), down, up, request.active, request.blocks)


def _events(router: ManagedRouter, known: Wishes, wanted: Wishes, told: Applied) -> list[Event]:
    """One for each group that is another now, or gone."""
    said: dict[int, list[str]] = {}
    for remark in told.remarks:
        if remark.group is not None:
            said.setdefault(remark.group, []).append(remark.text)
    found: list[Event] = []
    for group, wish in wanted.items():
        if _was(group, wish, known) != "kept":
            before = wishes.in_short(known[group].request) if group in known else ""
            words = tuple(said.get(int(group), ()))
            found.append(GroupSynced(router.id, int(group), told.generation, words, before, wishes.in_short(wish.request)))
    for group, wish in known.items():
        if group not in wanted:
            words = tuple(said.get(int(group), ()))
            found.append(GroupDeleted(router.id, int(group), told.generation, words, wishes.in_short(wish.request)))
    return found


def _backup(copy: Copy) -> StateBackup:
    if (document := copy.document) is None:
        return StateBackup(copy.file, False, None, None, "", 0, 0, copy.why)
    devices = sum(len(group.devices) for group in document.groups)
    written, controller = document.stamp.written, str(document.controller)
    return StateBackup(copy.file, True, document.generation, written, controller, len(document.groups), devices, "")
