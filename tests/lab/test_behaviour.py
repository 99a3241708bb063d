"""What a user sees of the policy half: the same in-process and over HTTP, on a real router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

import tidegate
from tidegate.api import Tidegate
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest, RouterId
from tidegate.daemon.app import Daemon, running
from tidegate.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from tidegate.events import Entry
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps
from tidegate.settings import load

pytestmark = pytest.mark.anyio

HOME = RouterId("home")
GUESTS, KIDS, PARENTS = GroupId(0), GroupId(1), GroupId(2)


def wish(name: str, *devices: DeviceRef, mbps: float | None = None, force: bool = False) -> GroupSyncRequest:
    return GroupSyncRequest(Label(name), devices, BandwidthPolicy(Mbps(mbps)) if mbps else None, force_sync=force)


def mac(number: int) -> DeviceRef:
    return DeviceRef(MacAddress(f"02:00:00:00:00:{number:02x}"))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Daemon]:
    flags = {"state_dir": tmp_path / "state", "listen": "127.0.0.1:0", "torrent.enabled": False, "log_level": "error"}
    async with running(load(environment={}, flags=flags)[0]) as daemon:
        yield daemon


@pytest.fixture(params=["in-process", "http", "unix socket"])
async def daemon(request: pytest.FixtureRequest, host: Daemon, tmp_path: Path) -> AsyncIterator[Tidegate]:
    if request.param == "in-process":
        yield host.services
    elif request.param == "http":
        async with tidegate.connect(host.url, key=host.first_key) as remote:
            yield remote
    else:
        async with tidegate.connect(socket=str(tmp_path / "state" / "control.sock")) as remote:
            yield remote


@pytest.fixture
async def home(daemon: Tidegate, lab: Lab) -> AsyncIterator[Tidegate]:
    """The daemon with the lab's router enrolled; taken off it again afterwards."""
    port = lab.forward(lab.router.address, 22)
    request = RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key), port, password=lab.router.password)
    await daemon.routers.add(HOME, request)
    yield daemon
    await daemon.routers.remove(HOME)


def rules(lab: Lab) -> str:
    """Everything of ours on the router, as it prints it."""
    return lab.router.run("nft list table inet tidegate; tc class show dev br-lan; tc class show dev wan").stdout


async def test_a_group_is_applied_verified_listed_told_and_taken_away_again(home: Tidegate, lab: Lab) -> None:
    before = rules(lab)
    child = lab.clients["child"]
    device = DeviceRef(
        MacAddress(child.mac), (IpAddress(child.ipv4), IpAddress(child.ipv6)), Label('Ada\'s "phone"; $(reboot)')
    )
    done = await home.groups.sync_group(HOME, KIDS, wish("Kids", device, mbps=20))
    assert (done.group, done.verified, done.device_changes.added) == (KIDS, True, (child.mac,))
    assert any("20" in words for words in done.applied)
    assert child.mac in rules(lab)
    assert "Ada" not in rules(lab)

    status = await home.groups.get_group_status(HOME, KIDS)
    assert (status.name, status.devices, status.verified, status.drift) == ("Kids", (device,), True, ())
    assert (status.mark, status.traffic_class, status.generation) == (101, "1:101", done.generation)

    again = await home.groups.sync_group(HOME, KIDS, wish("Kids", device, mbps=20))
    assert (again.applied, again.generation, again.device_changes.unchanged) == ((), done.generation, (child.mac,))
    forced = await home.groups.sync_group(HOME, KIDS, wish("Kids", device, mbps=20, force=True))
    assert (forced.verified, forced.durations.observe > 0) == (True, True)

    listed = await home.groups.list_groups(HOME)
    assert [(g.group, g.name, g.devices, g.download_mbps) for g in listed.groups][1:] == [(KIDS, "Kids", 1, 20.0)]
    assert listed.groups[0].group == GUESTS

    gone = await home.groups.delete_group(HOME, KIDS)
    assert gone.devices_now_guests == (child.mac,)
    assert rules(lab) == before
    with pytest.raises(NotFound):
        await home.groups.delete_group(HOME, KIDS)


async def test_drift_is_named_place_by_place(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    lab.router.run("nft delete element inet tidegate mac_mark { 02:00:00:00:00:01 }")
    lab.router.run("tc class change dev br-lan parent 1: classid 1:101 htb rate 99mbit")
    drifted = await home.groups.get_group_status(HOME, KIDS)
    assert not drifted.verified
    assert any("02:00:00:00:00:01" in place for place in drifted.drift)
    assert any("99" in place for place in drifted.drift)
    assert not (await home.infrastructure.get_status(HOME)).verified
    mended = await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20, force=True))
    assert mended.verified
    assert (await home.groups.get_group_status(HOME, KIDS)).verified


