"""One router with many groups: changing them at once, changing one among them, and what they cost a packet.

The naive way is one remote command per rule, and chains that a packet walks through. What it takes for many groups is
reckoned from a few: one command takes as long as the other, and 1,000 groups would be ten minutes of them.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import tidegate
from bench.figures import Row, Samples, Told, compared, short
from bench.groups import HOME, connected, enrolment
from bench.household import wish
from bench.naive import TABLE, NaiveRouter
from bench.processes import BenchError, daemon_process
from tidegate.api import Tidegate
from tidegate.api.groups import GroupsSyncRequest, GroupWish
from tidegate.lab import Lab, throughput
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

FEW, MANY = 100, 1_000
SAMPLED = 5  # groups that the naive way sets up to reckon from
CHANGED = 7
THAN = f"one command per rule, reckoned from {SAMPLED} groups"


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    async with AsyncExitStack() as stack:
        told("two routers")
        ours, other = (stack.enter_context(Lab(clients=("child",))) for _ in range(2))
        running = stack.enter_context(daemon_process(folder, {"TORRENT__ENABLED": "false"}))
        client = await stack.enter_async_context(tidegate.connect(running.url, key=running.key))
        await client.routers.add(HOME, enrolment(ours))
        naive = NaiveRouter(other, await stack.enter_async_context(await connected(other)))
        rounds = 2 if quick else 5
        told("the naive way, a few groups")
        base = wish(SAMPLED + 1, 20)
        naive.prepare([base])
        began = perf_counter()
        for group in range(1, SAMPLED + 1):
            await naive.create(wish(group, 20))
        each = (perf_counter() - began) / SAMPLED * 1000
        found = [await _at_once(client, FEW, rounds, each, 400, told)]
        one = await _through(ours, other, rounds, told)
        found.append(await _at_once(client, MANY, rounds, each, 2_000, told))
        found.append(await _one_of_many(client, rounds, each, told))
        _chains(other, MANY)
        return [*found, _packet_cost(one, await _through(ours, other, rounds, told))]


async def _at_once(client: Tidegate, groups: int, rounds: int, each: float, most_ms: float, told: Told) -> Row:
    """Every limit and a device of every group changed, as one change."""
    ours, other = Samples(), Samples()
    for number in range(rounds + 1):
        told(f"{groups} groups at once {number}/{rounds}")
        wishes = GroupsSyncRequest(_asked(groups, 20 + number, number))
        began = perf_counter()
        answer = await client.groups.sync_all_groups(HOME, wishes)
        if not (answer.verified and len(answer.applied) >= groups):
            raise BenchError(f"{groups} groups were to be changed, {len(answer.applied)} things were")
        if number:  # the first one makes them
            ours.add((perf_counter() - began) * 1000)
            other.add(each * groups)
    return compared(f"change {groups:,} groups of 10 devices at once", ours, other, THAN, most_ms=most_ms)


async def _one_of_many(client: Tidegate, rounds: int, each: float, told: Told) -> Row:
    ours, other = Samples(), Samples()
    for number in range(rounds * 2):
        told(f"one of {MANY} groups")
        wished = _wish(CHANGED, 60 + number, 20 + number)
        asked = GroupSyncRequest(wished.name, wished.devices, wished.bandwidth_policy, confirm_mass_change=True)
        began = perf_counter()
        await client.groups.sync_group(HOME, wished.group, asked)
        ours.add((perf_counter() - began) * 1000)
        other.add(each)
    return compared(f"change one group among {MANY:,}", ours, other, THAN)


async def _through(ours: Lab, other: Lab, rounds: int, told: Told) -> tuple[float, float]:
    """Mbit/s that a device in no group gets through each router, in turns; the medians."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(rounds + 1):
        for lab, into in zip((ours, other), taken, strict=True):
            told(f"packets {number + 1}/{rounds + 1}")
            rate = await asyncio.to_thread(
                throughput, lab.clients["child"], lab.internet, direction="down", seconds=1.0, skip=0.3
            )
            into.append(rate)
    return median(taken[0]), median(taken[1])


def _packet_cost(few: tuple[float, float], many: tuple[float, float]) -> Row:
    kept, kept_naive = many[0] / few[0], many[1] / few[1]
    return Row(
        f"forwarding with {MANY:,} groups, of that with few",
        f"{100 * kept:.0f} % ({short(few[0])} to {short(many[0])} Mbit/s)",
        f"{100 * kept_naive:.1f} % ({short(few[1])} to {short(many[1])} Mbit/s) chains of rules",
        kept / kept_naive,
        "≥ 90 %",
        kept >= 0.9,
        {"ours_kept": kept, "other_kept": kept_naive, "ours_many_mbps": many[0], "other_many_mbps": many[1]},
    )


def _chains(lab: Lab, groups: int) -> None:
    """What the naive way leaves on a router of so many groups, in one go and untimed."""
    lines = [f"flush table {TABLE}"]
    for group in range(1, groups + 1):
        lines += [f"add chain {TABLE} {way}{group}" for way in ("down", "up")]
        for way, end in (("down", "daddr"), ("up", "saddr")):
            for address in (address for device in _wish(group, 20, 0).devices for address in device.ip):
                lines.append(f"add rule {TABLE} {way}{group} ip6 {end} {address} meta priority set 1:{100 + group}")
        lines += [f"add rule {TABLE} forward jump {way}{group}" for way in ("down", "up")]
    done = lab.router.run("nft -f -", input="\n".join(lines) + "\n", timeout=120)
    if done.returncode:
        raise BenchError(f"the naive router refuses: {done.stderr[:300]}")


def _asked(groups: int, mbps: int, first: int) -> tuple[GroupWish, ...]:
    return tuple(_wish(group, mbps, first) for group in range(1, groups + 1))


def _wish(group: int, mbps: int, first: int) -> GroupWish:
    """A group of 10 devices from number `first` on, each with its two IPv6 addresses: no IPv4 network has room for 10,000."""
    lan = "2001:db8:1::"
    devices = tuple(
        DeviceRef(
            MacAddress(f"02:00:00:{group >> 8:02x}:{group & 255:02x}:{number:02x}"),
            (IpAddress(f"{lan}{group:x}:{number:x}"), IpAddress(f"{lan}1:{group:x}:{number:x}")),
        )
        for number in range(first, first + 10)
    )
    return GroupWish(
        Label(f"Group {group}"), devices, BandwidthPolicy(Mbps(mbps)), confirm_mass_change=True, group=GroupId(group)
    )
