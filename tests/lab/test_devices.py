"""Devices of a real network: leases of a real dnsmasq, neighbours of a real kernel, packets of whoever changes who he is."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.lab.dhcp import become, lease
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.probes import eventually, lookup
from tests.lab.test_groups import TCP4, TCP6, holds
from tidegate.api.devices import DeviceInfo, DeviceName, GroupDevices
from tidegate.api.groups import GroupDevicesUpdate
from tidegate.contract.tables import render
from tidegate.errors import Conflict, Invalid, NotFound
from tidegate.events import DeviceAddressMoved, DeviceChanged, DeviceDiscovered, DeviceRenamed, GroupSynced
from tidegate.lab import Client, Lab
from tidegate.policy.device import DeviceKey, DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import GroupId, GroupSyncRequest
from tidegate.policy.membership import MacChange

pytestmark = pytest.mark.anyio

PHONE = MacAddress("8c:85:90:12:34:56")  # Apple's
MADE_UP = MacAddress("da:a1:19:00:00:01")
KIDS, PARENTS = GroupId(1), GroupId(2)


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        yield found
        await found.routers.remove(HOME)
    for client in lab.clients.values():
        client.run(["ip", "-4", "address", "flush", "dev", "eth0"])
        client.run(["ip", "address", "add", f"{client.ipv4}/24", "dev", "eth0"])
        become(client, client.mac)


def speak(client: Client, *sources: str) -> None:
    """Let the router hear of the client over both families, or of these addresses of its."""
    for source in sources or (client.ipv4, client.ipv6):
        router = "2001:db8:1::1" if ":" in source else "192.168.1.1"
        assert lookup(client, "-b", source, f"@{router}", "router.lan", "A") == ["192.168.1.1"]


async def device(home: Controller, mac: str) -> DeviceInfo:
    (found,) = (await home.devices.list(HOME, search=mac)).devices
    return found


async def test_leases_and_neighbours_of_both_families_are_one_device(home: Controller, tmp_path: Path) -> None:
    guest = home.lab.clients["guest"]
    become(guest, PHONE, guest.ipv6, "2001:db8:1::dead:beef")
    address = lease(guest, tmp_path, "Adas-iPhone")
    speak(guest, address, guest.ipv6, "2001:db8:1::dead:beef")
    found = await home.devices.discover(HOME)
    assert found.unread == 0
    assert "192.168.1.1/24" in found.networks
    phone = next(device for device in found.new if device.mac == PHONE)
    assert phone.ip[0] == address
    assert {guest.ipv6, "2001:db8:1::dead:beef"} <= set(phone.ip)
    assert (phone.name, phone.vendor, phone.random_mac, phone.group) == ("Adas-iPhone", "Apple, Inc.", False, 0)
    assert phone.last_seen
    assert phone.first_seen
    told = [event for event in await home.events() if isinstance(event, DeviceDiscovered)]
    assert PHONE in {event.mac for event in told}
    again = await home.devices.discover(HOME)
    assert (again.new, again.known) == ((), found.known)
    assert again.here >= 2
    assert home.lab.router.mac not in {each.mac for each in (await home.devices.list(HOME)).devices}


async def test_a_client_that_makes_up_a_mac_is_a_guest_at_once_over_both_families(home: Controller) -> None:
    child = home.lab.clients["child"]
    await home.sync(0, down=10)
    await home.sync(1, home.device("child"), down=40)
    assert await holds(home, 40 * TCP4, "child") == pytest.approx(40 * TCP4, rel=0.05)
    become(child, MADE_UP)
    assert await holds(home, 10 * TCP4, "child", family=4) == pytest.approx(10 * TCP4, rel=0.05)
    assert await holds(home, 10 * TCP6, "child", family=6) == pytest.approx(10 * TCP6, rel=0.05)
    speak(child)
    await home.devices.discover(HOME)
    stranger = await device(home, MADE_UP)
    assert (stranger.group, stranger.group_name, stranger.random_mac, stranger.vendor) == (0, "the 0", True, None)
    assert (await device(home, child.mac)).group == KIDS


async def test_a_device_with_a_new_address_keeps_its_group_and_nothing_is_sent(home: Controller, tmp_path: Path) -> None:
    child, router = home.lab.clients["child"], home.lab.router
    await home.sync(0, down=10)
    become(child, PHONE)
    synced = await home.sync(1, DeviceRef(PHONE), down=30)
    first = lease(child, tmp_path)
    speak(child, first)
    await home.devices.discover(HOME)
    router.run("kill $(pidof dnsmasq); rm -f /tmp/dhcp.leases; ip neigh flush dev br-lan")
    eventually(lambda: lookup(child, "@2001:db8:1::1", "router.lan", "A") == ["192.168.1.1"])
    second = lease(child, tmp_path, wanted="192.168.1.240")
    assert second != first
    speak(child, second)
    found = await home.devices.discover(HOME)
    assert [(move.mac, move.before, move.now) for move in found.moved] == [(PHONE, (first,), (second,))]
    assert DeviceChanged("home", PHONE, (second,), (first,)) in await home.events()
    assert (await device(home, PHONE)).group == KIDS
    assert await holds(home, 30 * TCP4, "child") == pytest.approx(30 * TCP4, rel=0.05)
    status = await home.groups.get_group_status(HOME, KIDS)
    assert (status.generation, status.verified) == (synced.generation, True)


NAMES = (
    'x"; flush ruleset; #c4n4ry',
    "c4n4ry\n--- end\n",
    "\x1b[31mc4n4ry\x07",
    "<script>c4n4ry</script>",
    "$(touch /tmp/c4n4ry)",
    "c4n4ry" + "x" * 240,
)


async def test_whatever_a_device_calls_itself_does_no_harm_anywhere(home: Controller, tmp_path: Path) -> None:
    child, router = home.lab.clients["child"], home.lab.router
    for number, name in enumerate(NAMES):
        become(child, f"da:a1:19:00:01:{number:02x}")
        lease(child, tmp_path, name)
    # Other servers write down what they are told.
    junk = "".join(
        f"# br-lan daa1190200{number:02x} ipv4 {name} 0 c0a801{0x60 + number:02x} 32\n" for number, name in enumerate(NAMES)
    )
    router.run("cat >/tmp/odhcpd.leases", input=junk + "--- = 0\n--- end\ntidegate-agent x ok\n" + "9" * 2_000_000)
    before = router.run("nft list ruleset").stdout
    found = await home.devices.discover(HOME)
    macs = {each.mac for each in found.new}
    assert {f"da:a1:19:00:01:{number:02x}" for number in range(len(NAMES))} <= macs
    # The one whose name has ends of lines in it made itself unreadable to that server's readers, and nobody else.
    told = {number for number in range(len(NAMES)) if f"da:a1:19:02:00:{number:02x}" in macs}
    assert told == {0, 2, 3, 4, 5}
    assert found.unread
    kids = GroupSyncRequest(Label("Kids"), tuple(DeviceRef(each.mac) for each in found.new))
    await home.groups.sync_group(HOME, KIDS, kids)
    listed = await home.devices.list(HOME)
    for console in (
        Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None),
        Console(file=io.StringIO(), width=500),
    ):
        console.print(render(listed))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "c4n4ry" in shown
        assert not set(shown) & set('\x1b\x07<>$"')
    ours = router.run(
        "nft list ruleset | grep -c c4n4ry; grep -rl c4n4ry /etc /usr/lib/tidegate /var/run/tidegate; ls /tmp/c4n4ry; true"
    )
    assert ours.stdout == "0\n"
    assert before != router.run("nft list ruleset").stdout


async def test_an_address_that_a_group_goes_by_is_offered_its_mac_and_told_when_it_is_somebody_elses(home: Controller) -> None:
    guest, parent = home.lab.clients["guest"], home.lab.clients["parent"]
    address = IpAddress(guest.ipv4)
    await home.sync(1, DeviceRef(None, (address,)), down=30)
    speak(guest, guest.ipv4)
    (hint,) = (await home.devices.discover(HOME)).hints
    assert (hint.group, hint.at, hint.kind, hint.mac) == (KIDS, "devices/0", "mac_known", guest.mac)
    guest.run(["ip", "-4", "address", "flush", "dev", "eth0"])
    parent.run(["ip", "-4", "address", "flush", "dev", "eth0"])
    parent.run(["ip", "address", "add", f"{address}/24", "dev", "eth0"])
    home.lab.router.run("ip neigh flush dev br-lan")
    speak(parent, address)
    (hint,) = (await home.devices.discover(HOME)).hints
    assert (hint.at, hint.kind, hint.mac) == ("devices/0/ip/0", "address_moved", parent.mac)
    assert DeviceAddressMoved("home", 1, address, parent.mac, guest.mac) in await home.events()
    verdict = await home.devices.verify_devices(HOME, KIDS, GroupDevices((DeviceRef(MacAddress(guest.mac), (address,)),)))
    assert (verdict.valid, [hint.kind for hint in verdict.hints]) == (True, ["other_mac", "random_mac"])
    assert verdict.changes.mac_changed == (MacChange(address, guest.mac),)
    told = len(await home.events())
    await home.devices.discover(HOME)
    assert len(await home.events()) == told


async def test_a_list_is_judged_without_being_applied_and_then_applied_as_judged(home: Controller) -> None:
    before = home.picture()
    faulty = GroupDevices((home.device("child"), home.device("child"), DeviceRef(None, (IpAddress("10.0.0.1"),))))
    verdict = await home.devices.verify_devices(HOME, KIDS, faulty)
    assert not verdict.valid
    assert [fault.at for fault in verdict.faults] == ["body/devices/1/mac", "body/devices/2/ip/0"]
    with pytest.raises(Invalid) as invalid:
        await home.sync(1, *faulty.devices)
    assert [(fault.at, fault.why) for fault in invalid.value.faults] == [(fault.at, fault.why) for fault in verdict.faults]
    assert home.picture() == before
    await home.sync(1, home.device("child"), home.device("guest"))
    await home.sync(2, home.device("parent"))
    taken = await home.devices.verify_devices(HOME, KIDS, GroupDevices((home.device("parent"),)))
    assert [(fault.owner, "the 2" in fault.why) for fault in taken.faults] == [(PARENTS, True)]
    changes = await home.devices.get_device_changes(HOME, KIDS, GroupDevices((home.device("child"), home.device("nas"))))
    clients = home.lab.clients
    assert (changes.added, changes.removed, changes.unchanged) == (
        (clients["nas"].mac,),
        (clients["guest"].mac,),
        (clients["child"].mac,),
    )


async def test_the_devices_alone_of_a_group_are_changed_and_moved(home: Controller) -> None:
    await home.sync(1, home.device("child"), down=20)
    await home.sync(2, home.device("parent"), home.device("nas"), down=40)
    clients = home.lab.clients
    take = GroupDevicesUpdate(add=(home.device("guest"), home.device("nas")), remove=(DeviceKey(clients["child"].mac),))
    with pytest.raises(Conflict, match=r"belongs to group 2 \(the 2\)"):
        await home.groups.update_group_devices(HOME, KIDS, take)
    since = len(await home.events())
    moving = GroupDevicesUpdate(add=take.add, remove=take.remove, move=True)
    done = await home.groups.update_group_devices(HOME, KIDS, moving)
    assert [(result.group, result.device_changes.added, result.device_changes.removed) for result in done.results] == [
        (KIDS, (clients["guest"].mac, clients["nas"].mac), (clients["child"].mac,)),
        (PARENTS, (), (clients["nas"].mac,)),
    ]
    assert [event.group for event in (await home.events())[since:] if isinstance(event, GroupSynced)] == [1, 2]
    status = await home.groups.get_group_status(HOME, KIDS)
    assert (status.devices, status.verified) == ((home.device("guest"), home.device("nas")), True)
    assert status.bandwidth_policy
    assert float(status.bandwidth_policy.limit_mbps) == 20
    with pytest.raises(Invalid, match="can't be as asked"):
        await home.groups.update_group_devices(HOME, KIDS, GroupDevicesUpdate(remove=(DeviceKey("192.168.1.99"),)))
    with pytest.raises(NotFound, match="no group 9"):
        await home.groups.update_group_devices(HOME, GroupId(9), take)


async def test_a_group_that_would_lose_most_of_its_devices_asks_first(home: Controller) -> None:
    crowd = tuple(DeviceRef(MacAddress(f"00:11:22:33:44:{number:02x}")) for number in range(12))
    await home.sync(1, *crowd, down=20)
    before = home.picture()
    with pytest.raises(Conflict, match="8 of the 12 devices of group 1") as conflict:
        await home.sync(1, *crowd[:4], down=20)
    facts = cast(Any, conflict.value).facts["devices"][0]
    assert (facts["changed"], facts["of"]) == (8, 12)
    assert home.picture() == before
    done = await home.groups.update_group_devices(HOME, KIDS, GroupDevicesUpdate(crowd[:4], confirm_mass_change=True))
    assert len(done.results[0].device_changes.removed) == 8


async def test_a_device_is_called_what_people_call_it(home: Controller, tmp_path: Path) -> None:
    guest = home.lab.clients["guest"]
    become(guest, PHONE)
    speak(guest, lease(guest, tmp_path, "iPhone"))
    await home.devices.discover(HOME)
    await home.sync(1, DeviceRef(PHONE, (), Label("the phone")))
    assert (await device(home, PHONE)).name == "the phone"
    named = await home.devices.rename(HOME, PHONE, DeviceName(Label('Ada\'s "phone"')))
    assert (named.name, named.hostname) == ('Ada\'s "phone"', "iPhone")
    assert [each.mac for each in (await home.devices.list(HOME, search="ADA'S")).devices] == [PHONE]
    await home.devices.discover(HOME)
    assert (await home.devices.rename(HOME, PHONE, DeviceName())).name == "the phone"
    assert [event.name for event in await home.events() if isinstance(event, DeviceRenamed)] == ['Ada\'s "phone"', ""]
    with pytest.raises(NotFound, match="has no device"):
        await home.devices.rename(HOME, MADE_UP, DeviceName(Label("x")))
