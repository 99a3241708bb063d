"""A machine of the lab that has a network of its own and the host's programs: a client, the controller, the internet."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from tidegate.lab.box import Box, Process, run
from tidegate.lab.network import Place
from tidegate.lab.support import environment


class Host:
    """Runs programs in one network of the lab.

    They see the host's files as they are, except /etc/resolv.conf (the router) and /run (empty), and start in `/`.
    """

    def __init__(self, box: Box, name: str, ipv4: str, ipv6: str) -> None:
        self._box = box
        self.name = name
        self.ipv4 = ipv4
        self.ipv6 = ipv6

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.ipv4} {self.ipv6}>"

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises `subprocess.TimeoutExpired` after `timeout` seconds, and kills it then."""
        return run(self._box.enter(self.name, argv), input=input, timeout=timeout, env=environment())

    def popen(self, argv: Sequence[str], **popen_kwargs: Any) -> Process:
        """Start a program; the keywords are `subprocess.Popen`'s. It ends with the lab at the latest."""
        return Process(self._box.enter(self.name, argv), **{"env": environment()} | popen_kwargs)

    def command(self, argv: Sequence[str]) -> list[str]:
        """What to run on the host so that `argv` runs in this network, but with the host's files and processes.

        Such a process is not the lab's: it outlives the lab unless its parent ends it, and keeps the network alive.
        """
        return self._box.enter_net(self.name, argv)


class Client(Host):
    """A device of the household, with a fixed MAC address, behind a port of its own on the router's bridge."""

    def __init__(self, box: Box, place: Place) -> None:
        super().__init__(box, place.name, place.ipv4, place.ipv6)
        self.mac = place.mac
        self.port = place.port
