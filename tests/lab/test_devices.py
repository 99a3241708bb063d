"""Devices of a real network: leases of a real dnsmasq, neighbours of a real kernel, packets of whoever changes who he is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.dhcp import become, lease
from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.probes import lookup
from tidegate.api.devices import DeviceInfo
from tidegate.events import DeviceDiscovered
from tidegate.lab import Client, Lab
from tidegate.policy.device import MacAddress

pytestmark = pytest.mark.anyio

PHONE = MacAddress("8c:85:90:12:34:56")  # Apple's
MADE_UP = MacAddress("da:a1:19:00:00:01")


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        yield found
        await found.routers.remove(HOME)


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
    assert home.lab.router.mac not in {each.mac for each in (await home.devices.list(HOME)).devices}
