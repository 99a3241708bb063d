"""What was acknowledged is still there after the process was killed (REL-01) and after the power went (REL-02)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CUTS = int(os.environ.get("TIDEGATE_PROOF_CUTS", "0"))  # 300 of each writer in `make prove`
PRIVATE = ("unshare", "--mount", "--propagation", "private")


def disaster(kind: str, folder: Path, rounds: int, writer: str, *within: str) -> list[dict[str, Any]]:
    command = [*within, sys.executable, "-m", "tests.e2e.disaster", kind, str(folder), str(rounds), writer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110 + 2 * CUTS)
    assert done.returncode == 0, f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == rounds
    return results


@pytest.fixture
def own_disk() -> None:
    """Loop devices and root: where they are missing the promise is not tested, and that is a failure, not a pass."""
    missing = [
        what
        for what, there in (("root", os.geteuid() == 0), ("/dev/loop-control", os.path.exists("/dev/loop-control")))
        if not there
    ]
    if missing:
        pytest.fail(f"a power cut can't be tried here: no {' and no '.join(missing)}")


def test_no_acknowledged_commit_is_lost_by_kill_nine_and_nothing_is_torn(tmp_path: Path) -> None:
    rounds = disaster("kill", tmp_path, 40, "journal")
    assert [(r["lost"], r["wrong"]) for r in rounds] == [(0, "")] * 40
    assert sum(r["acknowledged"] for r in rounds) > 200


@pytest.mark.usefixtures("own_disk")
@pytest.mark.timeout(120 + 2 * CUTS)
@pytest.mark.parametrize(("writer", "cuts"), [("journal", CUTS or 40), ("wishes", CUTS or 10)])
def test_no_acknowledged_commit_is_lost_by_a_power_cut_and_nothing_is_torn(tmp_path: Path, writer: str, cuts: int) -> None:
    rounds = disaster("power", tmp_path, cuts, writer, *PRIVATE)
    assert [(r["lost"], r["wrong"]) for r in rounds] == [(0, "")] * cuts
    assert sum(r["acknowledged"] for r in rounds) > 2 * cuts


@pytest.mark.usefixtures("own_disk")
@pytest.mark.parametrize("writer", ["unsynced_database", "unsynced_rename"])
def test_the_same_power_cut_does_take_from_a_writer_that_does_not_sync(tmp_path: Path, writer: str) -> None:
    """The control: without it, the test above might not be able to fail."""
    rounds = disaster("power", tmp_path, 5, writer, *PRIVATE)
    assert sum(r["lost"] > 0 for r in rounds) >= 1


@pytest.mark.usefixtures("own_disk")
def test_a_disk_whose_writes_begin_to_fail_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The kernel reports a failed write at one fsync and then forgets it: who tries again and believes it has lost."""
    rounds = disaster("rot", tmp_path, 5, "bulky_journal", *PRIVATE)
    assert [(r["lost"], r["wrong"]) for r in rounds] == [(0, "")] * 5
    assert all(r["acknowledged"] > 10 for r in rounds)


@pytest.mark.usefixtures("own_disk")
def test_a_full_disk_refuses_and_changes_nothing_and_with_room_it_goes_on_by_itself(tmp_path: Path) -> None:
    command = [*PRIVATE, sys.executable, "-m", "tests.e2e.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    for round_ in ("first", "second"):
        assert seen[f"{round_}: free bytes"] < 100_000, "the disk was not full: nothing was tried"
        assert seen[f"{round_}: state when full"]
        assert seen[f"{round_}: goes on with room"]
        assert seen[f"{round_}: state with room"]
    assert seen["refusals"] == ["StorageFull"]
    assert seen["refused"] >= 6
    assert seen["acknowledged"] > 20
    assert seen["followed"]
    assert seen["state after a restart"]
    assert seen["chain"]
    assert seen["beginning on a full disk"] == "StorageFull"
    assert seen["beginning with room"] == 0
