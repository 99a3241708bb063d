"""What is worth knowing about a group's device list and is no fault of it: what discovery has shown of its devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.known import AddressHolder, KnownDevice, holders

Kind = Literal["mac_known", "address_moved", "other_mac", "ip_changed", "random_mac"]


@dataclass(frozen=True, slots=True)
class DeviceHint:
    """`at` is the entry's place, `device` what it is named by, `mac` the MAC that the hint is about.

    `mac_known`: an entry without a MAC whose MAC is known now. `address_moved`: its address has gone over to another device.
    `other_mac`: an address of an entry with a MAC is some other device's. `ip_changed`: the device has another IPv4 address
    now. `random_mac`: the device made its MAC up, and is a guest as soon as it makes up another.
    """

    at: str
    kind: Kind
    device: str
    mac: MacAddress
    why: str


def hints(
    devices: Sequence[DeviceRef],
    known: Mapping[MacAddress, KnownDevice],
    moved: Mapping[IpAddress, AddressHolder],
    place: str = "body/devices",
) -> Iterator[DeviceHint]:
    has = holders(known.values())
    for number, device in enumerate(devices):
        at = f"{place}/{number}"
        if device.mac is None:
            yield from _by_address(device, at, known, has, moved)
        else:
            yield from _by_mac(device, device.mac, at, known, has)


def _by_address(
    device: DeviceRef,
    at: str,
    known: Mapping[MacAddress, KnownDevice],
    has: Mapping[IpAddress, MacAddress],
    moved: Mapping[IpAddress, AddressHolder],
) -> Iterator[DeviceHint]:
    offered: set[MacAddress] = set()
    for place, address in enumerate(device.ip):
        holder = moved.get(address)
        if holder and holder.before:
            why = f"{address} was {_called(holder.before, known)}, and is {_called(holder.mac, known)} now: who is meant?"
            yield DeviceHint(f"{at}/ip/{place}", "address_moved", str(address), holder.mac, why)
        elif (mac := has.get(address)) and mac not in offered:
            offered.add(mac)
            why = f"{address} is {_called(mac, known)}: name it by its MAC, and its group holds whatever its address"
            yield DeviceHint(at, "mac_known", str(address), mac, why)


def _by_mac(
    device: DeviceRef, mac: MacAddress, at: str, known: Mapping[MacAddress, KnownDevice], has: Mapping[IpAddress, MacAddress]
) -> Iterator[DeviceHint]:
    met = known.get(mac)
    for place, address in enumerate(device.ip):
        other = has.get(address)
        if other and other != mac:
            why = f"{address} is {_called(other, known)}, not {mac}"
            yield DeviceHint(f"{at}/ip/{place}", "other_mac", str(mac), other, why)
        elif address.version == 4 and met and met.ipv4 and address not in met.ip:
            why = f"{_called(mac, known)} has {met.ipv4[0]} now, not {address}"
            yield DeviceHint(f"{at}/ip/{place}", "ip_changed", str(mac), mac, why)
    if mac.random:
        why = f"{mac} is made up by the device: if it makes up another, that one is a guest. Its settings can turn that off"
        yield DeviceHint(f"{at}/mac", "random_mac", str(mac), mac, why)


def _called(mac: MacAddress, known: Mapping[MacAddress, KnownDevice]) -> str:
    met = known.get(mac)
    name = (met.name or met.hostname) if met else None
    return f"{mac} ({name})" if name else str(mac)
