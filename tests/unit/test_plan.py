"""The difference between what is and what should be, and that its undoing is its mirror."""

from dataclasses import replace
from itertools import permutations

import pytest

from tidegate.policy.desired import Place, Resources, desired
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.element import Element
from tidegate.policy.group import GroupId
from tidegate.policy.nftables import POLICED
from tidegate.policy.plan import Change, drift, in_words, plan
from tidegate.policy.router import Interfaces
from tidegate.policy.state import GroupState, Limit

HOME = Interfaces.of("br-lan", "wan")
CHILD = DeviceRef(MacAddress("02:00:5e:10:00:0b"), (IpAddress("192.168.1.11"), IpAddress("2001:db8::11")))
GUEST = DeviceRef(None, (IpAddress("192.168.1.12"),))


def group(number: int, *devices: DeviceRef, limit: Limit | None = None, active: bool = True) -> GroupState:
    return GroupState(GroupId(number), devices, limit, active)


def cut_off(number: int, *devices: DeviceRef, limit: Limit | None = None, active: bool = True) -> GroupState:
    return replace(group(number, *devices, limit=limit, active=active), block=True)


def holds(*groups: GroupState) -> Resources:
    return desired(groups, HOME, "bfifo")


def nft(change: Change) -> list[str]:
    return change.rules("br-lan")["nft"]


STATES = {
    "bare": Resources(),
    "base": holds(),
    "child": holds(group(1, CHILD, limit=Limit(20_000, 5_000))),
    "slower": holds(group(1, CHILD, limit=Limit(2_000, 5_000))),
    "free": holds(group(1, CHILD)),
    "moved": holds(group(10, CHILD, limit=Limit(20_000, 5_000))),
    "idle": holds(group(1, CHILD, limit=Limit(20_000, 5_000), active=False)),
    "guests": holds(group(0, limit=Limit(50_000, 50_000)), group(1, CHILD, GUEST, limit=Limit(20_000, 5_000))),
}
STATES["cut off"] = holds(cut_off(1, CHILD, limit=Limit(20_000, 5_000)))
STATES["guests cut off"] = holds(cut_off(0), group(1, CHILD, limit=Limit(20_000, 5_000)))
STATES["misled"] = replace(STATES["child"], elements=frozenset(e for e in STATES["child"].elements if e.map != "cls"))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_a_router_that_is_as_it_should_be_needs_nothing(state: Resources) -> None:
    change = plan(state, state)
    assert not change
    assert change.tc_put() == nft(change) == change.tc_remove() == []
    assert in_words(change, "br-lan") == ()
    assert drift(change) == ()


@pytest.mark.parametrize(("before", "after"), list(permutations(STATES, 2)))
def test_every_change_says_what_it_does_unless_nothing_differs(before: str, after: str) -> None:
    change = plan(STATES[before], STATES[after])
    assert bool(change) == (STATES[before] != STATES[after])
    sent = change.tc_put() + nft(change) + change.tc_remove()
    assert bool(sent) == bool(change) == bool(in_words(change, "br-lan")) == bool(drift(change))


@pytest.mark.parametrize(("before", "after"), list(permutations(STATES, 2)))
def test_a_class_is_there_before_a_rule_names_it_and_goes_after(before: str, after: str) -> None:
    change = plan(STATES[before], STATES[after])
    named = {element.value for element in STATES[after].elements if element.map == "cls"}
    standing = {place.minor for place in STATES[before].classes} | {place.minor for place in change.classes_put}
    assert {name.removeprefix("1:") for name in named} <= standing
    assert not any(f"classid {name}" in line for name in named for line in change.tc_remove())
    assert not any(line.startswith(("class del", "qdisc del dev br-lan root")) for line in change.tc_put())


def test_moving_a_device_is_one_transaction_that_takes_it_out_and_puts_it_in() -> None:
    change = plan(STATES["child"], STATES["moved"])
    lines = nft(change)
    out = lines.index("delete element inet tidegate mac_mark { 02:00:5e:10:00:0b }")
    assert out < lines.index("add element inet tidegate mac_mark { 02:00:5e:10:00:0b : 110 }")
    assert "02:00:5e:10:00:0b moves from group 1 to group 10" in in_words(change, "br-lan")


