"""Confirmed commit on a real kernel, under both shells that routers have: the old state or the new one, whoever dies when."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.integration.edge import HOME, KERNEL, US, Edge, EdgeShell, an_edge, last_answer
from tidegate.errors import Conflict, Refused, Unavailable
from tidegate.policy.compiler import GroupPolicyCompiler, RouterCommandBundle, checksum
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.state import GroupState, Limit, RouterName
from tidegate.router.agent import VERSION
from tidegate.router.engine import RouterOperationsEngine
from tidegate.router.shell import Result
from tidegate.router.statefile import Answer

pytestmark = pytest.mark.anyio

CHILD = GroupState(GroupId(1), (DeviceRef(MacAddress("02:00:5e:10:00:0b"), (IpAddress("2001:db8::b"),)),), Limit(20_000, 5_000))
SLOWER = replace(CHILD, limit=Limit(2_000, 5_000))
OFFICE = GroupState(GroupId(2), (DeviceRef(MacAddress("02:00:5e:10:00:0c")),), Limit(9_000, 1_000))
WIPE = "nft delete table inet tidegate; tc qdisc del dev br-lan root; tc qdisc del dev wan root"
OTHERS = "17 3 * * * /bin/backup\n# a last line without an end"


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        yield found


@pytest.fixture
async def engine(edge: Edge) -> RouterOperationsEngine:
    """Of a router that has the base set-up and one group."""
    found = edge.engine()
    await found.create_group_infrastructure()
    await found.synchronise([CHILD])
    return found


def ask(edge: Edge, *words: str, version: str = VERSION, stdin: bytes = b"") -> Answer:
    command = [*edge.enter, *edge.sh, edge.agent, version, *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=30, env=edge.environment)
    return last_answer(done.stdout)


def by_itself(edge: Edge, verb: str) -> None:
    """What cron or the start of the router does."""
    command = [*edge.enter, *edge.sh, edge.agent, "-", verb]
    subprocess.run(command, capture_output=True, timeout=30, env=edge.environment, check=False)


async def a_bundle(engine: RouterOperationsEngine, *groups: GroupState) -> RouterCommandBundle:
    seen = await engine.observe()
    assert seen.document
    return GroupPolicyCompiler("bfifo").compile_sync_request(groups, seen.document, seen.resources)


def send(edge: Edge, bundle: RouterCommandBundle, seconds: int) -> tuple[str, Answer]:
    data = bundle.to_bytes()
    return checksum(data)[:16], ask(
        edge, "apply", str(bundle.generation), checksum(data), str(len(data)), str(seconds), *HOME, stdin=data
    )


def until(edge: Edge, picture: str, seconds: float) -> float:
    """How long it took until the router was like that. Fails the test after so many seconds."""
    began = time.monotonic()
    while (now := edge.run(KERNEL)) != picture:
        assert time.monotonic() < began + seconds, now
        time.sleep(0.02)
    return time.monotonic() - began


class Mute(EdgeShell):
    """From the moment of the change on, nobody gets through to confirm it."""

    async def knock(self) -> None:
        raise Unavailable("nobody is let in")

    async def run(self, command: Sequence[str], stdin: bytes = b"", **limits: Any) -> Result:
        if "confirm" in command:
            raise Unavailable("the line is dead")
        return await super().run(command, stdin, **limits)


async def test_a_change_that_nobody_can_confirm_is_taken_back_and_said_to_be(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    before = edge.picture()
    mute = RouterOperationsEngine(Mute(edge), RouterName("home"), US, HOME, "bfifo", edge.agent, 1)
    began = time.monotonic()
    with pytest.raises(Refused, match="reverted, verified") as refused:
        await mute.synchronise([SLOWER, OFFICE])
    assert time.monotonic() - began < 1 + 10
    assert (refused.value.facts["verified"], refused.value.facts["generation"]) == (True, 2)
    assert mute.reverted
    assert (mute.reverted[1:]) == (2, True)
    await mute.hear_of_revert()
    assert edge.picture() == before
    assert (await edge.engine().synchronise([SLOWER])).generation == 3


async def test_while_one_waits_a_second_is_refused_with_its_id_and_a_wrong_id_confirms_nothing(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    change, answer = send(edge, await a_bundle(engine, SLOWER), 30)
    assert answer.word == "ok"
    with pytest.raises(Conflict, match=change) as conflict:
        await engine.synchronise([CHILD, OFFICE])
    assert conflict.value.facts["pending"] == change
    assert ask(edge, "confirm", "0" * 16).words == ("pending", change)
    assert ask(edge, "revert", "0" * 16, *HOME).words == ("pending", change)
    text, _ = ask(edge, "status").sections["commit"]
    assert text.startswith(f"pending={change} 3 ")
    _, remarks = await engine.verify_router_state([SLOWER])
    assert any(f"the change {change} waits to be confirmed" in remark.text for remark in remarks)
    assert ask(edge, "confirm", change).word == "ok"
    assert ask(edge, "confirm", change).word == "none"
    assert (await engine.verify_router_state([SLOWER]))[1] == ()


async def test_a_caller_that_goes_away_before_confirming_does_not_hold_up_the_next(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    gone = asyncio.Event()

    class Waits(EdgeShell):
        async def knock(self) -> None:
            if not gone.is_set():
                gone.set()
                await asyncio.sleep(3600)

    engine = RouterOperationsEngine(Waits(edge), RouterName("home"), US, HOME, "bfifo", edge.agent, 30)
    task = asyncio.create_task(engine.synchronise([SLOWER]))
    await gone.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (await engine.synchronise([CHILD, OFFICE])).words == (
        "group 2: download limit 9 Mbit/s",
        "group 2: upload limit 1 Mbit/s",
        "02:00:5e:10:00:0c joins group 2",
    )
    assert (await engine.verify_router_state([CHILD, OFFICE]))[1] == ()


async def test_without_a_timer_the_next_minute_takes_the_change_back(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.run(KERNEL)
    _, answer = send(edge, await a_bundle(engine, SLOWER, OFFICE), 1)
    assert answer.word == "ok"
    assert kill(edge)  # the timer is all that runs
    await asyncio.sleep(2)
    assert edge.run(KERNEL) != before
    by_itself(edge, "tick")
    assert edge.run(KERNEL) == before


async def test_the_timer_takes_it_back_within_its_time(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.run(KERNEL)
    _, answer = send(edge, await a_bundle(engine, SLOWER, OFFICE), 1)
    assert answer.word == "ok"
    assert until(edge, before, 3) > 0.2


async def test_a_first_set_up_that_is_not_confirmed_leaves_nothing(edge: Edge) -> None:
    before = edge.run(KERNEL)
    mute = RouterOperationsEngine(Mute(edge), RouterName("home"), US, HOME, "bfifo", edge.agent, 1)
    with pytest.raises(Refused, match="reverted, verified"):
        await mute.create_group_infrastructure()
    assert edge.run(KERNEL) == before
    await edge.engine().create_group_infrastructure()


async def test_a_restart_in_the_window_brings_the_old_state(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.run(KERNEL)
    state = (edge.root / "etc/tidegate/state.json").read_bytes()
    change, _ = send(edge, await a_bundle(engine, SLOWER, OFFICE), 600)
    restart(edge)
    by_itself(edge, "boot")
    assert edge.run(KERNEL) == before
    assert (edge.root / "etc/tidegate/state.json").read_bytes() == state
    text, _ = ask(edge, "status").sections["commit"]
    assert text == f"reverted={change} 3"
    assert ask(edge, "confirm", change).word == "none"


@pytest.mark.parametrize("verb", ["boot", "tick"])
async def test_after_a_restart_the_confirmed_state_is_there_without_a_controller(
    edge: Edge, engine: RouterOperationsEngine, verb: str
) -> None:
    await engine.synchronise([SLOWER, OFFICE])
    after = edge.run(KERNEL)
    restart(edge)
    by_itself(edge, verb)
    assert edge.run(KERNEL) == after
    assert (await engine.verify_router_state([SLOWER, OFFICE]))[1] == ()


@pytest.mark.parametrize("loss", ["nft flush ruleset", "tc qdisc del dev wan root", "tc qdisc del dev br-lan root", WIPE])
async def test_what_a_firewall_or_a_network_took_away_is_back_after_a_minute(
    edge: Edge, engine: RouterOperationsEngine, loss: str
) -> None:
    before = edge.run(KERNEL)
    edge.run(loss)
    by_itself(edge, "tick")
    assert edge.run(KERNEL) == before


async def test_limited_groups_are_held_at_a_start_until_their_limits_are_in(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.run(KERNEL)
    restart(edge)
    edge.run("tc qdisc add dev wan root handle 7: bfifo")  # as good as a device that is not there
    by_itself(edge, "boot")
    assert "meta priority >= 1:0 drop" in edge.run("nft list table inet tidegate_boot")
    edge.run("tc qdisc del dev wan root")
    by_itself(edge, "tick")
    until(edge, before, 5)


async def test_crontab_and_boot_hook_come_and_go_without_a_trace(edge: Edge) -> None:
    for folder in ("init.d", "rc.d", "crontabs"):
        (edge.root / "etc" / folder).mkdir(parents=True)
    crontab = edge.root / "etc/crontabs/root"
    crontab.write_text(OTHERS)
    crontab.chmod(0o640)
    before = edge.picture()
    engine = edge.engine()
    await engine.create_group_infrastructure()
    await engine.synchronise([CHILD])
    assert crontab.read_text() == f"* * * * * /bin/sh {edge.agent} - tick\n{OTHERS}"
    assert crontab.stat().st_mode & 0o777 == 0o640
    assert (edge.root / "etc/rc.d/S18tidegate").resolve() == edge.root / "etc/init.d/tidegate"
    await engine.cleanup_group_infrastructure("")
    assert not (edge.root / "etc/rc.d/S18tidegate").is_symlink()
    edge.install()
    assert edge.picture() == before
    assert crontab.stat().st_mode & 0o777 == 0o640


async def test_a_crontab_that_is_ours_alone_goes_with_us(edge: Edge) -> None:
    (edge.root / "etc/crontabs").mkdir(parents=True)
    engine = edge.engine()
    await engine.create_group_infrastructure()
    assert (edge.root / "etc/crontabs/root").exists()
    await engine.cleanup_group_infrastructure("")
    assert list((edge.root / "etc/crontabs").iterdir()) == []


KILLS = int(os.environ.get("TIDEGATE_PROOF_KILLS", "24"))  # 250 under each shell in `make prove`


async def test_killed_at_any_moment_it_is_the_old_state_or_the_new_one(edge: Edge, engine: RouterOperationsEngine) -> None:
    """The agent alone, or with all that it started, timer and all; in the change or in its confirmation; then the minute
    comes. What is then there is the old state or the new one, and nothing is left over."""
    dice, ends = Random(3), []
    wishes = [(CHILD,), (SLOWER, OFFICE)]
    pictures = list[str]()
    lengths = list[float]()
    for wish in (wishes[1], wishes[0]):
        began = time.monotonic()
        await engine.synchronise(wish)
        lengths.append(time.monotonic() - began)
        pictures.insert(0, edge.run(KERNEL))
    whole, old = max(lengths), 0
    for number in range(KILLS):
        bundle = await a_bundle(engine, *wishes[1 - old])
        data = bundle.to_bytes()
        words = ["apply", str(bundle.generation), checksum(data), str(len(data)), "60", *HOME]
        agent = subprocess.Popen(
            [*edge.enter, *edge.sh, edge.agent, VERSION, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=edge.environment,
            start_new_session=True,
        )
        assert agent.stdin
        assert agent.stdout
        agent.stdin.write(data)
        agent.stdin.flush()
        if number % 3:
            time.sleep(dice.uniform(0, whole))
        else:
            while agent.stdout.readline() not in (b"--- end\n", b""):
                pass
            agent.stdin.write(f"confirm {checksum(data)[:16]}\n".encode())
            agent.stdin.flush()
            time.sleep(dice.uniform(0, whole / 3))
        if dice.random() < 0.5:
            os.killpg(agent.pid, signal.SIGKILL)
        kill(edge)
        agent.stdin.close()
        agent.wait(10)
        agent.stdout.close()
        by_itself(edge, "tick")
        if (seen := await engine.observe()).pending:
            verb = dice.choice([("confirm",), ("revert", *HOME)])
            # "none": what the killed one had started to take its lock did so only now, and a dead owner's change goes back.
            assert ask(edge, verb[0], seen.pending.id, *verb[1:]).word in ("ok", "none")
        seen = await engine.observe()
        assert seen.document
        assert seen.document.groups in wishes
        new = wishes.index(seen.document.groups)
        assert edge.run(KERNEL) == pictures[new], f"kill {number}"
        if leftovers(edge):  # what the killed one had started did it only now
            by_itself(edge, "tick")
        assert leftovers(edge) == []
        ends.append(new != old)
        old = new
    assert 0 < sum(ends) < KILLS  # both happened


def leftovers(edge: Edge) -> list[str]:
    """Of a change that came to its end: a lock, a folder, a timer, a bundle that waits."""
    run = edge.root / "var/run/tidegate"
    names = [path.name for path in run.iterdir() if path.name.startswith(("lock", "work", "orphaned"))]
    names += [str(path) for path in (edge.root / "etc/tidegate").glob("pending/*")]
    for timer in (run / "timer").read_text().split()[:1]:
        with suppress(OSError):
            names += [f"timer {timer}"] if "sleep" in Path(f"/proc/{timer}/cmdline").read_text() else []
    return names


def kill(edge: Edge) -> int:
    """Kill every process of this edge's agent, and tell how many there were."""
    killed = 0
    for found in Path("/proc").iterdir():
        if not found.name.isdecimal():
            continue
        with suppress(OSError):
            if edge.agent.encode() in (found / "cmdline").read_bytes():
                os.kill(int(found.name), signal.SIGKILL)
                killed += 1
    return killed


def restart(edge: Edge) -> None:
    """What a power cut takes: processes, rules, queues and memory. Whoever comes up next is of another boot."""
    kill(edge)
    edge.run(f"{WIPE}; rm -r $TIDEGATE_ROOT/var/run/tidegate")
    mark = edge.root / "etc/tidegate/pending/mark"
    if mark.exists():
        words = mark.read_text().split()
        mark.write_text(" ".join([*words[:2], "another-boot", *words[3:]]) + "\n")
