"""Text as nobody honest types it, for every place where a command takes text (SEC-29): those are read from the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from random import Random
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tidegate.api import Tidegate
from tidegate.contract import Command, areas, commands
from tidegate.policy.device import DeviceRef
from tidegate.policy.group import GroupId, Mbps

CANARY = "c0ffee5a17ed0dd1"  # 64 bits that nobody else writes
"""Stands in hostile texts. What it is found in took a text through."""

TOUCH = "touch /tmp/canary"
_FRAGMENTS = (
    *("'", '"', "`", "\\", "\n", "\r", "\r\n", "\0", "\t", "\v", "\f", "\x1b[2J", "\x7f", "\x85", "\u2028", "\u2029", "\u00a0"),
    *(
        "\u200b",
        "\u202e",
        "\ufeff",
        "\ufffe",
        "\u0660",
        "\uff11",
        "\uff1a",
        "\u0430",
        "\u2024",
        "\u2010",
        "e\u0301",
        "\U0001f600",
    ),
    *(";", "|", "&", "&&", "||", "$", "$(", ")", "${IFS}", "%", "%0a", "#", "!", "*", "?", "~", "<", ">", "{", "}", "[", "]"),
    *("-", "--", "--help", "-e", "=", "/", "../", "//", "\\n", "\\0", "\\x27", ",", ":", "::", "@", "+"),
)
_SENTENCES = (
    f"$({TOUCH})",
    f"`{TOUCH}`",
    f"; {TOUCH} ;",
    f"' ; {TOUCH} ; '",
    f'" ; {TOUCH} ; "',
    f"\n{TOUCH}\n",
    f"| {TOUCH}",
    '" ; flush ruleset #',
    '" }; flush ruleset; add table inet canary; #',
    "\n}\nflush ruleset\ntable inet canary {\n",
    'include "/etc/passwd"',
    "\nqdisc del dev wan root\n",
    "br-lan root handle 1: htb\nqdisc add dev wan root netem",
    "exec bpf imp /tmp/x run sh",
    "\n--- nft\nflush ruleset\n",
    "--- end",
    "--- state",
    "tidegate-agent 0 ok",
    f"\n* * * * * {TOUCH}\n",
    f"* * * * * {TOUCH}",
    f"dhcp-script=/bin/sh\nconf-script={TOUCH}",
    'ssh-ed25519 AAAA"\ncommand="sh" ',
    "999.1.1.1",
    "1.2.3.4/0",
    "0.0.0.0",
    "::/0",
    "fe80::1%eth0",
    "ff:ff:ff:ff:ff:ff",
    "02:00:00:00:00:0g",
    "%s%s%n",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "",
    " ",
)
_HONEST = (
    *("02:00:5e:10:00:0b", "home", "192.168.1.20", "2001:db8::20", "br-lan", "wan", "router.lan", "Kids", "root", "7"),
    "SHA256:" + "A" * 43,
)


def texts(number: int, seed: int = 29) -> list[str]:
    """So many different ones, the same each time: fragments and sentences alone, at both ends of and within honest words."""
    random = Random(seed)
    found = dict.fromkeys((*_FRAGMENTS, *_SENTENCES, CANARY, "x" * 65_536, "\u00e9" * 65_536, ";" * 65_536))
    while len(found) < number:
        word = random.choice((*_HONEST, CANARY, f"canary {CANARY}"))
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            at = random.choice((0, len(word), random.randint(0, len(word))))
            word = word[:at] + random.choice((*_FRAGMENTS, *_SENTENCES)) + word[at:]
        found[word] = None
    return list(found)[:number]


@dataclass(frozen=True)
class Place:
    """One place where a command takes text: the steps to it in its arguments, and of what type it is there."""

    command: Command
    parameter: str
    steps: tuple[str | int, ...]
    kind: type

    def __str__(self) -> str:
        return ".".join((self.command.name, self.parameter, *map(str, self.steps)))

    def arguments(self, text: str) -> dict[str, Any]:
        """Plain arguments of the command that are in order but for this text."""
        made = {
            name: _example(parameter.annotation)
            for name, parameter in self.command.parameters.items()
            if parameter.default is parameter.empty or name == self.parameter
        }
        made[self.parameter] = _with(self.command.parameters[self.parameter].annotation, self.steps, text)
        return made


def places() -> list[Place]:
    """Every place of every command that leads to a router."""
    return [
        Place(command, name, steps, kind)
        for contract, _ in areas(Tidegate)
        for command in commands(contract)
        if "router_id" in command.parameters or command.area == "routers"
        for name, parameter in command.parameters.items()
        for steps, kind in _texts_in(parameter.annotation)
    ]


def _texts_in(kind: Any) -> Iterator[tuple[tuple[str | int, ...], type]]:
    for one in _members(kind):
        if isinstance(one, type) and issubclass(one, str) and not issubclass(one, Enum):
            yield (), one
        elif get_origin(one) is Literal:
            pass  # one of a few words of ours
        elif get_origin(one) is Annotated:
            pass  # a file as the whole body: its reader has tests of its own
        elif get_origin(one) is tuple:
            for steps, found in _texts_in(get_args(one)[0]):
                yield (0, *steps), found
        elif is_dataclass(one):
            hints = _hints(one)
            for field in fields(one):
                for steps, found in _texts_in(hints[field.name]):
                    yield (field.name, *steps), found
        else:
            assert one in (int, float, bool, type(None), datetime, GroupId, Mbps), f"{one}: say here what text it holds"


_hints: Any = cache(get_type_hints)


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _with(kind: Any, steps: tuple[str | int, ...], text: str) -> Any:
    """Plain data of that type with the text at the end of the steps."""
    if not steps:
        return text
    for one in _members(kind):
        if steps[0] == 0 and get_origin(one) is tuple:
            return [_with(get_args(one)[0], steps[1:], text)]
        if is_dataclass(one) and steps[0] in (hints := _hints(one)):
            return _example(one) | {str(steps[0]): _with(hints[str(steps[0])], steps[1:], text)}
    raise AssertionError(f"{kind} has no {steps}")


def _example(kind: Any) -> Any:
    """Plain data of that type that is in order."""
    one = _members(kind)[0]
    if is_dataclass(one):
        hints = _hints(one)
        asked = [f for f in fields(one) if f.default is MISSING and f.default_factory is MISSING]
        known = {"mac": _HONEST[0]} if one is DeviceRef else {}  # each field may be missing, but not all
        return known | {field.name: _example(hints[field.name]) for field in asked}
    if get_origin(one) is tuple:
        return [_example(get_args(one)[0])]
    if get_origin(one) is Literal:
        return get_args(one)[0]
    examples: dict[Any, Any] = {int: 7, float: 7.0, bool: True, GroupId: 7, Mbps: 7.0, str: "text"}
    if one in examples:
        return examples[one]
    return next(word for word in _HONEST if _is(one, word))


def _is(kind: type, word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True
