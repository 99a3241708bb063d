"""What a user sees of the policy half: the same in-process and over HTTP, on a real router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

import tidegate
from tidegate.api import Tidegate
from tidegate.api.groups import GroupPolicyUpdate, GroupsSyncRequest, GroupWish
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest, RouterId
from tidegate.daemon.app import Daemon, running
from tidegate.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from tidegate.events import Entry
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps
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
    assert "(Kids)" in taken.value.detail
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


async def test_a_router_under_another_id_is_left_to_it(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    second = RouterId("home2")
    port = lab.forward(lab.router.address, 22)
    enrol = RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key), port, password=lab.router.password)
    await home.routers.add(second, enrol)
    await home.routers.remove(HOME)
    assert (await home.groups.get_group_status(second, KIDS)).verified
    assert "1:101" in rules(lab)
    await home.routers.remove(second)
    await home.routers.add(HOME, enrol)


async def test_a_change_ends_whole_though_the_one_who_asked_hangs_up(home: Tidegate, lab: Lab) -> None:
    asking = asyncio.create_task(home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20)))
    await asyncio.sleep(0.02)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    status = await home.groups.get_group_status(HOME, KIDS)
    assert (status.verified, status.name) == (True, "Kids")
    assert "1:101" in rules(lab)


async def test_a_change_ends_whole_though_the_daemon_is_told_to_stop_in_the_middle(tmp_path: Path, lab: Lab) -> None:
    flags = {"state_dir": tmp_path / "state", "listen": "127.0.0.1:0", "torrent.enabled": False, "log_level": "error"}
    settings = load(environment={}, flags=flags)[0]
    port = lab.forward(lab.router.address, 22)
    async with running(settings) as first:
        enrol = RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key), port, password=lab.router.password)
        await first.services.routers.add(HOME, enrol)
        asking = asyncio.create_task(first.services.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20)))
        await asyncio.sleep(0.02)
    await asyncio.gather(asking, return_exceptions=True)
    async with running(settings) as second:
        assert (await second.services.groups.get_group_status(HOME, KIDS)).verified
        assert "1:101" in rules(lab)
        kinds = [entry.type for entry in (await second.services.audit.list(limit=1000)).entries]
        assert kinds.index("group_synced") < kinds.index("daemon_stopped")
        await second.services.routers.remove(HOME)


def many(*wishes: GroupWish, atomic: bool = True) -> GroupsSyncRequest:
    return GroupsSyncRequest(wishes, atomic)


def one(group: int, name: str, *devices: DeviceRef, mbps: float | None = None, block: bool = False) -> GroupWish:
    limit = BandwidthPolicy(Mbps(mbps)) if mbps else None
    access = AccessControlPolicy(block_all_internet=True) if block else None
    return GroupWish(Label(name), devices, limit, access_control_policy=access, group=GroupId(group))


async def told(home: Tidegate, since: int) -> list[Entry]:
    """What was told of groups and the base set-up after that event."""
    entries = (await home.audit.list(since=since, limit=1000)).entries
    return [entry for entry in entries if entry.type.startswith(("group", "infrastructure", "router_change"))]


async def head(home: Tidegate) -> int:
    return (await home.audit.list(since=0, limit=1000)).entries[-1].number


async def test_many_groups_are_one_change_with_a_result_and_an_event_each(home: Tidegate, lab: Lab) -> None:
    first = await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mac(2), mbps=20))
    since = await head(home)
    asked = many(one(1, "Kids", mac(1), mbps=30), one(2, "Parents", mac(2), mac(3)), one(3, "Lab", mac(4), mbps=5, block=True))
    done = await home.groups.sync_all_groups(HOME, asked)
    assert (done.generation, done.verified) == (first.generation + 1, True)
    assert [(result.group, result.ok, result.problem) for result in done.results] == [(n, True, None) for n in (1, 2, 3)]
    kids, parents, laboratory = done.results
    assert kids.device_changes.removed == (mac(2).mac,)
    assert parents.device_changes.added == (mac(2).mac, mac(3).mac)
    assert f"{mac(2).mac} moves from group 1 to group 2" in kids.applied
    assert f"{mac(2).mac} moves from group 1 to group 2" in parents.applied
    assert "group 3: the internet is closed to it" in laboratory.applied
    events = await told(home, since)
    assert [(entry.type, entry.event.group) for entry in events] == [("group_synced", n) for n in (1, 2, 3)]  # type: ignore[union-attr]
    listed = (await home.groups.list_groups(HOME)).groups
    assert [(g.group, g.devices, g.download_mbps, g.internet_blocked) for g in listed] == [
        (0, 0, None, False),
        (1, 1, 30.0, False),
        (2, 2, None, False),
        (3, 1, 5.0, True),
    ]
    again = await home.groups.sync_all_groups(HOME, asked)
    assert (again.applied, again.generation, [result.ok for result in again.results]) == ((), done.generation, [True] * 3)
    assert len(await told(home, since)) == 3
    assert (await home.infrastructure.verify(HOME)).verified


async def test_of_an_atomic_sync_one_fault_stops_everything_and_every_fault_is_named(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    since, before = await head(home), rules(lab)
    with pytest.raises(Invalid) as faulty:
        await home.groups.sync_all_groups(
            HOME, many(one(2, "A", mac(2), mac(3)), one(3, "B", mac(4), mac(2)), one(2, "C"), one(0, "Guests", mac(5)))
        )
    assert [fault.at for fault in faulty.value.faults] == [
        "body/groups/1/devices/1/mac",
        "body/groups/2/group",
        "body/groups/3/devices",
    ]
    with pytest.raises(Conflict, match=r"belongs to group 1 \(Kids\)") as taken:
        await home.groups.sync_all_groups(HOME, many(one(2, "A", mac(2)), one(3, "B", mac(1))))
    assert taken.value.facts["devices"][0]["at"] == "body/groups/1/devices/0/mac"  # type: ignore[index]
    assert rules(lab) == before
    assert await told(home, since) == []


async def test_groups_that_are_not_atomic_are_taken_each_on_its_merits(home: Tidegate, lab: Lab) -> None:
    first = await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    asked = many(one(2, "A", mac(2), mac(3)), one(3, "B", mac(1)), one(4, "C", mac(3)), one(5, "D", mac(5)), atomic=False)
    done = await home.groups.sync_all_groups(HOME, asked)
    assert [result.ok for result in done.results] == [True, False, False, True]
    assert done.generation == first.generation + 1
    taken, twice = [result.problem for result in done.results if result.problem]
    assert (taken.type, taken.faults[0].at) == ("urn:tidegate:conflict", "body/groups/1/devices/0/mac")
    assert (twice.type, twice.faults[0].at) == ("urn:tidegate:invalid", "body/groups/2/devices/0/mac")
    assert [g.group for g in (await home.groups.list_groups(HOME)).groups] == [0, 1, 2, 5]
    assert (await home.infrastructure.verify(HOME)).verified
    none = await home.groups.sync_all_groups(HOME, many(one(3, "B", mac(1)), atomic=False))
    assert (none.verified, none.generation, none.applied) == (False, done.generation, ())


async def test_a_plan_is_the_very_text_that_would_run_and_runs_nothing(home: Tidegate, lab: Lab) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mac(2), mbps=20))
    since, before = await head(home), rules(lab)
    asked = many(one(1, "Kids", mac(1), block=True), one(2, "Parents", mac(2), mbps=7))
    planned = await home.groups.plan(HOME, asked)
    assert "group 1: the internet is closed to it" in planned.changes
    assert "group 1: the internet is closed to it" in planned.results[0].applied
    assert rules(lab) == before
    assert await told(home, since) == []
    for command, text in (("tc -batch -", planned.tc_before), ("nft -f -", planned.rules), ("tc -batch -", planned.tc_after)):
        assert text
        assert lab.router.run(f"{command} <<'END'\n{text}END").returncode == 0
    by_hand = rules(lab)
    assert not (await home.infrastructure.verify(HOME)).verified
    assert (await home.infrastructure.repair(HOME)).changed
    assert sorted(rules(lab).split()) == sorted(before.split())
    done = await home.groups.sync_all_groups(HOME, asked)
    assert done.applied == planned.changes
    assert done.generation == planned.generation + 2
    assert sorted(rules(lab).split()) == sorted(by_hand.split())
    empty = await home.groups.plan(HOME, asked)
    assert (empty.changes, empty.tc_before, empty.rules, empty.tc_after) == ((), "", "", "")


async def test_a_policy_alone_is_changed_and_the_rest_of_the_group_stays(home: Tidegate) -> None:
    await home.groups.sync_group(HOME, KIDS, wish("Kids", mac(1), mbps=20))
    block = AccessControlPolicy(block_all_internet=True)
    done = await home.groups.update_group_policy(HOME, KIDS, GroupPolicyUpdate(access_control_policy=block))
    assert done.applied == ("group 1: the internet is closed to it",)
    slower = BandwidthPolicy(Mbps(5))
    done = await home.groups.update_group_policy(HOME, KIDS, GroupPolicyUpdate(slower))
    assert all("limit 5 Mbit/s, was 20 Mbit/s" in text for text in done.applied)
    status = await home.groups.get_group_status(HOME, KIDS)
    assert (status.name, status.devices, status.bandwidth_policy, status.access_control_policy) == (
        "Kids",
        (mac(1),),
        slower,
        block,
    )
    assert status.verified
    nothing = await home.groups.update_group_policy(HOME, KIDS, GroupPolicyUpdate())
    assert (nothing.applied, nothing.generation) == ((), done.generation)
    with pytest.raises(NotFound, match="no group 9"):
        await home.groups.update_group_policy(HOME, GroupId(9), GroupPolicyUpdate(slower))


async def test_teardown_takes_all_groups_off_and_set_up_puts_the_base_back(home: Tidegate, lab: Lab) -> None:
    bare = rules(lab)
    await home.groups.sync_all_groups(HOME, many(one(0, "Guests", mbps=50), one(1, "Kids", mac(1), mbps=20, block=True)))
    since = await head(home)
    gone = await home.infrastructure.teardown(HOME)
    assert "group 1: the internet is open to it again" in gone.changed
    assert lab.router.run("nft list tables; tc qdisc show dev wan; tc qdisc show dev br-lan").stdout.count("tidegate") == 0
    assert "htb" not in lab.router.run("tc qdisc show").stdout
    assert [g.group for g in (await home.groups.list_groups(HOME)).groups] == [0]
    assert [g.download_mbps for g in (await home.groups.list_groups(HOME)).groups] == [None]
    status = await home.infrastructure.get_status(HOME)
    assert (status.base, status.health) == (False, "reachable")
    assert (await home.infrastructure.teardown(HOME)).changed == ()
    back = await home.infrastructure.setup(HOME)
    assert "the base rules are put in place" in back.changed
    assert rules(lab) == bare
    assert (await home.infrastructure.verify(HOME)).verified
    assert (await home.infrastructure.setup(HOME)).changed == ()
    assert [entry.type for entry in await told(home, since)] == [
        "group_deleted",
        "infrastructure_torn_down",
        "infrastructure_torn_down",
        "infrastructure_set_up",
    ]
