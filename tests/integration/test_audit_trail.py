"""The audit trail in the store: what was written can't be changed unseen, and looking never fails."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidegate.daemon.events import AuditService
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.journal.retention import Retention
from tidegate.daemon.journal.store import Store
from tidegate.errors import Invalid, Unavailable
from tidegate.events import RouterReachable, RouterUnreachable

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@asynccontextmanager
async def opened(path: Path, retention: Retention | None = None) -> AsyncIterator[Journal]:
    journal = await Journal.open(path, retention=retention)
    try:
        yield journal
    finally:
        await journal.close()


async def filled(path: Path, entries: int = 20) -> None:
    async with opened(path) as journal:
        for number in range(1, entries + 1):
            await journal.commit(nothing, RouterUnreachable("home", f"entry {number}"))


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        for statement in statements:
            store.execute(statement)


async def test_an_untouched_trail_is_intact_and_its_page_names_its_head(path: Path) -> None:
    await filled(path)
    async with opened(path) as journal:
        audit = AuditService(journal)
        page = await audit.list(since=5, limit=3)
        assert [entry.number for entry in page.entries] == [6, 7, 8]
        verdict = await audit.verify()
        assert (verdict.intact, verdict.checked, verdict.head, verdict.hash) == (True, 20, page.head, page.hash)
        assert (await audit.verify(page.head, page.hash)).intact


async def test_an_empty_trail_is_intact(path: Path) -> None:
    async with opened(path) as journal:
        verdict = await AuditService(journal).verify()
        assert (verdict.intact, verdict.checked, verdict.head) == (True, 0, 0)


TAMPERINGS = {
    "altered text": (["UPDATE entry SET data = replace(data, 'entry 7', 'entry 8') WHERE number = 7"], 7),
    "altered actor": (["UPDATE entry SET by = 'key:somebody' WHERE number = 7"], 7),
    "altered time": (["UPDATE entry SET at = '2020-01-01T00:00:00.000000Z' WHERE number = 7"], 7),
    "altered hash": (["UPDATE entry SET hash = zeroblob(32) WHERE number = 7"], 7),
    "emptied hash": (["UPDATE entry SET hash = x'' WHERE number = 7"], 7),
    "not text": (["UPDATE entry SET data = CAST(x'fffe00' AS TEXT) WHERE number = 7"], 7),
    "deleted": (["DELETE FROM entry WHERE number = 7"], 7),
    "deleted and closed up": (
        ["DELETE FROM entry WHERE number = 7", "UPDATE entry SET number = number - 1 WHERE number > 7"],
        7,
    ),
    "swapped": (
        [
            "UPDATE entry SET number = 99 WHERE number = 7",
            "UPDATE entry SET number = 7 WHERE number = 8",
            "UPDATE entry SET number = 8 WHERE number = 99",
        ],
        7,
    ),
    "beginning cut off": (["DELETE FROM entry WHERE number < 7"], 1),
    "beginning cut off and the floor raised": (
        [
            "UPDATE chain SET floor = 6, floor_hash = (SELECT hash FROM entry WHERE number = 6)",
            "DELETE FROM entry WHERE number < 7",
        ],
        20,
    ),
    "end cut off": (["DELETE FROM entry WHERE number > 15"], 16),
    "end cut off and the head moved": (
        [
            "DELETE FROM entry WHERE number > 15",
            "UPDATE chain SET head = 15, head_hash = (SELECT hash FROM entry WHERE number = 15)",
        ],
        15,
    ),
    "entry appended": (["INSERT INTO entry SELECT 21, at, by, request, type, data, hash FROM entry WHERE number = 20"], 21),
    "all gone": (["DELETE FROM entry"], 1),
    "head gone": (["DELETE FROM chain"], 0),
    "seal gone": (["UPDATE chain SET seal = x''"], 20),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_while_the_daemon_runs_is_found(path: Path, name: str) -> None:
    statements, at = TAMPERINGS[name]
    async with opened(path) as journal:
        for number in range(1, 21):
            await journal.commit(nothing, RouterUnreachable("home", f"entry {number}"))
        tamper(path, *statements)
        verdict = await AuditService(journal).verify()
        assert not verdict.intact
        assert verdict.broken_at == at
        assert verdict.why


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_while_the_daemon_was_down_is_found_for_good_and_does_not_stop_it(path: Path, name: str) -> None:
    await filled(path)
    tamper(path, *TAMPERINGS[name][0])
    for _ in range(3):
        async with opened(path) as journal:
            head = journal.head
            await journal.commit(nothing, RouterReachable("home"))
            assert journal.head == head + 1
            assert not (await AuditService(journal).verify()).intact


async def test_a_trail_cut_back_to_an_older_copy_of_the_file_shows_against_a_noted_head(path: Path) -> None:
    await filled(path, 10)
    old = path.read_bytes()
    await filled(path, 10)
    async with opened(path) as journal:
        noted = await AuditService(journal).list()
    path.write_bytes(old)
    async with opened(path) as journal:
        audit = AuditService(journal)
        assert (await audit.verify()).intact  # the file alone can't know
        verdict = await audit.verify(noted.head, noted.hash)
        assert (verdict.intact, verdict.broken_at) == (False, 11)
        for _ in range(10):
            await journal.commit(nothing, RouterReachable("another"))
        assert (await audit.verify(noted.head, noted.hash)).broken_at == 20


async def test_a_key_that_is_not_the_stores_is_refused_and_nothing_is_written(path: Path) -> None:
    await filled(path)
    before = path.read_bytes()
    path.with_suffix(".key").write_bytes(os.urandom(32))
    with pytest.raises(Unavailable, match="is not the key of"):
        await Journal.open(path)
    path.with_suffix(".key").unlink()
    with pytest.raises(Unavailable, match="backup"):
        await Journal.open(path)
    assert path.read_bytes() == before


async def test_a_store_that_is_gone_is_not_taken_for_a_first_start(path: Path) -> None:
    await filled(path)
    path.unlink()
    with pytest.raises(Unavailable, match="restore it from a backup, or remove the key to begin with nothing"):
        await Journal.open(path)
    assert not path.exists()
    path.with_suffix(".key").unlink()
    await filled(path)


async def test_a_first_start_may_be_interrupted_anywhere(path: Path) -> None:
    """The states that a first start goes through, each taken up by the next one."""
    fresh, kept = path.with_suffix(".key.fresh"), path.with_suffix(".key")
    fresh.write_bytes(b"x" * 32)
    fresh.chmod(0o600)
    await filled(path, 1)
    kept.rename(fresh)
    await filled(path, 1)
    assert (kept.exists(), fresh.exists()) == (True, False)
    path.write_bytes(b"")
    kept.rename(fresh)
    await filled(path, 1)
    async with opened(path) as journal:
        assert journal.head == 1


async def test_a_stores_key_that_others_may_read_is_refused(path: Path) -> None:
    await filled(path)
    path.with_suffix(".key").chmod(0o644)
    with pytest.raises(Unavailable, match="0644"):
        await Journal.open(path)


async def judged(path: Path, entries: int) -> str:
    """What a start on this file comes to; where the trail is called intact, every entry must be what was written."""
    try:
        async with opened(path) as journal:
            if not (await AuditService(journal).verify()).intact:
                return "broken"
            found = [entry.event for entry in await journal.entries(0, entries + 1)]
            assert found == [RouterUnreachable("home", f"entry {number}") for number in range(1, entries + 1)]
            return "intact"
    except Unavailable as error:
        return "refused" if str(path) in error.detail else f"refused without naming the file: {error.detail}"


async def test_a_damaged_file_gives_a_verdict_or_a_clear_refusal_and_never_a_crash(path: Path) -> None:
    await filled(path, 300)
    whole = path.read_bytes()
    picks = random.Random(7)
    outcomes = Counter[str]()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(picks.choice((1, 1, 8, 4096))):
            damaged[picks.randrange(len(damaged))] ^= 1 << picks.randrange(8)
        path.write_bytes(damaged)
        outcomes[await judged(path, 300)] += 1
    assert set(outcomes) <= {"intact", "broken", "refused"}
    assert outcomes["broken"] > 10
    assert outcomes["refused"] > 10


@pytest.mark.parametrize("size", [0, 1, 99, 511, 512, 4096, 5000, 8192])
async def test_a_truncated_file_is_refused_or_reported(path: Path, size: int) -> None:
    await filled(path, 300)
    with path.open("r+b") as file:
        file.truncate(size)
    assert await judged(path, 300) in ("broken", "refused")


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"\0" * 8192])
async def test_a_file_of_something_else_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    await filled(path, 1)
    path.write_bytes(content)
    with pytest.raises(Unavailable):
        await Journal.open(path)
    assert path.read_bytes() == content


async def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    await filled(path, 1)
    path.unlink()
    tamper(path, "CREATE TABLE theirs (a)")
    with pytest.raises(Unavailable, match="another program"):
        await Journal.open(path)
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


@pytest.mark.parametrize(("since", "limit"), [(-1, 10), (0, 0), (0, 1001), (0, -5)])
async def test_a_page_that_can_not_be_is_refused(path: Path, since: int, limit: int) -> None:
    async with opened(path) as journal:
        with pytest.raises(Invalid) as caught:
            await AuditService(journal).list(since, limit)
        assert caught.value.faults


@pytest.mark.parametrize(
    ("number", "sealed"), [(1, None), (None, "00" * 32), (0, "00" * 32), (1, "zz" * 32), (1, "00"), (1, "")]
)
async def test_an_anchor_that_is_none_is_refused(path: Path, number: int | None, sealed: str | None) -> None:
    async with opened(path) as journal:
        with pytest.raises(Invalid):
            await AuditService(journal).verify(number, sealed)


# ── retention


async def test_pruned_entries_leave_a_chain_that_still_verifies_and_a_resync_for_who_asks_for_them(path: Path) -> None:
    await filled(path, 50)
    retention = Retention(entries=10)
    store = Store(path, (), retention)
    store.open()
    assert store.prune(datetime.now(UTC)) == 40
    assert store.prune(datetime.now(UTC)) == 0
    store.close()
    async with opened(path, retention) as journal:
        verdict = await AuditService(journal).verify()
        assert (verdict.intact, verdict.checked, verdict.head) == (True, 10, 50)
        follower = journal.follow(30)
        assert (await anext(follower)).to_wire() == {"type": "resync", "missed": 40}  # type: ignore[attr-defined]
        assert (await anext(follower)).number == 41  # type: ignore[attr-defined]
        follower = journal.follow(40)
        assert (await anext(follower)).number == 41  # type: ignore[attr-defined]


async def test_old_entries_go_and_the_newest_stay_whatever_the_clock_says(path: Path) -> None:
    await filled(path, 50)
    store = Store(path, (), Retention(least=5))
    store.open()
    assert store.prune(datetime.now(UTC) + timedelta(days=89)) == 0
    assert store.prune(datetime.now(UTC) + timedelta(days=91)) == 45
    store.close()
    async with opened(path) as journal:
        assert [entry.number for entry in await journal.entries(0, 100)] == [46, 47, 48, 49, 50]
        assert (await journal.verify()).broken is None


async def test_a_break_in_what_is_pruned_is_not_pruned_with_it(path: Path) -> None:
    await filled(path, 50)
    tamper(path, "UPDATE entry SET by = 'nobody' WHERE number = 3")
    store = Store(path, (), Retention(entries=10))
    store.open()
    assert store.prune(datetime.now(UTC)) == 40
    store.close()
    async with opened(path) as journal:
        assert (await AuditService(journal).verify()).broken_at == 3


async def test_the_size_that_is_kept_is_the_size_that_is_there(path: Path) -> None:
    await filled(path, 50)
    store = Store(path, (), Retention(size=0, least=1))
    store.open()
    assert store.prune(datetime.now(UTC)) == 49
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT sum(200 + length(data)) FROM entry").fetchone() == (store.chain.size,)
    store.close()
