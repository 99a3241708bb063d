"""A school's portal on top of Tidegate: its own list of classes and pupils, made to hold on the school's router.

    python examples/school.py SOCKET plan   classes.json    what would change
    python examples/school.py SOCKET apply  classes.json    make it so; safe to repeat at any time
    python examples/school.py SOCKET follow seen.txt        what happens, each event once, also across restarts of both

The list is the only truth that the portal keeps: classes that are not in it any more are deleted. Read docs/integration.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import tidegate
from tidegate.api import Tidegate
from tidegate.api.groups import GroupsSyncRequest, GroupWish
from tidegate.api.routers import RouterId
from tidegate.errors import Conflict, TimedOut, Unavailable
from tidegate.events import Entry
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import GUESTS, AccessControlPolicy, BandwidthPolicy, GroupId, Mbps

ROUTER = RouterId("school")
TRIES = 5


def wishes(file: Path) -> tuple[GroupWish, ...]:
    """The school's list as what Tidegate is to make of it. The number of a class is its group's, and never given to another."""
    return tuple(wish_for(each) for each in json.loads(file.read_text())["classes"])


def wish_for(school_class: dict[str, Any]) -> GroupWish:
    return GroupWish(
        group=GroupId(school_class["number"]),
        name=Label(school_class["name"]),
        devices=tuple(DeviceRef(MacAddress(pupil["mac"]), name=Label(pupil["name"])) for pupil in school_class["pupils"]),
        bandwidth_policy=BandwidthPolicy(Mbps(school_class["mbps"])),
        access_control_policy=AccessControlPolicy(block_all_internet=school_class.get("exam", False)),
        confirm_mass_change=True,  # a class that moves up a year is another class by the next morning
    )


async def plan(daemon: Tidegate, file: Path) -> None:
    shown = await daemon.groups.plan(ROUTER, await asked(daemon, file))
    for change in shown.changes or ("nothing would change",):
        print(change)
    for group in await gone(daemon, file):
        print(f"group {int(group)} would be deleted")


async def apply(daemon: Tidegate, file: Path) -> None:
    """Whatever became of an attempt that broke off, asking for the same once more comes to the same."""
    for attempt in range(1, TRIES + 1):
        try:
            done = await daemon.groups.sync_all_groups(ROUTER, await asked(daemon, file))
            for group in await gone(daemon, file):
                await daemon.groups.delete_group(ROUTER, group)
            print(f"{len(wishes(file))} classes stand; {len(done.applied)} changes on the router")
            return
        except Conflict as conflict:  # somebody else changed the router between our reading and our asking
            if "generation" not in conflict.facts or attempt == TRIES:
                raise
        except (Unavailable, TimedOut):  # the daemon or the router restarts, say
            if attempt == TRIES:
                raise
            await asyncio.sleep(2**attempt / 4)


async def asked(daemon: Tidegate, file: Path) -> GroupsSyncRequest:
    """All of the list as one change. Classes that are gone let their pupils go in the same one: a device has one group."""
    generation = (await daemon.groups.list_groups(ROUTER)).generation
    emptied = tuple(GroupWish(Label("gone"), group=group, confirm_mass_change=True) for group in await gone(daemon, file))
    return GroupsSyncRequest(wishes(file) + emptied, expected_generation=generation)


async def gone(daemon: Tidegate, file: Path) -> list[GroupId]:
    """Groups on the router for which the school has no class any more."""
    wanted = {wish.group for wish in wishes(file)}
    listed = (await daemon.groups.list_groups(ROUTER)).groups
    return [each.group for each in listed if each.group not in wanted and each.group != GUESTS]


async def follow(daemon: Tidegate, file: Path) -> None:
    """The number of the last event that was dealt with is kept, so none is missed and none comes twice."""
    while True:
        since = int(file.read_text()) if file.exists() else 0
        try:
            async for notice in daemon.events.follow(since=since, router=str(ROUTER)):
                if isinstance(notice, Entry):
                    print(notice.number, notice.type, flush=True)
                    file.write_text(str(notice.number))
        except (Unavailable, TimedOut):
            pass
        await asyncio.sleep(0.3)  # the daemon restarts


async def main(socket: str, verb: str, file: Path) -> None:
    async with tidegate.connect(socket=socket) as daemon:
        await {"plan": plan, "apply": apply, "follow": follow}[verb](daemon, file)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