def test_the_class_of_group_10_is_written_110_everywhere() -> None:
    """tc and nft read the digits as hexadecimal: 1:110 is one class for both."""
    change = plan(STATES["base"], STATES["moved"])
    assert Place("wan", "110") in change.desired.classes
    assert any("classid 1:110 " in line for line in change.tc_put())
    assert "add element inet tidegate cls { 110 : 1:110 }" in nft(change)


def test_a_changed_limit_touches_only_that_class() -> None:
    change = plan(STATES["child"], STATES["slower"])
    assert nft(change) == change.tc_remove() == []
    assert all("dev br-lan" in line and "1:101" in line for line in change.tc_put())
    assert in_words(change, "br-lan") == ("group 1: download limit 2 Mbit/s, was 20 Mbit/s",)


def test_an_inactive_group_keeps_its_devices_and_loses_its_limit() -> None:
    assert STATES["idle"] == STATES["free"]


def test_closing_the_internet_is_one_element_and_says_so() -> None:
    change = plan(STATES["child"], STATES["cut off"])
    assert nft(change) == ["add element inet tidegate blocked { 101 }"]
    assert change.tc_put() == change.tc_remove() == []
    assert in_words(change, "br-lan") == ("group 1: the internet is closed to it",)
    back = plan(STATES["cut off"], STATES["child"])
    assert nft(back) == ["delete element inet tidegate blocked { 101 }"]
    assert in_words(back, "br-lan") == ("group 1: the internet is open to it again",)
    assert [remark.text for remark in drift(change)] == ["nft set blocked: 101 is missing"]


def test_an_inactive_group_is_not_cut_off() -> None:
    assert holds(cut_off(1, CHILD, active=False)) == STATES["free"]


def test_a_group_without_a_limit_and_the_guests_can_be_cut_off() -> None:
    assert holds(cut_off(3), cut_off(0)).elements == {Element("blocked", "100"), Element("blocked", "103")}


def test_a_table_with_changed_rules_is_made_anew_with_all_its_elements() -> None:
    seen = Resources(("rule in forward: accept",), frozenset(), STATES["child"].roots, STATES["child"].classes)
    change = plan(seen, STATES["child"])
    lines = nft(change)
    assert lines[:2] == ["table inet tidegate", "delete table inet tidegate"]
    added = [element for line in lines if line.startswith("add element") for element in line.split("{ ")[1].split(", ")]
    assert len(added) == len(STATES["child"].elements)
    assert next(remark.text for remark in drift(change)) == "nft table inet tidegate: its rules were changed"


def test_drift_names_every_place_and_whose_it_is() -> None:
    wanted = STATES["guests"]
    seen = Resources(
        wanted.rules,
        frozenset(e for e in wanted.elements if e.key != "192.168.1.12"),
        wanted.roots,
        {place: found for place, found in wanted.classes.items() if place != Place("wan", "100")},
    )
    remarks = drift(plan(seen, wanted))
    assert [(remark.group, remark.text) for remark in remarks] == [
        (1, "nft map ip_mark: 192.168.1.12 is missing"),
        (0, "tc wan class 1:100: is missing"),
    ]


def test_without_classes_a_limit_is_said_in_the_same_words() -> None:
    wanted = {kbit: desired([group(1, CHILD, limit=Limit(kbit, 5_000))], HOME, "", POLICED) for kbit in (20_000, 2_000)}
    assert not wanted[2_000].roots
    assert not wanted[2_000].classes
    bare = desired([], HOME, "", POLICED)
    assert in_words(plan(bare, wanted[20_000]), "br-lan")[:2] == (
        "group 1: download limit 20 Mbit/s",
        "group 1: upload limit 5 Mbit/s",
    )
    slower = plan(wanted[20_000], wanted[2_000])
    assert in_words(slower, "br-lan") == ("group 1: download limit 2 Mbit/s, was 20 Mbit/s",)
    assert nft(slower) == [
        "delete element inet tidegate police_down { 101 }",
        "delete limit inet tidegate down_101_20000",
        "add limit inet tidegate down_101_2000 { rate over 250000 bytes/second burst 65536 bytes }",
        'add element inet tidegate police_down { 101 : "down_101_2000" }',
    ]
    assert "group 1: upload limit 5 Mbit/s is lifted" in in_words(plan(wanted[2_000], bare), "br-lan")
