"""The former service's state files as groups: what its modes meant, and that nothing hostile in them gets through."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.former import Unreadable, is_former, read_former
from tidegate.policy.group import GUESTS, BandwidthPolicy, GroupId, Mbps

PHONE, LAPTOP, TABLET = "02:00:5e:10:00:0b", "02:00:5e:10:00:0c", "192.168.1.30"
RATES = {"whitelist_full": "1000mbit", "whitelist_limited": "50mbit", "blacklist_limited": "512kbit"}


def modes(mode: str = "whitelist", **changes: Any) -> dict[str, Any]:
    devices = {"whitelist": [PHONE, {"mac": LAPTOP, "ip": "192.168.1.12"}], "blacklist": [TABLET]}
    return {"active_mode": mode, "rates": RATES, "devices": devices} | changes


def groups_file(**policies: Any) -> dict[str, Any]:
    plain = {"bandwidth_limit_mbps": 20, "blocked_categories": [], "blocked_sites": [], "allowed_sites_only": []}
    group = {
        "name": "Kids",
        "active": True,
        "device_count": 1,
        "devices": [{"ip": TABLET, "mac": PHONE}],
        "tc_class": "1:101",
        "mark_value": 101,
        "policies": {**plain, "block_all_internet": False, **policies},
        "infrastructure_created": True,
        "last_sync": None,
    }
    return {"groups": {"1": group}, "infrastructure": {"base_setup_complete": True}}


def read(value: Any) -> Any:
    return read_former(json.dumps(value))


def faults(value: Any) -> list[str]:
    with pytest.raises(Unreadable) as unreadable:
        read(value)
    return [fault.at for fault in unreadable.value.faults]


def test_in_whitelist_mode_the_listed_are_free_and_everybody_else_is_limited() -> None:
    found = read(modes())
    free = found.groups[GroupId(1)]
    assert free.devices == (
        DeviceRef(MacAddress(PHONE)),
        DeviceRef(MacAddress(LAPTOP), (IpAddress("192.168.1.12"),)),
    )
    assert free.bandwidth_policy is None
    assert found.groups[GUESTS].bandwidth_policy == BandwidthPolicy(Mbps(50))
    assert found.groups.keys() == {GUESTS, GroupId(1)}
    assert found.notes == ("the blacklist was not in force: its 1 devices are in Group 0, unless the other list has them",)


def test_the_whitelists_own_rate_holds_where_it_was_one() -> None:
    found = read(modes(rates={**RATES, "whitelist_full": "80mbit"}))
    assert found.groups[GroupId(1)].bandwidth_policy == BandwidthPolicy(Mbps(80))


def test_in_blacklist_mode_the_listed_are_limited_and_everybody_else_is_free() -> None:
    found = read(modes("blacklist"))
    slow = found.groups[GroupId(1)]
    assert slow.devices == (DeviceRef(None, (IpAddress(TABLET),)),)
    assert slow.bandwidth_policy == BandwidthPolicy(Mbps(0.512))
    assert found.groups.keys() == {GroupId(1)}


def test_without_a_mode_nobody_is_restricted_and_the_lists_are_kept() -> None:
    found = read(modes("none", rates={}))
    assert [(len(group.devices), group.active) for group in found.groups.values()] == [(2, False), (1, False)]


def test_a_file_without_rates_has_the_services_own() -> None:
    plain = {"active_mode": "whitelist", "devices": {"whitelist": [], "blacklist": []}}
    assert read(plain).groups[GUESTS].bandwidth_policy == BandwidthPolicy(Mbps(50))


def test_its_groups_keep_numbers_names_limits_and_blocks() -> None:
    found = read(groups_file(block_all_internet=True, blocked_sites=["example.org"]))
    kids = found.groups[GroupId(1)]
    assert (kids.name, kids.bandwidth_policy, kids.blocks) == ("Kids", BandwidthPolicy(Mbps(20)), True)
    assert kids.devices == (DeviceRef(MacAddress(PHONE), (IpAddress(TABLET),)),)
    assert found.notes == ("group 1: its blocked and allowed sites are not taken over",)


def test_every_fault_is_named_with_its_place() -> None:
    hostile = {"whitelist": ["02:00:5e:10:00:0b; reboot", 7, {"mac": "$(reboot)"}, {}, PHONE], "blacklist": "none"}
    assert faults(modes("off", rates={"whitelist_full": "fast"}, devices=hostile, more=1)) == [
        "",
        "active_mode",
        "rates/whitelist_full",
        "devices/whitelist/0",
        "devices/whitelist/1",
        "devices/whitelist/2/mac",
        "devices/whitelist/3",
        "devices/blacklist",
    ]
    twice = groups_file(bandwidth_limit_mbps=True, block_all_internet=1)
    twice["groups"]["2"] = {**groups_file()["groups"]["1"], "name": "x\ny"}
    twice["groups"]["-1"] = twice["groups"]["2"]
    assert faults(twice)[:5] == [
        "groups/1/policies/bandwidth_limit_mbps",
        "groups/1/policies/block_all_internet",
        "groups/2/name",
        "groups/2/devices",
        "groups/2/devices",
    ]


def test_a_device_of_both_lists_is_a_fault_only_where_both_would_be_groups() -> None:
    both = {"whitelist": [PHONE], "blacklist": [PHONE]}
    assert read(modes("whitelist", devices=both)).groups[GroupId(1)].devices
    assert faults(modes("none", devices=both)) == ["devices/blacklist"]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"active_mode": NaN}', "[" * 100_000, '{"groups": 1, "groups": 2}'])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_former(text)


def test_whatever_is_in_it_reading_ends_in_groups_or_faults() -> None:
    chance = Random(5)
    texts = [json.dumps(modes()), json.dumps(groups_file())]
    for _ in range(3_000):
        text = chance.choice(texts)
        at = chance.randrange(len(text))
        junk = chance.choice(['"', "{", "}", "[", ",", "null", "1e999", "-1", "\\u0000", "true", "'", "$(reboot)", ""])
        with suppress(Unreadable):
            read_former(text[:at] + junk + text[at + chance.randrange(4) :])


def test_tidegates_own_document_is_not_taken_for_one() -> None:
    assert not is_former({"schema": 2, "groups": []})
    assert is_former(modes())
    assert is_former(groups_file())
