"""The dialect of routers without nft: ipset maps from a device to its mark, and chains of ours in iptables and ip6tables.

The order of things is that of `nftables.py`: every packet from the LAN gets the guests' mark, then what the maps say of its
address, then of its MAC, and the connection keeps it. A group that has a limit or is closed has a chain
`TIDEGATE_GROUP_{id}`, in the mangle table to name its class, in the filter table to refuse; it is made when the group needs
it and goes when it does not. `TIDEGATE_FORWARD` sends a connection's packets there by their mark.

In the filter table our jump is the first rule of FORWARD, before anybody's "established, accept". In the mangle table the
class is set in FORWARD too: before it, ip_forward overwrites a packet's priority from its TOS byte (net/ipv4/ip_forward.c).

Old or tighter, never looser: iptables-restore is atomic for one table, ipset for one element. So the chains of before and
after both stand while elements change, and those of before alone go afterwards (the parts `after-...`). Each part says what
shall be and can be run again from anywhere: a chain that is declared is emptied first, and a part whose first line is `# whole`
takes the place of everything of ours in its table, jumps included (the agent's `rules.sh` sees to that).

Where the kernel has no sets of MAC addresses (`hash:mac`), the devices known by MAC are rules in `TIDEGATE_MAC`, one each.

What is read back is the text of `iptables-save` and `ipset save`, as the agent reduces it to what concerns us.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from tidegate.policy.dialect import Parts
from tidegate.policy.element import Element, Unreadable, checked
from tidegate.policy.group import GUESTS, GroupId

FAMILIES = ("ip4", "ip6")
TABLES = ("filter", "mangle")
_KINDS = {"filter": "blocked", "mangle": "cls"}  # the elements that are a chain of their group in that table
_SETS = {"ip_mark": "tidegate_ip4", "ip6_mark": "tidegate_ip6", "mac_mark": "tidegate_mac"}
_MAPS = {name: of for of, name in _SETS.items()}
_TYPES = {"ip_mark": "hash:ip family inet skbinfo", "ip6_mark": "hash:ip family inet6 skbinfo", "mac_mark": "hash:mac skbinfo"}
_CHOSEN = re.compile(r" (?:hashsize|maxelem|bucketsize|initval) \S+", re.ASCII)  # what ipset chooses by itself
_DAMAGED = "damaged"  # the value of a `cls` or `blocked` whose chain is not as we write it
_WHOLE = "# whole"
_DISPATCH = re.compile(r"-A TIDEGATE_FORWARD -m connmark --mark 0x([0-9a-f]+) -j (TIDEGATE_GROUP_\d+)", re.ASCII)
_MAC_RULE = re.compile(r"-A TIDEGATE_MAC -m mac --mac-source ([0-9A-Fa-f:]{17}) -j MARK --set-xmark 0x([0-9a-f]+)/0xffffffff")
_ADD = re.compile(r"add (tidegate_[a-z0-9]+) (\S+) skbmark 0x([0-9a-f]+)", re.ASCII)
_RULE = re.compile(r"ip[46] [a-z]+: -A \S+")
_GROUP_CHAIN = re.compile(r"TIDEGATE_GROUP_[0-9]{1,4}", re.ASCII)


def chain_of(mark: int) -> str:
    """The group's chain; legacy iptables takes names of up to 28 bytes."""
    return f"TIDEGATE_GROUP_{GroupId(mark - GUESTS.mark)}"


def _refusal(family: str, mark: int) -> list[str]:
    chain, why = chain_of(mark), "icmp-admin-prohibited" if family == "ip4" else "icmp6-adm-prohibited"
    return [f"-A {chain} -p tcp -j REJECT --reject-with tcp-reset", f"-A {chain} -j REJECT --reject-with {why}"]


def _classification(mark: int) -> list[str]:
    # Digits as tc reads them: hexadecimal, in four places.
    return [f"-A {chain_of(mark)} -j CLASSIFY --set-class 0001:{GroupId(mark - GUESTS.mark).class_minor:0>4}"]


def _group_rules(family: str, table: str, mark: int) -> list[str]:
    return _refusal(family, mark) if table == "filter" else _classification(mark)


def _dispatch(marks: Iterable[int]) -> list[str]:
    return [f"-A TIDEGATE_FORWARD -m connmark --mark {mark:#x} -j {chain_of(mark)}" for mark in sorted(marks)]


def _declare(chain: str) -> str:
    return f":{chain} - [0:0]"


