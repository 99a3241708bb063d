"""The audit chain: every entry of the journal sealed together with all that came before it. Pure; rows go in, verdicts out.

    hash(n) = HMAC-SHA-256(key, hash(n-1) · number · at · by · request · type · data)     each field with its length

HMAC and not a bare SHA-256, because a bare chain can be recomputed by whoever can write the database: with the key in a
file of its own (mode 0600, in no backup of the database) the two are different powers. Who holds both, root on this
machine, can still write a chain anew or cut its end off; that shows only against an anchor (number, hash) kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tidegate.daemon.secret import Secret

START = bytes(32)  # what stands before the first entry

Row = tuple[Any, ...]  # number, at, by, request, type, data, hash as the database gives them: nothing in it is sure


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in the chain: `hash` seals every entry up to `number`."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry that does not fit, and why."""

    at: int
    why: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the chain begins and ends, as kept in the database. Entries up to `floor` are gone by retention.

    `broken` stays once damage was seen when the store was opened, so that going on can't cover it up.
    """

    floor: Anchor = Anchor(0, START)
    head: Anchor = Anchor(0, START)
    size: int = 0  # of the entries kept, in bytes
    broken: Break | None = None

    def seal(self, key: Secret) -> bytes:
        """What proves that this row was written by a holder of the key."""
        broken = (str(self.broken.at), self.broken.why) if self.broken else ("", "")
        texts = ("chain", str(self.floor.number), str(self.head.number), str(self.size), *broken)
        return key.sign(_framed(self.floor.hash, self.head.hash, *(text.encode() for text in texts)))


def link(key: Secret, previous: bytes, number: int, *fields: bytes) -> bytes:
    """The hash of entry `number` with these fields (at, by, request, type, data), after `previous`."""
    return key.sign(_framed(previous, b"%d" % number, *fields))


class Verifier:
    """Walks the chain upwards from an anchor; feed it rows in order. It must pass through `known`, where that is given."""

    def __init__(self, key: Secret, start: Anchor, known: Anchor | None = None, checked: int = 0) -> None:
        self._key = key
        self._known = known
        self.last = start
        self.checked = checked

    def feed(self, rows: Iterable[Row]) -> Break | None:
        """The first of the rows that does not fit, or None. Rows may hold anything."""
        for number, *fields, sealed in rows:
            expected = self.last.number + 1
            if type(number) is not int or number != expected:
                return Break(expected, f"entry {expected} is missing: {number} follows {self.last.number}")
            if not all(isinstance(field, bytes) for field in fields):
                return Break(expected, f"entry {expected} lacks a field")
            found = link(self._key, self.last.hash, expected, *fields)
            if not isinstance(sealed, bytes) or not Secret(found).matches(Secret(sealed)):
                return Break(expected, f"entry {expected} or its place in the chain was altered")
            self.last = Anchor(expected, found)
            if self._known and self._known.number == expected and self._known != self.last:
                return Break(expected, f"entry {expected} is not the known one: the chain was written anew")
            self.checked += 1
        return None


def _framed(*parts: bytes) -> bytes:
    """The parts with their lengths, so that no two lists of parts give the same bytes."""
    return b"".join(b"%d:" % len(part) + part for part in parts)
