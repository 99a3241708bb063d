"""Many routers of one daemon: each has its own groups and no other's, and nobody waits for one that is slow or dead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.managed import Controller, a_controller
from tidegate.api.groups import GroupSyncResponse
from tidegate.api.routers import RouterId
from tidegate.errors import TimedOut, Unavailable
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

pytestmark = pytest.mark.anyio

GROUPS = (1, 2)
ROUTERS = 6
DEAD, SLOW = 1, 4
QUICK = tuple(number for number in range(ROUTERS) if number not in (DEAD, SLOW))
DELAY = 0.1  # seconds each way
SILENT = "printf 'table inet silent {\\nchain in { type filter hook input priority -300; policy drop;\\n}\\n}\\n' | nft -f -"


@pytest.fixture
def labs() -> Iterator[list[Lab]]:
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        yield [stack.enter_context(lab) for lab in pool.map(lambda _: Lab(clients=()), range(ROUTERS))]


@pytest.fixture
async def fleet(labs: list[Lab], tmp_path: Path) -> AsyncIterator[Controller]:
    """All are enrolled and well, one of them at the end of a long line."""
    async with a_controller(labs[0], tmp_path) as controller:

        async def enrol(number: int, lab: Lab) -> None:
            port = lab.forward(lab.router.address, 22, delay=DELAY if number == SLOW else 0)
            await controller.routers.add(_id(number), replace(controller, lab=lab, port=port).request())

        await asyncio.gather(*(enrol(*each) for each in enumerate(labs)))
        yield controller


async def test_a_dead_router_and_a_slow_one_delay_nobody_and_none_gets_what_is_anothers(
    labs: list[Lab], fleet: Controller
) -> None:
    ended: list[int] = []

    async def sync(number: int, group: int) -> GroupSyncResponse:
        wish = GroupSyncRequest(Label(f"of {number}"), (_device(number, group),), BandwidthPolicy(Mbps(10 + number)))
        try:
            return await fleet.groups.sync_group(_id(number), GroupId(group), wish)
        finally:
            ended.append(number)

    assert labs[DEAD].router.run(SILENT).returncode == 0
    asked = [(DEAD, 1), *((number, group) for group in GROUPS for number in (SLOW, *QUICK))]
    answers = await asyncio.gather(*(sync(*each) for each in asked), return_exceptions=True)

    assert sorted(ended[: len(QUICK) * len(GROUPS)]) == sorted(QUICK * len(GROUPS))
    for (number, _), answer in zip(asked, answers, strict=True):
        if number == DEAD:
            assert isinstance(answer, Unavailable | TimedOut)
        else:
            assert isinstance(answer, GroupSyncResponse)
            assert answer.verified
    for number, lab in enumerate(labs):
        listed = lab.router.run("nft list map inet tidegate mac_mark").stdout
        own = {_device(number, group).mac for group in GROUPS if number != DEAD}
        assert set(re.findall(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", listed)) == own


def _device(number: int, group: int) -> DeviceRef:
    return DeviceRef(MacAddress(f"02:00:00:00:{number:02x}:{group:02x}"))


def _id(number: int) -> RouterId:
    return RouterId(f"router-{number}")
