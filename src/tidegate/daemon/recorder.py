"""What happened by itself, on its way into the journal: in order, and told again until the journal takes it.

A command's own change passes through the same queue, so that its event never overtakes an earlier one; but its failure is its
caller's, at once.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from tidegate.contract.acting import Acting, acting
from tidegate.daemon.journal import Journal
from tidegate.errors import TidegateError
from tidegate.events import Event

BATCH = 256
RETRY_AFTER = 1.0  # seconds

Change = Callable[[sqlite3.Connection], Any]

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.torrent")


@dataclass(frozen=True, slots=True)
class _Record:
    change: Change
    events: tuple[Event, ...]
    acting: Acting
    done: asyncio.Future[Any] | None


class Recorder:
    """The one way of a service to its journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: deque[_Record] = deque()
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run())

    @property
    def behind(self) -> bool:
        """Whether something waits to be recorded."""
        return not self._idle.is_set()

    async def settled(self) -> None:
        """Return when nothing waits to be recorded."""
        await self._idle.wait()

    def note(self, change: Change, *events: Event) -> None:
        """Record what happened by itself. Does not wait; it is tried until the journal takes it."""
        self._put(_Record(change, events, Acting(), None))

    async def commit(self, change: Change, *events: Event) -> Any:
        """Record what somebody asked for, after all that was noted before. Raises what the change or the journal raises."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(_Record(change, events, acting(), done))
        return await done

    async def close(self, patience: float) -> None:
        """Return when all is recorded, or after `patience` seconds."""
        try:
            await asyncio.wait_for(self.settled(), patience)
        except TimeoutError:
            log.error("some changes could not be recorded", changes=len(self._waiting))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, record: _Record) -> None:
        self._waiting.append(record)
        self._idle.clear()
        self._woken.set()

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                again = await self._record(batch)
                self._waiting.extendleft(reversed(again))
                if again:
                    await asyncio.sleep(RETRY_AFTER)
            self._woken.clear()
            self._idle.set()

    async def _record(self, batch: Sequence[_Record]) -> list[_Record]:
        """Those of the batch that are to be tried again."""
        commits = (self._journal.commit(each.change, *each.events, acting=each.acting) for each in batch)
        again = []
        for record, result in zip(batch, await asyncio.gather(*commits, return_exceptions=True), strict=True):
            if record.done is not None:
                _settle(record.done, result)
            elif isinstance(result, TidegateError):
                log.error("not recorded, trying again", why=result.detail)
                again.append(record)
            elif isinstance(result, BaseException):
                log.error("a change failed", exc_info=result)
        return again


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if isinstance(result, BaseException):
        done.set_exception(result)
    else:
        done.set_result(result)
