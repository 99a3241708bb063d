"""No text of anybody's reaches a router: 10,000 hostile ones in every place where a command takes text (SEC-28, SEC-29)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pytest

from tests.hostile import CANARY, Place, places, texts
from tidegate.contract import codec
from tidegate.errors import Invalid, Malformed
from tidegate.policy.compiler import GroupPolicyCompiler
from tidegate.policy.desired import Resources
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId, GroupSyncRequest
from tidegate.policy.router import InterfaceName, Interfaces
from tidegate.policy.state import ControllerId, GroupState, RouterName, StateDocument, from_text, group_state

ALL = texts(10_000)
COMPILER = GroupPolicyCompiler("bfifo")

# Whatever the text, these are the only forms that a line of a bundle may have.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
_ELEMENT = r"[0-9a-f:.]+(?: : (?:1:)?[0-9]+)?"
_IN = f'(?:ct mark 0 )?(?:[io]ifname "{_NAME}" )+'
_WHAT = r"(?:[0-9]+|meta mark|(?:ether|ip6?|ct) (?:[sd]addr|mark) map @[a-z0-9_]+)"
_LINES = re.compile(
    "|".join(
        (
            rf"--- [a-z]+(?:-[a-z]+)*(?:-{_NAME})?",
            r"(?:delete )?table inet tidegate(?: \{)?",
            rf"(?:add|delete) element inet tidegate [a-z0-9_]+ \{{ {_ELEMENT}(?:, {_ELEMENT})* \}}",
            r"(?:map|set) [a-z0-9_]+ \{ type [a-z0-9_]+(?: : [a-z0-9_]+)?; \}",
            r"[0-9a-f]{16} [a-z0-9][a-z0-9-]{0,31}",
            r"chain [a-z]+ \{|\}",
            r"type filter hook [a-z]+ priority -?[0-9]+; policy accept;",
            rf"(?:{_IN})?(?:meta|ct) (?:mark|priority) set {_WHAT}",
            rf"{_IN}(?:jump lan|return)",
            r"ct mark @blocked jump refuse",
            r"(?:meta l4proto tcp )?reject with (?:tcp reset|icmpx admin-prohibited)",
            rf"(?:qdisc|class) (?:add|replace|del) dev {_NAME} (?:root|parent|classid)(?: [a-z0-9_:]+)*",
        )
    ),
    re.ASCII,
)
_PLAIN = {"routers.add.request.password", "routers.seal.request.password", "devices.list.search"}
"""The places of text without a grammar. None of them is on a way to a router's rules: say so of a new one, or give it one."""


def built(place: Place, text: str) -> Any:
    """The typed argument, as the contract's machinery makes it of plain data. Raises Invalid, Malformed or ValueError."""
    kind = place.command.parameters[place.parameter].annotation
    value = place.arguments(text)[place.parameter]
    if place.command.body and place.command.body.name == place.parameter:
        return codec.read_body(json.dumps(value).encode(), kind)
    return codec.read_text(value, kind)


def of_type(kind: type, value: Any) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from of_type(kind, one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from of_type(kind, getattr(value, field.name))


def document(interfaces: Interfaces) -> StateDocument:
    return StateDocument(0, ControllerId("0" * 16), RouterName("home"), interfaces)


@cache
def bundle(groups: tuple[GroupState, ...], lan: str, wan: str) -> bytes:
    interfaces = Interfaces.of(lan, wan)
    return COMPILER.compile_sync_request(groups, document(interfaces), Resources()).to_bytes()


def assert_lines(sent: bytes) -> None:
    """The state document within is proved by reading it; all else is of the known forms."""
    before, _, rest = sent.decode().partition("--- state\n")
    for line in (before + rest[rest.index("--- ") :]).splitlines():
        assert _LINES.fullmatch(line), line


@cache
def prove(state: GroupState) -> None:
    """What a router is sent for this group parses back to it, and holds nothing that somebody typed."""
    sent = bundle((state,), "br-lan", "wan")
    assert CANARY.encode() not in sent
    assert from_text(sent.decode().partition("--- state\n")[2].partition("--- ")[0]).groups == (state,)


def intended(wish: GroupSyncRequest) -> GroupState:
    """The wish with each address made from its own text again, and nothing else of what was typed."""
    devices = tuple(
        DeviceRef(device.mac and MacAddress(str(device.mac)), tuple(IpAddress(str(ip)) for ip in device.ip))
        for device in wish.devices
    )
    plain = replace(wish, name=type(wish.name)("plain"), devices=devices)
    return group_state(GroupId(1), plain)


@cache
def sorted_out(kind: type) -> tuple[list[str], list[str]]:
    """The texts that a type takes and those that it refuses. The machinery asks the type, and costs a hundred times as much."""
    good, bad = [], []
    for text in ALL:
        try:
            kind(text)
            good.append(text)
        except ValueError:
            bad.append(text)
    return good, bad


def alike(place: Place) -> tuple[Any, tuple[str | int, ...]]:
    """An argument is read by its type alone: one place speaks for all where the same type has a text at the same steps."""
    return place.command.parameters[place.parameter].annotation, place.steps


@pytest.mark.parametrize("place", {alike(place): place for place in reversed(places())}.values(), ids=str)
def test_a_hostile_text_is_refused_or_changes_nothing_of_what_a_router_is_sent(place: Place) -> None:
    good, bad = sorted_out(place.kind)
    assert bad or str(place) in _PLAIN
    for text in bad[::40]:
        with pytest.raises((Invalid, Malformed, ValueError)):
            built(place, text)
    for text in good[:: 1 if bad else 40]:
        value = built(place, text)
        for wish in of_type(GroupSyncRequest, value):
            state = group_state(GroupId(1), wish)
            assert state == intended(wish), repr(text)
            prove(state)
        for name in of_type(InterfaceName, value):
            assert_lines(bundle((), str(name), "wan0"))


def test_the_places_are_those_that_people_know_of() -> None:
    """So that the walk through the types can't silently find nothing."""
    found = {str(place) for place in places()}
    assert {
        "groups.sync_group.request.name",
        "groups.sync_group.request.devices.0.mac",
        "groups.sync_group.request.devices.0.ip.0",
        "groups.sync_all_groups.request.groups.0.devices.0.name",
        "routers.add.request.lan",
        "routers.add.request.password",
        "routers.scan_host_key.host",
        "infrastructure.setup.router_id",
    } <= found
    assert len(ALL) == len(set(ALL)) == 10_000


def test_every_line_of_a_bundle_is_of_a_known_form() -> None:
    """And the forms would notice: each of these is none."""
    state = GroupState(GroupId(1), (DeviceRef(MacAddress("02:00:5e:10:00:0b"), (IpAddress("2001:db8::1"),)),), block=True)
    assert_lines(bundle((state,), "br-lan", "wan"))
    for line in (
        "flush ruleset",
        'include "/etc/passwd"',
        "exec bpf imp x run sh",
        "qdisc del dev wan root; x",
        "--- ../x",
        "$(x)",
        'iifname "a" jump x; flush ruleset',
        "add element inet tidegate mac_mark { $x }",
    ):
        assert not _LINES.fullmatch(line), line
