"""From groups to resources: which elements the constant rules' maps hold, and which traffic classes stand on each device.

`desired` and what is read back from a router are values of the same type, `Resources`, so that one comparison says what to
do, whether it worked, and how to undo it (`plan.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tidegate.policy import tc
from tidegate.policy.dialect import Dialect
from tidegate.policy.element import Element
from tidegate.policy.nftables import NFTABLES
from tidegate.policy.router import Interfaces
from tidegate.policy.state import GroupState


class Place(NamedTuple):
    """Where a class stands: the device and the class's minor as text (`GroupId.class_minor`)."""

    device: str
    minor: str


@dataclass(frozen=True, slots=True)
class Resources:
    """What stands on a router, or should. `rules`: the constant rules, empty where they are not there. `roots`: the devices
    that carry our root queue and its unrestricted class. `dialect`: how the rules are written there."""

    rules: tuple[str, ...] = ()
    elements: frozenset[Element] = frozenset()
    roots: frozenset[str] = frozenset()
    classes: Mapping[Place, tc.TrafficClass] = field(default_factory=dict)
    dialect: Dialect = field(default=NFTABLES, compare=False)

    @property
    def empty(self) -> bool:
        """Nothing of ours stands there."""
        return not (self.rules or self.elements or self.roots or self.classes)


REMEMBERED = 1 << 14
"""Groups. A sync of one of 1,000 is a matter of that one: what the others come to was worked out before."""


def desired(groups: Iterable[GroupState], interfaces: Interfaces, leaf: str, dialect: Dialect = NFTABLES) -> Resources:
    """What should stand on a router that has these groups. `leaf` is the queue that it can put into a capped class; without
    one it has no classes, and its rules drop what is too much."""
    parts = [_of_group(group, interfaces, leaf) for group in groups]
    elements = frozenset[Element]().union(*(elements for elements, _ in parts))
    classes = dict(pair for _, pairs in parts for pair in pairs)
    return Resources(dialect.base_rules(interfaces.lan), elements, frozenset(interfaces if leaf else ()), classes, dialect)


@lru_cache(REMEMBERED)
def _of_group(
    group: GroupState, interfaces: Interfaces, leaf: str
) -> tuple[frozenset[Element], tuple[tuple[Place, tc.TrafficClass], ...]]:
    elements: set[Element] = set()
    classes: list[tuple[Place, tc.TrafficClass]] = []
    mark = str(group.id.mark)
    for device in group.devices:
        if device.mac:
            elements.add(Element("mac_mark", str(device.mac), mark))
        elements.update(Element("ip_mark" if ip.version == 4 else "ip6_mark", str(ip), mark) for ip in device.ip)
    if group.cut_off:
        elements.add(Element("blocked", mark))
    if (limit := group.effective) and not leaf:
        elements |= {Element("police_down", mark, str(limit.download_kbit)), Element("police_up", mark, str(limit.upload_kbit))}
    elif limit:
        minor = group.id.class_minor
        elements.add(Element("cls", mark, f"1:{minor}"))
        classes.append((Place(interfaces.lan, minor), tc.traffic_class(limit.download_kbit, leaf, limit.burst_kib)))
        classes.append((Place(interfaces.wan, minor), tc.traffic_class(limit.upload_kbit, leaf)))
    return frozenset(elements), tuple(classes)
