"""Groups on a router over SSH: Tidegate with all that it promises, beside one remote command per rule.

Two routers alike, each with 10 groups of 10 devices, each behind one kept connection. Ours is measured where a program sees
it: from the call of the typed client over HTTP to the answer, with comparing, applying, reading back, the journal's fsync
and the event in between. The naive way is measured from its first command to its last.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import asyncssh

import tidegate
from bench.figures import Row, Samples, Told, alone, compared, in_turns, short
from bench.household import Wish, device, real, wish
from bench.naive import NaiveRouter
from bench.processes import BenchError, daemon_process
from tidegate.api import Tidegate
from tidegate.api.groups import GroupSyncResponse
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest, RouterId
from tidegate.lab import Lab, throughput
from tidegate.lab.measure import Direction
from tidegate.policy.group import GroupId

HOME = RouterId("home")
GROUPS = 10
CHANGED, NEW = 5, 11
WARM_UP = 2  # rounds of a change that its time does not count
THAN = "one command per rule"
DIRECTIONS: tuple[Direction, ...] = ("down", "up")
TOLERANCE = 0.1  # of the cap, for the proof that both ways hold


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All comparisons of this file."""
    async with AsyncExitStack() as stack:
        told("two routers")
        ours, other = (stack.enter_context(Lab(clients=("child",))) for _ in range(2))
        running = stack.enter_context(daemon_process(folder, {"TORRENT__ENABLED": "false"}))
        client = await stack.enter_async_context(tidegate.connect(running.url, key=running.key))
        await client.routers.add(HOME, enrolment(ours))
        naive = NaiveRouter(other, await stack.enter_async_context(await connected(other)))
        bench = _Bench(client, naive, (ours, other), 6 if quick else 30, told)
        return await bench.rows()


