"""A line that breaks at every part of what is said in a change: the old state or the new one, soon, and then it goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.lab.fraying import Line, Way, a_line
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.test_power import RATES, WAITS, come_to_rest, confirmed, rules, tried
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, MacAddress

pytestmark = pytest.mark.anyio

FULL = "TIDEGATE_PROOF_LINES" in os.environ
STEPS = {False: 1024 if FULL else 3072, True: 1024 if FULL else 5120}
"""Bytes from one break to the next, by whether nobody is told of it: until it is noticed, such a one takes seconds."""
MANY = [DeviceRef(MacAddress(f"02:00:5e:30:00:{number:02x}")) for number in range(60)]
WISHES = {5.0: MANY[:40], 20.0: MANY[20:]}
"""Of whom, by the rate: enough devices come and go for a dialogue of many KiB."""
HANG = 15  # seconds that nobody is left to wait for an answer, over whatever line (REL-11)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(clients=("child",), shell="ash") as running:
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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("silently", [False, True], ids=["reset", "silent"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_line_that_breaks_at_any_part_of_a_change_leaves_the_old_state_or_the_new_one(
    home: Controller, line: Line, way: Way, silently: bool
) -> None:
    """After so many bytes of one way, and so many more each time, until the whole change passes before it breaks. What was
    cut off comes to its end on the router once its server gives the dead line up too."""
    pictures, ends, longest = dict[float | None, str](), list[bool](), 0.0
    for rate in RATES:
        await home.sync(1, *WISHES[rate], down=rate)
        pictures[rate] = rules(home)
    new, old = RATES
    clock, count = asyncio.get_running_loop(), STEPS[silently]
    while True:
        broke, began = line.broke, clock.time()
        line.break_at(way, count, silently=silently)
        async with asyncio.timeout(HANG):
            acknowledged = await tried(home, new, WISHES[new])
        longest = max(longest, clock.time() - began)
        if line.broke == broke:
            break
        alone = await come_to_rest(home, WAITS)
        found = confirmed(home)[1]
        assert alone == pictures[found], f"broke after {count} bytes: these are not the rules of its document"
        line.give_up()
        await come_to_rest(home)
        assert found == new or not acknowledged, f"broke after {count} bytes: what was acknowledged is not there"
        assert (await home.infrastructure.verify(HOME)).drift == ()
        assert (await home.sync(1, *WISHES[old], down=old, force=True)).verified
        assert await come_to_rest(home) == pictures[old]
        ends.append(found == new)
        count += STEPS[silently]
    print(
        {
            "way": way,
            "silently": silently,
            "breaks": len(ends),
            "new": sum(ends),
            "longest": round(longest, 1),
            "bytes": line.carried,
        }
    )
    assert acknowledged
    assert ends
