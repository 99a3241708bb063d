"""Fifty routers at once: every one of them a machine of its own behind SSH, on the same two cores as the daemon.

100 syncs are asked for in the same moment, two of each router; then again with one router that drops every packet. What is
told of the others then is how long all of theirs took. No group may be found on a router that it was not meant for.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import tidegate
from bench.figures import Row, Samples, Told, compared
from bench.groups import enrolment
from bench.processes import BenchError, daemon_process
from tidegate.api import Tidegate
from tidegate.api.routers import RouterId
from tidegate.errors import TidegateError
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

ROUTERS = 50
ENROLLED_AT_ONCE = 6
DEAD = 3
SILENT = "printf 'table inet silent {\\nchain in { type filter hook input priority -300; policy drop;\\n}\\n}\\n' | nft -f -"


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    async with AsyncExitStack() as stack:
        told(f"{ROUTERS} routers")
        with ThreadPoolExecutor(4) as pool:
            labs = [stack.enter_context(lab) for lab in pool.map(lambda _: Lab(clients=()), range(ROUTERS))]
        running = stack.enter_context(daemon_process(folder, {"TORRENT__ENABLED": "false"}))
        client = await stack.enter_async_context(tidegate.connect(running.url, key=running.key))
        few = asyncio.Semaphore(ENROLLED_AT_ONCE)

        async def enrol(number: int) -> None:
            async with few:
                await client.routers.add(_id(number), enrolment(labs[number]))

        told("enrolling")
        await asyncio.gather(*(enrol(number) for number in range(ROUTERS)))
        all_of_them, without = Samples(), Samples()
        rounds = 1 if quick else 3
        for number in range(rounds + 1):
            told(f"100 syncs at once {number}/{rounds}")
            wall = await _sync_all(client, 10 + number)
            if number:
                all_of_them.add(wall)
        labs[DEAD].router.run(SILENT)
        for number in range(rounds):
            told(f"with a dead one {number + 1}/{rounds}")
            without.add(await _sync_all(client, 20 + number, DEAD))
        crossed = [number for number, lab in enumerate(labs) if number != DEAD and not _only_its_own(lab, number)]
        if crossed:
            raise BenchError(f"routers {crossed} have groups that were not meant for them")
        what = f"100 syncs at once to {ROUTERS} routers, none astray"
        return [compared(what, all_of_them, without, "the 98 others', one router being dead", most_ms=5_000)]


async def _sync_all(client: Tidegate, mbps: int, dead: int | None = None) -> float:
    """Milliseconds until the last had its answer; of a dead one nobody waits for it."""

    async def sync(number: int, group: int) -> float:
        own = DeviceRef(MacAddress(f"02:00:00:{number:02x}:{group:02x}:01"))
        asked = GroupSyncRequest(Label(f"Group {group}"), (own,), BandwidthPolicy(Mbps(mbps)))
        try:
            await client.groups.sync_group(_id(number), GroupId(group), asked)
        except TidegateError:
            if number != dead:
                raise
        return 0.0 if number == dead else perf_counter()

    began = perf_counter()
    ended = await asyncio.gather(*(sync(number, group) for number in range(ROUTERS) for group in (1, 2)))
    return (max(ended) - began) * 1000


def _only_its_own(lab: Lab, number: int) -> bool:
    listed = lab.router.run("nft list map inet tidegate mac_mark").stdout
    return set(re.findall(r"02:00:00:([0-9a-f]{2}):", listed)) == {f"{number:02x}"}


def _id(number: int) -> RouterId:
    return RouterId(f"router-{number}")
