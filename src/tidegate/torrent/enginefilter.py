"""The filter as the engine has it: libtorrent's own object, kept so that an edit costs what an edit does.

Its later rules win over its earlier ones, and nothing in it can be taken back but by a later rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import libtorrent as lt

from tidegate.torrent.ipfilter import Rule


class EngineFilter:
    """Not in force until the engine is given it. One thread at a time may teach it; the event loop's should not."""

    def __init__(self) -> None:
        self.known: Any = lt.ip_filter()

    def learn(self, rules: Iterable[Rule]) -> None:
        add = self.known.add_rule
        for first, last, blocked in rules:
            add(first, last, int(blocked))

    def learn_blocked(self, pairs: str) -> None:
        """First and last addresses, all joined by "-"; as valid as `ListReader` makes them."""
        add = self.known.add_rule
        ends = iter(pairs.split("-"))
        for first, last in zip(ends, ends, strict=True):
            add(first, last, 1)
