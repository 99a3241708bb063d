"""The daemon and its command line as processes, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIDEGATE = [sys.executable, "-m", "tidegate"]


def tidegate(*words: str, socket: Path | None = None, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    target = ["--socket", str(socket)] if socket else []
    return subprocess.run(
        [*TIDEGATE, *words, *target], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment()
    )


def answer(*words: str, socket: Path) -> Any:
    """Run one command with --json and read its answer."""
    done = tidegate(*words, "--json", socket=socket)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment() -> dict[str, str]:
    """Nothing of this machine's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}


class Up:
    """A `tidegate up` process."""

    def __init__(self, state_dir: Path, *words: str, torrents: bool = False) -> None:
        self.state_dir = state_dir
        self.socket = state_dir / "control.sock"
        self.said = ""
        env = {**environment(), "TIDEGATE_TORRENT__ENABLED": str(torrents)}
        command = [*TIDEGATE, "up", "--state-dir", str(state_dir), "--listen", "127.0.0.1:0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)

    def until(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """Wait until standard error has said it."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            assert self.process.poll() is None or self.process.returncode == 0, self.said + self.process.stderr.read()
            assert time.monotonic() < deadline, f"{pattern!r} was not said in {seconds} s: {self.said}"
            if select.select([self.process.stderr], [], [], 0.2)[0]:
                self.said += os.read(self.process.stderr.fileno(), 65536).decode()
        return found

    def ready(self) -> str:
        """Wait until it answers; its URL."""
        return self.until(r"answers at (http://\S+)")[1]

    def end(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=seconds)
        self.said += rest
        return self.process.returncode


@contextmanager
def up(state_dir: Path, *words: str, torrents: bool = False) -> Iterator[Up]:
    """A daemon that answers; killed at the end of the block if it still runs."""
    started = Up(state_dir, *words, torrents=torrents)
    try:
        started.ready()
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGKILL)
        assert started.process.stderr is not None
        started.process.stderr.close()
