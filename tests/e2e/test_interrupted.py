"""A controller that dies in the middle of a change: after the next start it and its routers agree, at once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Up, answer, environment, up
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.test_confirm import LET_IN, LOCK_OUT
from tidegate import connect
from tidegate.api.groups import Groups
from tidegate.api.infrastructure import Drift
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest
from tidegate.contract.executor import Executor
from tidegate.errors import TidegateError
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

pytestmark = pytest.mark.anyio

# How often a daemon is killed at random; with 100 also every step of every kind of change is tried.
ROUNDS = int(os.environ.get("PROOF_ROUNDS", "5"))
FULL = ROUNDS >= 100


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(clients=("child", "parent")) as running:
        yield running


def group(number: int, client: str, lab: Lab, rate: float) -> dict[str, Any]:
    device = {"mac": lab.clients[client].mac}
    return {"group": number, "name": client, "devices": [device], "bandwidth_policy": {"limit_mbps": rate}}


def killed_at(step: int, state_dir: Path, command: str, **arguments: Any) -> tuple[bool, bool]:
    """Whether it was killed before it came to its end, and whether the command was acknowledged."""
    words = [sys.executable, "-m", "tests.e2e.interrupted", str(state_dir), str(step), command, json.dumps(arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0, "acknowledged" in done.stdout


COMMANDS = ["groups.sync_all_groups", *(["groups.delete_group", "infrastructure.teardown"] if FULL else [])]
TOLD = {"group_synced", "group_deleted", "infrastructure_torn_down"}


@pytest.mark.parametrize("command", COMMANDS)
async def test_killed_at_each_step_of_a_change_it_agrees_with_the_router_after_the_next_start(
    lab: Lab, tmp_path: Path, command: str
) -> None:
    one, two = group(1, "child", lab, 20), group(2, "parent", lab, 30)
    choices: dict[str, dict[str, Any]] = {
        "groups.sync_all_groups": {"request": {"groups": [group(1, "child", lab, 5)]}},
        "groups.delete_group": {"group_id": 2},
        "infrastructure.teardown": {},
    }
    arguments = choices[command]
    old, new = [20.0, 30.0], {"groups.sync_all_groups": [5.0, 30.0], "groups.delete_group": [20.0]}.get(command, [])
    async with a_controller(lab, tmp_path) as home:
        await home.enrol()
        await executed(home, "groups.sync_all_groups", request={"groups": [one, two]})
    ends, step, killed = [], 0, True
    while killed:
        killed, acknowledged = killed_at(step, tmp_path, command, router_id=HOME, **arguments)
        async with a_controller(lab, tmp_path, confirm_seconds=30) as home:
            head = home.journal.head
            await home.enrolled.settle()
            told = [entry.type for entry in await home.journal.entries(head, 100)]
            drift = (await home.infrastructure.verify(HOME)).drift
            rates = [each.download_mbps for each in (await home.groups.list_groups(HOME)).groups if each.download_mbps]
            assert rates in (old, new)
            assert rates == new or not acknowledged
            assert drift == ()
            assert not told or TOLD.isdisjoint(told) == (rates == old)
            await executed(home, "groups.sync_all_groups", request={"groups": [one, two]})
        ends.append((rates == new, bool(told)))
        step += 1 if FULL else 2
    assert ends[0] == (False, False)  # nothing was written down yet
    assert ends[-1] == (True, False)
    assert (False, True) in ends  # dropped, and told
    assert (True, True) in ends  # recorded later, as if nothing had happened


async def executed(home: Controller, command: str, **arguments: Any) -> None:
    areas = [(Groups, home.groups)]
    await Executor(areas).execute(command, router_id=HOME, **arguments)


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_killed_at_random_it_loses_nothing_that_was_acknowledged_and_nothing_is_half(lab: Lab, tmp_path: Path) -> None:
    """PROOF_ROUNDS says how often; a hundred by hand."""
    dice = random.Random()
    rate, ends = 20.0, list[tuple[bool, bool]]()
    daemon = Up(tmp_path)
    try:
        daemon.ready()
        enrol(daemon, lab)
        sync(daemon, lab, rate)
        for _ in range(ROUNDS):
            wanted = 5.0 if rate == 20.0 else 20.0
            acknowledged = threading.Event()
            syncing = threading.Thread(target=try_to_sync, args=(daemon, lab, wanted, acknowledged))
            syncing.start()
            time.sleep(dice.uniform(0, 0.4))
            daemon.end(signal.SIGKILL)
            syncing.join()
            daemon = Up(tmp_path)
            daemon.ready()
            found, drift = compared(daemon)
            assert drift == ()
            assert found in (rate, wanted)
            assert found == wanted or not acknowledged.is_set()
            ends.append((found == wanted, acknowledged.is_set()))
            rate = found
        assert answer("audit", "verify", socket=daemon.socket)["intact"]
        print({"rounds": ROUNDS, "new": sum(new for new, _ in ends), "acknowledged": sum(told for _, told in ends)})
    finally:
        daemon.end(signal.SIGKILL)


def enrol(daemon: Up, lab: Lab) -> None:
    host_key, port = Fingerprint(lab.router.host_key), lab.forward(lab.router.address, 22)
    asked = RouterAddRequest(HostName("127.0.0.1"), host_key, port, password=lab.router.password)

    async def adding() -> None:
        async with connect(socket=str(daemon.socket)) as tidegate:
            await tidegate.routers.add(HOME, asked)

    asyncio.run(adding())


def compared(daemon: Up) -> tuple[float | None, tuple[Drift, ...]]:
    """The child's rate as the daemon knows it, and where the router differs from what the daemon knows."""

    async def comparing() -> tuple[float | None, tuple[Drift, ...]]:
        async with connect(socket=str(daemon.socket)) as tidegate:
            drift = (await tidegate.infrastructure.verify(HOME)).drift
            groups = (await tidegate.groups.list_groups(HOME)).groups
            return next(each.download_mbps for each in groups if each.group == 1), drift

    return asyncio.run(comparing())


