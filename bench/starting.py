"""What it costs to start: the command line, the daemon, the lab; and the memory that a daemon occupies when it is idle."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.downloads import QUIET
from bench.figures import Row, Samples, Told, alone, compared, in_turns, short
from bench.processes import ROOT, TIDEGATE, BenchError, DaemonProcess, children, daemon_process, resident_mib
from tidegate.lab import Lab

NOTHING = [sys.executable, "-c", "pass"]


async def rows(folder: Path, quick: bool, told: Told) -> list[Row]:
    """All measurements of this file."""
    rounds = 4 if quick else 15
    with daemon_process(folder, QUIET) as running:
        found = [
            await _command(["--help"], running, rounds, told),
            await _command(["groups", "list-groups", "--help"], running, rounds, told),
            await _command(["system", "status"], running, rounds, told),
            _memory(running),
        ]
    return [*found, _daemon(3 if quick else 10, told), _lab(3 if quick else 10, told)]


async def _command(words: list[str], running: DaemonProcess, rounds: int, told: Told) -> Row:
    environment = os.environ | {"TIDEGATE_STATE_DIR": str(running.state_dir)}

    async def ours(_: int) -> None:
        _run([*TIDEGATE, *words], environment)

    async def other(_: int) -> None:
        _run(NOTHING, environment)

    command = " ".join(["tidegate", *words])
    taken = await in_turns(ours, other, rounds, lambda how_far: told(f"{command} {how_far}"), warm_up=1)
    return replace(compared(f"`{command}`, from start to end", *taken, "Python that does nothing"), ratio=None)


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-1000:]}")


def _memory(running: DaemonProcess) -> Row:
    control, torrents = resident_mib(running.pid), [resident_mib(pid) for pid in children(running.pid)]
    figures = {"control_mib": control, "torrents_mib": sum(torrents)}
    text = f"{short(control)} MiB control, {short(sum(torrents))} MiB torrents"
    return Row("memory of an idle daemon (resident)", text, figures=figures)


def _daemon(rounds: int, told: Told) -> Row:
    taken = Samples()
    for number in range(rounds):
        told(f"a daemon {number}/{rounds}")
        with tempfile.TemporaryDirectory() as folder, daemon_process(Path(folder), QUIET) as running:
            taken.add(running.started_ms)
    return alone("start the daemon on an empty state, until it answers", taken)


def _lab(rounds: int, told: Told) -> Row:
    taken = Samples()
    for number in range(rounds):
        told(f"a lab {number}/{rounds}")
        with taken.timed():
            lab = Lab()
        lab.close()
    return alone("lab: a router, an internet and 4 clients, until the router answers", taken, most_ms=1000)
