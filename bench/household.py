"""Who is on the bench's network: groups of ten devices, one of them real, and what is wished for them."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.lab import Client
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupSyncRequest, Mbps

SIZE = 10  # devices in a group


@dataclass(frozen=True, slots=True)
class Device:
    mac: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a group is to be: the same words for either way of doing it."""

    group: int
    mbps: int
    devices: tuple[Device, ...]

    @property
    def traffic_class(self) -> str:
        return f"1:{100 + self.group}"

    @property
    def request(self) -> GroupSyncRequest:
        """As Tidegate is asked for it: each device by its MAC and, as the fallback, both addresses."""
        refs = (DeviceRef(MacAddress(d.mac), (IpAddress(d.ipv4), IpAddress(d.ipv6))) for d in self.devices)
        limit = BandwidthPolicy(Mbps(self.mbps))
        return GroupSyncRequest(Label(f"Group {self.group}"), tuple(refs), limit, confirm_mass_change=True)


def device(group: int, number: int) -> Device:
    """A device that is on no cable, but has its rules as any other: twenty IPv4 addresses of the lab for each of 11 groups."""
    return Device(
        f"02:00:00:00:{group:02x}:{number:02x}",
        f"192.168.1.{20 * group + number % 20}",
        f"2001:db8:1::{group:x}:{number + 1:x}",
    )


def real(client: Client) -> Device:
    """A device of the lab, whose packets can be measured."""
    return Device(client.mac, client.ipv4, client.ipv6)


def wish(group: int, mbps: int, *, first: int = 0, of: tuple[Device, ...] = (), size: int = SIZE) -> Wish:
    """A group of that size: those real devices, filled up with others from number `first` on."""
    made = tuple(device(group, first + number) for number in range(size - len(of)))
    return Wish(group, mbps, of + made)
