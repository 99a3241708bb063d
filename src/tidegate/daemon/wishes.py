"""What was asked of each group: checked before a router is asked, kept with the names that no router sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from tidegate.contract.codec import decode, encode
from tidegate.daemon.journal import Journal
from tidegate.errors import Conflict, Fault, Invalid
from tidegate.policy.device import Label
from tidegate.policy.group import GUESTS, AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps
from tidegate.policy.lan import Lan
from tidegate.policy.membership import Asked, Objection, Objections, judge
from tidegate.policy.state import BURST_KBIT, BURST_SECONDS, GroupState, group_state
from tidegate.router.aside import FEW, aside

TABLES = (
    """
    CREATE TABLE groups (
      router TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE, id INTEGER NOT NULL, wish TEXT NOT NULL,
      generation INTEGER NOT NULL, last_sync TEXT NOT NULL, PRIMARY KEY (router, id)
    ) STRICT;
    """,
)

MOST_FAULTS = 1000  # that one answer names
GUESTS_WISH = GroupSyncRequest(Label("Guests"))


@dataclass(frozen=True, slots=True)
class Wish:
    """A group as it was last asked for and verified on its router, at that generation of the router's state document."""

    request: GroupSyncRequest
    generation: int = 0
    last_sync: datetime | None = None


Wishes = Mapping[GroupId, Wish]


async def load(journal: Journal, router_id: str) -> Wishes:
    """A router's groups by number, Group 0 among them whether or not it was ever asked for."""

    def query(db: sqlite3.Connection) -> list[tuple[int, str, int, str]]:
        columns = "id, wish, generation, last_sync"
        return db.execute(f"SELECT {columns} FROM groups WHERE router = ? ORDER BY id", (str(router_id),)).fetchall()  # noqa: S608

    rows = await journal.read(query)  # the journal has one reader: others wait no longer than the disk takes
    return {GUESTS: Wish(GUESTS_WISH), **await aside(len(rows), FEW, _of_rows, rows)}


def _of_rows(rows: Sequence[tuple[int, str, int, str]]) -> Wishes:
    return {
        GroupId(number): Wish(_request(wish), generation, datetime.fromisoformat(last_sync))
        for number, wish, generation, last_sync in rows
    }


@lru_cache(1 << 14)
def _request(wish: str) -> GroupSyncRequest:
    return decode(wish, GroupSyncRequest)


Rows = Sequence[tuple[str, int, str, int, str]]


def rows(router_id: str, requests: Mapping[GroupId, GroupSyncRequest], generation: int) -> Rows:
    """What `save` writes. Made before: the journal has one writer, and others' changes wait while it works."""
    now = datetime.now(UTC).isoformat()
    return [(str(router_id), int(group), encode(kept(wish)).decode(), generation, now) for group, wish in requests.items()]


def over(known: Wishes, rows: Rows, removed: Sequence[GroupId]) -> Wishes:
    """A router's groups once these rows are written and those groups are gone."""
    left = {group: wish for group, wish in known.items() if group not in removed}
    return {**left, **_of_rows([row[1:] for row in rows])}


def save(db: sqlite3.Connection, rows: Rows) -> None:
    db.executemany(
        "INSERT INTO groups VALUES (?, ?, ?, ?, ?) ON CONFLICT (router, id) "
        "DO UPDATE SET wish = excluded.wish, generation = excluded.generation, last_sync = excluded.last_sync",
        rows,
    )


def remove(db: sqlite3.Connection, router_id: str, group_id: GroupId | None = None) -> None:
    """One group, or all of the router's."""
    if group_id is None:
        db.execute("DELETE FROM groups WHERE router = ?", (str(router_id),))
    else:
        db.execute("DELETE FROM groups WHERE router = ? AND id = ?", (str(router_id), int(group_id)))


def kept(request: GroupSyncRequest) -> GroupSyncRequest:
    """The part of a request that is a wish: how it should be, not how to go about it."""
    return GroupSyncRequest(
        request.name,
        request.devices,
        request.bandwidth_policy,
        request.active,
        access_control_policy=request.access_control_policy,
    )


