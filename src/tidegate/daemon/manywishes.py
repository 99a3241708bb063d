"""Wishes for many groups at once: which of them can be, and what is in the way of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from tidegate.api.groups import GroupDevicesUpdate, GroupFault, GroupProblem, GroupsSyncRequest, GroupWish
from tidegate.contract.problems import problem
from tidegate.daemon import wishes
from tidegate.daemon.wishes import Wish, Wishes
from tidegate.errors import Conflict, Invalid
from tidegate.policy import membership
from tidegate.policy.group import GroupId, GroupSyncRequest
from tidegate.policy.lan import Lan
from tidegate.policy.membership import Asked, Objection, Objections


@dataclass(slots=True)
class Judged:
    """`accepted` by group; `problems` by place in the request."""

    accepted: dict[GroupId, GroupWish] = field(default_factory=dict)
    problems: dict[int, GroupProblem] = field(default_factory=dict)

    def over(self, known: Wishes) -> Wishes:
        """All groups of the router as they should be."""
        return {**known, **{group: Wish(wish) for group, wish in self.accepted.items()}}


def judge(request: GroupsSyncRequest, known: Wishes, lan: Lan | None) -> Judged:
    """What can be done. Of an atomic request that is everything, or Invalid or Conflict is raised with every fault."""
    asked = []
    for number, wish in enumerate(request.groups):
        place = f"body/groups/{number}"
        asked.append(Asked(wish.group, wish, f"{place}/devices", tuple(wishes.faults(wish, place))))
    return judged(request, membership.judge(asked, wishes.requests(known), lan, atomic=request.atomic))


def rearrange(group: GroupId, update: GroupDevicesUpdate, known: Wishes, lan: Lan | None) -> tuple[GroupsSyncRequest, Judged]:
    """The wishes that change which devices a group has, which must be known; raises as `judge` does."""
    requests = wishes.requests(known)
    asked = membership.rearranged(
        group,
        requests,
        devices=update.devices,
        add=update.add,
        remove=update.remove,
        move=update.move,
        confirmed=update.confirm_mass_change,
    )
    request = GroupsSyncRequest(tuple(_wish(each.group, each.request) for each in asked))
    return request, judged(request, membership.judge(asked, requests, lan))


def _wish(group: GroupId, request: GroupSyncRequest) -> GroupWish:
    return GroupWish(**{field.name: getattr(request, field.name) for field in fields(GroupSyncRequest)}, group=group)


def judged(request: GroupsSyncRequest, objections: Objections) -> Judged:
    if request.atomic:
        wishes.refuse(objections, "the groups can't be as asked")
    return Judged(
        {wish.group: wish for number, wish in enumerate(request.groups) if number not in objections},
        {number: _problem(found) for number, found in sorted(objections.items())},
    )


def _problem(found: Sequence[Objection]) -> GroupProblem:
    kind = Conflict if all(objection.clash for objection in found) else Invalid
    said = problem(kind("; ".join(objection.why for objection in found[:5])), "")
    faults = tuple(GroupFault(objection.at, objection.why) for objection in found[: wishes.MOST_FAULTS])
    return GroupProblem(said["type"], said["detail"], faults)