def sync(daemon: Up, lab: Lab, rate: float) -> None:
    device = DeviceRef(MacAddress(lab.clients["child"].mac))
    wish = GroupSyncRequest(Label("child"), (device,), BandwidthPolicy(Mbps(rate)))

    async def syncing() -> None:
        async with connect(socket=str(daemon.socket)) as tidegate:
            await tidegate.groups.sync_group(HOME, GroupId(1), wish)

    asyncio.run(syncing())


def try_to_sync(daemon: Up, lab: Lab, rate: float, acknowledged: threading.Event) -> None:
    with suppress(TidegateError):
        sync(daemon, lab, rate)
        acknowledged.set()


def test_told_to_stop_in_the_middle_of_a_change_it_ends_within_ten_seconds_and_agrees(lab: Lab, tmp_path: Path) -> None:
    """Once with a line that works, once with one that is dead: there the router goes back by itself."""
    with up(tmp_path) as daemon:
        enrol(daemon, lab)
        sync(daemon, lab, 20)
        acknowledged = threading.Event()
        syncing = threading.Thread(target=try_to_sync, args=(daemon, lab, 5.0, acknowledged))
        syncing.start()
        time.sleep(0.05)
        assert daemon.end(seconds=11) == 0
        syncing.join()
    with up(tmp_path) as daemon:
        assert answer("infrastructure", "verify", HOME, socket=daemon.socket)["drift"] == []
        lab.router.run(LOCK_OUT)
        syncing = threading.Thread(target=try_to_sync, args=(daemon, lab, 7.0, threading.Event()))
        syncing.start()
        while "rate 7Mbit" not in lab.router.run("tc class show dev br-lan").stdout:
            time.sleep(0.05)
        assert daemon.end(seconds=11) == 0
        syncing.join()
        lab.router.run(LET_IN)
    with up(tmp_path) as daemon:
        assert answer("infrastructure", "verify", HOME, socket=daemon.socket)["drift"] == []
        assert "rate 7Mbit" not in lab.router.run("tc class show dev br-lan").stdout
