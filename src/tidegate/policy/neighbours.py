"""Who is on a router's network: read back from its leases and its neighbour tables.

A device is a MAC address that the router has heard of. Addresses come from the neighbour tables of the kernel, where several
IPv6 addresses of one device stand side by side (RFC 8981 privacy addresses among them), and from IPv4 leases; where the two
disagree the neighbour table is right, as it is what packets go by. A lease's name is what the device says of itself: it is
cut down to harmless characters here (`hostname`), goes no further than the controller, and is nobody's proof of anything.

What is read: `ip -s neighbour show` of iproute2 or of busybox (ip-neighbour(8)); leases of dnsmasq (`lease_update_file` in its
lease.c: end, MAC, address, name, client id) and of odhcpd (statefiles.c: `# interface MAC ipv4 name end address 32`). IPv6
leases name a DUID, which is no MAC (RFC 8415 11): they only lend a name to an address that the neighbour table knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from tidegate.policy.device import IpAddress, MacAddress
from tidegate.policy.lan import InterfaceAddress, Lan

MOST_ADDRESSES = 32  # of one device: a privacy address a day for a week is eight
NAME_LENGTH = 63  # RFC 1035 2.3.4

_MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_LINK = re.compile(rf"link/ether ({_MAC})\b", re.ASCII)
_INET = re.compile(r"^\s*inet6? ([0-9a-f.:]+/\d{1,3})\b", re.ASCII | re.MULTILINE)
_NEIGHBOUR = re.compile(rf"([0-9a-f.:]+) (?:dev \S+ )?\s*lladdr ({_MAC}) (.*)", re.ASCII)
_AGES = re.compile(r"used \d+/(\d+)/\d+", re.ASCII)
_DNSMASQ = re.compile(rf"\d+ ({_MAC}) ([0-9.]+) (.*) (?:\S+)", re.ASCII)
_DNSMASQ6 = re.compile(r"\d+ T?\d+ ([0-9a-f:]+) (.*) (?:\S+)", re.ASCII)
_ODHCPD = re.compile(r"# \S+ ([0-9a-f:]{11,17}) ipv4 (.*) -?\d+ ([0-9a-f]{1,8}) 32(?: \S+/32)?\s*", re.ASCII)
_ODHCPD6 = re.compile(r"# \S+ [0-9a-f]+ [0-9a-f]+ (.*) -?\d+ [0-9a-f]+ \d+((?: [0-9a-f:]+/128)*)\s*", re.ASCII)
_ENDS = re.compile(r"\d{1,20} ", re.ASCII)
_HARMFUL = re.compile(r"[^A-Za-z0-9 ._-]", re.ASCII)
_BROKEN = "broken\\x20"  # how odhcpd marks a name that it does not hand on
_LIVE = ("REACHABLE", "DELAY", "PROBE")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device as the router knows it now. `age`: seconds since it was last heard; None where only a lease tells of it, or an
    entry of the neighbour table that may be old."""

    mac: MacAddress
    ip: tuple[IpAddress, ...]
    hostname: str | None
    age: int | None


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The router's network and who is on it. `unread`: lines that are none of what we know."""

    lan: Lan
    devices: Mapping[MacAddress, Sighting]
    unread: int = 0

    def holders(self) -> dict[IpAddress, MacAddress]:
        """Whose each address is."""
        return {address: device.mac for device in self.devices.values() for address in device.ip}


def hostname(text: str) -> str | None:
    """What a device calls itself, as far as it can do no harm anywhere: letters, digits, blanks, dots, dashes and underscores,
    63 at most, a letter or digit first (so that no table takes it for a formula), all else as a question mark. None where
    nothing is left, or no name was given."""
    text = _HARMFUL.sub("?", text[: NAME_LENGTH * 4].removeprefix(_BROKEN)).lstrip("?*. _-")[:NAME_LENGTH].rstrip()
    return text or None


