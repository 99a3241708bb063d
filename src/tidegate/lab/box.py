"""The box that holds a whole lab: a process and mount namespace that ends when its owner does.

The box hangs on one pipe. Its first process is a `cat` that reads from it; the writing end is in this process and
nowhere else. When it is closed, by `close()` or by the kernel because this process was killed, `cat` ends, and with
the first process of a process namespace the kernel kills all others in it; with them go the mounts and the network
namespaces. Nothing is named on the host: `ip netns` inside works on a tmpfs of the box's own.

A parent-death signal would not do: it fires when the *thread* ends that started the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tidegate.lab.support import ADMINISTRATORS_PATH, LabError, LabUnavailable, may_use_namespaces, need, obstacles

# The shell reads its own number from the /proc of the namespace it came from, before it covers that with the box's;
# the old one stays at /run/outside for the router's init, which needs its number too. Ignored SIGCHLD survives exec:
# orphans of the box are reaped though `cat` never waits.
_ANCHOR: Final = """
trap '' CHLD
read -r pid rest </proc/self/stat
mount -t tmpfs -o mode=0755 lab /run
mkdir /run/netns /run/lab /run/outside
mount --rbind /proc /run/outside
mount -t proc proc /proc
echo "$pid"
exec cat >/dev/null
"""

_SETGROUPS: Final = Path(__file__).with_name("setgroups.py")


class Process(subprocess.Popen[Any]):
    """A program inside the lab. What runs outside is the `nsenter` that waits for it and passes its status on.

    Signals reach the program itself, and it is killed when its `nsenter` is.
    """

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program; nothing happens if it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(self.inner_pid() or self.pid, sig)

    def inner_pid(self) -> int | None:
        """The program's own number as seen from outside; None before it was started and after it ended."""
        return child_of(self.pid)


class Box:
    """An empty box, and ways to run things in it.

    With root's capabilities it is made of namespaces only; without them, it lies in a user namespace where the
    caller is root and the only user (`rootless`).
    """

    def __init__(self) -> None:
        self.rootless = not may_use_namespaces()
        user = ["--user", "--map-root-user"] if self.rootless else []
        self._nsenter = need("nsenter")
        self._setpriv = need("setpriv")
        # A session of its own: a Ctrl-C in the terminal is for the owner, who then closes the lab in order.
        self._anchor = subprocess.Popen(
            [need("unshare"), *user, "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-euc", _ANCHOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={"PATH": ADMINISTRATORS_PATH},
        )
        assert self._anchor.stdout is not None
        first = self._anchor.stdout.readline()
        if not first:
            _, why = self._anchor.communicate(timeout=10)
            raise LabUnavailable("; ".join(obstacles()) or f"the lab's box did not open: {why.decode().strip()}")
        self.pid = int(first)

    def path(self, inside: str) -> Path:
        """Where a path of the box is, seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def net(self, name: str) -> str:
        """A network namespace of the box, as a file to enter it by."""
        return str(self.path(f"/run/netns/{name}"))

    def enter(self, net: str | None, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the box, with its processes and mounts, in one of its networks or its own."""
        return [*self.as_root(), *self._nsenter_into("--mount", "--pid"), *self._in_net(net), "--", *self._tied(argv)]

    def enter_net(self, net: str, argv: Sequence[str], *, tied: bool = False) -> list[str]:
        """The command that runs `argv` in one of the box's networks, but with the host's files.

        `tied`: it ends with the box. Otherwise it is a process of the host, and its parent's to end.
        """
        if tied:
            return [*self._nsenter_into("--pid"), *self._in_net(net), "--", *self._tied(argv)]
        return [*self._nsenter_into(), *self._in_net(net), "--", *argv]

    def script(self, text: str, *, net: str | None = None) -> None:
        """Run a shell script in the box that must succeed."""
        done = subprocess.run(
            self.enter(net, ["sh", "-eu"]),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": ADMINISTRATORS_PATH},
        )
        if done.returncode:
            raise LabError(f"a step of the lab failed ({done.returncode}): {done.stderr.strip()}\n{text}")

    def as_root(self) -> list[str]:
        """The beginning of every command whose program may believe that it is a real root."""
        return [sys.executable, "-I", "-S", str(_SETGROUPS)] if self.rootless else []

    def close(self) -> None:
        """End everything in the box, and return when it has ended."""
        for pipe in (self._anchor.stdin, self._anchor.stdout, self._anchor.stderr):
            if pipe is not None:
                pipe.close()
        try:
            self._anchor.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            self._anchor.wait(timeout=20)

    def _nsenter_into(self, *namespaces: str) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self.rootless else []
        return [self._nsenter, "--target", str(self.pid), *user, *namespaces]

    def _in_net(self, net: str | None) -> list[str]:
        return ["--net"] if net is None else [f"--net={self.net(net)}"]

    def _tied(self, argv: Sequence[str]) -> list[str]:
        return [self._setpriv, "--pdeathsig", "KILL", "--", *argv]


def run(
    command: Sequence[str],
    *,
    input: str | None = None,
    timeout: float,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` for a command of the lab: text, captured, and on a timeout the program is killed, not nsenter only."""
    with Process(
        command,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def child_of(pid: int) -> int | None:
    """A child of a process. Read from all of /proc: not every kernel lists children (CONFIG_PROC_CHILDREN)."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and _parent_of(entry.path) == pid:
                return int(entry.name)
    return None


def _parent_of(process: str) -> int | None:
    try:
        after_name = Path(process, "stat").read_text().rpartition(")")[2]
    except OSError:
        return None  # it ended meanwhile
    return int(after_name.split()[1])
