"""Walking the audit chain in the store, page by page, so that other reads come in between."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tidegate.daemon.journal.chain import Anchor, Break, Verifier
from tidegate.daemon.journal.rows import RAW, chain_in
from tidegate.daemon.secret import Secret

PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Audit:
    """What the walk found: how many entries fit, where the chain ends, and the first break, if there is one."""

    checked: int
    head: Anchor
    broken: Break | None


class Walk:
    """One verification. Call `step` until it returns what was found; nothing in the store can make it fail."""

    def __init__(self, key: Secret, known: Anchor | None = None) -> None:
        """`known` is an anchor kept elsewhere: the chain must pass through it."""
        self._key = key
        self._known = known
        self._verifier: Verifier | None = None

    def step(self, connection: sqlite3.Connection) -> Audit | None:
        try:
            return self._page(connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite quotes damaged bytes
            last = self._verifier.last if self._verifier else Anchor(0, b"")
            return self._found(Break(last.number + 1, f"the store can't be read from here on: {error}"))

    def _page(self, connection: sqlite3.Connection) -> Audit | None:
        taken = chain_in(connection, self._key)
        if taken is None:
            return self._found(Break(0, "the chain's head is missing"))
        chain, sealed = taken
        if not sealed:
            return self._found(Break(chain.head.number, "the chain's head was altered"))
        if self._verifier is None or self._verifier.last.number < chain.floor.number:  # pruned meanwhile
            self._verifier = Verifier(self._key, chain.floor, self._known, self._verifier.checked if self._verifier else 0)
        rows = connection.execute(RAW, (self._verifier.last.number, PAGE)).fetchall()
        if broken := self._verifier.feed(rows):
            return self._found(broken)
        if len(rows) == PAGE:
            return None
        return self._found(chain.broken or self._end(chain.head))

    def _end(self, head: Anchor) -> Break | None:
        assert self._verifier is not None
        last = self._verifier.last
        if last != head:
            return Break(last.number + 1, f"the chain ends at {last.number}, its head says {head.number}")
        if self._known and self._known.number > last.number:
            return Break(last.number + 1, f"the chain ends at {last.number}, before the known entry {self._known.number}")
        return None

    def _found(self, broken: Break | None) -> Audit:
        verifier = self._verifier
        return Audit(verifier.checked, verifier.last, broken) if verifier else Audit(0, Anchor(0, b""), broken)
