"""A router's kernel without a router: a network namespace with a bridge and a line, where the agent runs from a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.policy.router import Interfaces
from tidegate.policy.state import ControllerId, RouterName
from tidegate.router import agent
from tidegate.router.engine import RouterOperationsEngine
from tidegate.router.local import LocalShell
from tidegate.router.shell import Dialogue, Result
from tidegate.router.statefile import Answer, read_answer

HOME = Interfaces.of("br-lan", "wan")
US = ControllerId("00000000000000aa")
KERNEL = "nft -s list ruleset; tc qdisc show; tc class show dev br-lan; tc class show dev wan"
_SET_UP = (
    "ip link add br-lan type bridge && ip link set br-lan up && ip link add wan type veth peer name isp && ip link set wan up"
)


@dataclass(frozen=True)
class Edge:
    """`root` is where the agent keeps its files; `enter` leads into the namespace; `sh` is the shell that runs the agent."""

    root: Path
    enter: tuple[str, ...]
    sh: tuple[str, ...]

    @property
    def agent(self) -> str:
        return f"{self.root}/usr/lib/tidegate/agent"

    @property
    def environment(self) -> dict[str, str]:
        return {"TIDEGATE_ROOT": str(self.root), "HOME": str(self.root), "PATH": os.environ["PATH"]}

    def run(self, line: str) -> str:
        """A shell line in the namespace; its output. Fails the test where it fails."""
        done = subprocess.run([*self.enter, "sh", "-c", line], capture_output=True, text=True, timeout=30, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def picture(self) -> str:
        """Everything that a change could touch: all rules, all queues, our files."""
        kernel = self.run(KERNEL)
        files = sorted(path for path in self.root.rglob("*") if path.is_file() and "var/run" not in str(path))
        return kernel + "".join(f"{path}\n{path.read_text()}" for path in files)

    def shell(self) -> EdgeShell:
        return EdgeShell(self)

    def engine(self, controller: ControllerId = US, router: str = "home", window: int = 5) -> RouterOperationsEngine:
        return RouterOperationsEngine(self.shell(), RouterName(router), controller, HOME, "bfifo", self.agent, window)

    def install(self) -> None:
        """Put the agent there as `install_agent` does."""
        Path(self.agent).parent.mkdir(parents=True, exist_ok=True)
        Path(self.agent).write_bytes(agent.TEXT)


def last_answer(out: bytes) -> Answer:
    """What became of it in the end, without the word that a change is made."""
    return read_answer(out.removeprefix(f"tidegate-agent {agent.VERSION} changed\n".encode()))


class EdgeShell(LocalShell):
    """Runs what a router is told to run, by the shell that this edge has as /bin/sh."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge.enter, edge.environment)
        self._sh = edge.sh

    async def run(self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 20.0, limit: int = 4 << 20) -> Result:
        return await super().run(self._here(command), stdin, seconds=seconds, limit=limit)

    @asynccontextmanager
    async def talk(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = 20.0, limit: int = 4 << 20
    ) -> AsyncIterator[Dialogue]:
        async with super().talk(self._here(command), stdin, seconds=seconds, limit=limit) as dialogue:
            yield dialogue

    def _here(self, command: Sequence[str]) -> list[str]:
        assert command[0] == "/bin/sh"
        return [*self._sh, *command[1:]]


@contextmanager
def an_edge(root: Path, sh: Sequence[str]) -> Iterator[Edge]:
    """An edge that is gone after the block, whatever happened in it."""
    (root / "var/run").mkdir(parents=True)
    me = () if os.geteuid() == 0 else ("--map-root-user",)
    anchor = subprocess.Popen(
        ["unshare", *me, "--net", "sh", "-c", f"{_SET_UP} && echo up && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert anchor.stdin
    assert anchor.stdout
    try:
        assert anchor.stdout.readline() == b"up\n"
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        found = [shutil.which(word) or word if number == 0 else word for number, word in enumerate(sh)]
        edge = Edge(root, ("nsenter", "--target", str(anchor.pid), *user, "--net"), tuple(found))
        edge.install()
        yield edge
    finally:
        anchor.stdin.close()
        anchor.wait(10)
        anchor.stdout.close()