def read_neighbourhood(addresses: str, neighbours: str, leases: str, *, aged: bool) -> Neighbourhood:
    """What the agent printed of one router. `aged`: its neighbour table tells real ages (iproute2's; busybox prints zeros)."""
    lan = _lan(addresses)
    ages: dict[MacAddress, int | None] = {}
    found: dict[IpAddress, MacAddress] = {}
    names: dict[MacAddress, str] = {}
    unread = 0
    for line in neighbours.splitlines():
        if (neighbour := _neighbour(line, aged)) is None:
            unread += "lladdr" in line
        elif neighbour.mac != lan.mac and not lan.objection(neighbour.address):
            found[neighbour.address] = neighbour.mac
            known = [age for age in (ages.get(neighbour.mac), neighbour.age) if age is not None]
            ages[neighbour.mac] = min(known, default=None)
    held: list[_Lease] = []
    for line in leases.splitlines():
        try:
            held += _leases(line.strip())
        except ValueError:
            unread += 1
    for lease in held:
        if lease.mac is None or lease.mac == lan.mac or lan.objection(lease.address):
            continue
        found.setdefault(lease.address, lease.mac)
        ages.setdefault(lease.mac, None)
        if lease.name:
            names[lease.mac] = lease.name
    for lease in held:
        if lease.mac is None and lease.name and (mac := found.get(lease.address)):
            names.setdefault(mac, lease.name)
    return Neighbourhood(lan, dict(_sightings(found, ages, names)), unread)


def _lan(text: str) -> Lan:
    link = _LINK.search(text)
    own = [InterfaceAddress(found) for found in _INET.findall(text) if _is_interface(found)]
    return Lan(MacAddress(link[1]) if link else None, tuple(own))


def _is_interface(text: str) -> bool:
    try:
        InterfaceAddress(text)
    except ValueError:
        return False
    return True


class _Neighbour(NamedTuple):
    address: IpAddress
    mac: MacAddress
    age: int | None


def _neighbour(line: str, aged: bool) -> _Neighbour | None:
    """One line of the neighbour table; None for a failed entry and for what is none."""
    if (read := _NEIGHBOUR.match(line)) is None:
        return None
    try:
        address, mac = IpAddress(read[1]), MacAddress(read[2])
    except ValueError:
        return None
    if read[3].rstrip().endswith(_LIVE):
        return _Neighbour(address, mac, 0)
    ages = _AGES.search(read[3]) if aged else None
    return _Neighbour(address, mac, int(ages[1]) if ages else None)


class _Lease(NamedTuple):
    """`mac` None: an IPv6 lease, which names none."""

    mac: MacAddress | None
    address: IpAddress
    name: str | None


def _leases(line: str) -> Iterator[_Lease]:
    """The addresses that one line of a lease file gives away. Raises ValueError for what can't be a device's."""
    if read := _DNSMASQ.fullmatch(line):
        yield _Lease(MacAddress(read[1]), IpAddress(read[2]), hostname(read[3]))
    elif read := _ODHCPD.fullmatch(line):
        pairs = read[1].split(":") if ":" in read[1] else re.findall("..", read[1])
        mac = MacAddress(":".join(pair.zfill(2) for pair in pairs))
        yield _Lease(mac, IpAddress(str(ip_address(int(read[3], 16)))), hostname(read[2]))
    elif read := _DNSMASQ6.fullmatch(line):
        yield _Lease(None, IpAddress(read[1]), hostname(read[2]))
    elif read := _ODHCPD6.fullmatch(line):
        for each in read[2].split():
            yield _Lease(None, IpAddress(each.partition("/")[0]), hostname(read[1]))
    elif line.startswith("# ") or _ENDS.match(line):
        raise ValueError("no lease that we know")


def _sightings(
    found: Mapping[IpAddress, MacAddress], ages: Mapping[MacAddress, int | None], names: Mapping[MacAddress, str]
) -> Iterator[tuple[MacAddress, Sighting]]:
    of: dict[MacAddress, list[IpAddress]] = {mac: [] for mac in ages}
    for address, mac in found.items():
        of[mac].append(address)
    for mac, addresses in of.items():
        yield mac, Sighting(mac, tuple(sorted(addresses, key=rank)[:MOST_ADDRESSES]), names.get(mac), ages[mac])


def rank(address: IpAddress) -> tuple[int, int]:
    """The order in which people want to see a device's addresses: IPv4, global, unique local, link-local."""
    kind = 0 if address.version == 4 else 3 if address.link_local else 2 if address.unique_local else 1
    return kind, address.number
