"""The dialect of ipset and iptables: what is written is read back, old and new stand together while devices move, and nothing
but numbers and addresses can get into it. That the kernel takes it so is shown in tests/integration/test_iptables.py."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_nftables import HOSTILE
from tests.unit.test_plan import STATES
from tidegate.policy.dialect import Parts
from tidegate.policy.element import Element, Unreadable
from tidegate.policy.iptables import FAMILIES, TABLES, Iptables, chain_of, read_rules
from tidegate.policy.plan import drift, in_words, plan

LAN = "br-lan"
FULL = max((state.elements for state in STATES.values()), key=len) | {Element("blocked", "101"), Element("blocked", "100")}
both = pytest.mark.parametrize("mac_sets", [True, False], ids=["sets of MACs", "a rule for each MAC"])


def listed(parts: Parts) -> tuple[str, dict[str, str]]:
    """What a router that was told this shows, as its agent passes it on."""
    sets = [f"{line} hashsize 1024 maxelem 65536 bucketsize 12 initval 0x5eed" for line in parts["sets"]]
    sets += [line.replace("_new ", " ") for line in parts["ipset"] if line.startswith("add ")]
    shown: dict[str, str] = {}
    for family in FAMILIES:
        lines: list[str] = []
        for table in TABLES:
            text = parts[f"{family}-{table}"]
            lines += [f"*{table}", *(line.split()[0] for line in text if line.startswith(":"))]
            rules = [line.replace("-I ", "-A ") for line in text if line.startswith("-")]
            count: dict[str, int] = {}
            for rule in rules:
                chain = rule.split()[1]
                count[chain] = count.get(chain, 0) + 1
                lines.append(f"{count[chain]} {rule}")
        shown[family] = "\n".join(lines)
    return "\n".join(sets), shown


def edited(shown: Mapping[str, str], family: str, pattern: str, by: str = "") -> dict[str, str]:
    """Somebody changed something in one family; fails where there is nothing to change."""
    text, changes = re.subn(pattern, by, shown[family], flags=re.MULTILINE)
    assert changes
    return {**shown, family: "\n".join(line for line in text.splitlines() if line)}


@both
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_is_written_is_read_back(state: object, mac_sets: bool) -> None:
    dialect = Iptables(mac_sets)
    elements = getattr(state, "elements")  # noqa: B009
    assert read_rules(*listed(dialect.whole(LAN, elements))) == (dialect, dialect.base_rules(LAN), elements)


def test_a_router_with_nothing_of_ours_has_no_rules() -> None:
    assert read_rules("", {"ip4": "*filter\n*mangle", "ip6": ""}) == (Iptables(), (), frozenset())


@both
def test_old_and_new_chains_both_stand_while_devices_move(mac_sets: bool) -> None:
    before = frozenset([Element("ip_mark", "192.168.1.9", "101"), Element("blocked", "101"), Element("cls", "101", "1:101")])
    after = frozenset([Element("ip_mark", "192.168.1.9", "102"), Element("blocked", "102"), Element("cls", "102", "1:102")])
    parts = Iptables(mac_sets).change(LAN, before - after, after - before, after)
    order = list(parts)
    for family in FAMILIES:
        for table in TABLES:
            first, last = f"{family}-{table}", f"after-{family}-{table}"
            assert order.index(first) < order.index("ipset") < order.index(last)
            assert {line for line in parts[first] if "-j TIDEGATE_GROUP" in line} == {
                f"-A TIDEGATE_FORWARD -m connmark --mark {mark} -j TIDEGATE_GROUP_{group}"
                for mark, group in (("0x65", 1), ("0x66", 2))
            }
            assert "-X TIDEGATE_GROUP_1" in parts[last]
            assert not any("TIDEGATE_GROUP_1" in line for line in parts[last] if line.startswith("-A"))
    assert parts["ipset"] == ["add tidegate_ip4 192.168.1.9 skbmark 0x66"]
    assert order.index("ip6-filter") < order.index("ip4-mangle")  # closed before anybody is sent there


def test_one_device_is_one_line_and_one_limit_touches_no_other_chain() -> None:
    one = Element("mac_mark", "02:00:5e:10:00:0b", "107")
    parts = Iptables(mac_sets=True).change(LAN, [], [one], FULL | {one})
    assert {name: lines for name, lines in parts.items() if lines} == {
        "ipset": ["add tidegate_mac 02:00:5e:10:00:0b skbmark 0x6b"]
    }
    limit = Element("cls", "107", "1:107")
    parts = Iptables().change(LAN, [], [limit], FULL | {limit})
    assert {name for name, lines in parts.items() if lines} == {"ip4-mangle", "ip6-mangle"}
    assert [line for line in parts["ip4-mangle"] if line.startswith(":")] == [
        ":TIDEGATE_FORWARD - [0:0]",
        ":TIDEGATE_GROUP_7 - [0:0]",
    ]


DAMAGES = {
    "a chain that is emptied": (
        "^.*CLASSIFY --set-class 0001:0101$",
        "iptables mangle chain TIDEGATE_GROUP_1 has another value",
    ),
    "a jump that is gone": (
        r"^\d+ -A TIDEGATE_FORWARD -m connmark --mark 0x65 -j TIDEGATE_GROUP_1$",
        "iptables mangle chain TIDEGATE_GROUP_1 has another value",
    ),
}


@both
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_chain_that_is_damaged_in_one_family_is_named_and_written_anew(damage: str, family: str, mac_sets: bool) -> None:
    pattern, said = DAMAGES[damage]
    wanted = STATES["child"]
    dialect = Iptables(mac_sets)
    sets, shown = listed(dialect.whole(LAN, wanted.elements))
    _, rules, elements = read_rules(sets, edited(shown, family, pattern))
    assert rules == dialect.base_rules(LAN)
    ours = type(wanted)(rules, wanted.elements, wanted.roots, wanted.classes, dialect)
    mending = plan(type(wanted)(rules, elements, wanted.roots, wanted.classes, dialect), ours)
    assert [remark.text for remark in drift(mending)] == [said]
    assert in_words(mending, LAN) == ("group 1: the way to its class is put right",)
    parts = {name: lines for name, lines in mending.rules(LAN).items() if lines}
    assert parts.keys() == {"ip4-mangle", "ip6-mangle"}
    assert "-A TIDEGATE_GROUP_1 -j CLASSIFY --set-class 0001:0101" in parts["ip4-mangle"]


@both
def test_what_is_damaged_is_whole_again_where_everything_is_made_anew(mac_sets: bool) -> None:
    damaged = {Element("blocked", "101", "damaged"), Element("cls", "101", "damaged")}
    parts = Iptables(mac_sets).whole(LAN, damaged)
    assert read_rules(*listed(parts))[2] == {Element("blocked", "101"), Element("cls", "101", "1:101")}


STRANGE = {
    "a rule between ours": ("ip4", r"^1 -A TIDEGATE_LAN", "1 -A TIDEGATE_LAN -j ACCEPT\n2 -A TIDEGATE_LAN"),
    "somebody before us in FORWARD": ("ip6", r"^1 -A FORWARD -j TIDEGATE_FORWARD$", "2 -A FORWARD -j TIDEGATE_FORWARD"),
    "our jump twice": ("ip4", r"^1 (-A PREROUTING .*)$", r"1 \1\n2 \1"),
    "our jump gone": ("ip6", "^1 -A PREROUTING.*$", ""),
    "a chain that is none of a group": ("ip4", "^:TIDEGATE_LAN", ":TIDEGATE_GROUP_0101\n:TIDEGATE_LAN"),
    "a mark of another group": ("ip6", "0x65 -j TIDEGATE_GROUP_1", "0x65 -j TIDEGATE_GROUP_2"),
    "a MAC in one family alone": ("ip4", r"^\d+ -A TIDEGATE_MAC .*$", ""),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_is_none_of_ours_makes_the_constant_part_differ(what: str) -> None:
    family, pattern, by = STRANGE[what]
    sets, shown = listed(Iptables().whole(LAN, STATES["child"].elements))
    _, rules, _ = read_rules(sets, edited(shown, family, pattern, by))
    assert rules != Iptables().base_rules(LAN)


@pytest.mark.parametrize(
    "line", ["add tidegate_ip4 1.2.3.4", "add tidegate_ip4 1.2.3.4 skbmark 0x65/0xff", "add tidegate_x 1.2.3.4 skbmark 0x65"]
)
def test_a_strange_element_of_a_set_makes_the_constant_part_differ(line: str) -> None:
    line = f"add tidegate_{line}"
    sets, shown = listed(Iptables().whole(LAN, frozenset()))
    _, rules, elements = read_rules(f"{sets}\n{line}", shown)
    assert (set(rules) - set(Iptables().base_rules(LAN)), elements) == ({f"{line} is none of ours"}, frozenset())


def test_a_set_of_another_type_makes_the_constant_part_differ() -> None:
    sets, shown = listed(Iptables().whole(LAN, frozenset()))
    assert read_rules(sets.replace("inet6 skbinfo", "inet6 timeout 9"), shown)[1] != Iptables().base_rules(LAN)


@pytest.mark.parametrize("text", ["x", ":", ": - [0:0]", "-A FORWARD -j ACCEPT", "*filter\n1 -D FORWARD", "²: 1 -A FORWARD"])
def test_what_the_agent_never_prints_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_rules("", {"ip4": text, "ip6": ""})


def test_a_chain_name_has_at_most_28_bytes() -> None:
    assert chain_of(100 + 9899) == "TIDEGATE_GROUP_9899"
    assert len(max(re.findall(r"TIDEGATE_\w+", " ".join(Iptables().base_rules(LAN))), key=len)) <= 28


@both
@given(
    name=st.sampled_from(["mac_mark", "ip_mark", "ip6_mark", "cls", "blocked"]),
    key=HOSTILE,
    value=st.one_of(st.just(""), HOSTILE),
)
def test_hostile_text_is_refused_or_is_plain(mac_sets: bool, name: str, key: str, value: str) -> None:
    """SEC-29: what reaches a router is built from its type anew."""
    try:
        parts = Iptables(mac_sets).change(LAN, [], [Element(name, key, value)], {Element(name, key, value)})
    except ValueError:
        return
    text = "\n".join(line for lines in parts.values() for line in lines)
    assert re.fullmatch(r"[A-Za-z0-9_:.,*/\[\] \n-]*", text, re.ASCII)
