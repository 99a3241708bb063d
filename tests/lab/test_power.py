"""Power that goes in the middle of a change: the router comes up by itself in the old state or the new one, and goes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.lab.fraying import Line, a_line
from tests.lab.managed import HOME, SHOW_OURS, Controller, a_controller
from tidegate.errors import TidegateError
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef
from tidegate.policy.group import GroupId
from tidegate.policy.state import from_text

pytestmark = pytest.mark.anyio

CUTS = int(os.environ.get("TIDEGATE_PROOF_CUTS", "4"))  # 50 of each router in `make prove`
RATES = (5.0, 20.0)
RUN, ETC = "/var/run/tidegate", "/etc/tidegate"
WAITS = f"ls -d {RUN}/lock* {RUN}/closed {RUN}/orphaned {RUN}/loading {ETC}/pending/* 2>/dev/null"
LEFT_OVER = f"{WAITS}; ls -d {RUN}/work.* 2>/dev/null"


@pytest.fixture(params=["dash", "ash without nft"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    shell, *lacks = request.param.split(" without ")
    with Lab(clients=("child", "guest"), shell=shell, lacks=lacks) as running:
        yield running


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path, confirm_seconds=3) as found:
        yield found


@pytest.fixture
async def line(home: Controller) -> AsyncIterator[Line]:
    """By which the router is enrolled."""
    async with a_line(home.port) as found:
        await home.routers.add(HOME, home.request(port=found.port))
        yield found
        await home.fleet.close()


def rules(home: Controller) -> str:
    lan, wan = home.lab.router.lan, home.lab.router.wan
    shown = home.lab.router.run(f"{SHOW_OURS}; for d in {lan} {wan}; do /sbin/tc class show dev $d; done")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


async def come_to_rest(home: Controller, unrest: str = LEFT_OVER) -> str:
    """The rules of a router that was left to itself until nothing of a start or of a change was left."""
    until = time.monotonic() + 10
    while left := home.lab.router.run(unrest).stdout:
        assert time.monotonic() < until, left
        await asyncio.sleep(0.05)
    return rules(home)


def confirmed(home: Controller) -> tuple[int, float | None]:
    """The generation and the child's rate by the document on the router."""
    document = from_text(home.lab.router.run(f"cat {ETC}/state.json").stdout)
    (child,) = (group for group in document.groups if group.id == 1)
    return document.generation, child.limit.download_kbit / 1000 if child.limit else None


async def tried(home: Controller, rate: float, devices: Sequence[DeviceRef]) -> bool:
    """Whether the change was acknowledged."""
    with suppress(TidegateError):
        await home.sync(1, *devices, down=rate)
        return True
    return False


@pytest.mark.timeout(60 + 8 * CUTS)
async def test_without_power_at_any_moment_of_a_change_it_comes_up_in_the_old_state_or_the_new_one(
    home: Controller, line: Line
) -> None:
    """Nothing of what was confirmed is lost, the router's rules are those of its document, the controller comes to the same
    conclusion, and the next change goes through. Every other time the router comes up with no controller in reach, else the
    one that waits for its answer reaches it again. The last cut comes as soon as the change was acknowledged."""
    dice, ends, router = Random(), list[tuple[bool, bool]](), home.lab.router
    pictures, lengths = dict[float | None, str](), list[float]()
    for rate in (*RATES, *RATES):
        began = time.monotonic()
        await home.sync(1, home.device("child"), down=rate)
        lengths.append(time.monotonic() - began)
        pictures[rate] = rules(home)
    new, old = RATES
    generation, found = confirmed(home)
    assert found == old
    for number in range(CUTS):
        change = asyncio.create_task(tried(home, new, [home.device("child")]))
        if number < CUTS - 1:
            await asyncio.sleep(dice.uniform(0, sorted(lengths)[1]))
        else:
            await asyncio.wait([change])
        await asyncio.to_thread(router.power_cut)
        if number % 2:
            line.shut = True
            line.break_now()
            await asyncio.wait([change])
        await asyncio.to_thread(router.boot)
        acknowledged = await change
        alone = await come_to_rest(home)
        now, found = confirmed(home)
        assert (now, found) in ((generation, old), (generation + 1, new)), f"cut {number}"
        assert found == new or not acknowledged, f"cut {number}: what was acknowledged is lost"
        assert alone == pictures[found], f"cut {number}: these are not the rules of its document"
        line.shut = False
        seen = await home.infrastructure.verify(HOME)
        assert (seen.verified, seen.drift) == (True, ())
        listed = {group.group: group.download_mbps for group in (await home.groups.list_groups(HOME)).groups}
        assert listed[GroupId(1)] == found
        ends.append((found == new, acknowledged))
        generation = (await home.sync(1, home.device("child"), down=old, force=True)).generation
        assert (generation > now) == (found == new)
        assert confirmed(home) == (generation, old)
        assert (await come_to_rest(home)) == pictures[old]
    print({"cuts": CUTS, "new": sum(new for new, _ in ends), "acknowledged": sum(told for _, told in ends)})
    assert ends[-1] == (True, True)
    assert CUTS < 50 or {end for end, _ in ends} == {True, False}  # of so many
