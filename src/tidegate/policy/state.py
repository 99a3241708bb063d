"""The router's state document: what a router is to do, kept on the router itself, so that any controller can take it up.

It holds numbers, addresses and limits, never a name or another word that a person typed (SEC-28). In JSON, one group per
line, so that it can be read and compared by eye; the first line carries the checksum (SHA-256) of every byte after it, so
that `tail -n +2 state.json | sha256sum` proves it with the router's own tools.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId, GroupSyncRequest
from tidegate.policy.router import Interfaces
from tidegate.policy.text import Text

SCHEMA = 1
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


class Damaged(ValueError):
    """Not a state document that we can trust; the text says what is wrong with it."""


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
class StateDocument:
    """`generation` rises by one with every change; `controller` is the id of the one that wrote this generation."""

    generation: int
    controller: ControllerId
    router: RouterName
    interfaces: Interfaces
    groups: tuple[GroupState, ...] = ()

    def group(self, group_id: GroupId) -> GroupState | None:
        return next((group for group in self.groups if group.id == group_id), None)


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
    """The document as it stands on the router."""
    place = document.interfaces
    body = (
        f'"generation": {document.generation}, "controller": {json.dumps(document.controller)},\n'
        f'"router": {json.dumps(document.router)}, "lan": {json.dumps(place.lan)}, "wan": {json.dumps(place.wan)},\n'
        '"groups": [\n' + ",\n".join(json.dumps(_group_to_json(group)) for group in document.groups) + "\n]}\n"
    )
    return f'{{"schema": {SCHEMA}, "checksum": "{_checksum(body)}",\n{body}'


def from_text(text: str) -> StateDocument:
    """Read a document back. Raises Damaged where a byte of it is not what was written, or where it is none of ours."""
    head, _, body = text.partition("\n")
    try:
        whole = json.loads(text)
        if not isinstance(whole, dict) or whole.get("schema") != SCHEMA:
            raise Damaged(f"the state document is of schema {whole.get('schema')!r}; this controller reads {SCHEMA}")
        if head != f'{{"schema": {SCHEMA}, "checksum": "{_checksum(body)}",':
            raise Damaged("the state document does not fit its checksum")
        groups = tuple(_group_from_json(group) for group in whole["groups"])
        if len({group.id for group in groups}) != len(groups):
            raise Damaged("the state document has a group twice")
        return StateDocument(
            generation=int(whole["generation"]),
            controller=ControllerId(whole["controller"]),
            router=RouterName(whole["router"]),
            interfaces=Interfaces.of(whole["lan"], whole["wan"]),
            groups=groups,
        )
    except Damaged:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"the state document can't be read: {type(error).__name__} {error}") from None


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()


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


def _group_from_json(value: dict[str, Any]) -> GroupState:
    limit = value.get("limit")
    return GroupState(
        id=GroupId(value["id"]),
        active=bool(value["active"]),
        devices=tuple(
            DeviceRef(MacAddress(d["mac"]) if d["mac"] else None, tuple(IpAddress(ip) for ip in d["ip"]))
            for d in value["devices"]
        ),
        limit=Limit(limit["down"], limit["up"], limit["burst"]) if limit else None,
        block=bool(value.get("block", False)),
    )
