"""Wishes for many groups at once: which of them can be, and what is in the way of the others."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.api.groups import GroupFault, GroupProblem, GroupsSyncRequest, GroupWish
from tidegate.contract.problems import problem
from tidegate.daemon import wishes
from tidegate.daemon.wishes import Wish, Wishes
from tidegate.errors import Conflict, Fault, Invalid
from tidegate.policy.group import GroupId

MOST_FAULTS = 1000


@dataclass(slots=True)
class Judged:
    """`accepted` by group; `problems` by place in the request."""

    accepted: dict[GroupId, GroupWish] = field(default_factory=dict)
    problems: dict[int, GroupProblem] = field(default_factory=dict)

    def over(self, known: Wishes) -> Wishes:
        """All groups of the router as they should be."""
        return {**known, **{group: Wish(wish) for group, wish in self.accepted.items()}}


def judge(request: GroupsSyncRequest, known: Wishes) -> Judged:
    """What can be done. Of an atomic request that is everything, or Invalid or Conflict is raised with every fault."""
    found = _Judging(request, known)
    found.each_by_itself()
    found.each_among_the_others()
    if request.atomic and found.faults:
        faults = [fault for number in sorted(found.faults) for fault in found.faults[number]][:MOST_FAULTS]
        if set(found.faults) == found.clashes:
            said = "; ".join(fault.why for fault in faults[:20])
            raise Conflict(said, devices=[{"at": fault.at, "why": fault.why} for fault in faults])
        raise Invalid("the groups can't be as asked", faults)
    return Judged(
        {wish.group: wish for number, wish in enumerate(request.groups) if number not in found.faults},
        {number: _problem(faults, number in found.clashes) for number, faults in found.faults.items()},
    )


class _Judging:
    """`faults` by place in the request; `clashes`: those that are right in themselves but claim what a group has that the
    request does not name."""

    def __init__(self, request: GroupsSyncRequest, known: Wishes) -> None:
        self._wishes = request.groups
        self._atomic = request.atomic
        self._known = known
        self.faults: dict[int, list[Fault]] = {}
        self.clashes: set[int] = set()
        self._first: dict[GroupId, int] = {}

    def each_by_itself(self) -> None:
        for number, wish in enumerate(self._wishes):
            place = f"body/groups/{number}"
            faults = list(wishes.faults(wish.group, wish, place))
            if (earlier := self._first.setdefault(wish.group, number)) != number:
                faults.insert(0, Fault(f"{place}/group", f"group {int(wish.group)} is named already, at body/groups/{earlier}"))
            if faults:
                self.faults[number] = faults

    def each_among_the_others(self) -> None:
        """Devices have one owner: a group that stays as it is before one that is to be changed, then who is named first.

        A group that can't be as asked stays as it is, with the devices that it has; so one refusal may lead to another.
        """
        named = {wish.group for wish in self._wishes}
        owner = {key: group for group, wish in self._known.items() if group not in named for key in wishes.keys(wish.request)}
        claims: dict[str, tuple[int, str]] = {}
        refused = list(self.faults)
        for number, wish in enumerate(self._wishes):
            if number in self.faults and not self._atomic:
                continue
            for key, place in wishes.keys(wish, f"body/groups/{number}").items():
                if key in owner:
                    self._refuse(number, place, key, owner[key], refused)
                elif key in claims and claims[key][0] != number:
                    why = f"{key} is named already, at {claims[key][1]}"
                    if number not in self.faults:
                        refused.append(number)
                    self.faults.setdefault(number, []).append(Fault(place, why))
                else:
                    claims[key] = number, place
        while refused and not self._atomic:
            group = self._wishes[refused.pop()].group
            if self._first[group] not in self.faults:
                continue  # named twice, and the first of the two stands
            for key in wishes.keys(self._known[group].request) if group in self._known else ():
                number, place = claims.get(key, (-1, ""))
                if number >= 0 and self._wishes[number].group != group and number not in self.faults:
                    self._refuse(number, place, key, group, refused)

    def _refuse(self, number: int, place: str, key: str, owner: GroupId, refused: list[int]) -> None:
        if number not in self.faults:
            refused.append(number)
            self.clashes.add(number)
        why = f"{key} belongs to group {int(owner)} ({self._known[owner].request.name})"
        self.faults.setdefault(number, []).append(Fault(place, why))


def _problem(faults: list[Fault], clash: bool) -> GroupProblem:
    said = problem((Conflict if clash else Invalid)("; ".join(fault.why for fault in faults[:5])), "")
    return GroupProblem(said["type"], said["detail"], tuple(GroupFault(fault.at, fault.why) for fault in faults[:MOST_FAULTS]))
