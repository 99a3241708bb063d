"""Who is on a network, as a real kernel and real lease files have it, under both shells and by both kinds of `ip`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.edge import Edge, an_edge
from tidegate.errors import Refused
from tidegate.policy.device import IpAddress, MacAddress
from tidegate.policy.neighbours import Sighting, read_neighbourhood

pytestmark = pytest.mark.anyio

PHONE, LAPTOP = MacAddress("8c:85:90:12:34:56"), MacAddress("02:00:5e:10:00:0b")
NETWORK = f"""
ip address add 192.168.1.1/24 dev br-lan
ip address add 2001:db8:1::1/64 dev br-lan nodad
ip neigh replace 192.168.1.20 lladdr {LAPTOP} dev br-lan nud stale
ip neigh replace 2001:db8:1::20 lladdr {LAPTOP} dev br-lan nud reachable
ip neigh replace fe80::20 lladdr {LAPTOP} dev br-lan nud stale
ip neigh replace 192.168.1.77 dev br-lan nud failed
"""
V6 = tuple(map(IpAddress, ("192.168.1.20", "2001:db8:1::20", "fe80::20")))


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        found.run(NETWORK)
        yield found


async def test_neighbours_and_leases_are_told_in_one_exchange_and_nothing_is_changed(edge: Edge) -> None:
    (edge.root / "tmp/hosts").mkdir(parents=True)
    (edge.root / "tmp/dhcp.leases").write_text(f"1763850000 {PHONE} 192.168.1.21 phone --- = 0\n--- = 0\n--- end\n")
    (edge.root / "tmp/hosts/odhcpd").write_text(
        "# br-lan 000100012c5e6f7002005e10000b 1a 'laptop' 1763850000 20 128 2001:db8:1::20/128\n192.168.1.5\tname\n"
    )
    engine, before = edge.engine(), edge.picture()
    found = await engine.look_around()
    assert engine.answers == 1
    assert found.devices[PHONE] == Sighting(PHONE, (IpAddress("192.168.1.21"),), "phone ___ ?", None)
    assert (found.devices[LAPTOP].ip, found.devices[LAPTOP].hostname) == (V6, "laptop?")
    assert found.devices[LAPTOP].age == 0
    assert set(found.devices) == {PHONE, LAPTOP}
    assert {"192.168.1.1/24", "2001:db8:1::1/64"} <= set(found.lan.addresses)
    assert edge.picture() == before


async def test_a_router_without_lease_files_is_no_failure(edge: Edge) -> None:
    assert set((await edge.engine().look_around()).devices) == {LAPTOP}


async def test_an_interface_that_is_not_there_is_said_to_be(edge: Edge) -> None:
    edge.run("ip link del br-lan")
    with pytest.raises(Refused, match="the router can't show br-lan"):
        await edge.engine().look_around()


def test_busyboxs_own_ip_is_read_as_well(edge: Edge) -> None:
    addresses, neighbours = edge.run("busybox ip addr show dev br-lan"), edge.run("busybox ip neigh show dev br-lan")
    found = read_neighbourhood(addresses, neighbours, "", aged=False)
    assert {"192.168.1.1/24", "2001:db8:1::1/64"} <= set(found.lan.addresses)
    assert found.lan.mac
    assert {mac: (each.ip, each.age) for mac, each in found.devices.items()} == {LAPTOP: (V6, 0)}


async def test_a_lease_file_without_end_is_cut(edge: Edge) -> None:
    (edge.root / "tmp").mkdir(exist_ok=True)
    with (edge.root / "tmp/dhcp.leases").open("w") as file:
        file.write(f"1763850000 {PHONE} 192.168.1.21 phone *\n")
        file.writelines("9" * 1000 + "\n" for _ in range(20_000))
    found = await edge.engine().look_around()
    assert set(found.devices) == {PHONE, LAPTOP}
    assert found.lan == (await edge.engine().look_around()).lan
