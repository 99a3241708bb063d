"""Whose a device is: what may be listed, who owns what already, and what is too much at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.daemon.wishes import refuse
from tidegate.errors import Conflict, Invalid
from tidegate.policy.device import DeviceKey, DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import GUESTS, GroupId, GroupSyncRequest
from tidegate.policy.hints import hints
from tidegate.policy.known import AddressHolder, KnownDevice, held
from tidegate.policy.lan import InterfaceAddress, Lan
from tidegate.policy.membership import (
    MASS_FROM,
    Asked,
    MacChange,
    Objection,
    device_changes,
    judge,
    keys,
    mass_change,
    rearranged,
)

KIDS, PARENTS = GroupId(1), GroupId(2)
LAN = Lan(MacAddress("02:00:5e:10:00:01"), (InterfaceAddress("192.168.1.1/24"), InterfaceAddress("2001:db8:1::1/64")))
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def mac(number: int) -> MacAddress:
    return MacAddress(f"00:11:22:33:44:{number:02x}")


def device(number: int, *ip: str, name: str | None = None) -> DeviceRef:
    return DeviceRef(mac(number), tuple(map(IpAddress, ip)), Label(name) if name else None)


def address(*ip: str) -> DeviceRef:
    return DeviceRef(None, tuple(map(IpAddress, ip)))


def group(*devices: DeviceRef, name: str = "Kids") -> GroupSyncRequest:
    return GroupSyncRequest(Label(name), devices)


def objections(request: GroupSyncRequest, *, of: GroupId = KIDS, **known: GroupSyncRequest) -> list[Objection]:
    groups = {GroupId(int(number[1:])): wish for number, wish in known.items()}
    return [each for found in judge([Asked(of, request)], groups, LAN).values() for each in found]


# ── what may be listed


@pytest.mark.parametrize(
    ("entry", "at", "why"),
    [
        (address("192.168.2.9"), "body/devices/0/ip/0", "192.168.2.9 is not in the router's network (192.168.1.0/24)"),
        (address("192.168.1.1"), "body/devices/0/ip/0", "192.168.1.1 is the router's own address"),
        (device(1, "2001:db8:9::1"), "body/devices/0/ip/0", "2001:db8:9::1 is not in the router's network (2001:db8:1::/64)"),
        (DeviceRef(LAN.mac), "body/devices/0/mac", "02:00:5e:10:00:01 is the router itself"),
        (DeviceRef(), "body/devices/0", "a device is named by its mac, by ip addresses, or by both"),
    ],
)
def test_what_can_be_no_device_of_this_network_is_refused_with_its_place(entry: DeviceRef, at: str, why: str) -> None:
    assert objections(group(entry)) == [Objection(at, why)]


def test_unique_local_and_link_local_addresses_are_taken() -> None:
    assert objections(group(address("fd12::3", "fe80::1:2", "2001:db8:1::9", "192.168.1.9"))) == []


def test_what_a_group_has_already_is_not_held_against_a_network_that_was_renumbered() -> None:
    before = group(address("10.0.0.9"))
    assert objections(replace(before, active=False), g1=before) == []
    assert [each.at for each in objections(group(address("10.0.0.9", "10.0.0.8")), g1=before)] == ["body/devices/0/ip/1"]


def test_a_network_that_nobody_has_seen_yet_judges_nothing() -> None:
    assert judge([Asked(KIDS, group(address("10.0.0.9")))], {}, None) == {}


def test_an_owner_is_named_for_macs_and_addresses_alike() -> None:
    found = objections(group(device(1), address("192.168.1.9")), of=PARENTS, g1=group(device(1, "192.168.1.9")))
    assert [(each.at, each.why, each.owner, each.clash) for each in found] == [
        ("body/devices/0/mac", "00:11:22:33:44:01 belongs to group 1 (Kids)", KIDS, True),
        ("body/devices/1/ip/0", "192.168.1.9 belongs to group 1 (Kids)", KIDS, True),
    ]


def test_guests_take_no_list() -> None:
    assert [each.at for each in objections(group(device(1)), of=GUESTS)] == ["body/devices"]


def test_faults_make_a_request_invalid_and_clashes_alone_a_conflict() -> None:
    fault, clash = Objection("body/a", "wrong"), Objection("body/b", "taken", True, "x", KIDS)
    with pytest.raises(Conflict) as conflict:
        refuse({0: [clash]}, "no")
    assert conflict.value.facts["devices"] == [{"at": "body/b", "why": "taken", "device": "x", "group": 1}]
    with pytest.raises(Invalid) as invalid:
        refuse({0: [clash], 1: [fault]}, "no")
    assert [each.at for each in invalid.value.faults] == ["body/b", "body/a"]
    refuse({}, "no")


# ── what changes


def test_a_new_mac_in_the_place_of_one_that_is_gone_is_its_heir() -> None:
    before = (
        device(1, "192.168.1.9"),
        device(2, name="Ada's phone"),
        device(3),
        address("192.168.1.10"),
        device(7, "192.168.1.7"),
    )
    after = (
        device(4, "192.168.1.9"),
        device(5, name="Ada's phone"),
        device(6),
        device(8, "192.168.1.10"),
        device(7, "192.168.1.8"),
    )
    changes = device_changes(before, after)
    assert changes.mac_changed == (
        MacChange(mac(1), mac(4)),
        MacChange(mac(2), mac(5)),
        MacChange("192.168.1.10", mac(8)),
    )
    assert (changes.added, changes.removed, changes.ip_changed, changes.unchanged) == ((mac(6),), (mac(3),), (mac(7),), ())


def test_one_that_is_gone_has_one_heir() -> None:
    changes = device_changes((device(1, "192.168.1.9", name="Ada's"),), (device(2, "192.168.1.9"), device(3, name="Ada's")))
    assert (changes.mac_changed, changes.added) == ((MacChange(mac(1), mac(2)),), (mac(3),))


def test_of_two_that_are_gone_under_one_name_the_first_has_the_heir() -> None:
    changes = device_changes((device(1, name="phone"), device(2, name="phone")), (device(3, name="phone"),))
    assert (changes.mac_changed, changes.removed) == ((MacChange(mac(1), mac(3)),), (mac(2),))


DEVICES = st.lists(
    st.builds(
        lambda m, ip, name: DeviceRef(mac(m) if m else None, tuple(IpAddress(f"192.168.1.{n}") for n in ip), name),
        st.integers(0, 6),
        st.lists(st.integers(2, 8), max_size=2, unique=True),
        st.sampled_from([None, Label("a"), Label("b")]),
    ).filter(lambda each: bool(each.mac or each.ip)),
    max_size=6,
    unique_by=lambda each: each.mac or each.ip[0],
)


@given(DEVICES, DEVICES)
def test_every_device_of_either_list_is_in_one_place_of_the_comparison(before: list[DeviceRef], after: list[DeviceRef]) -> None:
    changes = device_changes(before, after)
    both = [*changes.ip_changed, *changes.unchanged]
    old = [*changes.removed, *(each.before for each in changes.mac_changed), *both]
    new = [*changes.added, *(each.now for each in changes.mac_changed), *both]
    assert sorted(old) == sorted(str(each.mac or each.ip[0]) for each in before)
    assert sorted(new) == sorted(str(each.mac or each.ip[0]) for each in after)


# ── too much at once


def crowd(*numbers: int) -> tuple[DeviceRef, ...]:
    return tuple(device(number) for number in numbers)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (range(10), range(5, 10), None),  # half may go
        (range(10), range(6, 10), 6),
        (range(10), (), 10),
        (range(10), range(6, 30), 6),
        (range(10), range(40), None),  # who joins does not count
        (range(9), (), None),  # a small group
    ],
)
def test_more_than_half_of_a_group_at_once_is_a_mass_change(
    before: range, after: range | tuple[int, ...], changed: int | None
) -> None:
    found = mass_change(crowd(*before), crowd(*after))
    assert (found.changed if found else None) == changed


def test_a_mass_change_is_a_conflict_that_names_the_numbers_until_it_is_confirmed() -> None:
    before, after = group(*crowd(*range(10))), group(*crowd(*range(7, 10)))
    (found,) = objections(after, g1=before)
    assert (found.at, found.clash, found.mass and (found.mass.changed, found.mass.of)) == ("body/devices", True, (7, 10))
    assert found.why.startswith("7 of the 10 devices of group 1 (Kids) would leave it or be replaced: confirm the mass change")
    assert objections(replace(after, confirm_mass_change=True), g1=before) == []
    with pytest.raises(Conflict) as conflict:
        refuse({0: [found]}, "no")
    assert conflict.value.facts["devices"][0]["changed"] == 7  # type: ignore[index]


def test_replaced_macs_count_and_macs_that_become_known_do_not() -> None:
    named = tuple(device(n, f"192.168.1.{100 + n}") for n in range(MASS_FROM))
    replaced = tuple(device(50 + n, f"192.168.1.{100 + n}") for n in range(MASS_FROM))
    by_address = tuple(address(f"192.168.1.{100 + n}") for n in range(MASS_FROM))
    assert mass_change(named, replaced)
    assert mass_change(by_address, replaced) is None


# ── changing a list


def known(**groups: tuple[DeviceRef, ...]) -> dict[GroupId, GroupSyncRequest]:
    return {GroupId(int(name[1:])): group(*devices, name=name) for name, devices in groups.items()}


def test_devices_are_added_in_place_of_the_same_mac_and_removed_by_any_of_their_keys() -> None:
    groups = known(g1=(device(1, "192.168.1.9"), device(2), address("192.168.1.7")))
    (wish,) = rearranged(
        KIDS, groups, add=(device(2, "192.168.1.8"), device(3)), remove=(DeviceKey("192.168.1.9"), DeviceKey("192.168.1.7"))
    )
    assert wish.request.devices == (device(2, "192.168.1.8"), device(3))
    assert [at for _, at in wish.named()] == ["body/add/0/mac", "body/add/0/ip/0", "body/add/1/mac"]


def test_what_is_not_there_can_not_be_removed() -> None:
    (wish,) = rearranged(KIDS, known(g1=(device(1),)), remove=(DeviceKey(str(mac(9))),))
    assert [(fault.at, fault.why) for fault in wish.faults] == [
        ("body/remove/0", "group 1 (g1) has no device 00:11:22:33:44:09")
    ]


def test_a_device_of_another_group_is_a_conflict_unless_it_is_moved() -> None:
    groups = known(g1=(), g2=(device(1, "192.168.1.9"), device(2, "192.168.1.8"), address("192.168.1.7", "fd00::7")))
    add = (device(1), address("192.168.1.8", "192.168.1.7"))
    (found,) = judge(rearranged(KIDS, groups, add=add), groups, LAN).values()
    assert {each.owner for each in found} == {PARENTS}
    wishes = rearranged(KIDS, groups, add=add, move=True)
    assert [wish.group for wish in wishes] == [KIDS, PARENTS]
    assert wishes[1].request.devices == (device(2), address("fd00::7"))
    assert judge(wishes, groups, LAN) == {}


@given(DEVICES, DEVICES, DEVICES)
def test_after_a_move_no_device_is_in_two_groups(mine: list[DeviceRef], theirs: list[DeviceRef], add: list[DeviceRef]) -> None:
    groups = known(g1=tuple(mine), g2=tuple(theirs))
    wishes = rearranged(KIDS, groups, devices=add, move=True, confirmed=True)
    if judge(wishes, groups, LAN):
        return  # a key twice in one list
    after = groups | {wish.group: wish.request for wish in wishes}
    assert not set(keys(after[KIDS])) & set(keys(after[PARENTS]))
    assert after[KIDS].devices == tuple(add)


# ── what discovery has shown


def met(number: int, *ip: str, name: str | None = None) -> KnownDevice:
    return KnownDevice(mac(number), tuple(map(IpAddress, ip)), name, None, NOW, NOW)


def test_discovery_offers_macs_and_tells_of_addresses_that_are_somebody_elses() -> None:
    seen = {each.mac: each for each in (met(1, "192.168.1.9", name="phone"), met(2, "192.168.1.8"), met(3, "192.168.1.30"))}
    made_up = DeviceRef(MacAddress("da:a1:19:00:00:01"))
    moved = {IpAddress("192.168.1.7"): AddressHolder(mac(5), mac(4), NOW)}
    entries = (
        address("192.168.1.9"),
        device(7, "192.168.1.8"),
        device(3, "192.168.1.3"),
        address("192.168.1.7"),
        made_up,
        device(1),
    )
    assert [(hint.at, hint.kind, hint.mac) for hint in hints(entries, seen, moved)] == [
        ("body/devices/0", "mac_known", mac(1)),
        ("body/devices/1/ip/0", "other_mac", mac(2)),
        ("body/devices/2/ip/0", "ip_changed", mac(3)),
        ("body/devices/3/ip/0", "address_moved", mac(5)),
        ("body/devices/4/mac", "random_mac", made_up.mac),
    ]


def test_a_list_that_is_as_the_network_has_it_needs_no_hint() -> None:
    assert not list(hints((device(3, "192.168.1.30"), device(4)), {mac(3): met(3, "192.168.1.30", "fe80::3")}, {}))


def test_who_holds_an_address_is_remembered_until_no_group_names_it() -> None:
    nine = IpAddress("192.168.1.9")
    first = held([nine], {}, {nine: mac(1)}, NOW)
    assert first == {nine: AddressHolder(mac(1))}
    assert held([nine], first, {}, NOW) == first
    moved = held([nine], first, {nine: mac(2)}, NOW)
    assert moved == {nine: AddressHolder(mac(2), mac(1), NOW)}
    assert held([nine], moved, {nine: mac(2)}, NOW) == moved
    assert held([], moved, {nine: mac(2)}, NOW) == {}