class _Bench:
    def __init__(self, client: Tidegate, naive: NaiveRouter, labs: tuple[Lab, Lab], rounds: int, told: Told) -> None:
        self._client = client
        self._naive = naive
        self._labs = labs
        self._rounds = rounds
        self._told = told
        self._answers: list[GroupSyncResponse] = []

    async def rows(self) -> list[Row]:
        wishes = [wish(group, 10 + group) for group in range(1, GROUPS + 1)]
        for each in wishes:
            await self._sync(each)
        self._naive.prepare(wishes)
        # The order is that of one story: the last wish for the changed group is the one that the packets are held against.
        before = [_worked(lab) for lab in self._labs]
        change = await self._change()
        worked = [_worked(lab) - so_far for lab, so_far in zip(self._labs, before, strict=True)]
        return [
            change,
            self._processor(worked[0], worked[1]),
            await self._limit(),
            await self._device(),
            await self._new(),
            await self._unchanged(),
            await self._document(),
        ]

    async def _change(self) -> Row:
        """Another limit and four other devices of ten, to and fro; then both routers must really hold the last wish."""
        child = real(self._labs[0].clients["child"])  # both labs have the same addresses
        both = (wish(CHANGED, 20, of=(child,)), wish(CHANGED, 30, first=4, of=(child,)))

        async def ours(number: int) -> None:
            await self._sync(both[number % 2], changed=True)

        self._answers.clear()
        say = self._saying("change of a group")
        found = await in_turns(ours, lambda number: self._naive.change(both[number % 2]), self._rounds, say, warm_up=WARM_UP)
        stages = [answer.durations for answer in self._answers[WARM_UP:]]
        await self._hold(both[(self._rounds + WARM_UP - 1) % 2])
        row = compared("change a group's limit and devices", *found, THAN, most_ms=60, at_least=6)
        names = ("observe", "plan", "apply", "verify", "confirm", "commit", "total")
        inside = {f"stage_{name}_p50_ms": round(median(getattr(each, name) for each in stages), 3) for name in names}
        return replace(row, figures={**row.figures, **inside})

    def _processor(self, ours: float, other: float) -> Row:
        times = self._rounds + WARM_UP
        mine, naive = ours / times, other / times
        figures = {"ours_cpu_ms": round(mine, 3), "other_cpu_ms": round(naive, 3)}
        what = "processor time of the router for that, SSH included"
        return Row(what, f"{short(mine)} ms", f"{short(naive)} ms {THAN}", naive / mine, figures=figures)

    async def _limit(self) -> Row:
        both = (wish(CHANGED, 20, first=50), wish(CHANGED, 30, first=50))
        await self._sync(both[0])
        await self._naive.change(both[0])

        async def ours(number: int) -> None:
            await self._sync(both[1 - number % 2], changed=True)

        say = self._saying("change of a limit")
        found = await in_turns(ours, lambda number: self._naive.limit(both[1 - number % 2]), self._rounds, say)
        return compared("change a group's limit alone", *found, f"{THAN}, 2 in all")

    async def _device(self) -> Row:
        short_of_one = wish(CHANGED, 20, first=50, size=9)
        tenth = device(CHANGED, 59)
        full = replace(short_of_one, devices=(*short_of_one.devices, tenth))
        await self._sync(full)
        await self._naive.change(full)

        async def ours(number: int) -> None:
            await self._sync(full if number % 2 else short_of_one, changed=True)

        async def other(number: int) -> None:
            if number % 2:
                await self._naive.add_device(full, tenth)
            else:
                await self._naive.remove_device(full, tenth)

        found = await in_turns(ours, other, self._rounds, self._saying("one device more or less"))
        return compared("one device more or less in a group", *found, THAN)

    async def _new(self) -> Row:
        new = wish(NEW, 20)
        taken = Samples(), Samples()
        rounds = max(5, self._rounds // 2)
        for number in range(rounds):
            self._told(f"a new group {number + 1}/{rounds}")
            if number:
                await self._client.groups.delete_group(HOME, GroupId(NEW))
                await asyncio.to_thread(self._naive.forget, new)

            async def ours(_: int) -> None:
                await self._sync(new, changed=True)

            one = await in_turns(ours, lambda _: self._naive.create(new), 1, lambda _: None, warm_up=0)
            for all_of_them, found in zip(taken, one, strict=True):
                all_of_them.add(found.p50)
        return compared("set up a new group of 10 devices", *taken, THAN, most_ms=80)

    async def _unchanged(self) -> Row:
        same = wish(NEW, 20)
        times = self._rounds * 3
        taken = Samples()
        self._told("unchanged groups")
        before = self._packets()
        for _ in range(times):
            with taken.timed():
                answer = await self._sync(same)
            if answer.applied:
                raise BenchError(f"an unchanged sync did {answer.applied}")
        packets = self._packets() - before
        row = alone("sync a group that is as wished", taken)
        # The kept connection's keepalives, every 5 s, are all that may be there: a packet and its acknowledgement each way.
        sent = f"{packets} packets to the router in {times} syncs"
        return replace(row, ours=f"{row.ours}; {sent}", target="nothing is sent", held=packets < times / 4)

    async def _document(self) -> Row:
        """The router's state document, checked byte by byte and field by field, beside `cat` of the same text."""
        text = (await self._client.state.export(HOME)).document
        self._labs[1].router.run("cat >/root/state.json", input=text)

        async def ours(_: int) -> None:
            if (await self._client.state.export(HOME)).document != text:
                raise BenchError("the state document changed while it was read")

        async def other(_: int) -> None:
            await self._naive.show("/root/state.json", text)

        found = await in_turns(ours, other, self._rounds, self._saying("reading the state document"))
        return compared("read the state document", *found, "cat over SSH", most_ms=20)

    async def _sync(self, each: Wish, *, changed: bool = False) -> GroupSyncResponse:
        answer = await self._client.groups.sync_group(HOME, GroupId(each.group), each.request)
        if changed and not answer.applied:
            raise BenchError("a sync that should change the group did nothing")
        self._answers.append(answer)
        return answer

    async def _hold(self, last: Wish) -> None:
        """Packets say whether either way has made a working cap: a comparison with what does not work is worth nothing."""
        for name, lab in zip(("Tidegate's", "the naive"), self._labs, strict=True):
            self._told(f"does {name} cap hold?")
            for direction in DIRECTIONS:
                rate = await asyncio.to_thread(_rate, lab, direction, last.mbps)
                if not last.mbps * (1 - TOLERANCE) <= rate <= last.mbps * (1 + TOLERANCE):
                    raise BenchError(f"{name} cap of {last.mbps} Mbit/s lets {short(rate)} through, {direction}")

    def _packets(self) -> int:
        """How many have come to the router from the controller's port."""
        done = self._labs[0].router.run(f"cat /sys/class/net/{self._labs[0].controller.port}/statistics/rx_packets")
        return int(done.stdout)

    def _saying(self, what: str) -> Told:
        return lambda how_far: self._told(f"{what} {how_far}")


def _rate(lab: Lab, direction: Direction, cap: float) -> float:
    """Mbit/s that get through. Too little is measured again: a busy machine gives less than the router would let pass."""
    rate = 0.0
    for _ in range(3):
        rate = throughput(lab.clients["child"], lab.internet, direction=direction, seconds=1.0, skip=0.5)
        if rate >= cap * (1 - TOLERANCE):
            break
    return rate


def _worked(lab: Lab) -> float:
    """Milliseconds of processor time that the router's SSH server and all that it ran and saw the end of have taken so far."""
    lines = (line.rpartition(")") for line in lab.router.run("cat /proc/[0-9]*/stat").stdout.splitlines())
    servers = [rest.split() for name, _, rest in lines if name.endswith("(dropbear")]
    if not servers:
        raise BenchError("no SSH server runs on the router")
    ticks = sum(sum(map(int, fields[11:15])) for fields in servers)  # utime, stime, and the same of its children: proc(5)
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def enrolment(lab: Lab, delay: float = 0.0) -> RouterAddRequest:
    """What enrols a lab's router, to which all takes so many seconds each way."""
    port = lab.forward(lab.router.address, 22, delay=delay)
    return RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key), port, password=lab.router.password)


async def connected(lab: Lab, delay: float = 0.0) -> asyncssh.SSHClientConnection:
    """One kept connection of the kind that Tidegate uses."""
    port, password = lab.forward(lab.router.address, 22, delay=delay), lab.router.password
    host_key = asyncssh.import_public_key(lab.router.host_public_key)
    return await asyncssh.connect(
        "127.0.0.1", port, username="root", password=password, known_hosts=([host_key], [], []), config=None, agent_path=None
    )