@dataclass(frozen=True, slots=True)
class Iptables:
    """The dialect. `mac_sets`: whether the kernel has sets of MAC addresses."""

    mac_sets: bool = False
    name: str = field(default="iptables", init=False)
    place: str = field(default="iptables chains of ours", init=False)

    def _constant(self, family: str, table: str, lan: str) -> dict[str, list[str]]:
        """The constant rules of our chains, as iptables-save prints them."""
        if table == "filter":
            return {"TIDEGATE_FORWARD": [f"-A TIDEGATE_FORWARD -i {lan} -o {lan} -j RETURN"]}
        addresses = _SETS["ip_mark" if family == "ip4" else "ip6_mark"]
        known = f"-A TIDEGATE_INBOUND -m set --match-set {addresses} dst -j"
        save = "CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff"
        by_mac = f"SET --map-set {_SETS['mac_mark']} src --map-mark" if self.mac_sets else "TIDEGATE_MAC"
        chains = {
            "TIDEGATE_LAN": [
                f"-A TIDEGATE_LAN -j MARK --set-xmark {GUESTS.mark:#x}/0xffffffff",
                f"-A TIDEGATE_LAN -j SET --map-set {addresses} src --map-mark",
                f"-A TIDEGATE_LAN -j {by_mac}",
                f"-A TIDEGATE_LAN -j {save}",
            ],
            "TIDEGATE_INBOUND": [f"{known} SET --map-set {addresses} dst --map-mark", f"{known} {save}"],
            "TIDEGATE_FORWARD": [f"-A TIDEGATE_FORWARD -o {lan} -m connmark --mark 0x0 -j TIDEGATE_INBOUND"],
        }
        return chains if self.mac_sets else {**chains, "TIDEGATE_MAC": []}

    @staticmethod
    def _jumps(table: str, lan: str) -> list[str]:
        if table == "filter":
            return ["FORWARD -j TIDEGATE_FORWARD"]
        return [f"PREROUTING -i {lan} -j TIDEGATE_LAN", "FORWARD -j TIDEGATE_FORWARD"]

    @property
    def _sets(self) -> dict[str, str]:
        """The sets that there are, by their map."""
        return {name: of for name, of in _SETS.items() if self.mac_sets or name != "mac_mark"}

    def base_rules(self, lan: str) -> tuple[str, ...]:
        lines = [f"set {of}: {_TYPES[name]}" for name, of in self._sets.items()]
        for family in FAMILIES:
            for table in TABLES:
                lines += [f"{family} {table}: jump 1 -A {jump}" for jump in self._jumps(table, lan)]
                for chain, rules in self._constant(family, table, lan).items():
                    lines += [f"{family} {table}: chain {chain}", *(f"{family} {table}: {rule}" for rule in rules)]
        return _in_order(lines)

    def whole(self, lan: str, elements: Set[Element]) -> Parts:
        elements = {element if element.value == _DAMAGED else checked(element) for element in elements}
        parts = {"sets": [f"create {of} {_TYPES[name]}" for name, of in self._sets.items()]}
        for table in TABLES:
            marks = {element.mark for element in elements if element.map == _KINDS[table]}
            for family in FAMILIES:
                constant = self._constant(family, table, lan)
                lines = [_WHOLE, f"*{table}", *map(_declare, constant), *(_declare(chain_of(mark)) for mark in sorted(marks))]
                lines += [rule for rules in constant.values() for rule in rules]
                if table == "mangle":
                    lines += self._mac_rules(elements)
                lines += _dispatch(marks)
                lines += [rule for mark in sorted(marks) for rule in _group_rules(family, table, mark)]
                lines += [f"-I {jump}" for jump in self._jumps(table, lan)]
                parts[f"{family}-{table}"] = [*lines, "COMMIT"]
        fill = parts["ipset"] = []
        for name, of in self._sets.items():
            fill += [f"create {of}_new {_TYPES[name]}", f"flush {of}_new"]
            fill += [_add(element, f"{of}_new") for element in sorted(elements) if element.map == name]
            fill += [f"swap {of}_new {of}", f"destroy {of}_new"]
        return parts

    def nothing(self) -> Parts:
        parts = {f"{family}-{table}": [_WHOLE, f"*{table}", "COMMIT"] for table in TABLES for family in FAMILIES}
        # Made where it is not there, so that taking it away can be done again.
        gone = [line for name, of in self._sets.items() for line in (f"create {of} {_TYPES[name]}", f"destroy {of}")]
        return {**parts, "ipset": gone}

    def change(self, lan: str, gone: Iterable[Element], new: Iterable[Element], after: Set[Element]) -> Parts:
        parts: dict[str, list[str]] = {}
        leaving: dict[str, list[str]] = {}
        gone, new = list(gone), [element if element.value == _DAMAGED else checked(element) for element in new]
        macs = not self.mac_sets and any(element.map == "mac_mark" for element in (*gone, *new))
        for table in TABLES:
            kind = _KINDS[table]
            put, now = ({element.mark for element in some if element.map == kind} for some in (new, after))
            leave = {element.mark for element in gone if element.map == kind} - now
            for family in FAMILIES:
                if put or (macs and table == "mangle"):
                    # Also the chains that go: undone from halfway, this is what makes them.
                    chains = put | leave if put else put
                    parts[f"{family}-{table}"] = self._text(family, table, lan, now | leave, chains, after if macs else None)
                if leave:
                    leaving[f"after-{family}-{table}"] = self._text(family, table, lan, now, leave, None)
        return {**parts, "ipset": self._set_changes(gone, new), **leaving}

    def _text(
        self, family: str, table: str, lan: str, marks: Set[int], chains: Set[int], devices: Set[Element] | None
    ) -> list[str]:
        """One table's transaction: these marks are sent to their chains, these chains are written anew or, where their mark is
        sent nowhere, go. `devices`: who is in TIDEGATE_MAC from now on."""
        lines, rules = [f"*{table}"], list[str]()
        if devices is not None and table == "mangle":
            lines.append(_declare("TIDEGATE_MAC"))
            rules += self._mac_rules(devices)
        if chains:
            lines += [_declare("TIDEGATE_FORWARD"), *(_declare(chain_of(mark)) for mark in sorted(chains))]
            rules += self._constant(family, table, lan)["TIDEGATE_FORWARD"] + _dispatch(marks)
            for mark in sorted(chains):
                rules += _group_rules(family, table, mark) if mark in marks else [f"-X {chain_of(mark)}"]
        return [*lines, *rules, "COMMIT"]

    def _mac_rules(self, elements: Set[Element]) -> list[str]:
        if self.mac_sets:
            return []
        return [
            f"-A TIDEGATE_MAC -m mac --mac-source {element.key} -j MARK --set-xmark {element.mark:#x}/0xffffffff"
            for element in sorted(map(checked, (element for element in elements if element.map == "mac_mark")))
        ]

    def _set_changes(self, gone: Iterable[Element], new: Iterable[Element]) -> list[str]:
        put = {(element.map, element.key): element for element in sorted(new) if element.map in self._sets}
        left = [e for e in sorted(gone) if e.map in self._sets and (e.map, e.key) not in put]
        # A device that moves is written over: taken out first, it would be a guest for a moment.
        return [_add(e, self._sets[e.map]) for e in put.values()] + [f"del {self._sets[e.map]} {checked(e).key}" for e in left]

    def place_of(self, element: Element) -> str:
        if element.names_a_device:
            by_rule = element.map == "mac_mark" and not self.mac_sets
            return (
                f"iptables chain TIDEGATE_MAC: {element.key}" if by_rule else f"ipset set {_SETS[element.map]}: {element.key}"
            )
        table = next(table for table, kind in _KINDS.items() if kind == element.map)
        return f"iptables {table} chain {chain_of(element.mark)}"


