"""A closed internet with real packets: running connections end, the LAN and the router go on, nobody else notices."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

from tests.lab.flood import arrived, counting, sending
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.probes import connects, eventually, lookup
from tidegate.api.groups import GroupPolicyUpdate, GroupsSyncRequest, GroupSyncResponse, GroupWish
from tidegate.lab import Lab, measure
from tidegate.policy.device import DeviceRef, Label
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

pytestmark = pytest.mark.anyio

KIDS, PARENTS, GUESTS = GroupId(1), GroupId(2), GroupId(0)
FLOOD, FREE = 7001, 7002
SWAPS = int(os.environ.get("TIDEGATE_POLICY_SWAPS", "50"))
FAMILIES: tuple[Literal[4, 6], ...] = (4, 6)
DIRECTIONS: tuple[Literal["down", "up"], ...] = ("down", "up")
PROTOCOLS: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")

MEDDLE = """
if [ -x /usr/sbin/nft ]; then
  nft add set inet tidegate of_somebody_else '{ type mark; }'
else
  ip6tables -A TIDEGATE_FORWARD -j RETURN
fi"""


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        yield found
        await found.routers.remove(HOME)


@pytest.fixture
def arrivals(lab: Lab) -> Iterator[Lab]:
    with counting(lab, FLOOD, FREE):
        yield lab


async def block(home: Controller, group: GroupId, *devices: DeviceRef, closed: bool = True) -> GroupSyncResponse:
    access = AccessControlPolicy(block_all_internet=closed)
    wish = GroupSyncRequest(Label(f"the {int(group)}"), devices, access_control_policy=access)
    return await home.groups.sync_group(HOME, group, wish)


@pytest.mark.dialects
async def test_running_and_new_connections_end_and_everybody_else_goes_on(home: Controller, arrivals: Lab) -> None:
    lab, child, parent = home.lab, home.lab.clients["child"], home.lab.clients["parent"]
    await home.sync(1, home.device("child"))
    await home.sync(2, home.device("parent"))
    with ExitStack() as stack:
        free = stack.enter_context(sending(lab, parent, FREE, 400))
        flows = [
            stack.enter_context(
                measure.flow(child, lab.internet, direction=direction, protocol=protocol, family=family, rate_mbps=2)
            )
            for direction in DIRECTIONS
            for protocol in PROTOCOLS
            for family in FAMILIES
        ]
        done = await block(home, KIDS, home.device("child"))
        assert done.applied == ("group 1: the internet is closed to it",)
        await asyncio.sleep(1)
        before = [flow.total for flow in flows]
        await asyncio.sleep(1)
        assert [flow.total for flow in flows] == before
        for address in (lab.internet.ipv4, lab.internet.ipv6):
            assert not connects(child, address, 80)
            assert connects(parent, address, 80)
    assert arrived(lab, FREE).total() == free.sent > 0


@pytest.mark.dialects
async def test_the_router_and_the_lan_stay_within_reach_and_opening_works_at_once(home: Controller) -> None:
    lab, child = home.lab, home.lab.clients["child"]
    await block(home, KIDS, home.device("child"))
    assert lookup(child, "example.com", "A") == [lab.internet.ipv4]
    assert lookup(child, "example.com", "A", "+tcp") == [lab.internet.ipv4]
    assert connects(child, lab.router.address, 22)
    for family in FAMILIES:
        assert measure.throughput(child, lab.clients["nas"], family=family, seconds=0.3) > 0
    assert not connects(child, lab.internet.ipv4, 80)
    assert (await home.groups.get_group_status(HOME, KIDS)).verified
    done = await home.groups.update_group_policy(HOME, KIDS, GroupPolicyUpdate(access_control_policy=AccessControlPolicy()))
    assert done.applied == ("group 1: the internet is open to it again",)
    assert connects(child, lab.internet.ipv4, 80)
    assert connects(child, lab.internet.ipv6, 80)


@pytest.mark.dialects("nftables", "iptables", "iptables over nftables")
async def test_guests_and_devices_known_by_address_alone_are_cut_off_too(home: Controller) -> None:
    lab = home.lab
    await block(home, GUESTS)
    await block(home, KIDS, home.addresses("child"), closed=False)
    for address in (lab.internet.ipv4, lab.internet.ipv6):
        assert not connects(lab.clients["guest"], address, 80)
        assert connects(lab.clients["child"], address, 80)
    await block(home, GUESTS, closed=False)
    await block(home, KIDS, home.addresses("child"))
    for address in (lab.internet.ipv4, lab.internet.ipv6):
        assert connects(lab.clients["guest"], address, 80)
        assert not connects(lab.clients["child"], address, 80)


@pytest.mark.dialects
async def test_nothing_of_a_flood_gets_out_through_many_changes_and_a_free_client_loses_nothing(
    home: Controller, arrivals: Lab
) -> None:
    """The device moves between two closed groups, limits change, and the whole table is made anew, under 4,000 packets/s."""
    lab, device, closed = home.lab, home.device("child"), AccessControlPolicy(block_all_internet=True)

    def wishes(number: int) -> GroupsSyncRequest:
        limit = BandwidthPolicy(Mbps(5 + number))
        both = [(device,), ()] if number % 2 else [(), (device,)]
        groups = [
            GroupWish(Label("closed"), devices, limit, access_control_policy=closed, group=GroupId(group))
            for group, devices in zip((1, 3), both, strict=True)
        ]
        return GroupsSyncRequest((*groups, GroupWish(Label("free"), (home.device("parent"),), limit, group=PARENTS)))

    await home.groups.sync_all_groups(HOME, wishes(0))
    with sending(lab, lab.clients["parent"], FREE, 400) as free, sending(lab, lab.clients["child"], FLOOD, 4000) as flood:
        for number in range(1, SWAPS + 1):
            if number % 2 == 0:
                lab.router.run(MEDDLE)
                assert (await home.infrastructure.repair(HOME)).changed
            assert (await home.groups.sync_all_groups(HOME, wishes(number))).applied
    leaked, through = arrived(lab, FLOOD).total(), arrived(lab, FREE).total()
    print(f"{SWAPS} changes: {leaked} of {flood.sent} packets of the flood got out, {through} of {free.sent} free ones did")
    assert flood.sent > 4000
    assert leaked == 0
    assert through == free.sent > 0
    for group in (1, 3):
        await block(home, GroupId(group), *([device] if group == 3 else []), closed=False)
    with sending(lab, lab.clients["child"], FLOOD, 400):
        await asyncio.to_thread(eventually, lambda: arrived(lab, FLOOD).total() > 0)
