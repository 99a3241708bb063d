"""The state files of the service that Tidegate follows (NetPilot), as groups.

Two were in use, each JSON in the router's /etc/config: `netpilot_state.json` with a mode for the whole network, and
`netpilot_groups_state.json` with groups of devices. Their fields are read from that project's public code
(`services/router_state_manager.py`, `services/mode_activation_service.py`, `managers/state_file_manager.py`). Whoever was on
the router's network could write to them, so they are read as strictly as anything from a stranger.

In whitelist mode everybody shared the limited rate but the listed devices; in blacklist mode nobody but those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidegate.errors import Fault
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.fields import Fields, parsed
from tidegate.policy.group import GUESTS, AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

DEVICES_LIMIT = 10_000
UNLIMITED = 1000.0  # Mbit/s: what its free class was given, and more than its routers could do
_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(k|m|g)bit", re.ASCII)
_RATES = {"whitelist_full": "1000mbit", "whitelist_limited": "50mbit", "blacklist_limited": "50mbit"}  # its own defaults
_MODES = ("none", "whitelist", "blacklist")
_GROUP = frozenset(
    ["name", "active", "device_count", "devices", "tc_class", "mark_value", "policies", "infrastructure_created", "last_sync"]
)
_SITES = ("blocked_categories", "blocked_sites", "allowed_sites_only")

Wanted = Mapping[GroupId, GroupSyncRequest]


class Unreadable(ValueError):
    """No state file of the former service, or not a sound one. `faults`: every place."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("this is no state file that can be taken over")
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Former:
    """What a file asks for: the groups, what kind of file it is, and what of it has no counterpart."""

    groups: Wanted
    source: str
    notes: tuple[str, ...] = ()


def is_former(value: Any) -> bool:
    """Whether this JSON claims to be one of the two."""
    return isinstance(value, dict) and ("active_mode" in value or ("groups" in value and "infrastructure" in value))


def read_former(text: str) -> Former:
    """Raises Unreadable."""
    try:
        value = parsed(text)
    except ValueError as error:
        raise Unreadable([Fault("", f"can't be read: {error}")]) from None
    fields = Fields()
    found = _modes(value, fields) if isinstance(value, dict) and "active_mode" in value else _groups(value, fields)
    if fields.faults:
        raise Unreadable(fields.faults)
    return found


# ── the mode of the whole network


def _modes(value: Any, fields: Fields) -> Former:
    top = fields.record(value, "", frozenset(["active_mode", "devices"]), frozenset(["rates"]))
    mode = top["active_mode"]
    if mode not in _MODES:
        fields.fault("active_mode", f"should be one of {', '.join(_MODES)}")
    rates = fields.record(top.get("rates", {}), "rates", frozenset(), frozenset(_RATES))
    full, limited, blacklisted = (_rate(rates.get(name, plain), f"rates/{name}", fields) for name, plain in _RATES.items())
    lists = fields.record(top["devices"], "devices", frozenset(["whitelist", "blacklist"]))
    white, black = (_listed(lists[each], f"devices/{each}", fields) for each in ("whitelist", "blacklist"))
    both = [device for device in black if device in white]
    free = GroupSyncRequest(Label("Whitelist"), white, None if full.limit_mbps >= UNLIMITED else full)
    slow = GroupSyncRequest(Label("Blacklist"), black, blacklisted)
    guests = GroupSyncRequest(Label("Guests"), (), limited)
    source = f"the former service's state file, mode {mode}"
    if mode == "whitelist":
        return Former({GUESTS: guests, GroupId(1): free}, source, _others("blacklist", black))
    if mode == "blacklist":
        return Former({GroupId(1): slow}, source, _others("whitelist", white))
    idle = {GroupId(1): replace(free, active=False), GroupId(2): replace(slow, active=False)}
    for device in both:
        fields.fault("devices/blacklist", f"{device.mac or device.ip[0]} is in the whitelist too")
    return Former(idle, source, ("no mode was in force, so both lists become groups that are not active",))


