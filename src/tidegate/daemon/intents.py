"""What a router is being asked for, written down before it is sent.

A row of `intents` stands from the moment before a change is sent to a router until what came of it is recorded: with it goes
everything that will be recorded then. Whoever finds one asks the router which of the two it is (`changes.settle`). So a crash
between the router's change and the journal's leaves a question that can be answered, never two truths.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate.contract.acting import Acting
from tidegate.daemon import wishes
from tidegate.daemon.wishes import Rows, Wishes
from tidegate.events import Event, data_of, event_from, type_name
from tidegate.policy.group import GroupId

TABLES = (
    """
    CREATE TABLE intents (
      router TEXT PRIMARY KEY REFERENCES routers (id) ON DELETE CASCADE, change TEXT NOT NULL, outcome TEXT NOT NULL,
      by TEXT NOT NULL, request TEXT NOT NULL
    ) STRICT;
    """,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written down of a change that stands: the router's generation, what is told of it, the rows of groups that are
    wished for in another way now, and groups that are gone."""

    generation: int
    events: tuple[Event, ...] = ()
    rows: Rows = ()
    removed: tuple[GroupId, ...] = ()

    def over(self, known: Wishes) -> Wishes:
        """All groups of the router once the change stands."""
        return wishes.over(known, self.rows, self.removed)

    def write(self, db: sqlite3.Connection, router_id: str) -> None:
        """Record it; the intent that said so is done with."""
        wishes.save(db, self.rows)
        for group in self.removed:
            wishes.remove(db, router_id, group)
        now = datetime.now(UTC).isoformat()
        db.execute("UPDATE routers SET generation = ?, last_seen = ? WHERE id = ?", (self.generation, now, router_id))
        drop(db, router_id)


@dataclass(frozen=True, slots=True)
class Intent:
    """`change`: the id under which it waits on the router. `failed` is what is told where it does not stand; `by` and
    `request`: who asked for it, and in which request."""

    change: str
    outcome: Outcome
    failed: Event
    by: str
    request: str

    @property
    def acting(self) -> Acting:
        """Whoever asked, for what is recorded once nobody waits for the answer any more."""
        return Acting(self.by, self.request)

    def to_text(self) -> str:
        """What `put` writes of it. Made before: the journal has one writer, and others' changes wait while it works."""
        outcome = self.outcome
        return json.dumps(
            {
                "generation": outcome.generation,
                "events": [_event(event) for event in outcome.events],
                "rows": outcome.rows,
                "removed": [int(group) for group in outcome.removed],
                "failed": _event(self.failed),
            }
        )


def put(db: sqlite3.Connection, router_id: str, intent: Intent, text: str) -> None:
    """One router is asked for one change at a time."""
    row = (router_id, intent.change, text, intent.by, intent.request)
    db.execute("INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?)", row)


def load(db: sqlite3.Connection, router_id: str) -> Intent | None:
    """What the router was asked for and nobody knows the end of."""
    row = db.execute("SELECT change, outcome, by, request FROM intents WHERE router = ?", (router_id,)).fetchone()
    if row is None:
        return None
    change, text, by, request = row
    told = json.loads(text)
    outcome = Outcome(
        told["generation"],
        tuple(event_from(*event) for event in told["events"]),
        [tuple(row) for row in told["rows"]],
        tuple(GroupId(group) for group in told["removed"]),
    )
    return Intent(change, outcome, event_from(*told["failed"]), by, request)


def drop(db: sqlite3.Connection, router_id: str) -> None:
    db.execute("DELETE FROM intents WHERE router = ?", (router_id,))


def waiting(db: sqlite3.Connection) -> tuple[str, ...]:
    """The routers of which it is not known how their last change ended."""
    return tuple(router for (router,) in db.execute("SELECT router FROM intents ORDER BY router"))


def _event(event: Event) -> tuple[str, dict[str, Any]]:
    return type_name(type(event)), data_of(event)
