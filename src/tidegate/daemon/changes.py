"""A change to a router from end to end: applied and read back, then written down, or taken off the router again."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from tidegate.daemon import wishes
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.wishes import Wishes
from tidegate.errors import Conflict, Refused, StorageFull, TimedOut, Unavailable
from tidegate.events import Event
from tidegate.router.fleet import ManagedRouter

T = TypeVar("T")


async def attempt(journal: Journal, change: Awaitable[T], failed: Callable[[str], Event]) -> T:
    """The change; where it does not reach its end, an event tells of it and the failure goes on to the caller."""
    try:
        return await change
    except (Refused, Conflict, Unavailable, TimedOut) as error:
        with suppress(StorageFull):  # why the router refused is what the caller should learn
            await journal.commit(nothing, failed(error.detail))
        raise


async def record(
    journal: Journal, router: ManagedRouter, before: Wishes, write: Callable[[sqlite3.Connection], None], *events: Event
) -> None:
    """Write down what the router already runs. Where that can't be done, the router goes back to what was before."""
    try:
        await journal.commit(write, *events)
    except (StorageFull, Unavailable):
        await router.engine.synchronise(wishes.states(before))
        raise
