"""The lab's networks and the cables between them.

Every cable runs through the box's own network, where a bridge of its own joins its two ends. So the router can be
unplugged: its ends are deleted, all at once, while the others keep their addresses and their carrier, as a device does
that hangs on a switch. (Moving the router's ends elsewhere would cost 20 ms of kernel time each.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tidegate.lab import network
from tidegate.lab.box import Box
from tidegate.lab.network import Place

_ROUTERS_ENDS: Final = 7
"""The link group that is deleted to unplug the router."""

# Takes the waiting out of a network's IPv6; it has to be done before its links are made.
_QUIET: Final = """
for setting in accept_dad dad_transmits accept_ra router_solicitations; do
  echo 0 >/proc/sys/net/ipv6/conf/default/$setting
done
"""


def lay(box: Box, places: list[Place]) -> None:
    """Make every network but the router's, with addresses, and all cables up to the router's ends."""
    names = ["internet", *(place.name for place in places)]
    _script(
        box, _resolver(), _ip(None, [f"netns add {name}" for name in names]), _QUIET, *map(_quiet, names), _far_ends(places)
    )


def plug(box: Box, places: list[Place]) -> None:
    """Make the router's network, empty but for its ends of the cables."""
    links = [
        f"link add name near{index} up master cable{index} group {_ROUTERS_ENDS} type veth"
        f" peer name {port} address {mac} netns router"
        for index, (port, mac) in enumerate(_ports(places))
    ]
    _script(box, _ip(None, ["netns add router"]), _quiet("router"), _ip(None, links))


def unplug(box: Box) -> None:
    """Take the router's ends away. Whoever was connected hears nothing more and is told nothing."""
    _script(box, _ip(None, [f"link del group {_ROUTERS_ENDS}"]))


def discard(box: Box) -> None:
    """Delete the router's network, and with it every rule, class, address and connection in it."""
    _script(box, _ip(None, ["netns del router"]))


def _ports(places: list[Place]) -> list[tuple[str, str]]:
    return [(network.WAN, network.WAN_MAC), *((place.port, place.port_mac) for place in places)]


def _far_ends(places: list[Place]) -> str:
    ends = [("internet", "isp", network.PROVIDER_MAC), *((place.name, "eth0", place.mac) for place in places)]
    cables = []
    for index, (netns, link, mac) in enumerate(ends):
        cables.append(f"link add name cable{index} up type bridge mcast_snooping 0")
        cables.append(f"link add name far{index} up master cable{index} type veth peer name {link} address {mac} netns {netns}")
    return _ip(None, cables) + "".join(_ip(place.name, _addresses(place)) for place in places)


def _addresses(place: Place) -> list[str]:
    return [
        "link set lo up",
        "link set eth0 up",
        f"address add {place.ipv4}/24 dev eth0",
        f"address add {place.ipv6}/64 dev eth0 nodad",
        f"route add default via {network.ROUTER_LAN[0]}",
        f"route add ::/0 via {network.ROUTER_LAN[1]} dev eth0",
    ]


def _quiet(netns: str) -> str:
    return f"nsenter --net=/run/netns/{netns} sh -c '{_QUIET}'\n"


def _resolver() -> str:
    """Makes the router everybody's resolver, wherever /etc/resolv.conf really lies (/run is new and empty)."""
    real = os.path.realpath("/etc/resolv.conf")
    line = f"nameserver {network.ROUTER_LAN[0]}"
    if real.startswith("/run/"):
        return f"mkdir -p '{Path(real).parent}'; echo '{line}' >'{real}'\n"
    return f"echo '{line}' >/run/lab/resolv.conf; mount --bind /run/lab/resolv.conf '{real}'\n"


def _ip(netns: str | None, lines: list[str]) -> str:
    where = "" if netns is None else f"-n {netns} "
    return "\n".join([f"ip {where}-batch - <<'END'", *lines, "END", ""])


def _script(box: Box, *parts: str) -> None:
    box.script("".join(parts))
