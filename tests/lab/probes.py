"""Ways to ask a lab what is so."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh

from tidegate.lab import Host, Lab
from tidegate.lab.support import busybox

SOURCE = Path(__file__).parents[2] / "src"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read(100))"


def lookup(host: Host, *question: str) -> list[str]:
    return host.run(["dig", "+short", "+tries=1", "+time=5", *question], timeout=10).stdout.split()


def fetch(host: Host, url: str) -> str:
    return host.run([sys.executable, "-I", "-c", FETCH, url]).stdout


def connects(host: Host, address: str, port: int) -> bool:
    dial = f"import socket; socket.create_connection(({address!r}, {port}), timeout=1)"
    return host.run([sys.executable, "-I", "-S", "-c", dial]).returncode == 0


def peer_seen_by_the_internet(lab: Lab, client: Host, address: str) -> str:
    family = "AF_INET6" if ":" in address else "AF_INET"
    serve = f"""
import socket
listening = socket.create_server(({address!r}, 7000), family=socket.{family})
print(flush=True)
print(listening.accept()[1][0])
"""
    with lab.internet.popen([sys.executable, "-I", "-S", "-c", serve], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert connects(client, address, 7000)
        return str(server.stdout.readline().strip())


@contextlib.contextmanager
def echo_server(host: Host, address: str, port: int) -> Iterator[None]:
    serve = f"""
import socket
listening = socket.create_server(({address!r}, {port}))
print(flush=True)
near, _ = listening.accept()
while block := near.recv(65536):
    near.sendall(block)
"""
    with host.popen([sys.executable, "-I", "-S", "-c", serve], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield
        server.kill()


@contextlib.contextmanager
def shaped(lab: Lab, device: str, mbps: int) -> Iterator[Callable[[int], None]]:
    """A router that lets `mbps` through to a device; yields what changes that."""

    def shape(rate: int) -> None:
        # With HTB's own burst of a millisecond or two, a busy machine's late timers cost UDP up to a tenth of the rate.
        burst = "burst 64k cburst 64k"
        done = lab.router.run(f"tc class replace dev {device} parent 1: classid 1:1 htb rate {rate}mbit {burst}")
        assert done.returncode == 0, done.stderr

    lab.router.run(f"tc qdisc add dev {device} root handle 1: htb default 1")
    shape(mbps)
    try:
        yield shape
    finally:
        lab.router.run(f"tc qdisc del dev {device} root")


@contextlib.asynccontextmanager
async def ssh(lab: Lab, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in to the router as root, its key pinned; by password unless `options` say how."""
    port = lab.forward(lab.router.address, 22)
    known = asyncssh.import_known_hosts(f"[127.0.0.1]:{port} {lab.router.host_public_key}")
    login = options or {"password": lab.router.password}
    async with asyncssh.connect(
        "127.0.0.1",
        port,
        username="root",
        known_hosts=known,
        server_host_key_algs=["ssh-ed25519"],
        config=None,
        **login,
    ) as connection:
        yield connection


def process_namespaces(box: int, router: Path) -> set[str]:
    return {os.readlink(f"/proc/{box}/ns/pid"), os.readlink(router.parent / "ns/pid")}


def everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def inhabitants(namespaces: set[str]) -> list[int]:
    found = []
    for pid in everybody():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") in namespaces:
                found.append(pid)
    return found


def network_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


@contextlib.contextmanager
def plain_user(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program as somebody with no rights, who cannot read root's files: not this interpreter, not this checkout."""
    with tempfile.TemporaryDirectory() as copy:
        os.chmod(copy, 0o755)
        shutil.copytree(SOURCE / "tidegate", Path(copy, "tidegate"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(busybox(), Path(copy, "busybox"))
        environment = {
            "PYTHONPATH": copy,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": "/usr/bin:/bin",
            "TIDEGATE_BUSYBOX": f"{copy}/busybox",
        }
        demoted = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        with subprocess.Popen(
            [*demoted, "/usr/bin/python3", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
        ) as process:
            assert process.stdin is not None
            try:
                yield process
            finally:
                process.stdin.close()
