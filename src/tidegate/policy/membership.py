"""Whose a device is: device lists judged by themselves, against the router's network, and against each other.

This is the one place that says which lists can be: syncs of one group or many, plans, changes of a group's devices and
`verify_devices` all ask `judge`. A device has one owner. A group that can't be as asked stays as it is, with the devices that
it has; so one refusal may lead to another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.errors import Fault
from tidegate.policy.device import DeviceKey, DeviceRef
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.lan import Lan

MASS_FROM = 10
"""Devices in a group from which on the mass change guard holds: a class, an office. In a smaller group half of it is a few
phones, which one look at the answer shows."""


@dataclass(frozen=True, slots=True)
class MacChange:
    """A device that seems to be another's successor: it has its address or its name. Both are named as in a list: the MAC or,
    where none was known, the address."""

    before: str
    now: str


@dataclass(frozen=True, slots=True)
class DeviceChanges:
    """What differs between two device lists, each device as its MAC or, where none is known, its first address.

    `mac_changed`: a new MAC in the place of one that is gone, by the same address or the same name; or the MAC of a device
    that was known by its address alone. These are neither in `added` nor in `removed`.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    ip_changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    mac_changed: tuple[MacChange, ...] = ()


@dataclass(frozen=True, slots=True)
class MassChange:
    """More than half of a group's devices would leave it or be replaced: `changed` of `of`."""

    changed: int
    of: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The wish for one group. `place` is where its device list stands in the request ("body/devices"), `faults` what is wrong
    with the rest of it. `places`: where each device stands, if not there in its order."""

    group: GroupId
    request: GroupSyncRequest
    place: str = "body/devices"
    faults: tuple[Fault, ...] = ()
    places: tuple[str, ...] = ()

    def at(self, number: int) -> str:
        return self.places[number] if self.places else f"{self.place}/{number}"

    def named(self) -> Iterator[tuple[str, str]]:
        """Every MAC and address, with its place; those named twice too."""
        for number, device in enumerate(self.request.devices):
            if device.mac:
                yield str(device.mac), f"{self.at(number)}/mac"
            for at, address in enumerate(device.ip):
                yield str(address), f"{self.at(number)}/ip/{at}"


@dataclass(frozen=True, slots=True)
class Objection:
    """One thing in the way. `clash`: right in itself, but not as things are: `owner` has the device, or it is too much at once
    (`mass`)."""

    at: str
    why: str
    clash: bool = False
    device: str | None = None
    owner: GroupId | None = None
    mass: MassChange | None = None


Objections = Mapping[int, Sequence[Objection]]
Known = Mapping[GroupId, GroupSyncRequest]


def keys(request: GroupSyncRequest) -> Iterator[str]:
    """Every MAC and address of its devices."""
    for device in request.devices:
        if device.mac:
            yield str(device.mac)
        yield from map(str, device.ip)


def label(device: DeviceRef) -> str:
    """How a device is named to people: its MAC or, where none is known, its first address."""
    return str(device.mac or device.ip[0])


# ── what changes


def device_changes(before: Sequence[DeviceRef], after: Sequence[DeviceRef]) -> DeviceChanges:
    old = {label(device): device for device in before if device.mac or device.ip}
    new = {label(device): device for device in after if device.mac or device.ip}
    gone = {name: device for name, device in old.items() if name not in new}
    came = {name: device for name, device in new.items() if name not in old}
    both = [name for name in new if name in old]
    heirs = dict(_heirs(gone, came))
    return DeviceChanges(
        added=tuple(name for name in came if name not in heirs.values()),
        removed=tuple(name for name in gone if name not in heirs),
        ip_changed=tuple(name for name in both if set(old[name].ip) != set(new[name].ip)),
        unchanged=tuple(name for name in both if set(old[name].ip) == set(new[name].ip)),
        mac_changed=tuple(MacChange(*pair) for pair in heirs.items()),
    )


def _heirs(gone: Mapping[str, DeviceRef], came: Mapping[str, DeviceRef]) -> Iterator[tuple[str, str]]:
    """Whoever came with a MAC and the address or name of one that is gone."""
    left: dict[str, str] = {}
    for name, device in gone.items():
        for mark in (*map(str, device.ip), *([f"name {device.name}"] if device.name else ())):
            left.setdefault(mark, name)
    taken: set[str] = set()
    for name, device in came.items():
        marks = (*map(str, device.ip), *([f"name {device.name}"] if device.name else ())) if device.mac else ()
        if heir := next((left[mark] for mark in marks if mark in left and left[mark] not in taken), None):
            taken.add(heir)
            yield heir, name


def mass_change(before: Sequence[DeviceRef], after: Sequence[DeviceRef]) -> MassChange | None:
    """Whether this is more at once than should pass unasked. Devices that join do not count: a group is filled in steps. Nor
    does it count that the MAC of a device becomes known."""
    if len(before) < MASS_FROM:
        return None
    changes = device_changes(before, after)
    by_mac = {str(device.mac) for device in before if device.mac}
    changed = len(changes.removed) + sum(change.before in by_mac for change in changes.mac_changed)
    return MassChange(changed, len(before)) if changed * 2 > len(before) else None


def rearranged(
    group: GroupId,
    known: Known,
    *,
    devices: Sequence[DeviceRef] | None = None,
    add: Sequence[DeviceRef] = (),
    remove: Sequence[DeviceKey] = (),
    move: bool = False,
    confirmed: bool = False,
) -> tuple[Asked, ...]:
    """The wishes that give a group other devices and leave all else as it is: its own first, then those of the groups that
    lose devices to it (with `move`). `devices` are all that it shall have; or some are to `add` (in place of what it has under
    the same MAC) and to `remove`."""
    request = known[group]
    faults: list[Fault] = []
    places: list[str] = []
    coming = tuple(add if devices is None else devices)
    kept: list[DeviceRef] = []
    if devices is None:
        has = set(keys(request))
        for number, key in enumerate(remove):
            if key not in has:
                faults.append(Fault(f"body/remove/{number}", f"group {int(group)} ({request.name}) has no device {key}"))
        replaced = {str(device.mac) for device in coming if device.mac}
        kept = [each for each in request.devices if not _named(each, remove) and str(each.mac) not in replaced]
        places = [f"the group's device {number}" for number in range(len(kept))]
        places += [f"body/add/{number}" for number in range(len(coming))]
    wanted = replace(request, devices=(*kept, *coming), confirm_mass_change=confirmed)
    asked = [Asked(group, wanted, faults=tuple(faults), places=tuple(places))]
    if move:
        taken = set(keys(wanted))
        for other, theirs in known.items():
            if other != group and taken & set(keys(theirs)):
                left = tuple(stripped for each in theirs.devices if (stripped := _without(each, taken)))
                asked.append(Asked(other, replace(theirs, devices=left, confirm_mass_change=confirmed)))
    return tuple(asked)


def _named(device: DeviceRef, wanted: Collection[str]) -> bool:
    return str(device.mac) in wanted or any(address in wanted for address in device.ip)


def _without(device: DeviceRef, taken: Collection[str]) -> DeviceRef | None:
    """What is left of an entry when others take these: nothing where its MAC goes, or the last address that it went by."""
    if device.mac and device.mac in taken:
        return None
    left = tuple(address for address in device.ip if address not in taken)
    return replace(device, ip=left) if left or device.mac else None


# ── what can be


def judge(asked: Sequence[Asked], known: Known, lan: Lan | None, *, atomic: bool = True) -> Objections:
    """What is in the way of each wish, by its number; what is not named can be.

    `known`: the groups as they are. `lan`: the router's network, where it is known. Of wishes that are not `atomic`, those
    that can't be as asked are out of the way of the others, but keep what their groups have.
    """
    return _Judging(asked, known, lan, atomic).objections()


class _Judging:
    def __init__(self, asked: Sequence[Asked], known: Known, lan: Lan | None, atomic: bool) -> None:
        self._asked = asked
        self._known = known
        self._lan = lan
        self._atomic = atomic
        self._found: dict[int, list[Objection]] = {}
        self._first: dict[GroupId, int] = {}

    def objections(self) -> Objections:
        self._each_by_itself()
        self._each_among_the_others()
        return self._found

    def _each_by_itself(self) -> None:
        for number, wish in enumerate(self._asked):
            found = list(self._in_itself(wish))
            if (earlier := self._first.setdefault(wish.group, number)) != number:
                group, first = wish.place.removesuffix("/devices"), self._asked[earlier].place.removesuffix("/devices")
                found.insert(0, Objection(f"{group}/group", f"group {int(wish.group)} is named already, at {first}"))
            if found:
                self._found[number] = found

    def _in_itself(self, wish: Asked) -> Iterator[Objection]:
        if wish.group == GUESTS and wish.request.devices:
            yield Objection(wish.place, "Group 0 is every device that is in no other group; it takes no list")
        for number, device in enumerate(wish.request.devices):
            if not device.mac and not device.ip:
                yield Objection(wish.at(number), "a device is named by its mac, by ip addresses, or by both")
        first: dict[str, str] = {}
        for key, at in wish.named():
            if first.setdefault(key, at) != at:
                yield Objection(at, f"{key} is named already, at {first[key]}")
        yield from self._on_the_network(wish)
        yield from (Objection(fault.at, fault.why) for fault in wish.faults)
        before = self._known.get(wish.group)
        if before and not wish.request.confirm_mass_change and (mass := mass_change(before.devices, wish.request.devices)):
            yield Objection(
                wish.place,
                f"{mass.changed} of the {mass.of} devices of group {int(wish.group)} ({before.name}) would leave it or be "
                "replaced: confirm the mass change (confirm_mass_change) if that is meant",
                clash=True,
                mass=mass,
            )

    def _on_the_network(self, wish: Asked) -> Iterator[Objection]:
        """What a group has already is not asked again: a network that was renumbered must not stop a change of policy."""
        if self._lan is None:
            return
        has = set(keys(self._known[wish.group])) if wish.group in self._known else set()
        for number, device in enumerate(wish.request.devices):
            if device.mac and device.mac == self._lan.mac:
                yield Objection(f"{wish.at(number)}/mac", f"{device.mac} is the router itself")
            for at, address in enumerate(device.ip):
                if address not in has and (why := self._lan.objection(address)):
                    yield Objection(f"{wish.at(number)}/ip/{at}", why)

    def _each_among_the_others(self) -> None:
        """Devices have one owner: a group that stays as it is before one that is to be changed, then who is named first."""
        named = {wish.group for wish in self._asked}
        owner = {key: group for group, request in self._known.items() if group not in named for key in keys(request)}
        claims: dict[str, tuple[int, str]] = {}
        refused = list(self._found)
        for number, wish in enumerate(self._asked):
            if number in self._found and not self._atomic:
                continue
            for key, place in dict(_firsts(wish.named())).items():
                if key in owner:
                    self._refuse(number, self._taken(place, key, owner[key]), refused)
                elif key in claims and claims[key][0] != number:
                    self._refuse(number, Objection(place, f"{key} is named already, at {claims[key][1]}"), refused)
                else:
                    claims[key] = number, place
        while refused and not self._atomic:
            group = self._asked[refused.pop()].group
            if self._first[group] not in self._found:
                continue  # named twice, and the first of the two stands
            for key in keys(self._known[group]) if group in self._known else ():
                number, place = claims.get(key, (-1, ""))
                if number >= 0 and self._asked[number].group != group and number not in self._found:
                    self._refuse(number, self._taken(place, key, group), refused)

    def _taken(self, place: str, key: str, owner: GroupId) -> Objection:
        why = f"{key} belongs to group {int(owner)} ({self._known[owner].name})"
        return Objection(place, why, clash=True, device=key, owner=owner)

    def _refuse(self, number: int, objection: Objection, refused: list[int]) -> None:
        if number not in self._found:
            refused.append(number)
        self._found.setdefault(number, []).append(objection)


def _firsts(found: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for key, place in found:
        if key not in seen:
            seen.add(key)
            yield key, place
