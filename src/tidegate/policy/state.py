"""The router's state document: what a router is to do, kept on the router itself, so that any controller can take it up.

It holds numbers, addresses and limits, never a name or another word that a person typed (SEC-28). In JSON, one group per
line, so that it can be read and compared by eye; the first line is the checksum (SHA-256) of every byte after it, so that
`tail -n +2 state.json | sha256sum` proves it with the router's own tools. `docs/state.md` tells it field by field.

What is read is untrusted: nothing is believed that does not fit its checksum, has a field that nobody knows or a value of
another type. Documents of older versions are brought forward (`migrations.py`), one of a later version is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from tidegate.errors import Fault
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.fields import Fields, parsed
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.migrations import SCHEMA, forward
from tidegate.policy.router import InterfaceName, Interfaces
from tidegate.policy.text import Text

SIZE_LIMIT = 16 << 20  # characters of a document that is looked at at all: 9,900 groups of 10 devices are 9 million
DEVICES_LIMIT = 100_000  # in one group
ADDRESSES_LIMIT = 1_000  # of one device
# tc hands a burst over as time at the limit's rate, in whole microseconds of at most 274 seconds: above this rate a KiB
# is less than its grain, and longer it can't be.
BURST_KBIT = 1_000_000
BURST_SECONDS = 100


class ControllerId(Text):
    """Who wrote a document: made once by each controller."""

    PATTERN = r"[0-9a-f]{16}"
    EXPECTS = "a controller's id: 16 hex digits"


class RouterName(Text):
    """What the controller calls this router."""

    PATTERN = r"[a-z0-9][a-z0-9-]{0,31}"
    EXPECTS = "a router's id: 1 to 32 lower case letters, digits and dashes"


class Moment(Text):
    """A moment of the controller's clock, in UTC, to the second."""

    PATTERN = r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z"
    EXPECTS = "a moment in UTC such as 2026-11-22T22:15:00Z"


class Sha256(Text):
    """A SHA-256 sum."""

    PATTERN = r"[0-9a-f]{64}"
    EXPECTS = "a SHA-256 sum: 64 hex digits"


