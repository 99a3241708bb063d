"""What is known of a network's devices, and what is new about them after the router was asked again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tidegate.policy.device import IpAddress, Label, MacAddress
from tidegate.policy.neighbours import Neighbourhood, Sighting

GRAIN = timedelta(minutes=1)
"""Of `last_seen`: less than that is not worth a write to the disk."""
STRANGERS_KEPT = timedelta(days=30)
"""How long a made-up address is remembered that nobody named or put into a group: phones make up new ones all the time."""
MOST_KNOWN = 20_000
"""Devices of one router. Beyond that, strangers that were not heard of for longest are forgotten: MAC addresses cost an
attacker nothing."""


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """`ip` and `hostname` as they were last heard; `name` as people call it. `first_seen` None: it was never met, only named;
    `last_seen` None: only a lease tells of it."""

    mac: MacAddress
    ip: tuple[IpAddress, ...]
    hostname: str | None
    name: Label | None
    first_seen: datetime | None
    last_seen: datetime | None

    @property
    def heard(self) -> datetime:
        """When it last gave a sign of itself."""
        return self.last_seen or self.first_seen or datetime.min.replace(tzinfo=UTC)

    @property
    def ipv4(self) -> tuple[IpAddress, ...]:
        return tuple(address for address in self.ip if address.version == 4)


@dataclass(frozen=True, slots=True)
class News:
    """`moved`: before and now of devices whose IPv4 address is another; IPv6 privacy addresses change every day, and are only
    noted. `written`: all whose record is another now; `forgotten`: who is to be remembered no longer."""

    new: tuple[KnownDevice, ...]
    moved: tuple[tuple[KnownDevice, KnownDevice], ...]
    written: tuple[KnownDevice, ...]
    forgotten: tuple[MacAddress, ...]


def news(
    known: Mapping[MacAddress, KnownDevice], around: Neighbourhood, now: datetime, grouped: Collection[MacAddress]
) -> News:
    """`grouped`: who is in a group, and so never forgotten."""
    new: list[KnownDevice] = []
    moved: list[tuple[KnownDevice, KnownDevice]] = []
    written: list[KnownDevice] = []
    for mac, sighting in around.devices.items():
        seen = None if sighting.age is None else now - timedelta(seconds=sighting.age)
        before = known.get(mac)
        if before is None or before.first_seen is None:
            new.append(KnownDevice(mac, sighting.ip, sighting.hostname, before.name if before else None, now, seen))
            continue
        after = _updated(before, sighting, seen)
        if after.ipv4 != before.ipv4:
            moved.append((before, after))
        if after != before:
            written.append(after)
    everybody = {**known, **{device.mac: device for device in (*written, *new)}}
    forgotten = _forgotten(everybody.values(), now, {*grouped, *around.devices})
    return News(tuple(new), tuple(moved), (*new, *written), forgotten)


def _updated(before: KnownDevice, sighting: Sighting, seen: datetime | None) -> KnownDevice:
    later = seen is not None and (before.last_seen is None or seen - before.last_seen >= GRAIN)
    return replace(
        before,
        ip=sighting.ip or before.ip,
        hostname=sighting.hostname or before.hostname,
        last_seen=seen if later else before.last_seen,
    )


def _forgotten(known: Iterable[KnownDevice], now: datetime, kept: Collection[MacAddress]) -> tuple[MacAddress, ...]:
    strangers = sorted((each for each in known if each.name is None and each.mac not in kept), key=lambda each: each.heard)
    surplus = len(strangers) + len(kept) - MOST_KNOWN
    return tuple(
        each.mac
        for place, each in enumerate(strangers)
        if place < surplus or (each.mac.random and now - each.heard > STRANGERS_KEPT)
    )


# ── addresses that groups go by


@dataclass(frozen=True, slots=True)
class AddressHolder:
    """Who has an address that a group names without a MAC: `mac`, and since `moved_at` in place of `before`."""

    mac: MacAddress
    before: MacAddress | None = None
    moved_at: datetime | None = None


def holders(known: Iterable[KnownDevice]) -> dict[IpAddress, MacAddress]:
    """Whose each address is, as far as that was heard: of two that had it, the one that was heard last."""
    return {address: each.mac for each in sorted(known, key=lambda each: each.heard) for address in each.ip}


def held(
    named: Collection[IpAddress],
    before: Mapping[IpAddress, AddressHolder],
    now_has: Mapping[IpAddress, MacAddress],
    now: datetime,
) -> dict[IpAddress, AddressHolder]:
    """Who holds the addresses that groups name, after it was heard who has which."""
    found: dict[IpAddress, AddressHolder] = {}
    for address in named:
        was, mac = before.get(address), now_has.get(address)
        if mac is not None and was is not None and was.mac != mac:
            found[address] = AddressHolder(mac, was.mac, now)
        elif was is not None:
            found[address] = was
        elif mac is not None:
            found[address] = AddressHolder(mac)
    return found
