"""Work that goes on after the answer: started, followed, and kept for a day once it has ended.

Operations live in memory: a restart ends them, and the journal shows them started and never finished. What they did they
did through the journal themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tidegate.api.system import Operation, OperationList, Operations
from tidegate.contract.acting import act, acting
from tidegate.contract.codec import plain
from tidegate.contract.problems import problem
from tidegate.daemon.journal import Journal, nothing
from tidegate.errors import NotFound, StorageFull, TidegateError, TooMany, Unavailable
from tidegate.events import OperationFinished, OperationStarted

RUNNING_LIMIT = 64
FINISHED_LIMIT = 1_000
KEPT = timedelta(days=1)


class OperationsService(Operations):
    """`start` takes work on; `close` ends what still runs when the daemon stops."""

    def __init__(self, journal: Journal, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._journal = journal
        self._clock = clock
        self._operations: dict[str, Operation] = {}  # oldest first
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, command: str, work: Coroutine[Any, Any, Any]) -> Operation:
        """Run the work in a task of its own, for whoever acts now. `progress()` in it shows in the operation.

        Raises TooMany where too many run already; the work is not begun then.
        """
        self._forget_old()
        if len(self._running) >= RUNNING_LIMIT:
            work.close()
            raise TooMany(f"{RUNNING_LIMIT} operations are running already", retry_after=5)
        operation = Operation(secrets.token_hex(8), command, acting().by, "running", "waiting", 0, 0, self._clock(), None)
        self._operations[operation.id] = operation
        context = contextvars.copy_context()
        context.run(act, replace(acting(), command=command, report=self._reporter(operation.id)))
        task = asyncio.create_task(self._run(operation.id, command, work), name=f"operation {command}", context=context)
        self._running[operation.id] = task
        task.add_done_callback(lambda _: self._ended(operation.id, work))
        return operation

    async def list(self) -> OperationList:
        self._forget_old()
        seen = tuple(operation for operation in reversed(self._operations.values()) if _may_see(operation))
        return OperationList(seen, len(seen))

    async def status(self, operation_id: str) -> Operation:
        self._forget_old()
        if (operation := self._operations.get(operation_id)) is None or not _may_see(operation):
            raise NotFound(f"there is no operation {operation_id[:40]!r}: finished ones are kept for a day")
        return operation

    async def close(self) -> None:
        """End what runs; each is told as failed, by the daemon's stop."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, operation_id: str, command: str, work: Coroutine[Any, Any, Any]) -> None:
        request = acting().request
        result: Any = None
        failed: dict[str, Any] | None = None
        try:
            await self._journal.commit(nothing, OperationStarted(operation_id, command))
            result = plain(await work)
        except asyncio.CancelledError:
            failed = problem(Unavailable("the daemon stopped before this had ended"), request)
        except TidegateError as error:
            failed = problem(error, request)
        except Exception:
            logging.getLogger(__name__).exception("bug in the operation %s (request %s)", command, request)
            failed = {"type": "about:blank", "title": "Internal error", "status": 500, "request": request}
        state = "failed" if failed else "done"
        self._update(operation_id, state=state, finished_at=self._clock(), result=result, problem=failed)
        try:
            await self._journal.commit(nothing, OperationFinished(operation_id, command, state))
        except (StorageFull, Unavailable) as error:
            logging.getLogger(__name__).warning("the end of operation %s is not recorded: %s", operation_id, error.detail)

    def _ended(self, operation_id: str, work: Coroutine[Any, Any, Any]) -> None:
        del self._running[operation_id]
        work.close()  # no effect but where it never began
        known = self._operations.get(operation_id)
        if known and known.finished_at is None:  # cancelled before its first step
            self._update(
                operation_id,
                state="failed",
                finished_at=self._clock(),
                problem=problem(Unavailable("the daemon stopped before this had begun"), ""),
            )

    def _reporter(self, operation_id: str) -> Callable[[str, int, int], None]:
        def report(stage: str, done: int, total: int) -> None:
            if (known := self._operations.get(operation_id)) and known.state == "running":
                self._update(operation_id, stage=stage, done=done, total=total)

        return report

    def _update(self, operation_id: str, **changes: Any) -> None:
        self._operations[operation_id] = replace(self._operations[operation_id], **changes)

    def _forget_old(self) -> None:
        ended = [operation for operation in self._operations.values() if operation.finished_at is not None]
        horizon = self._clock() - KEPT
        surplus = len(ended) - FINISHED_LIMIT
        for place, operation in enumerate(ended):
            if place < surplus or (operation.finished_at is not None and operation.finished_at < horizon):
                del self._operations[operation.id]


def _may_see(operation: Operation) -> bool:
    """Results are for whoever asked for them: a key that may only read must not learn what an administrator's answer was."""
    who = acting()
    return who.admin or who.by == operation.by
