"""`tidegate demo`: the main job on the embedded default, as a stranger runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.e2e.processes import TIDEGATE, environment, tidegate


def descendants(pid: int) -> set[int]:
    """Every process below one, by walking /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def still_there(pids: set[int]) -> set[int]:
    """Those of the processes that run: a zombie that waits to be reaped does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            running.add(pid)
    return running


def wait_until_gone(pids: set[int], seconds: float = 15) -> set[int]:
    deadline = time.monotonic() + seconds
    while (left := still_there(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_the_story_is_told_once_and_every_line_holds() -> None:
    before = namespaces()
    told = tidegate("demo", "--once", timeout=110)
    assert told.returncode == 0, told.stdout + told.stderr
    for line in ("router enrolled", "child's download", "torrent at its group's rate", "group deleted", "events"):
        assert f"✓ {line}" in told.stdout
    assert "broken" not in told.stdout
    assert namespaces() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_everything_is_gone_when_it_ends_in_the_middle(number: signal.Signals) -> None:
    before = set(Path(tempfile.gettempdir()).glob("tidegate-demo-*"))
    demo = subprocess.Popen(
        [*TIDEGATE, "demo", "--once"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Nobody is limited yet" in line:
            break
    started = descendants(demo.pid)
    assert len(started) > 10
    [home] = {path for path in Path(tempfile.gettempdir()).glob("tidegate-demo-*") if path not in before}
    os.kill(demo.pid, number)
    demo.communicate(timeout=30)
    assert demo.returncode != 0
    assert not wait_until_gone(started)
    assert not home.exists()
