"""Ranges of addresses against a naive model: a bit per address."""

from __future__ import annotations

import random
from typing import cast

import pytest

from tidegate.torrent.ranges import Ranges, Version

SPACE = 2_000


def some_pairs(rng: random.Random, base: int) -> list[tuple[int, int]]:
    pairs = [(rng.randrange(SPACE), rng.randrange(1, 40)) for _ in range(rng.randrange(80))]
    found = [(base + first, base + min(SPACE - 1, first + length)) for first, length in pairs]
    return [pair if rng.random() < 0.9 else (pair[1], pair[0]) for pair in found]


@pytest.mark.parametrize(("version", "base"), [(4, 0), (4, (1 << 32) - SPACE), (6, 1 << 100), (6, (1 << 128) - SPACE)])
def test_ranges_hold_exactly_the_addresses_that_they_were_made_of(version: int, base: int) -> None:
    rng = random.Random(7)
    for _ in range(60):
        pairs = some_pairs(rng, base)
        model = {at for a, b in pairs for at in range(min(a, b), max(a, b) + 1)}
        ranges = Ranges.of(cast(Version, version), pairs)
        assert {at for at in range(base, base + SPACE) if ranges.find(at)} == model
        assert ranges.addresses == len(model)
        gaps = [after - before for before, after in zip(ranges.lasts, list(ranges.firsts)[1:], strict=False)]
        assert all(gap > 1 for gap in gaps), "the shortest form: nothing overlaps and nothing touches"
        again = Ranges.from_bytes(ranges.version, ranges.to_bytes())
        assert (list(again.firsts), list(again.lasts)) == (list(ranges.firsts), list(ranges.lasts))
        low, high = sorted((base + rng.randrange(SPACE), base + rng.randrange(SPACE)))
        cut = {at for a, b in ranges.within(low, high) for at in range(a, b + 1)}
        assert cut == {at for at in model if low <= at <= high}


def test_no_ranges_at_all() -> None:
    empty = Ranges.of(4, [])
    assert (len(empty), empty.addresses, empty.find(3), list(empty.within(0, 9)), empty.to_bytes()) == (0, 0, None, [], b"")