async def test_what_cannot_be_is_refused_with_its_place_and_nothing_changes(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mac(2), mbps=20))
    before = rules(lab)
    with pytest.raises(Invalid) as twice:
        await home.groups.sync_group(HOME, PARENTS, wish("Parents", mac(3), mac(3)))
    assert [fault.at for fault in twice.value.faults] == ["body/devices/1/mac"]
    with pytest.raises(Conflict, match="group 1") as taken:
        await home.groups.sync_group(HOME, PARENTS, wish("Parents", mac(2)))
    assert "Kids" in taken.value.detail or taken.value.facts
    with pytest.raises(Invalid):
        await home.groups.sync_group(HOME, PARENTS, wish("Parents", DeviceRef()))
    with pytest.raises(Invalid):
        await home.groups.sync_group(HOME, GUESTS, wish("Guests", mac(4)))
    with pytest.raises(Conflict):
        await home.groups.delete_group(HOME, GUESTS)
    nowhere = RouterId("nowhere")
    for call in (
        home.groups.sync_group(nowhere, KIDS, wish("Kids")),
        home.groups.get_group_status(nowhere, KIDS),
        home.groups.list_groups(nowhere),
        home.infrastructure.get_status(nowhere),
        home.routers.status(nowhere),
        home.routers.remove(nowhere),
    ):
        with pytest.raises(NotFound, match="nowhere"):
            await call
    with pytest.raises(Conflict, match="already"):
        await home.routers.add(HOME, RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key)))
    assert rules(lab) == before
    assert [g.group for g in (await home.groups.list_groups(HOME)).groups] == [GUESTS, KIDS]


async def test_a_router_that_does_not_answer_is_said_to_and_found_again(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    lab.router.power_cut()
    try:
        with pytest.raises(Unavailable):
            await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=30))
        assert (await home.routers.status(HOME)).health == "unreachable"
    finally:
        lab.router.boot()
    summary = (await home.groups.list_groups(HOME)).groups[1]
    assert summary.download_mbps == 20.0
    back = await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=30))
    assert back.verified
    assert (await home.routers.status(HOME)).health == "reachable"
    kinds = [e.type for e in (await home.audit.list(limit=1000)).entries]
    assert kinds.index("router_unreachable") < kinds.index("router_reachable")


async def test_what_is_missing_after_a_reboot_is_put_back_as_soon_as_the_dead_line_is_noticed(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    lab.router.reboot()
    lab.router.run("/bin/sh /usr/lib/tidegate/agent - tick; /usr/sbin/nft delete table inet tidegate")
    for _ in range(40):
        with suppress(Unavailable):
            if (await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))).applied:
                break
        await asyncio.sleep(0.5)
    assert "0x00000065 : 1:101" in rules(lab)


async def test_a_strange_host_key_is_not_enrolled(daemon: Tidegate, lab: Lab) -> None:
    port = lab.forward(lab.router.address, 22)
    shown = await daemon.routers.scan_host_key(HostName("127.0.0.1"), port)
    assert shown.fingerprint == lab.router.host_key
    strange = Fingerprint("SHA256:" + "A" * 43)
    with pytest.raises(Conflict) as caught:
        await daemon.routers.add(HOME, RouterAddRequest(HostName("127.0.0.1"), strange, port, password=lab.router.password))
    assert lab.router.host_key in str(caught.value.facts) + caught.value.detail
    assert (await daemon.routers.list()).total == 0
    wrong = RouterAddRequest(HostName("127.0.0.1"), shown.fingerprint, port, password="wrong")
    with pytest.raises(Refused):
        await daemon.routers.add(HOME, wrong)
    assert (await daemon.routers.list()).total == 0


async def test_every_change_is_an_event_with_who_did_it(home: Tidegate) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    await home.groups.delete_group(HOME, KIDS)
    seen: list[Entry] = []
    async for notice in home.events.follow(since=0, router="home"):
        assert isinstance(notice, Entry)
        seen.append(notice)
        if notice.type == "group_deleted":
            break
    assert [entry.type for entry in seen if entry.type.startswith(("router_added", "group"))] == [
        "router_added",
        "group_synced",
        "group_deleted",
    ]
    assert (await home.audit.verify()).intact
