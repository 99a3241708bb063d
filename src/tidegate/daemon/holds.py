"""The journal's rows of held routers: no change passes to one until it is released, whatever becomes of this process."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from tidegate.api.routers import Hold, Reason
from tidegate.errors import Conflict

TABLES = (
    """
    CREATE TABLE holds (
      router TEXT PRIMARY KEY REFERENCES routers (id) ON DELETE CASCADE, by TEXT NOT NULL, since TEXT NOT NULL,
      why TEXT NOT NULL
    ) STRICT;
    """,
)


def load(db: sqlite3.Connection) -> dict[str, Hold]:
    """All of them, by router."""
    rows = db.execute("SELECT router, by, since, why FROM holds")
    return {router: Hold(by, datetime.fromisoformat(since), Reason(why)) for router, by, since, why in rows}


def save(db: sqlite3.Connection, router_id: str, hold: Hold) -> None:
    db.execute(
        "INSERT INTO holds VALUES (?, ?, ?, ?) "
        "ON CONFLICT (router) DO UPDATE SET by = excluded.by, since = excluded.since, why = excluded.why",
        (str(router_id), hold.by, hold.since.isoformat(), str(hold.why)),
    )


def remove(db: sqlite3.Connection, router_id: str) -> None:
    db.execute("DELETE FROM holds WHERE router = ?", (str(router_id),))


def in_the_way(router_id: str, hold: Hold) -> Conflict:
    """What whoever wants to change a held router is told."""
    since = hold.since.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Conflict(
        f"router {router_id} is held by {hold.by} since {since}: {hold.why}. Nothing was changed; "
        f"`tidegate routers release` lets changes through again",
        held_by=hold.by,
        held_since=since,
        why=str(hold.why),
    )
