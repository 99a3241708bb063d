"""Who may connect: lists, blacklist and whitelist as one, against a naive model."""

from __future__ import annotations

import os
import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import libtorrent as lt
import pytest

from tidegate.torrent.ipfilter import EVERYTHING, IpFilter, Match, Networks, Rule, Verdict, suspicion
from tidegate.torrent.iplist import AddressList
from tidegate.torrent.ranges import Ranges

ORACLE = int(os.environ.get("TIDEGATE_TEST_ADDRESSES", "100000"))

V4, V6 = int(IPv4Address("10.0.0.0")), int(IPv6Address("2001:db8::"))


def address_list(*pairs: tuple[str, str]) -> AddressList:
    found = [(ip_address(a), ip_address(b)) for a, b in pairs]
    of = {v: Ranges.of(v, [(int(a), int(b)) for a, b in found if a.version == v]) for v in (4, 6)}
    return AddressList(of[4], of[6])


def networks(*texts: str) -> Networks:
    return Networks(frozenset(map(ip_network, texts)))


def a_filter(rng: random.Random, space: int) -> tuple[IpFilter, list[list[tuple[int, int]]], list[Any], list[Any]]:
    """Lists, a blacklist and a whitelist in the first `space` addresses of both networks; and what a naive model needs."""
    lists = []
    for _ in range(3):
        starts = [rng.randrange(space) for _ in range(150)]
        lists.append([(start, min(space - 1, start + rng.randrange(space // 400))) for start in starts])

    def some(count: int) -> list[Any]:
        found = []
        for _ in range(count):
            length = rng.choice([18, 22, 24, 28, 31, 32])
            at = rng.randrange(space)
            found.append(ip_network((V4 + at, length), strict=False))
            found.append(ip_network((V6 + at, length + 96), strict=False))
        return found

    black, white = some(40), some(25)
    named = {
        f"list-{n}": AddressList(
            Ranges.of(4, [(V4 + a, V4 + b) for a, b in pairs]), Ranges.of(6, [(V6 + a, V6 + b) for a, b in pairs])
        )
        for n, pairs in enumerate(lists)
    }
    return IpFilter(named, Networks(frozenset(black)), Networks(frozenset(white))), lists, black, white


def naive(lists: list[list[tuple[int, int]]], black: list[Any], white: list[Any], space: int, base: Any) -> bytearray:
    """A byte per address: whether it is blocked."""
    found = bytearray(space)
    for pairs in lists:
        for first, last in pairs:
            found[first : last + 1] = b"\1" * (last + 1 - first)
    for each, value in [(network, b"\1") for network in black] + [(network, b"\0") for network in white]:
        if each.version == ip_address(base).version:
            first = max(0, int(each.network_address) - base)
            last = min(space - 1, int(each.broadcast_address) - base)
            found[first : last + 1] = value * (last + 1 - first)
    return found


def engine(rules: Any) -> Any:
    known = lt.ip_filter()
    for first, last, blocked in rules:
        known.add_rule(first, last, int(blocked))
    return known


def test_the_filter_and_the_engine_say_what_a_naive_model_says_of_every_address() -> None:
    """A hundred thousand addresses here, half of each kind; the full run has a million (TIDEGATE_TEST_ADDRESSES)."""
    space = ORACLE // 2
    ip_filter, lists, black, white = a_filter(random.Random(2), space)
    known = engine(rule for everything in EVERYTHING for rule in ip_filter.rules(everything))
    for base in (V4, V6):
        model = naive(lists, black, white, space, base)
        assert 0.05 < sum(model) / space < 0.95
        for at in range(space):
            address = ip_address(base + at)
            assert known.access(str(address)) == model[at], address
            if at % 10 == 0:
                assert ip_filter.verdict(address).blocked == bool(model[at]), address


def test_an_engine_that_is_told_of_changed_networks_alone_knows_what_one_does_that_is_told_all() -> None:
    rng = random.Random(4)
    before, *_ = a_filter(rng, 5_000)
    known = engine(rule for everything in EVERYTHING for rule in before.rules(everything))
    now, black, white = before, set(before.blacklist), set(before.whitelist)
    for _ in range(60):
        changed = black if rng.random() < 0.6 else white
        if changed and rng.random() < 0.5:
            network = rng.choice(sorted(changed, key=str))
            changed.discard(network)
        else:
            network = ip_network((V4 + rng.randrange(5_000), rng.choice([20, 26, 30, 32])), strict=False)
            changed.add(network)
        now = IpFilter(before.lists, Networks(frozenset(black)), Networks(frozenset(white)))
        for first, last, blocked in now.rules(network):
            known.add_rule(first, last, int(blocked))
    fresh = engine(rule for everything in EVERYTHING for rule in now.rules(everything))
    for at in range(5_000):
        for base in (V4, V6):
            assert known.access(str(ip_address(base + at))) == fresh.access(str(ip_address(base + at)))


def test_the_whitelist_beats_the_blacklist_beats_the_lists_and_every_reason_is_told() -> None:
    ip_filter = IpFilter(
        {"level1": address_list(("1.2.0.0", "1.2.255.255")), "own": address_list(("1.2.3.4", "1.2.3.4"))},
        networks("1.2.3.0/24", "1.2.3.4/32"),
        networks("1.2.3.4"),
    )
    assert ip_filter.verdict(ip_address("1.2.3.4")) == Verdict(
        False,
        "whitelist",
        (
            Match("whitelist", "1.2.3.4/32"),
            Match("blacklist", "1.2.3.4/32"),
            Match("blacklist", "1.2.3.0/24"),
            Match("level1", "1.2.0.0-1.2.255.255"),
            Match("own", "1.2.3.4-1.2.3.4"),
        ),
    )
    assert ip_filter.verdict(ip_address("1.2.3.5")).by == "blacklist"
    assert ip_filter.verdict(ip_address("1.2.4.5")).by == "level1"
    assert ip_filter.verdict(ip_address("2001:db8::1")) == Verdict(False, None, ())
    assert ip_filter.ranges == 5


def test_rules_stay_within_the_network_that_is_asked_for() -> None:
    ip_filter = IpFilter({"l": address_list(("1.2.0.0", "1.2.255.255"))}, networks("1.0.0.0/8"), networks("1.2.3.0/25"))
    assert list(ip_filter.rules(ip_network("1.2.3.0/24"))) == [
        Rule("1.2.3.0", "1.2.3.255", False),
        Rule("1.2.3.0", "1.2.3.255", True),
        Rule("1.2.3.0", "1.2.3.255", True),
        Rule("1.2.3.0", "1.2.3.127", False),
    ]


def ranges(count: int) -> AddressList:
    return AddressList(Ranges.of(4, [(V4 + 4 * n, V4 + 4 * n) for n in range(count)]), Ranges.of(6, []))


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (None, ranges(5), None),
        (ranges(10), ranges(5), None),
        (ranges(10), ranges(4), "shrunk from 10 to 4"),
        (ranges(1), ranges(0), "shrunk"),
        (ranges(0), ranges(5_000), None),
        (ranges(50), ranges(1_000), None),
        (ranges(100), ranges(1_001), "grown from 100 to 1,001"),
        (None, address_list(("0.0.0.0", "128.0.0.0")), "more than half"),
        (None, address_list(("0.0.0.0", "127.255.255.255")), None),
        (None, address_list(("::", "ffff::")), "more than half"),
    ],
)
def test_a_list_that_is_another_than_it_was_waits_for_a_person(
    before: AddressList | None, now: AddressList, why: str | None
) -> None:
    found = suspicion(before, now)
    assert found is None if why is None else found and why in found
