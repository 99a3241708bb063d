"""`python -m tidegate.lab`: a lab to look around in, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import threading
import time

from tidegate.lab import Lab, LabUnavailable


def main() -> int:
    """Open a lab, say where everything is, and keep it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.lab", description=__doc__)
    parser.add_argument("clients", nargs="*", default=["child", "guest", "parent", "nas"], help="names of the clients")
    began = time.perf_counter()
    try:
        with Lab(clients=parser.parse_args().clients) as lab:
            print(_directions(lab, time.perf_counter() - began), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except LabUnavailable as unavailable:
        print(unavailable, file=sys.stderr)
        return 1
    return 0


def _directions(lab: Lab, took: float) -> str:
    ssh = lab.forward(lab.router.address, 22)
    web = lab.forward(lab.internet.ipv4, 80, frm="internet")
    lines = [
        f"A router, an internet and {len(lab.clients)} clients, up in {took:.2f} s. Ctrl-C takes them down.",
        "",
        f"router    ssh -p {ssh} root@127.0.0.1    password {lab.router.password}    key {lab.router.host_key}",
        f"internet  http://127.0.0.1:{web}/    {', '.join(lab.internet.sites)}",
        "",
        "A shell of each:",
        *(f"{host.name:<9} {shlex.join(host.command(['sh']))}" for host in (*lab.clients.values(), lab.internet)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
