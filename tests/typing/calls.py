"""Calls that a strict checker must reject: each line marked `# reject` is one that it must."""

from tidegate import connect, connect_blocking
from tidegate.api.groups import GroupList
from tidegate.api.keys import CreateKeyRequest
from tidegate.api.routers import RouterId
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps


async def calls() -> None:
    async with connect() as daemon:
        right: GroupList = await daemon.groups.list_groups(RouterId("home"))
        print(right)
        await daemon.groups.list_groups("home")  # reject
        await daemon.groups.get_group_status(RouterId("home"), 1)  # reject
        await daemon.groups.sync_grup(RouterId("home"), GroupId(1))  # reject
        wrong: int = await daemon.groups.list_groups(RouterId("home"))  # reject
        print(wrong)
        daemon.groups.list_groups(RouterId("home"))  # reject
        await daemon.groups.delete_group(RouterId("home"))  # reject
        await daemon.keys.create(CreateKeyRequest(Label("k"), "root"))  # reject
        await daemon.torrent.upload("a path")  # reject
        for notice in daemon.events.follow():  # reject
            print(notice)


def plain_calls() -> None:
    with connect_blocking() as (daemon, run):
        right: GroupList = run(daemon.groups.list_groups(RouterId("home")))
        print(right)
        wrong: int = run(daemon.groups.list_groups(RouterId("home")))  # reject
        print(wrong)
        run(daemon.groups)  # reject


def values() -> None:
    GroupSyncRequest("Kids")  # reject
    BandwidthPolicy(20)  # reject
    DeviceRef("02:00:00:00:00:01")  # reject
    DeviceRef(MacAddress("02:00:00:00:00:01")).mac = None  # reject
    BandwidthPolicy(Mbps(20), upload=Mbps(5))  # reject
