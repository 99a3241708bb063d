"""The lab's router is a machine of its own."""

import socket

import asyncssh
import pytest

from tests.lab.probes import eventually, fetch, lookup, ssh
from tidegate.lab import Lab, LabError
from tidegate.lab.support import busybox


@pytest.mark.anyio
async def test_the_router_answers_ssh_with_its_key_and_password(lab: Lab) -> None:
    async with ssh(lab) as connection:
        key = connection.get_server_host_key()
        assert key is not None
        assert (key.get_fingerprint(), key.get_algorithm()) == (lab.router.host_key, "ssh-ed25519")
        answer = await connection.run("id -un; cat /proc/sys/kernel/hostname", check=True)
        assert answer.stdout == "root\nrouter\n"


@pytest.mark.anyio
async def test_the_router_refuses_a_wrong_password(lab: Lab) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with ssh(lab, password="wrong"):
            pass


@pytest.mark.anyio
async def test_a_key_put_on_the_router_lets_in_after_a_reboot_too(lab: Lab) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode()
    lab.router.run("mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=public)
    lab.router.reboot()
    async with ssh(lab, client_keys=[key]) as connection:
        assert (await connection.run("true")).exit_status == 0


def test_a_reboot_keeps_the_flash_and_loses_everything_else(lab: Lab) -> None:
    lab.router.run("mkdir /etc/tidegate /tmp/scratch; echo kept >/etc/tidegate/state; echo lost >/tmp/scratch/state")
    lab.router.run(
        "nft add table inet tidegate; tc qdisc add dev br-lan root handle 1: htb; ip addr add 10.9.9.9/24 dev br-lan"
    )
    lab.router.reboot()
    assert lab.router.run("cat /etc/tidegate/state /tmp/scratch/state").stdout == "kept\n"
    assert lab.router.run("nft list tables").stdout == "table inet fw\n"
    assert "htb" not in lab.router.run("tc qdisc show dev br-lan").stdout
    assert "10.9.9.9" not in lab.router.run("ip address").stdout
    assert (lab.router.files / "etc/tidegate/state").read_text() == "kept\n"
    assert (lab.router.flash / "etc/tidegate/state").read_text() == "kept\n"


def test_a_power_cut_stops_forwarding_and_booting_brings_it_back(lab: Lab) -> None:
    child = lab.clients["child"]
    ping = [busybox(), "ping", "-c", "1", "-W", "1", lab.internet.ipv4]
    lab.router.power_cut()
    assert child.run(ping).returncode != 0
    assert not lab.router.is_on
    with pytest.raises(LabError):
        lab.router.run("true")
    lab.router.boot()
    assert child.run(ping).returncode == 0
    assert "You have reached it" in fetch(child, f"http://[{lab.internet.ipv6}]/")


def test_a_power_cut_tells_nobody(lab: Lab) -> None:
    port = lab.forward(lab.router.address, 22)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert connection.recv(4) == b"SSH-"
        lab.router.power_cut()
        connection.settimeout(1)
        connection.recv(4096)  # the rest of the greeting
        with pytest.raises(TimeoutError):
            connection.recv(1)
    lab.router.boot()


def test_a_router_that_switched_itself_off_can_be_switched_on(lab: Lab) -> None:
    lab.router.run("poweroff")
    eventually(lambda: not lab.router.is_on)
    lab.router.boot()
    assert lookup(lab.clients["child"], "example.com", "A") == [lab.internet.ipv4]


def test_the_router_can_be_cut_many_times(lab: Lab) -> None:
    for attempt in range(5):
        lab.router.run(f"echo {attempt} >>/etc/boots")
        lab.router.reboot()
    assert lab.router.run("cat /etc/boots").stdout.split() == list("01234")


def test_boot_scripts_run_in_order_before_the_services(lab: Lab) -> None:
    for name, text in {
        "S90b": "echo second $1 >>/tmp/order",
        "S10a": "echo first $1 >/tmp/order; pidof dnsmasq >>/tmp/order",
    }.items():
        lab.router.run(f"cat >/etc/rc.d/{name}; chmod +x /etc/rc.d/{name}", input=f"#!/bin/sh\n{text}\n")
    lab.router.reboot()
    assert lab.router.run("cat /tmp/order").stdout == "first boot\nsecond boot\n"
    lab.router.run("rm /etc/rc.d/S*")


def test_the_services_start_again_when_they_are_killed(lab: Lab) -> None:
    before = lab.router.run("pidof dropbear crond dnsmasq syslogd").stdout.split()
    assert len(before) == 4
    lab.router.run("kill -9 " + " ".join(before))
    eventually(lambda: len(lab.router.run("pidof dropbear crond dnsmasq syslogd").stdout.split()) == 4)
    assert not set(before) & set(lab.router.run("pidof dropbear crond dnsmasq syslogd").stdout.split())


def test_the_router_has_the_real_tools_and_cannot_write_to_the_host(lab: Lab) -> None:
    assert "iproute2" in lab.router.run("tc -V; ip -V").stdout
    for tool in ("nft", "conntrack", "dnsmasq", "flock", "sha256sum", "awk", "crond"):
        assert lab.router.run(f"command -v {tool}").returncode == 0
    assert lab.router.run("touch /rom/usr/lib/written").returncode != 0
    assert lab.router.run("nft list ruleset >/etc/x && test -s /etc/x").returncode == 0


def test_the_router_can_have_ash_as_its_shell_as_openwrt_has() -> None:
    with Lab(clients=("child",), shell="ash") as lab:
        assert "BusyBox" in lab.router.run("tc 2>&1").stdout  # the trap that this is for
        assert "iproute2" in lab.router.run("/usr/sbin/tc -V; /sbin/ip -V").stdout
        assert lookup(lab.clients["child"], "example.com", "A") == [lab.internet.ipv4]
