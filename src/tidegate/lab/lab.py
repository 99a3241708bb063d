"""Puts the lab together: the box, the cables, the internet, the router and the household."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, Self

from tidegate.lab import cables, network
from tidegate.lab.box import Box, Process
from tidegate.lab.host import Client, Host
from tidegate.lab.internet import Internet
from tidegate.lab.rom import Lack, Shell, Tables
from tidegate.lab.router import Router
from tidegate.lab.support import LabError, LabUnavailable, obstacles


class Lab:
    """A router, an internet and clients. Use as a context manager; it is up inside and gone after it.

    `clients` are names; each becomes a device with a fixed MAC and fixed addresses. `shell` is the router's /bin/sh,
    `lacks` what it is to lack, `tables` the iptables that it has then.
    Raises `LabUnavailable` where the machine cannot run one.
    """

    def __init__(
        self,
        clients: Sequence[str] = ("child", "guest", "parent", "nas"),
        *,
        shell: Shell = "dash",
        lacks: Collection[Lack] = (),
        tables: Tables = "legacy",
    ) -> None:
        places = network.places(tuple(clients))
        self._forwards: list[Process] = []
        self._lock = threading.Lock()
        self._box = Box()
        try:
            self.internet = Internet(self._box)
            self.controller = Client(self._box, places[0])
            self.clients: Mapping[str, Client] = MappingProxyType(
                {place.name: Client(self._box, place) for place in places[1:]}
            )
            self.router = Router(self._box, places, shell=shell, lacks=frozenset(lacks), tables=tables)
            cables.lay(self._box, places)
            self.internet.start()
            self.router.install()
            self.router.boot()
        except LabError as error:
            self.close()
            if missing := obstacles():
                raise LabUnavailable("; ".join(missing)) from error
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The box's first process: everything in the lab ends with it."""
        return self._box.pid

    @property
    def rootless(self) -> bool:
        """Whether it lies in a user namespace, because the caller is not root."""
        return self._box.rootless

    def forward(self, address: str, port: int, *, frm: Literal["lan", "internet"] = "lan", delay: float = 0.0) -> int:
        """A TCP port on the host's 127.0.0.1 that leads to an address as the controller (or the internet) reaches it.

        Every connection dials anew, so it outlives the router's reboots. One that cannot be made is reset. `delay`: seconds
        that all takes each way, as over a long line; setting up a connection takes one round trip more.
        """
        origin: Host = self.controller if frm == "lan" else self.internet
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
            relay = [sys.executable, "-I", "-S", str(Path(__file__).with_name("relay.py"))]
            where = [str(listening.fileno()), address, str(port), str(delay)]
            command = self._box.enter_net(origin.name, [*relay, *where], tied=True)
            process = Process(command, stdin=subprocess.DEVNULL, pass_fds=(listening.fileno(),), start_new_session=True)
            with self._lock:
                self._forwards.append(process)
            return int(listening.getsockname()[1])

    def close(self) -> None:
        """Take everything down; returns when it is gone. Closing twice is closing once."""
        self._box.close()
        if hasattr(self, "router"):
            self.router.close()
        with self._lock:
            forwards, self._forwards = self._forwards, []
        for process in forwards:
            process.wait(timeout=20)
