"""The lab's internet and clients: what reaches what, through a bare router, and programs that run there."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.probes import connects, eventually, fetch, lookup, peer_seen_by_the_internet
from tidegate.lab import Lab
from tidegate.lab.support import busybox


def test_clients_resolve_names_through_the_router(lab: Lab) -> None:
    for client in lab.clients.values():
        site = lab.internet.sites["example.com"]
        assert lookup(client, "example.com", "A") == [site.ipv4]
        assert lookup(client, "www.example.com", "AAAA") == [site.ipv6]


def test_a_name_that_the_internet_does_not_have_does_not_exist(lab: Lab) -> None:
    answer = lab.clients["child"].run(["dig", "nowhere.example"], timeout=10)
    assert "status: NXDOMAIN" in answer.stdout


@pytest.mark.parametrize("resolver", ["8.8.8.8", "1.1.1.1", "9.9.9.9", "2001:4860:4860::8888", "2606:4700:4700::1111"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_the_public_resolvers_answer(lab: Lab, resolver: str, transport: str) -> None:
    answer = lookup(lab.clients["guest"], "example.com", f"@{resolver}", transport)
    assert answer == [lab.internet.ipv4]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("port", [80, 443, 853])
def test_every_site_answers(lab: Lab, family: str, port: int) -> None:
    for site in set(lab.internet.sites.values()):
        address = site.ipv4 if family == "ipv4" else f"[{site.ipv6}]"
        assert "You have reached it" in fetch(lab.clients["parent"], f"http://{address}:{port}/")


def test_clients_go_out_behind_the_routers_ipv4_address_and_under_their_own_ipv6_address(lab: Lab) -> None:
    nas = lab.clients["nas"]
    assert peer_seen_by_the_internet(lab, nas, lab.internet.ipv4) == lab.router.wan_address
    assert peer_seen_by_the_internet(lab, nas, lab.internet.ipv6) == nas.ipv6


def test_the_internet_does_not_get_in(lab: Lab) -> None:
    unwanted = lab.internet.run([busybox(), "ping", "-c", "1", "-W", "1", lab.router.wan_address])
    assert unwanted.returncode == 0  # it is there
    assert not connects(lab.internet, lab.router.wan_address, 22)
    assert connects(lab.controller, lab.router.address, 22)


def test_clients_have_the_addresses_that_the_lab_says(lab: Lab) -> None:
    for client in lab.clients.values():
        link = json.loads(client.run(["ip", "-json", "address", "show", "eth0"]).stdout)[0]
        assert link["address"] == client.mac
        assert {client.ipv4, client.ipv6} <= {entry["local"] for entry in link["addr_info"]}


def test_dhcp_leases_a_client_the_address_that_it_has(lab: Lab) -> None:
    child = lab.clients["child"]
    asking = [busybox(), "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", "/bin/true"]
    assert f"lease of {child.ipv4} obtained" in child.run(asking).stderr


def test_clients_talk_to_each_other_through_the_routers_bridge(lab: Lab) -> None:
    ping = [busybox(), "ping", "-c", "1", "-W", "5", lab.clients["nas"].ipv4]
    assert lab.clients["child"].run(ping).returncode == 0
    ports = json.loads(lab.router.run("ip -json link show master br-lan").stdout)
    assert {port["ifname"] for port in ports} == {c.port for c in (lab.controller, *lab.clients.values())}


def test_a_signal_reaches_the_program_and_its_status_comes_back(lab: Lab) -> None:
    script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with lab.clients["child"].popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "told\n"
        assert process.wait(timeout=10) == 7


def test_a_program_that_takes_too_long_is_killed(lab: Lab) -> None:
    child = lab.clients["child"]
    with pytest.raises(subprocess.TimeoutExpired):
        child.run(["sleep", "300.125"], timeout=0.3)
    eventually(lambda: "300.125" not in child.run([busybox(), "ps"]).stdout)


def test_a_program_ends_when_what_waits_for_it_outside_is_killed(lab: Lab) -> None:
    child = lab.clients["child"]
    with child.popen(["sleep", "300.25"]) as process:
        eventually(lambda: "300.25" in child.run([busybox(), "ps"]).stdout)
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: "300.25" not in child.run([busybox(), "ps"]).stdout)


def test_a_command_runs_in_the_clients_network_with_the_hosts_files(lab: Lab, tmp_path: Path) -> None:
    child = lab.clients["child"]
    (tmp_path / "here").write_text("the host's\n")
    command = child.command(["sh", "-c", f"cat {tmp_path}/here; readlink /proc/self/ns/mnt; ip -4 -o address show eth0"])
    text, mounts, address = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert text == "the host's"
    assert mounts == os.readlink("/proc/self/ns/mnt")
    assert f"{child.ipv4}/24" in address
