"""Many wishes at once: who gets a device that two ask for, and that one refusal leads to no device in two groups."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api.groups import MANY, Groups, GroupsSyncRequest, GroupWish
from tidegate.contract import codec, commands
from tidegate.daemon.manywishes import judge
from tidegate.daemon.wishes import GUESTS_WISH, Wish, Wishes, states
from tidegate.errors import Conflict, Invalid
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import GUESTS, AccessControlPolicy, GroupId, GroupSyncRequest
from tidegate.policy.membership import keys


def mac(number: int) -> DeviceRef:
    return DeviceRef(MacAddress(f"02:00:00:00:00:{number:02x}"))


def wish(group: int, *devices: int) -> GroupWish:
    return GroupWish(Label(f"group {group}"), tuple(mac(n) for n in devices), group=GroupId(group))


def has(**groups: tuple[int, ...]) -> Wishes:
    known = {GroupId(int(name[1:])): Wish(GroupSyncRequest(Label(name), tuple(map(mac, of)))) for name, of in groups.items()}
    return {GUESTS: Wish(GUESTS_WISH)} | known


def test_groups_of_one_request_may_swap_their_devices() -> None:
    judged = judge(GroupsSyncRequest((wish(1, 2), wish(2, 1))), has(g1=(1,), g2=(2,)), None)
    assert list(judged.accepted) == [1, 2]
    assert not judged.problems


def test_a_group_that_can_not_be_as_asked_keeps_its_devices_and_so_others_can_not_have_them() -> None:
    """3 can't have 9's device, so it keeps its own, which 2 wanted, which keeps its own, which 1 wanted."""
    request = GroupsSyncRequest((wish(1, 2), wish(2, 3), wish(3, 9), wish(4, 1)), atomic=False)
    judged = judge(request, has(g1=(1,), g2=(2,), g3=(3,), g9=(9,)), None)
    assert list(judged.accepted) == []
    assert [(n, p.faults[0].why) for n, p in sorted(judged.problems.items())] == [
        (0, "02:00:00:00:00:02 belongs to group 2 (g2)"),
        (1, "02:00:00:00:00:03 belongs to group 3 (g3)"),
        (2, "02:00:00:00:00:09 belongs to group 9 (g9)"),
        (3, "02:00:00:00:00:01 belongs to group 1 (g1)"),
    ]
    with pytest.raises(Conflict):
        judge(GroupsSyncRequest(request.groups), has(g1=(1,), g2=(2,), g3=(3,), g9=(9,)), None)


def test_an_address_is_claimed_as_a_mac_is() -> None:
    device = DeviceRef(None, (IpAddress("192.168.1.9"), IpAddress("2001:db8::9")))
    both = tuple(GroupWish(Label("x"), (device,), group=GroupId(n)) for n in (1, 2))
    with pytest.raises(Invalid) as twice:
        judge(GroupsSyncRequest(both), has(), None)
    assert [fault.at for fault in twice.value.faults] == ["body/groups/1/devices/0/ip/0", "body/groups/1/devices/0/ip/1"]


def test_of_a_group_that_is_named_twice_the_first_wish_stands_and_what_it_gave_away_is_free() -> None:
    request = GroupsSyncRequest((wish(1, 5), wish(1, 6), wish(2, 1)), atomic=False)
    judged = judge(request, has(g1=(1,)), None)
    assert list(judged.accepted) == [1, 2]
    assert [fault.at for fault in judged.problems[1].faults] == ["body/groups/1/group"]


DEVICES = st.lists(st.integers(1, 8), max_size=3)


@given(
    st.lists(st.tuples(st.integers(0, 5), DEVICES), max_size=7),
    st.permutations(range(1, 9)),
    st.booleans(),
)
def test_whatever_is_asked_no_device_is_ever_in_two_groups(
    asked: list[tuple[int, list[int]]], dealt: list[int], atomic: bool
) -> None:
    known = has(g1=tuple(dealt[:2]), g2=tuple(dealt[2:4]), g3=(dealt[4],))
    request = GroupsSyncRequest(tuple(wish(group, *devices) for group, devices in asked), atomic)
    try:
        judged = judge(request, known, None)
    except (Invalid, Conflict):
        assert atomic
        return
    over = judged.over(known)
    every = [key for found in over.values() for key in keys(found.request)]
    assert len(every) == len(set(every))
    assert len(judged.accepted) + len(judged.problems) == len(asked)
    assert not atomic or not judged.problems
    for number, problem in judged.problems.items():
        assert all(fault.at.startswith(f"body/groups/{number}/") for fault in problem.faults)


def test_a_thousand_groups_of_ten_devices_fit_into_one_request() -> None:
    (command,) = [c for c in commands(Groups) if c.method == "sync_all_groups"]
    assert command.body
    assert command.body.media.limit == MANY
    devices = tuple(
        DeviceRef(
            mac(1).mac, (IpAddress("192.168.100.200"), IpAddress("2001:db8:1234:5678:9abc:def0:1234:5678")), Label("x" * 40)
        )
        for _ in range(10)
    )
    body = codec.encode(GroupsSyncRequest((GroupWish(Label("y" * 40), devices, group=GroupId(1)),) * 1000))
    assert len(body) < MANY / 2


@pytest.mark.parametrize("field", ["blocked_sites", "blocked_categories", "allowed_sites_only", "safe_search"])
def test_what_is_not_enforced_yet_is_refused_and_not_taken_for_done(field: str) -> None:
    wish = {"group": 1, "name": "Kids", "access_control_policy": {"block_all_internet": True, field: []}}
    with pytest.raises(Invalid) as unknown:
        codec.read_body(json.dumps({"groups": [wish]}).encode(), GroupsSyncRequest)
    assert unknown.value.faults[0].at == "body/groups/0/access_control_policy"
    assert field in unknown.value.faults[0].why


def test_guests_that_are_cut_off_are_told_to_the_router() -> None:
    closed = GroupSyncRequest(Label("Guests"), access_control_policy=AccessControlPolicy(block_all_internet=True))
    assert [group.cut_off for group in states({GUESTS: Wish(closed)})] == [True]
    assert states({GUESTS: Wish(GUESTS_WISH)}) == []