def requests(wishes: Wishes) -> dict[GroupId, GroupSyncRequest]:
    return {group: wish.request for group, wish in wishes.items()}


def states(wishes: Wishes) -> list[GroupState]:
    """What the router is told of them. Group 0 without a policy is what every router has anyway."""
    found = [group_state(group_id, wish.request) for group_id, wish in wishes.items()]
    return [group for group in found if group.id != GUESTS or group.limit or group.block]


def taken_up(group: GroupState) -> GroupSyncRequest:
    """A group of a router's own document as a wish; its name was never on the router."""
    limit = group.limit
    policy = None
    if limit:
        burst = Mbps(min(1e5, (limit.download_kbit + limit.burst_kib * 1024 / 125) / 1000)) if limit.burst_kib else None
        policy = BandwidthPolicy(Mbps(limit.download_kbit / 1000), Mbps(limit.upload_kbit / 1000), burst)
    access = AccessControlPolicy(block_all_internet=True) if group.block else None
    name = unnamed(group.id)
    return GroupSyncRequest(name, group.devices, policy, group.active, access_control_policy=access)


def unnamed(group: GroupId) -> Label:
    """What a group is called until somebody names it."""
    return Label(f"Group {int(group)}")


def in_short(request: GroupSyncRequest | None) -> str:
    """A wish in a few words, for the audit trail: '"Kids": download 20 Mbit/s, upload 5 Mbit/s, 3 devices'. "" for none."""
    if request is None:
        return ""
    policy, number = request.bandwidth_policy, len(request.devices)
    said = ["no limit"]
    if policy and policy.active:
        said = [f"download {policy.limit_mbps:g} Mbit/s", f"upload {policy.upload:g} Mbit/s"]
        said += [f"bursts to {policy.burst_mbps:g} Mbit/s"] if policy.burst_mbps else []
    said += ["internet closed"] if request.blocks else []
    said += [f"{number} device{'s' * (number != 1)}"] + ([] if request.active else ["inactive"])
    return f'"{request.name}": {", ".join(said)}'


# ── checks


def check(group_id: GroupId, request: GroupSyncRequest, wishes: Wishes, lan: Lan | None) -> None:
    """Raises Invalid with every fault of the request, or Conflict where it is right in itself but not as things are."""
    asked = Asked(group_id, request, faults=tuple(faults(request)))
    refuse(judge([asked], requests(wishes), lan), "the group can't be as asked")


def refuse(objections: Objections, said: str) -> None:
    """Raise what the objections come to, if there are any: Invalid, or Conflict where all of them are clashes."""
    found = [objection for number in sorted(objections) for objection in objections[number]][:MOST_FAULTS]
    if found and all(objection.clash for objection in found):
        raise Conflict("; ".join(objection.why for objection in found[:20]), devices=[_facts(objection) for objection in found])
    if found:
        raise Invalid(said, [Fault(objection.at, objection.why) for objection in found])


def _facts(objection: Objection) -> dict[str, object]:
    facts: dict[str, object] = {"at": objection.at, "why": objection.why}
    if objection.owner is not None:
        facts |= {"device": objection.device, "group": int(objection.owner)}
    if objection.mass:
        facts |= {"changed": objection.mass.changed, "of": objection.mass.of}
    return facts


def faults(request: GroupSyncRequest, body: str = "body") -> Iterator[Fault]:
    """What is wrong with a request's policies; its devices are for `membership.judge`."""
    policy = request.bandwidth_policy
    if policy and policy.burst_mbps is not None:
        if policy.burst_mbps <= policy.limit_mbps:
            yield Fault(f"{body}/bandwidth_policy/burst_mbps", "a burst is above limit_mbps")
        if policy.limit_mbps.kbit > BURST_KBIT:
            yield Fault(f"{body}/bandwidth_policy/burst_mbps", "a burst is for limits up to 1000 Mbit/s")
        if policy.burst_mbps > policy.limit_mbps * BURST_SECONDS:
            yield Fault(f"{body}/bandwidth_policy/burst_mbps", f"a burst is at most {BURST_SECONDS} times limit_mbps")
