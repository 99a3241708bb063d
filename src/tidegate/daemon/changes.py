"""A change to a router from end to end: written down as intended, applied and read back, and recorded as done.

Whoever dies in between leaves the intent. It is settled at the next contact with that router, before anything else is asked of
it: a change that stands is recorded, with its events, as if nothing had happened; one that does not is dropped and told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from time import perf_counter
from typing import NamedTuple

from tidegate.api.groups import Durations
from tidegate.contract.acting import acting
from tidegate.daemon import intents, wishes
from tidegate.daemon.intents import Intent, Outcome
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.wishes import Wishes
from tidegate.errors import Conflict, Refused, StorageFull, TimedOut, Unavailable
from tidegate.events import Event
from tidegate.router.aside import FEW, aside
from tidegate.router.engine import Announce, Applied
from tidegate.router.fleet import ManagedRouter
from tidegate.router.shell import HostKeyChanged, LogInRefused

NOBODY_SAW = (
    "nobody saw how the change ended: the daemon, or its line to the router, was cut off in the middle; "
    "asked later, the router runs what it ran before"
)


class Done(NamedTuple):
    """A change that stands and is recorded; milliseconds that the journal took before it was sent and after."""

    applied: Applied
    intend: float
    commit: float


async def carry_out(
    journal: Journal,
    router: ManagedRouter,
    before: Wishes,
    work: Callable[[Announce], Awaitable[Applied]],
    outcome: Callable[[Applied], Outcome | None],
    failed: Callable[[str], Event],
) -> Done:
    """Do the work and record its outcome (None: nothing to record). The caller has the router's turn.

    Where it does not reach its end, `failed` tells of it and the failure goes on to the caller. Where the outcome can't be
    recorded because the disk is full, the router goes back to what was `before`; where it is not known whether it was, the
    intent stays open.
    """
    sent: tuple[Intent, Applied] | None = None
    intending = 0.0

    async def announce(change: str, expected: Applied) -> None:
        nonlocal sent, intending
        began = perf_counter()
        size = len(expected.words)
        what = await aside(size, FEW, outcome, expected) or Outcome(expected.generation)
        who = acting()
        intent = Intent(change, what, failed(NOBODY_SAW), who.by, who.request)
        text = await aside(size, FEW, intent.to_text)
        given_up = sent is None and not router.settled  # asked for something else before it was known how the last one ended
        events = await journal.read(lambda db: _told_of(intents.load(db, router.id))) if given_up else ()
        router.settled = False
        await journal.commit(lambda db: intents.put(db, router.id, intent, text), *events)
        sent = intent, expected
        intending += perf_counter() - began

    try:
        applied = await work(announce)
    except (Refused, Conflict, Unavailable, TimedOut) as error:
        if sent is None:
            with suppress(StorageFull):  # why the router refused is what the caller should learn
                await journal.commit(nothing, failed(error.detail))
            raise
        with suppress(Refused, Unavailable, TimedOut, StorageFull, HostKeyChanged, LogInRefused):
            if await settle(journal, router, failed(error.detail)):
                return Done(sent[1], _ms(intending), 0.0)
        raise
    committing = perf_counter()
    if what := sent[0].outcome if sent else outcome(applied):
        try:
            await journal.commit(lambda db: what.write(db, router.id), *what.events)
        except StorageFull:
            await router.engine.synchronise(wishes.states(before))
            raise
        router.settled = True
    return Done(applied, _ms(intending), _ms(perf_counter() - committing))


async def settle(journal: Journal, router: ManagedRouter, failed: Event | None = None) -> bool:
    """Put an end to an open intent, by asking the router; whether there was one, and it stands. The caller has its turn.

    `failed` is told instead of what the intent says where it does not stand. Raises Refused where the router's answer can't be
    understood, Unavailable or TimedOut where it does not answer: the intent then stays open.
    """
    intent = await journal.read(lambda db: intents.load(db, router.id))
    stands = False
    if intent is not None:
        outcome = intent.outcome
        after = outcome.over(await wishes.load(journal, router.id))
        wanted = await aside(len(after), FEW, wishes.states, after)
        stands = await router.engine.how_it_ended(intent.change, outcome.generation, wanted)
        if stands:
            await journal.commit(lambda db: outcome.write(db, router.id), *outcome.events, acting=intent.acting)
        else:
            told = failed or intent.failed
            await journal.commit(lambda db: intents.drop(db, router.id), told, acting=intent.acting)
    router.settled = True
    return stands


def durations(done: Done, began: float) -> Durations:
    """Of a change that was asked for at that moment (perf_counter), up to now."""
    total = _ms(perf_counter() - began)
    return Durations(**asdict(done.applied.stages), intend=done.intend, commit=done.commit, total=total)


def _told_of(intent: Intent | None) -> tuple[Event, ...]:
    return () if intent is None else (intent.failed,)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
