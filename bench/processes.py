"""The processes that are measured: a daemon as its users start it, and helpers of the bench."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIME = 30.0  # seconds until a process has to be there
ROOT = Path(__file__).parent.parent
TIDEGATE = [sys.executable, "-m", "tidegate"]


class BenchError(Exception):
    """Nothing could be measured, or what was measured is not worth comparing."""


@dataclass(frozen=True, slots=True)
class DaemonProcess:
    """A running `tidegate up`. `started_ms`: from its start until it answered."""

    pid: int
    url: str
    key: str
    state_dir: Path
    started_ms: float

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)


@contextmanager
def daemon_process(folder: Path, settings: Mapping[str, str]) -> Iterator[DaemonProcess]:
    """`tidegate up` on an empty state directory in `folder`, all defaults but these (TORRENT__ENABLED: "false", ...)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= {f"TIDEGATE_{name}": value for name, value in settings.items()}
    state = folder / "state"
    said = folder / "daemon.log"
    began = time.perf_counter()
    with said.open("wb") as log:
        command = [*TIDEGATE, "up", "--state-dir", str(state), "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        while not (url := re.search(r"answers at (http://\S+)", text := said.read_text())):
            if process.poll() is not None or time.perf_counter() - began > START_TIME:
                raise BenchError(f"the daemon did not start: {text[-2000:]}")
            time.sleep(0.002)
        took = (time.perf_counter() - began) * 1000
        key = re.search(r"shown this once: (tg_\S+)", text)
        if key is None:
            raise BenchError("the daemon showed no key")
        yield DaemonProcess(process.pid, url[1], key[1], state, took)
    finally:
        end(process)


@contextmanager
def helper(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A module as a process of its own, and the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise BenchError(f"{module} did not start")
            yield process, line
        finally:
            end(process)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Close its input and ask it to stop; kill it where it does not."""
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_mib(pid: int) -> float:
    """Memory that a process occupies, MiB, pages shared with others included."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                after_name = (each / "stat").read_text().rpartition(")")[2]
            except OSError:
                continue  # it ended meanwhile
            if int(after_name.split()[1]) == pid:
                found.append(int(each.name))
    return found
