"""A lab comes up here, changes nothing, lets in who is to be let in, and goes away for sure."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from tests.lab.probes import (
    SOURCE,
    echo_server,
    eventually,
    everybody,
    inhabitants,
    lookup,
    network_of,
    plain_user,
    process_namespaces,
)
from tidegate.lab import Lab, obstacles


def test_nothing_keeps_a_lab_from_running_here() -> None:
    assert obstacles() == []


def test_labs_with_the_same_addresses_do_not_see_each_other() -> None:
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        labs = [stack.enter_context(lab) for lab in pool.map(lambda _: Lab(clients=("child",)), range(3))]
        for number, lab in enumerate(labs):
            lab.router.run(f"echo {number} >/etc/number; nft add table inet lab{number}")
        for number, lab in enumerate(labs):
            assert (
                lab.router.run("cat /etc/number; nft list tables").stdout
                == f"{number}\ntable inet fw\ntable inet lab{number}\n"
            )
        assert len({lab.router.host_key for lab in labs}) == len({lab.router.password for lab in labs}) == 3
        labs[0].router.power_cut()
        assert lookup(labs[1].clients["child"], "example.com", "A") == [labs[1].internet.ipv4]


def host() -> dict[str, object]:
    return {
        "networks": subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout,
        "links": [
            link["ifname"]
            for link in json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout)
        ],
        "mounts": Path("/proc/self/mounts").read_text(),
        "rules": subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout,
        "etc": [(entry.name, entry.stat(follow_symlinks=False).st_mtime_ns) for entry in sorted(os.scandir("/etc"), key=str)],
        "usr": sorted(os.listdir("/usr/lib")),
        "run": sorted(os.listdir("/run")),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def test_a_lab_changes_nothing_on_the_host() -> None:
    before = host()
    with Lab() as lab:
        lab.router.run("mkdir -p /usr/lib/tidegate && echo x >/usr/lib/tidegate/x; sysctl -w net.ipv4.ip_forward=1")
        assert host() == before
        lab.router.reboot()
        assert host() == before
    assert host() == before


def test_closing_ends_everything_and_may_be_done_twice() -> None:
    lab = Lab()
    namespaces = process_namespaces(lab.pid, lab.router.files)
    running = lab.clients["child"].popen(["sleep", "1000"])
    lab.close()
    assert not inhabitants(namespaces)
    assert running.wait(timeout=10) != 0
    lab.close()


MAKE_AND_WAIT = """
import time
from tidegate.lab import Lab
lab = Lab()
lab.forward(lab.router.address, 22)
lab.clients["child"].popen(["sleep", "1000"])
lab.clients["child"].popen(["iperf3", "-s"], stdout=-3)
print(lab.pid, lab.router.files, flush=True)
time.sleep(1000)
"""


def test_everything_is_gone_when_the_process_that_made_it_is_killed() -> None:
    environment = dict(os.environ, PYTHONPATH=str(SOURCE))
    with subprocess.Popen([sys.executable, "-c", MAKE_AND_WAIT], stdout=subprocess.PIPE, text=True, env=environment) as maker:
        assert maker.stdout is not None
        box, files = maker.stdout.readline().split()
        namespaces = process_namespaces(int(box), Path(files))
        networks = {network_of(pid) for pid in inhabitants(namespaces)} - {None}
        assert len(inhabitants(namespaces)) > 10
        maker.send_signal(signal.SIGKILL)
    eventually(lambda: not inhabitants(namespaces))
    eventually(lambda: not [pid for pid in everybody() if network_of(pid) in networks])


def test_names_that_cannot_be_clients_are_refused_before_anything_is_made() -> None:
    for clients in (("router",), ("a b",), ("twin", "twin"), ("-x",)):
        with pytest.raises(ValueError, match="client"):
            Lab(clients=clients)


def test_many_connections_go_through_a_forward_at_once(lab: Lab) -> None:
    url = f"http://127.0.0.1:{lab.forward(lab.internet.ipv4, 80)}/"
    with ThreadPoolExecutor(32) as pool:
        pages = list(pool.map(lambda _: urllib.request.urlopen(url, timeout=30).read(), range(200)))
    assert len(set(pages)) == 1


def test_a_forward_carries_much_both_ways_and_passes_on_the_end(lab: Lab) -> None:
    sent = os.urandom(1 << 22)
    with echo_server(lab.internet, lab.internet.ipv4, 7) as _:
        port = lab.forward(lab.internet.ipv4, 7)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:

            def send() -> None:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=send)
            sending.start()
            received = bytearray()
            while block := connection.recv(1 << 16):
                received += block
            sending.join()
    assert received == sent


def test_a_forward_outlives_a_reboot_and_refuses_while_there_is_nobody(lab: Lab) -> None:
    port = lab.forward(lab.router.address, 22)
    lab.router.power_cut()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    lab.router.boot()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert connection.recv(4) == b"SSH-"


def test_a_forward_ends_with_its_lab() -> None:
    with Lab(clients=()) as lab:
        port = lab.forward(lab.internet.ipv4, 80, frm="internet")
        assert b"reached" in urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


PLAIN = """
import os, sys
from tidegate.lab import Lab, throughput
with Lab(clients=("child",)) as lab:
    assert os.geteuid() and lab.rootless
    lab.router.run("mkdir -p /root/.ssh /usr/lib/tidegate; rm /etc/hosts; echo kept >/etc/kept")
    lab.router.reboot()
    child = lab.clients["child"]
    print(lab.router.run("id -u; cat /etc/kept; test -e /etc/hosts || echo removed; nft list tables").stdout.split())
    print(child.run(["dig", "+short", "example.com"]).stdout.split(), throughput(child, lab.internet, seconds=1) > 0)
    print(lab.forward(lab.router.address, 22), lab.router.password, flush=True)
    sys.stdin.read()
"""


@pytest.mark.anyio
async def test_a_plain_user_can_have_a_lab_with_everything_in_it() -> None:
    with plain_user(PLAIN) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "['0', 'kept', 'removed', 'table', 'inet', 'fw']"
        assert process.stdout.readline().strip() == "['198.51.100.10'] True"
        port, password = process.stdout.readline().split()
        async with asyncssh.connect(
            "127.0.0.1", int(port), username="root", password=password, known_hosts=None, config=None
        ) as connection:
            assert (await connection.run("id -u", check=True)).stdout == "0\n"


def test_a_machine_that_forbids_namespaces_is_told_what_to_do() -> None:
    # A user namespace where no further one may be made, entered without capabilities.
    forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all -- "$@"'
    ask = """
from tidegate.lab import Lab, LabUnavailable, obstacles
print(obstacles())
try:
    Lab()
except LabUnavailable as unavailable:
    print(unavailable)
"""
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, "-c", ask]
    said = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(SOURCE)), check=True)
    assert said.stdout.count("/proc/sys/user/max_user_namespaces = 0; allow them, or run as root") == 2


def test_a_missing_program_is_named_with_its_package() -> None:
    ask = "from tidegate.lab import obstacles; print(obstacles())"
    environment = dict(os.environ, PYTHONPATH=str(SOURCE), TIDEGATE_BUSYBOX="/bin/true")
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment, check=True)
    assert "TIDEGATE_BUSYBOX=/bin/true is not a static busybox with crond" in said.stdout
