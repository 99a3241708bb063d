"""A router, an internet and a household's clients, in network namespaces: real packets on one machine.

What the package guarantees:

- Up in well under a second; gone with `close()`, and gone too when the process that made it is killed.
- The host's networks, mounts and files stay as they are. Any number of labs run at once, with the same addresses,
  and do not see each other.
- The router is a machine of its own: its file system, its init, its services (see `router.py`). After a power cut it
  comes back with its flash and nothing else.
- It runs as root, and as a plain user where user namespaces are allowed. Where it cannot run, `LabUnavailable` and
  `obstacles()` say what is missing.

    with Lab(clients=("child", "guest")) as lab:
        port = lab.forward(lab.router.address, 22)
        throughput(lab.clients["child"], lab.internet, direction="down")
"""

from tidegate.lab.host import Client, Host
from tidegate.lab.internet import Internet
from tidegate.lab.lab import Lab
from tidegate.lab.measure import Flow, NoMeasurement, flow, throughput
from tidegate.lab.network import Site
from tidegate.lab.router import Router
from tidegate.lab.support import LabError, LabUnavailable, obstacles

__all__ = [
    "Client",
    "Flow",
    "Host",
    "Internet",
    "Lab",
    "LabError",
    "LabUnavailable",
    "NoMeasurement",
    "Router",
    "Site",
    "flow",
    "obstacles",
    "throughput",
]
