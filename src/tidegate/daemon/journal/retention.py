"""How long events are kept. Pure: the oldest rows and the stock go in, the new floor comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Retention:
    """At most so many entries, so old, in so many bytes; but the newest `least` always stay, so that no jump of the
    clock empties the journal."""

    entries: int = 5_000_000
    age: timedelta = timedelta(days=90)
    size: int = 1 << 30
    least: int = 10_000


@dataclass(frozen=True, slots=True)
class Old:
    """One of the oldest entries: its number, its time as UTC text (which sorts as time does) and its size in bytes."""

    number: int
    at: str
    size: int


def floor_after(oldest: Iterable[Old], floor: int, head: int, size: int, retention: Retention, horizon: str) -> int:
    """The number up to which entries may go: they are too many, too big together, or from before `horizon`."""
    least = max(1, min(retention.least, retention.entries))
    for row in oldest:
        kept = head - floor
        if kept <= least or (kept <= retention.entries and size <= retention.size and row.at >= horizon):
            break
        floor = row.number
        size -= row.size
    return floor
