"""What is kept and what may go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.daemon.journal.retention import Old, Retention, floor_after

DAY = "2026-11-{:02}T00:00:00.000000Z"


def days(count: int, size: int = 10) -> list[Old]:
    return [Old(number, DAY.format(number), size) for number in range(1, count + 1)]


def floor(rows: list[Old], retention: Retention, horizon: str) -> int:
    return floor_after(rows, rows[0].number - 1, rows[-1].number, sum(row.size for row in rows), retention, horizon)


def test_what_is_young_few_and_small_stays() -> None:
    assert floor(days(28), Retention(), "2026-01-01") == 0


def test_what_is_too_old_goes() -> None:
    assert floor(days(28), Retention(least=1), DAY.format(11)) == 10


def test_what_is_too_many_goes_oldest_first() -> None:
    assert floor(days(28), Retention(entries=5), "2026-01-01") == 23


def test_what_is_too_big_goes_until_it_fits() -> None:
    assert floor(days(28), Retention(size=100, least=1), "2026-01-01") == 18
    assert floor(days(28), Retention(size=105, least=1), "2026-01-01") == 18


def test_a_clock_that_jumps_ahead_does_not_empty_the_journal() -> None:
    assert floor(days(28), Retention(least=20), "2099-01-01") == 8
    assert floor(days(28), Retention(entries=3), "2099-01-01") == 25


def test_the_newest_entry_stays_always() -> None:
    assert floor(days(28), Retention(entries=0, size=0, least=0), "2099-01-01") == 27


def test_an_old_entry_behind_a_young_one_waits_for_it() -> None:
    rows = [Old(1, DAY.format(1), 10), Old(2, DAY.format(20), 10), Old(3, DAY.format(2), 10), Old(4, DAY.format(21), 10)]
    assert floor(rows, Retention(least=1), DAY.format(10)) == 1


@given(
    st.lists(st.tuples(st.integers(1, 28), st.integers(0, 1000)), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 30_000),
    st.integers(0, 70),
    st.integers(1, 28),
)
def test_pruning_in_pages_ends_where_pruning_at_once_does(
    entries: list[tuple[int, int]], most: int, size: int, least: int, horizon: int
) -> None:
    rows = [Old(number, DAY.format(day), big) for number, (day, big) in enumerate(entries, 1)]
    retention = Retention(entries=most, size=size, least=least)
    at_once = floor(rows, retention, DAY.format(horizon))
    gone = 0
    while True:
        page = rows[gone : gone + 7]
        after = floor_after(page, gone, len(rows), sum(r.size for r in rows[gone:]), retention, DAY.format(horizon))
        if after == gone:
            break
        gone = after
    assert gone == at_once
    assert gone < len(rows)
