"""A router at the end of a long line: what a change takes there, and how many round trips that is.

All takes 100 ms each way, as does setting up a connection (`lab/relay.py`). A third router next door, changed in the same
run in the same way, tells what the work itself takes; the rest, over the round trip, is how often one side waits for
the other.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import tidegate
from bench.figures import Row, Samples, Told, compared, short
from bench.groups import THAN, connected, enrolment
from bench.household import wish
from bench.naive import NaiveRouter
from bench.processes import BenchError, daemon_process
from tidegate.api import Tidegate
from tidegate.api.routers import RouterId
from tidegate.lab import Lab
from tidegate.policy.group import GroupId

DELAY = 0.1  # seconds each way
ROUND_TRIP_MS = 2 * DELAY * 1000
FAR, NEAR = RouterId("far"), RouterId("near")
GROUP = 1
MOST_MS = 1_500
MOST_TRIPS = 3


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    async with AsyncExitStack() as stack:
        told("three routers")
        far, near, other = (stack.enter_context(Lab(clients=())) for _ in range(3))
        running = stack.enter_context(daemon_process(folder, {"TORRENT__ENABLED": "false"}))
        client = await stack.enter_async_context(tidegate.connect(running.url, key=running.key))
        await client.routers.add(FAR, enrolment(far, DELAY))
        await client.routers.add(NEAR, enrolment(near))
        naive = NaiveRouter(other, await stack.enter_async_context(await connected(other, DELAY)))
        naive.prepare([wish(GROUP, 20)])
        taken = await _changed(client, 10 if quick else 40, told)
        beside = Samples()
        rounds = 1 if quick else 3
        for number in range(rounds):
            told(f"the naive way {number + 1}/{rounds}")
            with beside.timed():
                await naive.change(wish(GROUP, 20 + number, first=4 * (number % 2)))
        return [_long(taken[FAR], beside), _trips(taken[FAR], taken[NEAR])]


async def _changed(client: Tidegate, rounds: int, told: Told) -> dict[RouterId, Samples]:
    """Another limit and four other devices of ten, to and fro, over connections that stand."""
    taken = {FAR: Samples(), NEAR: Samples()}
    for number in range(rounds + 2):
        told(f"a long line and a short one {max(0, number - 1)}/{rounds}")
        for router, samples in taken.items():
            asked = wish(GROUP, 20 + 10 * (number % 2), first=4 * (number % 2)).request
            into = samples if number >= 2 else Samples()
            with into.timed():
                answer = await client.groups.sync_group(router, GroupId(GROUP), asked)
            if not answer.applied:
                raise BenchError("a sync that should change the group did nothing")
    return taken


def _long(ours: Samples, other: Samples) -> Row:
    what = f"change a group at a round trip of {ROUND_TRIP_MS:.0f} ms"
    held = ours.share(0.95) <= MOST_MS
    return replace(compared(what, ours, other, THAN), target=f"p95 ≤ {MOST_MS:,} ms", held=held)


def _trips(far: Samples, near: Samples) -> Row:
    trips = (far.p50 - near.p50) / ROUND_TRIP_MS
    figures = {"trips": round(trips, 2), "far_p50_ms": round(far.p50, 3), "near_p50_ms": round(near.p50, 3)}
    ours = f"{short(trips)} ({short(far.p50)} ms far away, {short(near.p50)} ms next door)"
    target = f"≤ {MOST_TRIPS}"
    return Row("round trips of a change", ours, target=target, held=round(trips) <= MOST_TRIPS, figures=figures)