class Damaged(ValueError):
    """Not a state document that we can trust; the text says what is wrong with it. `faults`: each place, where it is whole."""

    def __init__(self, why: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(why)
        self.faults = tuple(faults)


class Newer(ValueError):
    """A whole document of a schema that a later Tidegate writes: not ours to judge, nor to overwrite."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a capped group may use, in kbit/s. `burst_kib`: KiB that it may download at once after a quiet time."""

    download_kbit: int
    upload_kbit: int
    burst_kib: int | None = None

    def __post_init__(self) -> None:
        if not all(64 <= rate <= 100_000_000 for rate in (self.download_kbit, self.upload_kbit)):
            raise ValueError("a limit is from 64 kbit/s to 100 Gbit/s")
        if self.burst_kib is not None:
            if not 4 <= self.burst_kib <= self.download_kbit * 125 * BURST_SECONDS // 1024 + 4:
                raise ValueError("a burst is from 4 KiB to what the limit lets through in 100 s")
            if self.download_kbit > BURST_KBIT:
                raise ValueError("a burst is for limits up to 1 Gbit/s")


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group as the router knows it. `limit` and `block` are what its policies ask for; one that is inactive is free."""

    id: GroupId
    devices: tuple[DeviceRef, ...] = ()
    limit: Limit | None = None
    active: bool = True
    block: bool = False

    @property
    def effective(self) -> Limit | None:
        """The limit that holds now."""
        return self.limit if self.active else None

    @property
    def cut_off(self) -> bool:
        """Whether the internet is closed to it now."""
        return self.block and self.active


@dataclass(frozen=True, slots=True)
class AuditAnchor:
    """The newest entry of the controller's audit trail and its hash, which seals all before it: an end of the trail that was
    cut off later, or an older copy of it, shows against it (SEC-41)."""

    number: int
    hash: Sha256


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the controller notes in a document beside its content: when it wrote it, and where its audit trail ended then."""

    written: Moment | None = None
    audit: AuditAnchor | None = None


@dataclass(frozen=True, slots=True)
class StateDocument:
    """`generation` rises by one with every change; `controller` is the id of the one that wrote this generation."""

    generation: int
    controller: ControllerId
    router: RouterName
    interfaces: Interfaces
    groups: tuple[GroupState, ...] = ()
    stamp: Stamp = Stamp()

    def group(self, group_id: GroupId) -> GroupState | None:
        return next((group for group in self.groups if group.id == group_id), None)


@lru_cache(1 << 14)
def group_state(group_id: GroupId, wish: GroupSyncRequest) -> GroupState:
    """The part of a wish that a router is told: everything but names.

    A burst of B Mbit/s above a limit of L lets the group go at B for about the first second after a quiet time: (B - L) of
    one second are kept as tokens.
    """
    policy, limit = wish.bandwidth_policy, None
    if policy and policy.active:
        burst = None
        if policy.burst_mbps and policy.burst_mbps > policy.limit_mbps:
            burst = max(4, round((policy.burst_mbps.kbit - policy.limit_mbps.kbit) * 125 / 1024))
        limit = Limit(policy.limit_mbps.kbit, policy.upload.kbit, burst)
    devices = (DeviceRef(device.mac, tuple(sorted(device.ip))) for device in wish.devices)
    return GroupState(group_id, tuple(sorted(devices, key=lambda d: (d.mac or "", d.ip))), limit, wish.active, wish.blocks)


def to_text(document: StateDocument) -> str:
    """The document as it stands on the router. The agent reads generation, controller and interfaces off its lines 2 and 3."""
    place, stamp = document.interfaces, document.stamp
    audit = {"number": stamp.audit.number, "hash": stamp.audit.hash} if stamp.audit else None
    body = (
        f'"schema": {SCHEMA}, "generation": {document.generation}, "controller": {json.dumps(document.controller)},\n'
        f'"router": {json.dumps(document.router)}, "lan": {json.dumps(place.lan)}, "wan": {json.dumps(place.wan)},\n'
        f'"written": {json.dumps(stamp.written)}, "audit": {json.dumps(audit)},\n'
        '"groups": [\n' + ",\n".join(map(_line_of, document.groups)) + "\n]}\n"
    )
    return f'{{"checksum": "{_checksum(body)}",\n{body}'


_HEAD = re.compile(r'\{(?P<first>"schema": 1, )?"checksum": "(?P<sum>[0-9a-f]{64})",', re.ASCII)


def from_text(text: str) -> StateDocument:
    """Read a document of this version or an older one. Raises Damaged where a byte of it is not what was written, or where it
    is none of ours; Newer."""
    head, _, body = text.partition("\n")
    sealed = _HEAD.fullmatch(head)
    if len(text) > SIZE_LIMIT:
        raise Damaged(f"the state document can't be read: it is larger than {SIZE_LIMIT >> 20} MiB")
    if not sealed:
        raise Damaged("the state document can't be read: its first line is not the one with the checksum")
    if sealed["sum"] != _checksum(body):
        raise Damaged("the state document does not fit its checksum")
    try:
        whole = parsed(text)
        schema = whole["schema"]
    except (ValueError, KeyError) as error:
        raise Damaged(f"the state document can't be read: {error}") from None
    if type(schema) is not int or schema < 1 or (schema == 1) != bool(sealed["first"]):
        raise Damaged(f"the state document can't be read: there is no schema {str(schema)[:40]}")
    if schema > SCHEMA:
        raise Newer(f"the state document is of schema {schema}, of a later Tidegate; this controller reads up to {SCHEMA}")
    fields = Fields()
    document = _document(forward(whole, schema), fields)
    if document is None:
        first = fields.faults[0]
        raise Damaged(f"the state document can't be read: {first.at or 'it'} {first.why}", fields.faults)
    return document


def _checksum(body: str) -> str:
    return sha256(body.encode(errors="surrogatepass")).hexdigest()


@lru_cache(1 << 14)
def _line_of(group: GroupState) -> str:
    return json.dumps(_group_to_json(group))


def _group_to_json(group: GroupState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": int(group.id),
        "active": group.active,
        "devices": [{"mac": d.mac, "ip": list(d.ip)} for d in group.devices],
    }
    if limit := group.limit:
        found["limit"] = {"down": limit.download_kbit, "up": limit.upload_kbit, "burst": limit.burst_kib}
    if group.block:
        found["block"] = True
    return found


_TOP = frozenset(["schema", "checksum", "generation", "controller", "router", "lan", "wan", "written", "audit", "groups"])
_AUDIT = frozenset(["number", "hash"])
_GROUP = frozenset(["id", "active", "devices"])
_GROUP_MAY = frozenset(["limit", "block"])
_DEVICE = frozenset(["mac", "ip"])
_LIMIT = frozenset(["down", "up", "burst"])
_KBIT_LIMIT = 100_000_000
_NUMBER_LIMIT = (1 << 53) - 1


def _document(value: Any, fields: Fields) -> StateDocument | None:
    top = fields.record(value, "", _TOP)
    generation = fields.whole(top["generation"], "generation", 1, _NUMBER_LIMIT)
    controller = fields.text(top["controller"], "controller", ControllerId)
    router = fields.text(top["router"], "router", RouterName)
    lan, wan = (fields.text(top[each], each, InterfaceName) for each in ("lan", "wan"))
    written = None if top["written"] is None else fields.text(top["written"], "written", Moment)
    audit = None if top["audit"] is None else _audit(top["audit"], fields)
    owners: dict[str, int] = {}
    groups = tuple(_group(group, at, owners, fields) for at, group in fields.items(top["groups"], "groups", 9900))
    known = tuple(group for group in groups if group)
    if len({group.id for group in known}) != len(known):
        fields.fault("groups", "has a group twice")
    if fields.faults or not (controller and router and lan and wan):
        return None
    return StateDocument(generation, controller, router, Interfaces(lan, wan), known, Stamp(written, audit))


def _audit(value: Any, fields: Fields) -> AuditAnchor | None:
    found = fields.record(value, "audit", _AUDIT)
    number = fields.whole(found["number"], "audit/number", 0, _NUMBER_LIMIT)
    seal = fields.text(found["hash"], "audit/hash", Sha256)
    return AuditAnchor(number, seal) if seal else None


def _group(value: Any, at: str, owners: dict[str, int], fields: Fields) -> GroupState | None:
    """`owners`: the group of each MAC and address so far, this one's devices to be added."""
    found = fields.record(value, at, _GROUP, _GROUP_MAY)
    number = fields.whole(found["id"], f"{at}/id", 0, 9899)
    active = fields.flag(found["active"], f"{at}/active")
    block = fields.flag(found.get("block", False), f"{at}/block")
    limit = _limit(found["limit"], f"{at}/limit", fields) if "limit" in found else None
    devices = [_device(*device, fields) for device in fields.items(found["devices"], f"{at}/devices", DEVICES_LIMIT)]
    if number == GUESTS and devices:
        fields.fault(f"{at}/devices", "Group 0 is every device that is in no other group; it has no list")
    for device in devices:
        for key in (device.mac, *device.ip) if device else ():
            if key and owners.setdefault(key, number) != number:
                fields.fault(f"{at}/devices", f"{key} is in group {owners[key]} already")
    known = tuple(device for device in devices if device)
    return None if fields.faults else GroupState(GroupId(number), known, limit, active, block)


def _limit(value: Any, at: str, fields: Fields) -> Limit | None:
    found = fields.record(value, at, _LIMIT)
    down, up = (fields.whole(found[each], f"{at}/{each}", 64, _KBIT_LIMIT) for each in ("down", "up"))
    burst = None if found["burst"] is None else fields.whole(found["burst"], f"{at}/burst", 4, _NUMBER_LIMIT)
    return None if fields.faults else fields.made(lambda: Limit(down, up, burst), at)


def _device(at: str, value: Any, fields: Fields) -> DeviceRef | None:
    if sound := _sound_device(value):
        return sound
    found = fields.record(value, at, _DEVICE)
    mac = None if found["mac"] is None else fields.text(found["mac"], f"{at}/mac", MacAddress)
    addresses = [fields.text(ip, place, IpAddress) for place, ip in fields.items(found["ip"], f"{at}/ip", ADDRESSES_LIMIT)]
    if not mac and not addresses:
        fields.fault(at, "a device is named by its mac, by ip addresses, or by both")
    return None if fields.faults else DeviceRef(mac, tuple(address for address in addresses if address))


def _sound_device(value: Any) -> DeviceRef | None:
    """The same where nothing is wrong, in a third of the time: documents have ten thousand. None leaves it to be told why."""
    if type(value) is not dict or value.keys() != _DEVICE:
        return None
    mac, addresses = value["mac"], value["ip"]
    if not (mac is None or type(mac) is str) or type(addresses) is not list or len(addresses) > ADDRESSES_LIMIT:
        return None
    if not (mac or addresses) or not all(type(address) is str for address in addresses):
        return None
    try:
        return DeviceRef(None if mac is None else MacAddress(mac), tuple(IpAddress(address) for address in addresses))
    except ValueError:
        return None
