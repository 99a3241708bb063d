"""The table's listing, read back; and that nothing but numbers and addresses can get into its maps."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.policy.element import Element, Unreadable
from tidegate.policy.nftables import PORTION, Nftables, base_rules, change_elements, create_table, read_table


def listing(*entries: object) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, *entries]})


def map_of(name: str, key: str, value: str, *elements: object) -> dict[str, object]:
    return {
        "map": {
            "family": "inet",
            "name": name,
            "table": "tidegate",
            "type": key,
            "map": value,
            "handle": 4,
            "elem": list(elements),
        }
    }


def test_elements_are_read_as_they_were_asked_for() -> None:
    _, elements = read_table(
        listing(
            map_of("mac_mark", "ether_addr", "mark", ["02:11:22:33:44:55", 101]),
            map_of("ip_mark", "ipv4_addr", "mark", ["192.168.1.9", 101]),
            map_of("ip6_mark", "ipv6_addr", "mark", ["2001:db8::1", 102], ["fd00::1", 102]),
            map_of("cls", "mark", "classid", [110, "1:110"]),
            {
                "set": {
                    "family": "inet",
                    "name": "blocked",
                    "table": "tidegate",
                    "type": "mark",
                    "handle": 5,
                    "elem": [100, 107],
                }
            },
        )
    )
    assert elements == {
        Element("mac_mark", "02:11:22:33:44:55", "101"),
        Element("ip_mark", "192.168.1.9", "101"),
        Element("ip6_mark", "2001:db8::1", "102"),
        Element("ip6_mark", "fd00::1", "102"),
        Element("cls", "110", "1:110"),
        Element("blocked", "100"),
        Element("blocked", "107"),
    }


def test_a_rule_that_was_put_between_ours_makes_the_table_differ() -> None:
    rule = {"rule": {"family": "inet", "table": "tidegate", "chain": "forward", "handle": 9, "expr": [{"accept": None}]}}
    rules, _ = read_table(listing(rule))
    assert rules == ('rule in forward: [{"accept": null}]',)
    assert rules[0] not in base_rules("br-lan")


def test_an_element_that_can_not_be_ours_makes_the_table_differ() -> None:
    rules, elements = read_table(listing(map_of("mac_mark", "ether_addr", "mark", ["ff:ff:ff:ff:ff:ff", 101])))
    assert not elements
    assert any("none of ours" in rule for rule in rules)


@pytest.mark.parametrize("printed", ["tcp", 6])
def test_a_router_that_knows_no_protocol_names_prints_the_number_and_means_the_same(printed: object) -> None:
    match = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": printed}}
    rule = {"rule": {"chain": "refuse", "handle": 9, "expr": [match, {"reject": {"type": "tcp reset"}}]}}
    (read,), _ = read_table(listing(rule))
    assert read in base_rules("br-lan")


def test_a_strange_element_in_our_set_makes_the_table_differ() -> None:
    entry = {"set": {"name": "blocked", "type": "mark", "elem": [{"range": [1, 9]}, -4]}}
    rules, elements = read_table(listing(entry))
    assert not elements
    assert sum("none of ours" in rule for rule in rules) == 2


def test_a_set_or_counter_that_was_added_makes_the_table_differ() -> None:
    rules, _ = read_table(listing({"set": {"family": "inet", "name": "x", "table": "tidegate", "type": "mark", "handle": 3}}))
    assert rules == ("set that is none of ours",)


def test_another_lan_interface_is_another_table() -> None:
    assert base_rules("br-lan") != base_rules("br-home")
    assert any('iifname "br-home" jump lan' in line for line in create_table("br-home"))


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"nftables": [1]}', '{"nftables": [{"map": {"x": 1}}]}', '{"nftables": ' + "[" * 5000]
)
def test_what_nft_never_prints_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_table(text)


def test_many_elements_are_put_in_portions_and_none_is_lost() -> None:
    macs = [Element("mac_mark", f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", "101") for n in range(2 * PORTION + 1)]
    lines = change_elements((), [*macs, Element("blocked", "101")])
    assert [line.count(" : ") for line in lines] == [0, PORTION, PORTION, 1]
    assert all(f"{mac}" in " ".join(lines) for mac in macs)
    gone = change_elements(macs, ())
    assert [line.count(",") + 1 for line in gone] == [PORTION, PORTION, 1]
    assert not any(" : " in line for line in gone)


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            '1" ; flush ruleset #',
            "101\n",
            "101 }\nflush ruleset\nadd element inet tidegate cls { 1",
            "02:11:22:33:44:55\n",
            "02:11:22:33:44:55 : 1 } ; flush ruleset",
            "999.1.1.1",
            "fe80::1%br-lan",
            "1:١٠١",
            "1:10000",
            "-1",
            "$(reboot)",
        ]
    ),
)


@given(st.sampled_from(["mac_mark", "ip_mark", "ip6_mark", "cls", "blocked"]), HOSTILE, st.one_of(st.just(""), HOSTILE))
def test_hostile_text_is_refused_or_is_one_plain_element(name: str, key: str, value: str) -> None:
    """SEC-29: what reaches a router is built from its type anew."""
    try:
        (line,) = change_elements((), [Element(name, key, value)])
    except ValueError:
        return
    assert line.isascii()
    assert len(line.split()) == (8 if name == "blocked" else 10)
    assert not set(line) & set("\n\r;\"'`$()#\\")


def limit(name: str, rate: int, burst: int, **other: object) -> dict[str, object]:
    """As nft prints it: in the largest unit that holds it in whole."""
    shown = {"name": name, "table": "tidegate", "per": "second", "inv": True, "rate_unit": "bytes", "burst_unit": "kbytes"}
    return {"limit": {**shown, "rate": rate, "burst": burst, **other}}


POLICED_GROUP = (map_of("police_down", "mark", "limit", [101, "down_101_20000"]), limit("down_101_20000", 2_500_000, 64))


def test_what_a_policer_lets_through_is_read_from_the_name_that_its_limit_bears() -> None:
    rules, elements = read_table(listing(*POLICED_GROUP))
    assert elements == {Element("police_down", "101", "20000")}
    assert rules == ("map police_down: mark to limit",)
    assert "map police_down: mark to limit" in Nftables(policed=True).base_rules("br-lan")
    assert change_elements((), elements) == [
        "add limit inet tidegate down_101_20000 { rate over 2500000 bytes/second burst 65536 bytes }",
        'add element inet tidegate police_down { 101 : "down_101_20000" }',
    ]
    assert change_elements(elements, ()) == [
        "delete element inet tidegate police_down { 101 }",
        "delete limit inet tidegate down_101_20000",
    ]


@pytest.mark.parametrize(
    "entries",
    [
        (POLICED_GROUP[0], limit("down_101_20000", 9_900_000, 64)),
        (POLICED_GROUP[0], limit("down_101_20000", 2_500_000, 64, inv=False)),
        (POLICED_GROUP[0], limit("down_101_20000", 2_500_000, 64, per="hour")),
        (*POLICED_GROUP, limit("up_101_20000", 2_500_000, 64)),
        (map_of("police_up", "mark", "limit", [101, "down_101_20000"]),),
        (map_of("police_down", "mark", "limit", [102, "down_101_20000"]),),
        (map_of("police_down", "mark", "limit", [101, "theirs"]),),
    ],
)
def test_a_limit_that_is_not_what_its_name_says_makes_the_table_differ(entries: tuple[dict[str, object], ...]) -> None:
    rules, _ = read_table(listing(*entries))
    assert any("none of ours" in rule for rule in rules)


@given(st.sampled_from(["police_down", "police_up"]), HOSTILE, HOSTILE)
def test_hostile_text_is_refused_or_is_one_plain_limit(name: str, key: str, value: str) -> None:
    try:
        lines = change_elements((), [Element(name, key, value)])
    except ValueError:
        return
    assert all(re.fullmatch(r'[a-z0-9_ /:{}"]+', line) for line in lines)
