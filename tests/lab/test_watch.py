"""A router that drifts while nobody asks: seen, told, and mended or left, as the settings say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.dhcp import become
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.probes import fetch
from tidegate.daemon.watch import Watch
from tidegate.events import DeviceDiscovered, Event, InfrastructureRepaired, RouterDrifted, RouterRecovered
from tidegate.lab import Lab

pytestmark = pytest.mark.anyio

SLOWER = "tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit"
PLACE = "tc wan class 1:101: lets 9 Mbit/s through instead of 20 Mbit/s"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(clients=("child",)) as running:
        yield running


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        await found.sync(1, found.device("child"), down=20)
        yield found


@asynccontextmanager
async def watching(home: Controller, *, repair: bool) -> AsyncIterator[None]:
    """Four looks a second, instead of one in five minutes."""
    task = asyncio.create_task(Watch(home.enrolled, home.infrastructure, home.devices, 0.25, repair=repair).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def told(home: Controller, kind: type[Event]) -> Event:
    """The newest event of that kind, once there is one."""
    while not (found := [event for event in await home.events() if isinstance(event, kind)]):
        await asyncio.sleep(0.05)
    return found[-1]


async def test_drift_is_seen_told_and_mended_by_itself(home: Controller) -> None:
    async with watching(home, repair=True):
        home.lab.router.run(SLOWER)
        assert await told(home, RouterDrifted) == RouterDrifted("home", (PLACE,), 1)
        assert await told(home, InfrastructureRepaired) == InfrastructureRepaired("home", 3, (PLACE,))
    assert "rate 20Mbit" in home.lab.router.run("tc class show dev wan classid 1:101").stdout
    assert (await home.routers.status(HOME)).health == "reachable"
    by = {entry.by for entry in await home.journal.entries(0, 100) if isinstance(entry.event, InfrastructureRepaired)}
    assert by == {"daemon"}


async def test_where_it_is_to_report_only_the_health_says_so_until_somebody_mends_it(home: Controller) -> None:
    async with watching(home, repair=False):
        before = (await home.routers.status(HOME)).since
        home.lab.router.run(SLOWER)
        await told(home, RouterDrifted)
        router = await home.routers.status(HOME)
        assert (router.health, router.why) == ("degraded", PLACE)
        assert router.since > before
        assert "rate 9Mbit" in home.lab.router.run("tc class show dev wan classid 1:101").stdout
        await home.infrastructure.repair(HOME)
    assert (await home.routers.status(HOME)).health == "reachable"
    drifted = [event for event in await home.events() if isinstance(event, RouterDrifted)]
    assert drifted[0].places == (PLACE,)


async def test_what_is_not_ours_is_told_and_left_alone(home: Controller) -> None:
    """The lab's router has no uci of its own; here is one that says what OpenWrt's says."""
    router = home.lab.router
    uci = "#!/bin/sh\ncase $3 in *flow_offloading) echo 1;; *) exit 1;; esac\n"
    async with watching(home, repair=True):
        router.run("cat >/sbin/uci; chmod +x /sbin/uci", input=uci)
        before = home.picture()
        drifted = await told(home, RouterDrifted)
        assert isinstance(drifted, RouterDrifted)
        assert drifted.places[0].startswith("flow offload is on")
        assert (await home.routers.status(HOME)).health == "degraded"
        assert home.picture() == before
        router.run("rm /sbin/uci")
        await told(home, RouterRecovered)
    assert (await home.routers.status(HOME)).health == "reachable"
    assert not [event for event in await home.events() if isinstance(event, InfrastructureRepaired)]


async def test_a_router_from_which_all_was_taken_down_is_well_and_left_so(home: Controller) -> None:
    await home.infrastructure.teardown(HOME)
    since = len(await home.events())
    async with watching(home, repair=True):
        await asyncio.sleep(1.5)
    assert [event for event in (await home.events())[since:] if not isinstance(event, DeviceDiscovered)] == []
    assert "inet tidegate" not in home.lab.router.run("nft list tables").stdout


async def test_who_joins_the_network_is_told_without_anybody_asking(home: Controller) -> None:
    async with watching(home, repair=True):
        first = await told(home, DeviceDiscovered)
        assert isinstance(first, DeviceDiscovered)
        assert first.mac  # the controller's own machine at the least: the router talks to it
        become(home.lab.clients["child"], "da:a1:19:00:00:07")
        fetch(home.lab.clients["child"], "http://192.168.1.1/")  # whatever comes of it, the router has heard of it
        while "da:a1:19:00:00:07" not in {event.mac for event in await home.events() if isinstance(event, DeviceDiscovered)}:
            await asyncio.sleep(0.05)
    by = {entry.by for entry in await home.journal.entries(0, 1000) if isinstance(entry.event, DeviceDiscovered)}
    assert by == {"daemon"}
