"""The state document: what it holds, and that no damaged byte of it is ever believed."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps
from tidegate.policy.router import Interfaces
from tidegate.policy.state import (
    ControllerId,
    Damaged,
    GroupState,
    Limit,
    Newer,
    RouterName,
    StateDocument,
    from_text,
    group_state,
    to_text,
)

MAC = MacAddress("02:00:5e:10:00:0b")
DOCUMENT = StateDocument(
    generation=7,
    controller=ControllerId("0123456789abcdef"),
    router=RouterName("home"),
    interfaces=Interfaces.of("br-lan", "wan"),
    groups=(
        GroupState(GroupId(0), (), Limit(100_000, 50_000)),
        GroupState(
            GroupId(1), (DeviceRef(MAC, (IpAddress("192.168.1.11"), IpAddress("2001:db8::11"))),), Limit(20_000, 5_000, 640)
        ),
        GroupState(GroupId(9899), (DeviceRef(None, (IpAddress("192.168.1.12"),)),), None, active=False),
        GroupState(GroupId(9), block=True),
    ),
)


def test_a_document_is_read_as_it_was_written() -> None:
    assert from_text(to_text(DOCUMENT)) == DOCUMENT
    assert from_text(to_text(replace(DOCUMENT, groups=()))) == replace(DOCUMENT, groups=())


@given(st.integers(0, len(to_text(DOCUMENT)) - 1), st.integers(0, 6))
def test_a_document_with_one_flipped_bit_is_refused(at: int, bit: int) -> None:
    text = to_text(DOCUMENT)
    with pytest.raises(Damaged):
        from_text(text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :])


@given(st.integers(0, len(to_text(DOCUMENT)) - 1))
def test_a_document_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(Damaged):
        from_text(to_text(DOCUMENT)[:length])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '"x"', "[" * 10_000, '{"schema": 2}', '{"schema": 1}'])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        from_text(text)


@pytest.mark.parametrize(
    ("was", "forged"),
    [
        ('"controller": "0123456789abcdef"', '"controller": "\\u001b[2J"'),
        ('"router": "home"', '"router": "a b"'),
        ('"lan": "br-lan"', '"lan": "; reboot"'),
        (str(MAC), "02:00:5e:10:00:0b; flush ruleset"),
        ('"down": 20000', '"down": 1'),
        ('"down": 20000', '"down": "20000"'),
        ('"burst": 640', '"burst": -1'),
        ('{"id": 9899', '{"id": 1'),
        ('{"id": 9,', '{"id": 9900,'),
        ('{"id": 9,', '{"id": true,'),
        ('{"id": 9,', '{"id": 9.0,'),
        ('"active": false', '"active": 0'),
        ('"block": true', '"block": 1'),
        ('"block": true', '"block": true, "name": "Ada"'),
        ('"generation": 7', '"generation": 7.5'),
        ('"generation": 7', '"generation": -7'),
        ('"generation": 7', '"generation": 7, "generation": 8'),
        ('"generation": 7', '"generation": NaN'),
        ('"schema": 2', '"schema": 1'),
        ('"schema": 2', '"schema": 0'),
        ('"schema": 2', '"schema": "2"'),
        ('"written": null', '"written": "yesterday"'),
        ('"audit": null', '"audit": {"number": 4, "hash": "00"}'),
        ('"ip": ["192.168.1.12"]', '"ip": ["192.168.1.11"]'),  # a device of group 1
        ('"ip": ["192.168.1.12"]', '"ip": []'),
        ('"ip": ["192.168.1.12"]', '"ip": "192.168.1.12"'),
        ('{"id": 0, "active": true, "devices": []', '{"id": 0, "active": true, "devices": [{"mac": null, "ip": ["10.0.0.1"]}]'),
        ('"groups": [', '"groups": {}, "more": ['),
    ],
)
def test_a_document_that_is_well_sealed_but_not_ours_is_refused(was: str, forged: str) -> None:
    text = to_text(DOCUMENT)
    assert was in text
    with pytest.raises(Damaged):
        from_text(sealed(text.replace(was, forged)))


def sealed(text: str) -> str:
    """The text with the checksum that fits it."""
    body = text.partition("\n")[2]
    return f'{{"checksum": "{sha256(body.encode()).hexdigest()}",\n{body}'


def test_every_fault_of_a_document_is_named_with_its_place() -> None:
    text = (
        to_text(DOCUMENT).replace(str(MAC), "nonsense").replace('"up": 50000', '"up": true').replace('"wan": "wan"', '"wan": 3')
    )
    with pytest.raises(Damaged) as damaged:
        from_text(sealed(text))
    assert [fault.at for fault in damaged.value.faults] == ["wan", "groups/0/limit/up", "groups/1/devices/0/mac"]


def test_a_document_of_a_later_tidegate_is_no_damage_but_is_not_read() -> None:
    with pytest.raises(Newer, match=r"of schema 3, of a later Tidegate; this controller reads up to 2"):
        from_text(sealed(to_text(DOCUMENT).replace('"schema": 2', '"schema": 3, "more": {}')))


def test_no_name_that_a_person_typed_is_in_the_document() -> None:
    canary = Label('Mum\'s "iPad" `reboot` $(reboot) 5f1c9b')
    wish = GroupSyncRequest(canary, (DeviceRef(MAC, (), canary),), BandwidthPolicy(Mbps(20)))
    assert "5f1c9b" not in to_text(replace(DOCUMENT, groups=(group_state(GroupId(1), wish),)))


def test_the_order_in_which_devices_are_named_makes_no_difference() -> None:
    devices = [DeviceRef(MAC), DeviceRef(None, (IpAddress("192.168.1.9"),)), DeviceRef(MacAddress("02:00:00:00:00:01"))]
    there, back = (GroupSyncRequest(Label("x"), tuple(order)) for order in (devices, devices[::-1]))
    assert group_state(GroupId(1), there) == group_state(GroupId(1), back)


def test_a_burst_of_35_above_a_limit_of_20_is_what_15_mbit_make_in_a_second() -> None:
    wish = GroupSyncRequest(Label("x"), (), BandwidthPolicy(Mbps(20), None, Mbps(35)))
    limit = group_state(GroupId(1), wish).limit
    assert limit == Limit(20_000, 20_000, round(15e6 / 8 / 1024))


def test_an_inactive_policy_or_group_limits_nothing() -> None:
    off = GroupSyncRequest(Label("x"), (), BandwidthPolicy(Mbps(20), active=False))
    assert group_state(GroupId(1), off).effective is None
    idle = GroupSyncRequest(Label("x"), (), BandwidthPolicy(Mbps(20)), active=False)
    assert group_state(GroupId(1), idle).limit == Limit(20_000, 20_000)
    assert group_state(GroupId(1), idle).effective is None


def test_a_document_of_before_there_were_blocks_reads_as_not_blocked() -> None:
    document = replace(DOCUMENT, groups=tuple(replace(group, block=False) for group in DOCUMENT.groups))
    assert "block" not in to_text(document)
    assert from_text(to_text(document)) == document


def test_a_closed_internet_is_in_the_document_only_while_its_policy_is_active() -> None:
    def asked(**how: bool) -> bool:
        wish = GroupSyncRequest(Label("x"), access_control_policy=AccessControlPolicy(**how))
        return group_state(GroupId(1), wish).cut_off

    assert asked(block_all_internet=True)
    assert not asked(block_all_internet=True, active=False)
    assert not asked(block_all_internet=False)
    paused = GroupSyncRequest(Label("x"), active=False, access_control_policy=AccessControlPolicy(True))
    assert group_state(GroupId(1), paused).block
    assert not group_state(GroupId(1), paused).cut_off
