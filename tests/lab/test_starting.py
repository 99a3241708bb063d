"""A start is closed (REL-23): until a router's rules are in, nobody whom they hold back gets a packet out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.lab.flood import arrived, counting, sending
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.probes import eventually
from tidegate.lab import Lab
from tidegate.policy.device import Label
from tidegate.policy.group import AccessControlPolicy, GroupId, GroupSyncRequest

pytestmark = pytest.mark.anyio

STARTS = int(os.environ.get("TIDEGATE_PROOF_STARTS", "1"))  # 20 of each router in `make prove`
BLOCKED, LIMITED, FREE = 7001, 7002, 7003
IN_THE_WAY = "/sbin/tc qdisc {} dev wan root handle 7: bfifo"


@pytest.fixture(params=["ash", "dash without nft"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Its clients send at once when it comes up: they do not ask for its MAC first."""
    shell, *lacks = request.param.split(" without ")
    with Lab(clients=("child", "guest", "parent"), shell=shell, lacks=lacks) as running:
        for client in running.clients.values():
            for address in (running.router.address, running.router.address6):
                known = ["ip", "neighbour", "replace", address, "lladdr", running.router.mac, "dev", "eth0", "nud", "permanent"]
                assert client.run(known).returncode == 0
        yield running


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    """The child's internet is closed, the guest has 5 Mbit/s, the parent is free."""
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        closed = AccessControlPolicy(block_all_internet=True)
        wish = GroupSyncRequest(Label("closed"), (found.device("child"),), access_control_policy=closed)
        await found.groups.sync_group(HOME, GroupId(1), wish)
        await found.sync(2, found.device("guest"), down=5, up=5)
        await found.sync(3, found.device("parent"))
        yield found


@pytest.mark.timeout(60 + 10 * STARTS)
async def test_nothing_of_a_held_back_client_gets_out_while_the_router_starts(home: Controller) -> None:
    """The line is there and what limits it can't be yet: another's queue is in its place. All three flood, both families."""
    lab, router = home.lab, home.lab.router
    slow = f"n=0; until {IN_THE_WAY.format('add')} || [ $n = 3000 ]; do n=$((n + 1)); done"
    router.run("cat >/etc/rc.d/S17slow; chmod +x /etc/rc.d/S17slow", input=f"#!/bin/sh\n({slow}) >/dev/null 2>&1 &\n")
    await home.fleet.close()
    clients = lab.clients
    sent = 0
    for _ in range(STARTS):
        await asyncio.to_thread(router.power_cut)
        with (
            counting(lab, BLOCKED, LIMITED, FREE),
            sending(lab, clients["child"], BLOCKED, 4000) as blocked,
            sending(lab, clients["guest"], LIMITED, 400),
            sending(lab, clients["parent"], FREE, 400),
        ):
            await asyncio.to_thread(router.boot)
            await asyncio.to_thread(eventually, lambda: min(arrived(lab, FREE).values()) > 20)
            assert (arrived(lab, BLOCKED).total(), arrived(lab, LIMITED).total()) == (0, 0)
            router.run(f"{IN_THE_WAY.format('del')}; /bin/sh /usr/lib/tidegate/agent - tick")
            await asyncio.to_thread(eventually, lambda: min(arrived(lab, LIMITED).values()) > 20)
            assert arrived(lab, BLOCKED).total() == 0
        sent += blocked.sent
    print({"starts": STARTS, "sent by the blocked one": sent})
    assert sent > 1000
