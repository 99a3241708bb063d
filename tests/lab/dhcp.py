"""Clients of a lab that ask the router for an address, and that change who they are."""

from __future__ import annotations

from pathlib import Path

from tidegate.lab import Client
from tidegate.lab.support import busybox

_SCRIPT = """#!/bin/sh
case $1 in
bound | renew)
  ip -4 address flush dev eth0
  ip address add $ip/$mask dev eth0
  ip route replace default via $router
  echo "$ip" >"$OUT"
  ;;
esac
"""


def lease(client: Client, folder: Path, hostname: str | None = None, *, wanted: str | None = None) -> str:
    """Have the client ask for an IPv4 address, with that name in its request, and take it; which one it is."""
    script, out = folder / "udhcpc.sh", folder / f"{client.name}.lease"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    out.unlink(missing_ok=True)
    said = ["-x", f"0x0c:{hostname.encode().hex()}"] if hostname else []
    said += ["-r", wanted] if wanted else []
    asking = [busybox(), "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", str(script), *said]
    done = client.run(["env", f"OUT={out}", *asking], timeout=20)
    assert done.returncode == 0, done.stderr
    return out.read_text().strip()


def become(client: Client, mac: str, *ipv6: str) -> None:
    """Give the client another hardware address, as a phone does that uses a private one; its IPv4 address stays as it was."""
    lines = ["link set eth0 down", f"link set eth0 address {mac}", "link set eth0 up"]
    lines += [f"address replace {address}/64 dev eth0 nodad" for address in ipv6 or (client.ipv6,)]
    lines += ["route replace default via 192.168.1.1", "-6 route replace default via 2001:db8:1::1 dev eth0"]
    for line in lines:
        done = client.run(["ip", *line.split()])
        assert done.returncode == 0, f"{line}: {done.stderr}"
