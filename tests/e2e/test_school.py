"""The example of an upper layer, a school's portal, as a program of its own against a daemon and a lab's router."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Up, environment, up
from tidegate import connect
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest, RouterId
from tidegate.lab import Lab

PROGRAM = Path(__file__).parents[2] / "examples/school.py"
SCHOOL = RouterId("school")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(clients=("child", "guest")) as running:
        yield running


def enrol(daemon: Up, lab: Lab) -> None:
    port = lab.forward(lab.router.address, 22)
    asked = RouterAddRequest(HostName("127.0.0.1"), Fingerprint(lab.router.host_key), port, password=lab.router.password)

    async def adding() -> None:
        async with connect(socket=str(daemon.socket)) as tidegate:
            await tidegate.routers.add(SCHOOL, asked)

    asyncio.run(adding())


def portal(daemon: Up, verb: str, file: Path) -> list[str]:
    words = [sys.executable, "-W", "error", str(PROGRAM), str(daemon.socket), verb, str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextmanager
def following(daemon: Up, file: Path) -> Iterator[Iterator[str]]:
    """The lines that the portal prints of what happens."""
    words = [sys.executable, "-W", "error", str(PROGRAM), str(daemon.socket), "follow", str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout.readline, "")
        finally:
            process.kill()


def until(lines: Iterator[str], kind: str) -> list[tuple[int, str]]:
    """What is told up to the first event of that kind."""
    found: list[tuple[int, str]] = []
    while not found or found[-1][1] != kind:
        number, told = next(lines).split()
        found.append((int(number), told))
    return found


def test_a_portal_keeps_its_classes_on_the_router(lab: Lab, tmp_path: Path) -> None:
    pupil, other = ({"name": name, "mac": lab.clients[name].mac} for name in ("child", "guest"))

    def classes(name: str, *found: dict[str, Any]) -> Path:
        file = tmp_path / name
        file.write_text(json.dumps({"classes": found}))
        return file

    both = classes(
        "both.json",
        {"number": 5, "name": "5b", "mbps": 20, "pupils": [pupil]},
        {"number": 6, "name": "6a", "mbps": 30, "exam": True, "pupils": [other]},
    )
    one = classes("one.json", {"number": 6, "name": "6a", "mbps": 30, "pupils": [pupil, other]})
    told: list[tuple[int, str]] = []
    state, seen = tmp_path / "state", tmp_path / "seen.txt"
    with up(state) as daemon:
        enrol(daemon, lab)
        with following(daemon, seen) as lines:
            planned = portal(daemon, "plan", both)
            assert "group 5: download limit 20 Mbit/s" in planned
            assert "group 6: the internet is closed to it" in planned
            assert "htb 1:105" not in lab.router.run("tc class show dev wan").stdout
            assert portal(daemon, "apply", both) == [f"2 classes stand; {len(planned)} changes on the router"]
            assert portal(daemon, "apply", both) == ["2 classes stand; 0 changes on the router"]
            told += until(lines, "group_synced") + until(lines, "group_synced")
            daemon.end(signal.SIGKILL)
            with up(state) as again:
                assert portal(again, "plan", one)[-1] == "group 5 would be deleted"
                again.end()
    with up(state) as daemon:
        portal(daemon, "apply", one)
        assert "htb 1:105" not in lab.router.run("tc class show dev wan").stdout
        with following(daemon, seen) as lines:  # another process: it goes on where the other was
            told += until(lines, "group_deleted")
    assert [number for number, _ in told] == sorted({number for number, _ in told})
    kinds = [kind for _, kind in told if kind.startswith("group")]
    assert kinds == [*["group_synced"] * 4, "group_deleted"]  # class 5 lets its pupil go before it goes itself
