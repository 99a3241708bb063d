"""What the constant rules look up: which device has which mark, which mark has which class, which mark is closed.

An element is the planner's word, the same for every dialect; `dialect.py` says how one is written and read back.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from tidegate.policy.device import IpAddress, MacAddress

POLICERS = ("police_down", "police_up")
DEVICES = {"mac_mark": MacAddress, "ip_mark": IpAddress, "ip6_mark": IpAddress}
_MARK = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_CLASS = re.compile(r"1:[1-9][0-9]{0,3}", re.ASCII)
_KBIT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_NOTHING = re.compile("")


class Element(NamedTuple):
    """One element of a map of ours: `mac_mark`, `ip_mark`, `ip6_mark` (device: mark), `cls` (mark: class), or `police_down` and
    `police_up` (mark: kbit/s), where classes can't be; or of our set `blocked` (mark), whose elements have no value."""

    map: str
    key: str
    value: str = ""

    @property
    def mark(self) -> int:
        return int(self.value if self.names_a_device else self.key)

    @property
    def names_a_device(self) -> bool:
        return self.map in DEVICES

    def __str__(self) -> str:
        return f"{self.key} : {self.value}" if self.value else self.key


@lru_cache(maxsize=1 << 16)
def checked(element: Element) -> Element:
    """The element, each part made from its type anew, so that nothing is passed through as it came. Raises ValueError for
    what can't be one, KeyError for a map that is none of ours."""
    name, key, value = element
    if name == "blocked":
        return Element(name, _matching(_MARK, key), _matching(_NOTHING, value))
    if name == "cls":
        return Element(name, _matching(_MARK, key), _matching(_CLASS, value))
    if name in POLICERS:
        return Element(name, _matching(_MARK, key), _matching(_KBIT, value))
    return Element(name, str(DEVICES[name](key)), _matching(_MARK, value))


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{text[:60]!r} can't stand in a map of ours")
    return text


class Unreadable(ValueError):
    """A router printed something that is not a listing of our rules."""
