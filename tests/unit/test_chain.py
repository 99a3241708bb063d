"""The audit chain shows every change to what was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.daemon.journal.chain import START, Anchor, Break, Chain, Row, Verifier, link
from tidegate.daemon.secret import Secret

KEY = Secret(b"k" * 32)
FIELDS = (b"2026-11-01T12:00:00.000000Z", b"key:ab12cd34", b"r-1", b"router_removed", b'{"router":"home"}')


def chain_of(count: int, key: Secret = KEY) -> list[Row]:
    rows: list[Row] = []
    last = START
    for number in range(1, count + 1):
        last = link(key, last, number, *FIELDS)
        rows.append((number, *FIELDS, last))
    return rows


BEGINNING = Anchor(0, START)


def verdict(rows: list[Row], start: Anchor = BEGINNING, known: Anchor | None = None) -> Break | None:
    return Verifier(KEY, start, known).feed(rows)


def test_an_untouched_chain_fits_also_from_its_middle() -> None:
    rows = chain_of(50)
    assert verdict(rows) is None
    assert verdict(rows[20:], Anchor(20, rows[19][-1])) is None


def test_every_single_flipped_bit_of_every_field_is_found() -> None:
    rows = chain_of(3)
    flips = 0
    for place, value in enumerate(rows[1]):
        if place == 0:
            continue
        for bit in range(len(value) * 8):
            altered = bytearray(value)
            altered[bit // 8] ^= 1 << bit % 8
            found = verdict([rows[0], (*rows[1][:place], bytes(altered), *rows[1][place + 1 :]), rows[2]])
            assert found is not None
            assert found.at == 2
            flips += 1
    assert flips == sum(len(field) for field in rows[1][1:]) * 8


@pytest.mark.parametrize(
    ("tamper", "at"),
    [
        (lambda rows: rows[:4] + rows[5:], 5),
        (lambda rows: rows[1:], 1),
        (lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]], 4),
        (lambda rows: [*rows[:3], (4, *rows[4][1:]), (5, *rows[3][1:]), *rows[5:]], 4),
        (lambda rows: [*rows[:3], rows[2], *rows[3:]], 4),
        (lambda rows: [*rows[:3], (4, *FIELDS, link(Secret(b"x" * 32), rows[2][-1], 4, *FIELDS)), *rows[4:]], 4),
        (lambda rows: chain_of(10, Secret(b"x" * 32)), 1),
    ],
    ids=["deleted", "beginning deleted", "swapped", "swapped and renumbered", "doubled", "forged", "forged as a whole"],
)
def test_entries_deleted_swapped_doubled_or_forged_are_found(tamper: Callable[[list[Row]], list[Row]], at: int) -> None:
    found = verdict(tamper(chain_of(10)))
    assert found is not None
    assert found.at == at


def test_an_anchor_kept_elsewhere_shows_a_chain_written_anew_even_by_a_holder_of_the_key() -> None:
    known = Anchor(5, chain_of(5)[-1][-1])
    assert verdict(chain_of(10), known=known) is None
    rewritten: list[Row] = []
    last = START
    for number in range(1, 11):
        last = link(KEY, last, number, b"then", *FIELDS[1:])
        rewritten.append((number, b"then", *FIELDS[1:], last))
    assert verdict(rewritten) is None
    assert verdict(rewritten, known=known) == Break(5, "entry 5 is not the known one: the chain was written anew")


def test_bytes_can_not_move_from_one_field_to_the_next() -> None:
    assert link(KEY, START, 1, b"ab", b"c") != link(KEY, START, 1, b"a", b"bc")
    assert link(KEY, START, 1, b"a", b"") != link(KEY, START, 1, b"", b"a")
    assert link(KEY, START, 11, b"a") != link(KEY, START, 1, b"1a")


anything = st.none() | st.integers() | st.floats() | st.text() | st.binary()


@given(st.lists(st.tuples(*[anything] * 7)))
def test_no_row_whatever_it_holds_breaks_the_verifier(rows: list[tuple[Any, ...]]) -> None:
    assert (verdict(rows) is None) == (not rows)


@given(st.integers(0, 6), anything)
def test_a_field_of_any_other_value_is_found(place: int, value: Any) -> None:
    rows = chain_of(3)
    before = rows[1][place]
    rows[1] = (*rows[1][:place], value, *rows[1][place + 1 :])
    same = type(value) is type(before) and value == before
    assert (verdict(rows) is None) == same


def test_the_seal_covers_everything_that_the_head_says() -> None:
    plain = Chain(Anchor(3, b"f" * 32), Anchor(9, b"h" * 32), 77)
    others = [
        Chain(Anchor(4, b"f" * 32), Anchor(9, b"h" * 32), 77),
        Chain(Anchor(3, b"g" * 32), Anchor(9, b"h" * 32), 77),
        Chain(Anchor(3, b"f" * 32), Anchor(8, b"h" * 32), 77),
        Chain(Anchor(3, b"f" * 32), Anchor(9, b"i" * 32), 77),
        Chain(Anchor(3, b"f" * 32), Anchor(9, b"h" * 32), 78),
        Chain(Anchor(3, b"f" * 32), Anchor(9, b"h" * 32), 77, Break(1, "x")),
    ]
    seals = {chain.seal(KEY) for chain in [plain, *others]} | {plain.seal(Secret(b"x" * 32))}
    assert len(seals) == 8