def _others(name: str, devices: tuple[DeviceRef, ...]) -> tuple[str, ...]:
    said = f"the {name} was not in force: its {len(devices)} devices are in Group 0, unless the other list has them"
    return (said,) if devices else ()


def _rate(value: Any, at: str, fields: Fields) -> BandwidthPolicy:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    rate = Mbps(1)
    if not match:
        fields.fault(at, "should be a rate such as 50mbit")
    else:
        number = float(match[1]) * {"k": 0.001, "m": 1.0, "g": 1000.0}[match[2]]
        rate = fields.made(lambda: Mbps(number), at) or rate
    return BandwidthPolicy(rate)


def _listed(value: Any, at: str, fields: Fields) -> tuple[DeviceRef, ...]:
    """Each entry is a MAC or an IP address, or an object with either or both; one that stands there twice counts once."""
    found: dict[DeviceRef, None] = {}
    for place, item in fields.items(value, at, DEVICES_LIMIT):
        if isinstance(item, dict):
            entry = fields.record(item, place, frozenset(), frozenset(["mac", "ip"]))
            device = _device(entry.get("mac"), entry.get("ip"), place, fields)
        elif isinstance(item, str) and re.fullmatch(MacAddress.PATTERN, item, re.ASCII):
            device = _device(item, None, place, fields)
        else:
            device = _device(None, item, place, fields)
        if device:
            found[device] = None
    return tuple(found)


def _device(mac: Any, ip: Any, at: str, fields: Fields) -> DeviceRef | None:
    own = fields.text(mac, f"{at}/mac", MacAddress) if mac else None
    address = fields.text(ip, f"{at}/ip" if mac else at, IpAddress) if ip else None
    if not mac and not ip:
        fields.fault(at, "should be a MAC or an IP address")
    return DeviceRef(own, (address,) if address else ()) if own or address else None


# ── groups


def _groups(value: Any, fields: Fields) -> Former:
    top = fields.record(value, "", frozenset(["groups", "infrastructure"]))
    groups: dict[GroupId, GroupSyncRequest] = {}
    notes: list[str] = []
    owners: dict[str, str] = {}
    entries = top["groups"] if isinstance(top["groups"], dict) else {}
    if not isinstance(top["groups"], dict) or len(entries) > 9900:
        fields.fault("groups", "should be an object of at most 9900 groups")
        entries = {}
    for number, entry in entries.items():
        at = f"groups/{number[:20]}"
        group = fields.text(number, at, GroupId)
        found = fields.record(entry, at, _GROUP)
        name = fields.text(found["name"], f"{at}/name", Label) or Label("?")
        active = fields.flag(found["active"], f"{at}/active")
        devices = _listed(found["devices"], f"{at}/devices", fields)
        for key in (str(key) for device in devices for key in (device.mac, *device.ip) if key):
            if owners.setdefault(key, number) != number:
                fields.fault(f"{at}/devices", f"{key} is in group {owners[key]} already")
        policies = fields.record(
            found["policies"], f"{at}/policies", frozenset(["bandwidth_limit_mbps", "block_all_internet", *_SITES])
        )
        limit, blocked = policies["bandwidth_limit_mbps"], policies["block_all_internet"]
        rate = None if limit is None else fields.whole(limit, f"{at}/policies/bandwidth_limit_mbps", 1, 100_000)
        access = AccessControlPolicy(True) if fields.flag(blocked, f"{at}/policies/block_all_internet") else None
        if any(policies[each] for each in _SITES):
            notes.append(f"group {number[:20]}: its blocked and allowed sites are not taken over")
        if group == GUESTS and devices:
            notes.append(f"group 0: its {len(devices)} devices need no list, it is everybody who is in no other group")
            devices = ()
        if group is not None:
            bandwidth = None if rate is None else BandwidthPolicy(Mbps(rate))
            groups[group] = GroupSyncRequest(name, devices, bandwidth, active, access_control_policy=access)
    return Former(groups, "the former service's groups file", tuple(notes))
