"""Our one nftables table: constant rules that look a packet's group up, and the maps that they look it up in.

A device's MAC (or, where that is not known, its address) gives the group's mark; every packet from the LAN sets it anew on
its connection, so moving a device takes its running connections along; the mark gives the traffic class. Rules never change
with groups, only map elements do: a packet costs the same with 10 groups as with 5,000 (measured).

Two orders matter. The maps are asked address first and MAC last, so that the MAC wins; a map that misses leaves the mark as
it was, so guests keep mark 100. And the priority is set in the forward hook: the kernel's ip_forward overwrites it from
the TOS byte for IPv4 between prerouting and there (net/ipv4/ip_forward.c).

A group that the internet is closed to is one element of a set. Its packets are refused in the forward hook before any other
table's "established, accept" (the priority is below the firewall's 0), so running connections end too, and what stays in the
LAN or is meant for the router itself never comes by.

What is read back is JSON of libnftables (libnftables-json(5), schema version 1), reduced to what a rule does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from tidegate.policy.dialect import Parts
from tidegate.policy.element import POLICERS, Element, Unreadable, checked
from tidegate.policy.group import GUESTS

TABLE = "inet tidegate"
_DEVICES = {
    "mac_mark": ("ether_addr", "mark"),
    "ip_mark": ("ipv4_addr", "mark"),
    "ip6_mark": ("ipv6_addr", "mark"),
}
MAPS = {**_DEVICES, "cls": ("mark", "classid")}
POLICED_MAPS = {**_DEVICES, **dict.fromkeys(POLICERS, ("mark", "limit"))}
SETS = {"blocked": "mark"}  # the groups that the internet is closed to
PORTION = 200  # elements in one statement
# A router without /etc/protocols prints the number.
_TCP_WITHOUT_ITS_NAME = (
    '{"meta": {"key": "l4proto"}}, "op": "==", "right": 6}',
    '{"meta": {"key": "l4proto"}}, "op": "==", "right": "tcp"}',
)


def _rules(lan: str, policed: bool) -> list[tuple[str, str, list[Any]]]:
    """Chain, rule as nft reads it, rule as nft prints it in JSON."""
    mark, ct_mark = {"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}
    first_from_wan = {"match": {"op": "==", "left": ct_mark, "right": 0}}
    from_lan = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": lan}}
    to_lan = {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": lan}}
    of_tcp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}

    def put(key: Any, value: Any) -> dict[str, Any]:
        return {"mangle": {"key": key, "value": value}}

    def field(protocol: str, name: str) -> dict[str, Any]:
        return {"payload": {"protocol": protocol, "field": name}}

    def look_up(key: Any, data: str) -> dict[str, Any]:
        return {"map": {"key": key, "data": f"@{data}"}}

    def police(direction: Any, name: str) -> list[Any]:
        return [direction, {"limit": look_up(ct_mark, name)}, {"drop": None}]

    by_class = [
        ("forward", "meta priority set ct mark map @cls", [put({"meta": {"key": "priority"}}, look_up(ct_mark, "cls"))])
    ]
    by_policer = [
        ("forward", f'oifname "{lan}" limit name ct mark map @police_down drop', police(to_lan, "police_down")),
        ("forward", f'iifname "{lan}" limit name ct mark map @police_up drop', police(from_lan, "police_up")),
    ]
    guests = GUESTS.mark
    return [
        ("lan", f"meta mark set {guests}", [put(mark, guests)]),
        ("lan", "meta mark set ip saddr map @ip_mark", [put(mark, look_up(field("ip", "saddr"), "ip_mark"))]),
        ("lan", "meta mark set ip6 saddr map @ip6_mark", [put(mark, look_up(field("ip6", "saddr"), "ip6_mark"))]),
        ("lan", "meta mark set ether saddr map @mac_mark", [put(mark, look_up(field("ether", "saddr"), "mac_mark"))]),
        ("lan", "ct mark set meta mark", [put(ct_mark, mark)]),
        (
            "prerouting",
            f'iifname "{lan}" jump lan',
            [from_lan, {"jump": {"target": "lan"}}],
        ),
        ("refuse", f'iifname "{lan}" oifname "{lan}" return', [from_lan, to_lan, {"return": None}]),
        ("refuse", "meta l4proto tcp reject with tcp reset", [of_tcp, {"reject": {"type": "tcp reset"}}]),
        ("refuse", "reject with icmpx admin-prohibited", [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]),
        (
            "forward",
            f'ct mark 0 oifname "{lan}" ct mark set ip daddr map @ip_mark',
            [first_from_wan, to_lan, put(ct_mark, look_up(field("ip", "daddr"), "ip_mark"))],
        ),
        (
            "forward",
            f'ct mark 0 oifname "{lan}" ct mark set ip6 daddr map @ip6_mark',
            [first_from_wan, to_lan, put(ct_mark, look_up(field("ip6", "daddr"), "ip6_mark"))],
        ),
        (
            "forward",
            "ct mark @blocked jump refuse",
            [{"match": {"op": "==", "left": ct_mark, "right": "@blocked"}}, {"jump": {"target": "refuse"}}],
        ),
        *(by_policer if policed else by_class),
    ]


_CHAINS: dict[str, tuple[int, str]] = {
    "lan": (0, ""),
    "refuse": (0, ""),
    "prerouting": (-150, "prerouting"),
    "forward": (-5, "forward"),
}


def _maps(policed: bool) -> dict[str, tuple[str, str]]:
    return POLICED_MAPS if policed else MAPS


def base_rules(lan: str, policed: bool = False) -> tuple[str, ...]:
    """The constant part of the table, one line per map, chain and rule, in the form that `read_table` gives."""
    maps = [f"map {name}: {key} to {value}" for name, (key, value) in _maps(policed).items()]
    maps += [f"set {name}: {key}" for name, key in SETS.items()]
    chains = [
        f"chain {name}: {hook} {priority} accept" if hook else f"chain {name}" for name, (priority, hook) in _CHAINS.items()
    ]
    rules = [f"rule in {chain}: {json.dumps(expression, sort_keys=True)}" for chain, _, expression in _rules(lan, policed)]
    return tuple(sorted(maps) + sorted(chains) + sorted(rules, key=_chain_of))


def create_table(lan: str, policed: bool = False) -> list[str]:
    """Statements that put the constant table in place of whatever bears its name, without a moment between."""
    lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    lines += [f"map {name} {{ type {key} : {value}; }}" for name, (key, value) in _maps(policed).items()]
    lines += [f"set {name} {{ type {key}; }}" for name, key in SETS.items()]
    for name, (priority, hook) in _CHAINS.items():
        lines.append(f"chain {name} {{")
        if hook:
            lines.append(f"type filter hook {hook} priority {priority}; policy accept;")
        lines += [rule for chain, rule, _ in _rules(lan, policed) if chain == name] + ["}"]
    return [*lines, "}"]


def delete_table() -> list[str]:
    return [f"delete table {TABLE}"]


def change_elements(delete: Iterable[Element], add: Iterable[Element]) -> list[str]:
    """Statements for one transaction."""
    gone, new = list(map(checked, delete)), list(map(checked, add))
    lines = [
        f"delete element {TABLE} {name} {{ {', '.join(some)} }}" for name, some in _in_portions((e.map, e.key) for e in gone)
    ]
    lines += [f"delete limit {TABLE} {_limit(e)}" for e in sorted(gone) if e.map in POLICERS]
    lines += [f"add limit {TABLE} {_limit(e)} {{ {_rate_of(e)} }}" for e in sorted(new) if e.map in POLICERS]
    put = ((e.map, f'{e.key} : "{_limit(e)}"' if e.map in POLICERS else str(e)) for e in new)
    return lines + [f"add element {TABLE} {name} {{ {', '.join(some)} }}" for name, some in _in_portions(put)]


# A limit can't be changed in place, so its name says all that it is: what its group is held to is read from the map alone.
_LIMIT = re.compile(r"(down|up)_([1-9][0-9]{0,8})_([1-9][0-9]{0,8})", re.ASCII)
_BYTES = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20}


def _limit(element: Element) -> str:
    return f"{element.map.removeprefix('police_')}_{element.key}_{element.value}"


def _rate_of(element: Element) -> str:
    rate, burst = _bytes_of(int(element.value))
    return f"rate over {rate} bytes/second burst {burst} bytes"


def _bytes_of(kbit: int) -> tuple[int, int]:
    """Bytes a second and bytes at once: 5 ms of them, and no less than the largest packet that a network card takes apart."""
    return kbit * 125, max(1 << 16, kbit * 125 // 200)


def _in_portions(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """By map, some hundred at a time: nft takes half the time and memory that it takes for as many statements (measured)."""
    by_map: dict[str, list[str]] = {}
    for name, text in texts:
        by_map.setdefault(name, []).append(text)
    for name, of_map in sorted(by_map.items()):
        of_map.sort()  # as plain texts: a quarter of the time that it takes to sort 31,000 elements
        for start in range(0, len(of_map), PORTION):
            yield name, of_map[start : start + PORTION]


@dataclass(frozen=True, slots=True)
class Nftables:
    """The dialect: one part, one transaction, all or nothing. `policed`: a router that has no HTB drops what is too much."""

    policed: bool = False
    name: str = field(default="nftables", init=False)
    place: str = field(default=f"nft table {TABLE}", init=False)

    def base_rules(self, lan: str) -> tuple[str, ...]:
        return base_rules(lan, self.policed)

    def whole(self, lan: str, elements: Set[Element]) -> Parts:
        return {"nft": create_table(lan, self.policed) + change_elements((), elements)}

    def nothing(self) -> Parts:
        return {"nft": delete_table()}

    def change(self, lan: str, gone: Iterable[Element], new: Iterable[Element], after: Set[Element]) -> Parts:
        return {"nft": change_elements(gone, new)}

    def place_of(self, element: Element) -> str:
        return f"nft map {element.map}: {element.key}" if element.value else f"nft set {element.map}: {element.key}"


NFTABLES, POLICED = Nftables(), Nftables(policed=True)


# ── reading back


def read_table(text: str) -> tuple[tuple[str, ...], frozenset[Element]]:
    """`nft -j list table inet tidegate` as its constant part and its elements. Raises Unreadable.

    What stands there and can't be ours is counted to the constant part, so that the table differs and is made anew.
    """
    maps, chains, rules = [], [], []
    limits: dict[str, bool] = {}
    elements: set[Element] = set()
    try:
        for entry in json.loads(text)["nftables"]:
            if found := entry.get("map"):
                maps.append(f"map {found['name']}: {found['type']} to {found['map']}")
                for key, value in found.get("elem", ()):
                    try:
                        elements.add(checked(Element(found["name"], str(key), _value(found["name"], str(key), str(value)))))
                    except (ValueError, KeyError):
                        maps.append(f"element {key} in map {found['name']} that is none of ours")
            elif (found := entry.get("set")) and found["name"] in SETS:
                maps.append(f"set {found['name']}: {found['type']}")
                for key in found.get("elem", ()):
                    try:
                        elements.add(checked(Element(found["name"], str(key))))
                    except ValueError:
                        maps.append(f"element {key} in set {found['name']} that is none of ours")
            elif found := entry.get("limit"):
                limits[found["name"]] = _as_written(found)
            elif found := entry.get("chain"):
                hook = f": {found['hook']} {found['prio']} {found['policy']}" if "hook" in found else ""
                chains.append(f"chain {found['name']}{hook}")
            elif found := entry.get("rule"):
                expression = json.dumps(found["expr"], sort_keys=True).replace(*_TCP_WITHOUT_ITS_NAME)
                rules.append(f"rule in {found['chain']}: {expression}")
            elif not {"metainfo", "table"} & set(entry):
                maps.append(f"{next(iter(entry), 'nothing')} that is none of ours")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"nft printed what can't be read: {type(error).__name__} {error}") from None
    wanted = {_limit(element) for element in elements if element.map in POLICERS}
    maps += [f"limit {name} that is none of ours" for name, ours in limits.items() if not ours or name not in wanted]
    return tuple(sorted(maps) + sorted(chains) + sorted(rules, key=_chain_of)), frozenset(elements)


def _value(name: str, key: str, value: str) -> str:
    """Of a map's element; of a policer's, whose value is a limit's name, the kbit/s in that. Raises ValueError for another."""
    if name not in POLICERS:
        return value
    if (match := _LIMIT.fullmatch(value)) and name == f"police_{match[1]}" and key == match[2]:
        return match[3]
    raise ValueError(f"{value[:60]!r} is no limit of ours")


def _as_written(limit: dict[str, Any]) -> bool:
    """Whether a limit is what its name says."""
    match = _LIMIT.fullmatch(limit["name"])
    told = limit["rate"] * _BYTES.get(limit["rate_unit"], 0), limit["burst"] * _BYTES.get(limit["burst_unit"], 0)
    return bool(match and limit["inv"] is True and limit["per"] == "second" and told == _bytes_of(int(match[3])))


def _chain_of(rule: str) -> str:
    """Rules keep their order within a chain; which chain is printed first says nothing."""
    return rule.partition(":")[0]