def _add(element: Element, name: str) -> str:
    _, key, value = checked(element)
    return f"add {name} {key} skbmark {int(value):#x}"


def _in_order(lines: Iterable[str]) -> tuple[str, ...]:
    """Rules keep their order within a chain; which chain is printed first says nothing."""
    return tuple(sorted(lines, key=lambda line: rule[0] if (rule := _RULE.match(line)) else line))


# ── reading back


@dataclass(slots=True)
class _Table:
    """What stands in one table of one family."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    jumps: list[str] = field(default_factory=list)


def read_rules(sets: str, printed: Mapping[str, str]) -> tuple[Iptables, tuple[str, ...], frozenset[Element]]:
    """`ipset save` of our sets, and per family what the agent's `rules.sh` makes of iptables-save, as the dialect that was
    spoken there, its constant part and its elements. Raises Unreadable.

    What stands there and can't be ours is counted to the constant part, so that it differs and all is made anew.
    """
    lines, elements, mac_sets = _read_sets(sets)
    tables = {(family, table): found for family in FAMILIES for table, found in _read_save(printed[family]).items()}
    for table in TABLES:
        groups = {family: _take_groups(family, table, tables[family, table]) for family in FAMILIES}
        for mark in groups["ip4"].keys() | groups["ip6"].keys():
            sound = all(groups[family].get(mark, False) for family in FAMILIES)
            elements.add(_element(_KINDS[table], mark) if sound else Element(_KINDS[table], str(mark), _DAMAGED))
    macs = {family: _take_macs(tables[family, "mangle"]) for family in FAMILIES}
    both = macs["ip4"].items() & macs["ip6"].items()
    elements |= {Element("mac_mark", mac, mark) for mac, mark in both}
    for (family, table), found in tables.items():
        where = f"{family} {table}:"
        lines += [f"{where} jump {jump}" for jump in found.jumps]
        for chain, rules in found.chains.items():
            lines += [f"{where} chain {chain}", *(f"{where} {rule}" for rule in rules)]
        if table == "mangle":
            lines += [f"{where} -A TIDEGATE_MAC {mac}" for mac, mark in macs[family].items() if (mac, mark) not in both]
    return Iptables(mac_sets), _in_order(lines), frozenset(elements)


def _element(kind: str, mark: int) -> Element:
    return Element(kind, str(mark), f"1:{GroupId(mark - GUESTS.mark).class_minor}" if kind == "cls" else "")


def _read_sets(text: str) -> tuple[list[str], set[Element], bool]:
    lines, elements, mac_sets = list[str](), set[Element](), False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["create"] and len(words) > 2:
            lines.append(f"set {words[1]}: {_CHOSEN.sub('', ' '.join(words[2:]))}")
            mac_sets |= words[1] == _SETS["mac_mark"]
        elif match := _ADD.fullmatch(line):
            try:
                elements.add(checked(Element(_MAPS[match[1]], match[2], str(int(match[3], 16)))))
            except (ValueError, KeyError):
                lines.append(f"{line} is none of ours")
        else:
            lines.append(f"{line} is none of ours")
    return lines, elements, mac_sets


def _read_save(text: str) -> dict[str, _Table]:
    """Lines as the agent gives them: `*table`, `:chain`, and rules with their number in their chain before them."""
    found: defaultdict[str, _Table] = defaultdict(_Table)
    for table in TABLES:
        found[table] = _Table()
    table = ""
    for line in text.splitlines():
        number, _, rule = line.partition(" ")
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":TIDEGATE_"):
            found[table].chains.setdefault(line[1:].split()[0], [])
        elif number.isdecimal() and rule.startswith("-A TIDEGATE_"):
            found[table].chains.setdefault(rule.split()[1], []).append(rule)
        elif number.isdecimal() and rule.startswith("-A "):
            # Only in the filter table does it matter who else is asked first.
            found[table].jumps.append(f"{number if table == 'filter' else 1} {rule}")
        else:
            raise Unreadable(f"iptables-save printed {line[:120]!r}")
    return found


def _take_groups(family: str, table: str, found: _Table) -> dict[int, bool]:
    """The groups that have a chain or are sent to one here, and whether that is as we write it; taken out of `found`."""
    marks: dict[int, list[str]] = defaultdict(list)
    kept = []
    for rule in found.chains.get("TIDEGATE_FORWARD", ()):
        match = _DISPATCH.fullmatch(rule)
        mark = int(match[1], 16) if match else 0
        if match and GUESTS.mark <= mark <= GUESTS.mark + 9899 and match[2] == chain_of(mark) and mark not in marks:
            marks[mark] = [rule]
        else:
            kept.append(rule)
    if "TIDEGATE_FORWARD" in found.chains:
        found.chains["TIDEGATE_FORWARD"] = kept
    for chain in [chain for chain in found.chains if _GROUP_CHAIN.fullmatch(chain)]:
        mark = int(chain.rpartition("_")[2]) + GUESTS.mark
        if mark <= GUESTS.mark + 9899 and chain == chain_of(mark):
            marks[mark] += found.chains.pop(chain)
    return {mark: rules == [*_dispatch([mark]), *_group_rules(family, table, mark)] for mark, rules in marks.items()}


def _take_macs(found: _Table) -> dict[str, str]:
    """MAC -> mark, of the rules that are as we write them; taken out of `found`."""
    macs: dict[str, str] = {}
    kept = []
    for rule in found.chains.get("TIDEGATE_MAC", ()):
        element = _mac_element(rule)
        if element and element.key not in macs:
            macs[element.key] = element.value
        else:
            kept.append(rule)
    if "TIDEGATE_MAC" in found.chains:
        found.chains["TIDEGATE_MAC"] = kept
    return macs


def _mac_element(rule: str) -> Element | None:
    if not (match := _MAC_RULE.fullmatch(rule)):
        return None
    try:
        return checked(Element("mac_mark", match[1], str(int(match[2], 16))))
    except ValueError:
        return None
