"""Long work: followed while it runs, told when it ends, and never lost without a word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tidegate.api.session import GlobalStatsResponse
from tidegate.api.system import Operation
from tidegate.contract.acting import Acting, act, acting, progress
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.operations import FINISHED_LIMIT, RUNNING_LIMIT, OperationsService
from tidegate.errors import Fault, Invalid, NotFound, Refused, TooMany
from tidegate.events import OperationFinished, OperationStarted

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Daemon:
    journal: Journal
    operations: OperationsService
    clock: Clock

    async def ended(self, operation: Operation) -> Operation:
        while (now := await self.operations.status(operation.id)).state == "running":
            await asyncio.sleep(0.001)
        await self.journal.commit(nothing)  # after the record of its end
        return now


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Daemon]:
    journal = await Journal.open(folder / "journal.db")
    clock = Clock()
    operations = OperationsService(journal, clock)
    try:
        yield Daemon(journal, operations, clock)
    finally:
        await operations.close()
        await journal.close()


async def answers(value: Any) -> Any:
    return value


async def fails(error: Exception) -> None:
    raise error


async def test_work_is_followed_from_its_start_to_its_result(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def work() -> Operation:
        progress("reading", 1, 3)
        await go_on.wait()
        return Operation("x", "y", "z", "done", "", 0, 0, datetime(2026, 1, 1, tzinfo=UTC), None)

    async with started(tmp_path) as daemon:
        notices = daemon.journal.follow()
        operation = daemon.operations.start("torrent.upload", work())
        assert (operation.state, operation.command, operation.finished_at) == ("running", "torrent.upload", None)
        first = await anext(notices)
        assert first.event == OperationStarted(operation.id, "torrent.upload")  # type: ignore[attr-defined]
        while (now := await daemon.operations.status(operation.id)).stage != "reading":
            await asyncio.sleep(0)
        assert (now.state, now.done, now.total) == ("running", 1, 3)
        go_on.set()
        last = await anext(notices)
        assert last.event == OperationFinished(operation.id, "torrent.upload", "done")  # type: ignore[attr-defined]
        end = await daemon.operations.status(operation.id)
        assert (end.state, end.problem) == ("done", None)
        assert end.result["started_at"] == "2026-01-01T00:00:00Z"
        assert end.finished_at == daemon.clock.now


async def test_a_result_is_plain_json_of_every_kind_of_answer(tmp_path: Path) -> None:
    stats = GlobalStatsResponse(1, 1, 0, 5, 6, 7, 8, {"a": 1.5})
    async with started(tmp_path) as daemon:
        for value, plain in ((None, None), (stats, {"stats": {"a": 1.5}}), ((1, "a"), [1, "a"])):
            end = await daemon.ended(daemon.operations.start("x.y", answers(value)))
            if isinstance(plain, dict):
                assert end.result["stats"] == plain["stats"]
            else:
                assert end.result == plain


async def test_an_expected_failure_is_its_problem_document(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        act(Acting("key:ab", "r-1"))
        refused = await daemon.ended(daemon.operations.start("x.y", fails(Refused("no", item="tc"))))
        assert (refused.state, refused.result) == ("failed", None)
        assert refused.problem == {
            "type": "urn:tidegate:refused", "title": "Refused", "status": 502, "detail": "no", "request": "r-1", "item": "tc",
        }  # fmt: skip
        invalid = await daemon.ended(daemon.operations.start("x.y", fails(Invalid("no", [Fault("body/a", "b")]))))
        assert invalid.problem is not None
        assert invalid.problem["faults"] == [{"at": "body/a", "why": "b"}]
        entries = await daemon.journal.entries(0, 9)
        assert [entry.event.state for entry in entries if isinstance(entry.event, OperationFinished)] == ["failed", "failed"]
        assert {(entry.by, entry.request) for entry in entries} == {("key:ab", "r-1")}


async def test_a_bug_is_logged_once_and_told_without_its_insides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with started(tmp_path) as daemon:
        act(Acting("key:ab", "r-1"))
        with caplog.at_level(logging.ERROR):
            end = await daemon.ended(daemon.operations.start("x.y", fails(ValueError("/etc/secret"))))
        assert end.problem == {"type": "about:blank", "title": "Internal error", "status": 500, "request": "r-1"}
        assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_result_that_is_no_json_is_a_bug_and_not_a_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with started(tmp_path) as daemon:
        end = await daemon.ended(daemon.operations.start("x.y", answers(object())))
        assert end.problem is not None
        assert end.problem["status"] == 500
        assert len(caplog.records) == 1


async def test_the_work_acts_for_who_started_it_and_others_do_not_see_its_progress(tmp_path: Path) -> None:
    async def who() -> tuple[str, str, str]:
        progress("seen")
        return acting().by, acting().request, acting().command

    async with started(tmp_path) as daemon:
        act(Acting("key:ab", "r-1"))
        operation = daemon.operations.start("x.y", who())
        other = daemon.operations.start("x.z", answers(1))
        act(Acting("key:cd", "r-2"))
        assert (await daemon.ended(operation)).result == ["key:ab", "r-1", "x.y"]
        assert (await daemon.operations.status(operation.id)).stage == "seen"
        assert (await daemon.ended(other)).stage != "seen"
        assert acting().report is None


async def test_stopping_the_daemon_ends_what_runs_and_says_so(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        running = daemon.operations.start("x.y", asyncio.sleep(3600))
        while daemon.journal.head == 0:
            await asyncio.sleep(0.001)
        unbegun = daemon.operations.start("x.z", asyncio.sleep(3600))
        await daemon.operations.close()
        for operation in (running, unbegun):
            end = await daemon.operations.status(operation.id)
            assert end.state == "failed"
            assert end.finished_at is not None
            assert end.problem is not None
            assert end.problem["type"] == "urn:tidegate:unavailable"
        assert (await daemon.journal.entries(1, 9))[0].event == OperationFinished(running.id, "x.y", "failed")


async def test_there_is_a_bound_to_what_runs_at_once(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        for _ in range(RUNNING_LIMIT):
            daemon.operations.start("x.y", asyncio.sleep(3600))
        with pytest.raises(TooMany):
            daemon.operations.start("x.y", asyncio.sleep(3600))
        assert (await daemon.operations.list()).total == RUNNING_LIMIT


async def test_what_has_ended_is_kept_for_a_day_and_what_runs_for_as_long_as_it_does(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        running = daemon.operations.start("x.y", asyncio.sleep(3600))
        ended = daemon.operations.start("x.z", answers(1))
        await daemon.ended(ended)
        assert [operation.id for operation in (await daemon.operations.list()).operations] == [ended.id, running.id]
        daemon.clock.now += timedelta(hours=24)
        assert (await daemon.operations.status(ended.id)).result == 1
        daemon.clock.now += timedelta(seconds=1)
        with pytest.raises(NotFound):
            await daemon.operations.status(ended.id)
        assert (await daemon.operations.status(running.id)).state == "running"


async def test_there_is_a_bound_to_what_is_kept(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        first = daemon.operations.start("x.y", answers(0))
        await daemon.ended(first)
        for _ in range(0, FINISHED_LIMIT, 50):
            for operation in [daemon.operations.start("x.y", answers(0)) for _ in range(50)]:
                await daemon.ended(operation)
        assert (await daemon.operations.list()).total <= FINISHED_LIMIT
        with pytest.raises(NotFound):
            await daemon.operations.status(first.id)


@pytest.mark.parametrize("operation_id", ["", "nothing", "x" * 10_000, "\ud800"])
async def test_an_unknown_operation_is_not_found(tmp_path: Path, operation_id: str) -> None:
    async with started(tmp_path) as daemon:
        with pytest.raises(NotFound):
            await daemon.operations.status(operation_id)


async def test_an_operation_is_seen_by_who_began_it_and_by_administrators_alone(tmp_path: Path) -> None:
    async def work() -> str:
        return "for Ada's eyes"

    async with started(tmp_path) as daemon:
        act(Acting("key:ada", admin=False))
        begun = daemon.operations.start("routers.add", work())
        assert (await daemon.operations.status(begun.id)).by == "key:ada"
        act(Acting("key:bob", admin=False))
        assert (await daemon.operations.list()).total == 0
        with pytest.raises(NotFound):
            await daemon.operations.status(begun.id)
        act(Acting("key:boss", admin=True))
        assert (await daemon.operations.list()).total == 1
