"""The journal on a real file: one transaction, one order, nothing lost between store and followers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tidegate.contract.acting import Acting, act
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.journal.chain import Anchor, Chain
from tidegate.daemon.journal.retention import Retention
from tidegate.daemon.journal.store import Change, Store
from tidegate.errors import NotFound, Unavailable
from tidegate.events import DaemonStarted, Entry, GroupSynced, Notice, Resync, RouterReachable, RouterUnreachable, Unreadable

pytestmark = pytest.mark.anyio

NOTES = ("CREATE TABLE note (text TEXT UNIQUE NOT NULL) STRICT",)


@asynccontextmanager
async def opened(path: Path, *arguments: Any, **limits: Any) -> AsyncIterator[Journal]:
    journal = await Journal.open(path, *(arguments or (NOTES,)), **limits)
    try:
        yield journal
    finally:
        await journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def note(text: str) -> Callable[[sqlite3.Connection], str]:
    def change(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO note VALUES (?)", (text,))
        return text

    return change


def notes(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")]


async def take(notices: AsyncIterator[Notice], count: int) -> list[Notice]:
    return [await anext(notices) for _ in range(count)]


def numbers(notices: list[Notice] | list[Entry]) -> list[int]:
    assert all(isinstance(notice, Entry) for notice in notices), notices
    return [notice.number for notice in notices if isinstance(notice, Entry)]


# ── commit


async def test_a_commit_returns_the_changes_value_and_its_events_are_there(path: Path) -> None:
    async with opened(path) as journal:
        assert await journal.commit(note("a"), RouterReachable("home"), RouterReachable("shed")) == "a"
        assert await journal.read(notes) == ["a"]
        assert [entry.event for entry in await journal.entries(0, 10)] == [RouterReachable("home"), RouterReachable("shed")]
        assert journal.head == 2


async def test_everything_is_there_after_a_restart_and_numbers_go_on(path: Path) -> None:
    event = GroupSynced("home", 5, 9, ("rate 5 Mbit/s", 'a "quoted" name\u2028é'))
    async with opened(path) as journal:
        await journal.commit(note("a"), event)
    async with opened(path) as journal:
        assert journal.head == 1
        await journal.commit(note("b"), RouterReachable("home"))
        assert [entry.event for entry in await journal.entries(0, 10)] == [event, RouterReachable("home")]
        assert numbers(await journal.entries(0, 10)) == [1, 2]
        assert await journal.read(notes) == ["a", "b"]


async def test_a_failing_change_leaves_no_trace_and_raises_to_its_caller_only(path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        note("half")(connection)
        raise NotFound("no such thing")

    async with opened(path) as journal:
        results = await asyncio.gather(
            journal.commit(note("a"), RouterReachable("1")),
            journal.commit(half, RouterReachable("2")),
            journal.commit(note("a"), RouterReachable("3")),
            journal.commit(note("b"), RouterReachable("4")),
            return_exceptions=True,
        )
        assert results[0] == "a"
        assert isinstance(results[1], NotFound)
        assert isinstance(results[2], sqlite3.IntegrityError)
        assert results[3] == "b"
        assert await journal.read(notes) == ["a", "b"]
        entries = await journal.entries(0, 10)
        assert [(e.number, e.event) for e in entries] == [(1, RouterReachable("1")), (2, RouterReachable("4"))]
        assert (await journal.verify()).broken is None


async def test_a_change_that_undoes_the_whole_transaction_undoes_only_itself(path: Path) -> None:
    def conflict(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO note VALUES ('a')")

    async with opened(path) as journal:
        await journal.commit(note("a"))
        results = await asyncio.gather(
            journal.commit(note("b"), RouterReachable("b")),
            journal.commit(conflict, RouterReachable("x")),
            journal.commit(note("c"), RouterReachable("c")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [str, sqlite3.IntegrityError, str]
        assert await journal.read(notes) == ["a", "b", "c"]
        assert [entry.event for entry in await journal.entries(0, 9)] == [RouterReachable("b"), RouterReachable("c")]


async def test_a_change_that_undoes_the_whole_transaction_and_goes_on_is_stopped(path: Path) -> None:
    def swallow(connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.IntegrityError):
            connection.execute("INSERT OR ROLLBACK INTO note VALUES ('a')")

    def swallow_and_refuse(connection: sqlite3.Connection) -> None:
        swallow(connection)
        raise NotFound("no such thing")

    async with opened(path) as journal:
        await journal.commit(note("a"))
        for wrong, error in ((swallow, RuntimeError), (swallow_and_refuse, NotFound)):
            results = await asyncio.gather(
                journal.commit(note(f"b {error.__name__}"), RouterReachable("b")),
                journal.commit(wrong, RouterReachable("x")),
                journal.commit(note(f"c {error.__name__}"), RouterReachable("c")),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [str, error, str]
        assert len(await journal.read(notes)) == 5
        assert numbers(await journal.entries(0, 9)) == [1, 2, 3, 4]
        assert (await journal.verify()).broken is None


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "SAVEPOINT change",
        "RELEASE change",
        "ROLLBACK TO change",
        "ATTACH ':memory:' AS other",
        "DELETE FROM entry",
        "UPDATE entry SET by = 'nobody'",
        "INSERT INTO entry VALUES (99, '', '', '', '', '', x'')",
        "UPDATE chain SET head = 0",
        "DROP TABLE entry",
    ],
)
async def test_a_change_can_neither_end_its_transaction_nor_write_history(path: Path, statement: str) -> None:
    async with opened(path) as journal:
        await journal.commit(note("a"), RouterReachable("home"))

        def smuggle(connection: sqlite3.Connection) -> None:
            note("smuggled")(connection)
            connection.execute(statement)

        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await journal.commit(smuggle)
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await journal.commit(lambda connection: connection.executescript("INSERT INTO note VALUES ('b')").fetchall())
        assert await journal.read(notes) == ["a"]
        assert (await journal.verify()).broken is None


async def test_a_reader_can_not_write(path: Path) -> None:
    async with opened(path) as journal:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await journal.read(note("a"))
        assert await journal.read(notes) == []


async def test_waiting_commits_share_one_transaction(path: Path) -> None:
    async with opened(path) as journal:
        held, go_on = threading.Event(), threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            held.set()
            go_on.wait(10)

        first = asyncio.create_task(journal.commit(hold))
        await asyncio.to_thread(held.wait, 10)
        rest = [asyncio.create_task(journal.commit(note(str(n)), RouterReachable(str(n)))) for n in range(100)]
        await asyncio.sleep(0)
        before = writes()
        go_on.set()
        await asyncio.gather(first, *rest)
        assert await journal.read(notes) == [str(n) for n in range(100)]
        assert writes() - before < 100


def writes() -> int:
    """How often this process asked the kernel to write. A hundred transactions are several hundred writes."""
    with open(f"/proc/{os.getpid()}/io") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("syscw"))


async def test_who_acts_is_written_down(path: Path) -> None:
    async def asked(journal: Journal, by: str, request: str) -> None:
        act(Acting(by, request))
        await journal.commit(nothing, RouterReachable("home"))

    async with opened(path) as journal:
        await journal.commit(nothing, DaemonStarted("1"))
        await asyncio.gather(asked(journal, "key:ab12cd34", "r1"), asked(journal, "local:0", "r2"))
        await journal.commit(nothing, RouterReachable("shed"), acting=Acting("torrent", "r3"))
        entries = await journal.entries(0, 10)
        assert [(entry.by, entry.request) for entry in entries] == [
            ("daemon", ""),
            ("key:ab12cd34", "r1"),
            ("local:0", "r2"),
            ("torrent", "r3"),
        ]


async def test_events_of_another_journal_are_taken_over_exactly_once(path: Path, tmp_path: Path) -> None:
    """The cursor is in the same transaction as the events: whatever is repeated, nothing is doubled."""
    schema = ("CREATE TABLE cursor (taken INTEGER NOT NULL) STRICT; INSERT INTO cursor VALUES (0);",)

    async def take_over(source: Journal, target: Journal, *, twice: bool) -> None:
        (since,) = await target.read(lambda c: c.execute("SELECT taken FROM cursor").fetchone())
        page = await source.entries(since, 7)

        def advance(connection: sqlite3.Connection) -> None:
            moved = connection.execute("UPDATE cursor SET taken = ? WHERE taken = ?", (since + len(page), since)).rowcount
            if not moved:
                raise NotFound("taken over already")

        for _ in range(2 if twice else 1):
            try:
                await target.commit(advance, *(entry.event for entry in page), acting=Acting("torrent"))
            except NotFound:
                assert twice

    async with opened(tmp_path / "torrent.db") as source:
        await source.commit(nothing, *(RouterReachable(str(n)) for n in range(100)))
        for round_ in range(20):
            async with opened(path, schema) as target:
                await take_over(source, target, twice=round_ % 3 == 0)
        async with opened(path, schema) as target:
            assert [e.event for e in await target.entries(0, 200)] == [RouterReachable(str(n)) for n in range(100)]


async def test_a_cancelled_caller_does_not_disturb_the_others(path: Path) -> None:
    async with opened(path) as journal:
        tasks = [asyncio.create_task(journal.commit(note(str(n)), RouterReachable(str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await journal.commit(nothing, RouterReachable("end"))
        assert numbers(await journal.entries(0, 100)) == list(range(1, journal.head + 1))
        assert {str(n) for n in range(1, 50, 2)} <= set(await journal.read(notes))


async def test_a_bug_in_a_change_does_not_end_the_writer(path: Path) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    def unencodable(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO note VALUES (?)", ("\ud800",))

    async with opened(path) as journal:
        with pytest.raises(ZeroDivisionError):
            await journal.commit(bug, RouterReachable("home"))
        with pytest.raises(UnicodeEncodeError):
            await journal.commit(unencodable)
        with pytest.raises(TypeError):
            await journal.commit(note("a"), RouterReachable(b"bytes"))  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            await journal.commit(note("a"), RouterReachable("home"), acting=Acting("\ud800"))
        await journal.commit(note("b"), RouterReachable("\ud800"))
        assert await journal.read(notes) == ["b"]
        assert numbers(await journal.entries(0, 9)) == [1]
        assert (await journal.verify()).broken is None


async def test_a_bug_in_a_query_is_raised_as_it_is_and_reading_goes_on(path: Path) -> None:
    async with opened(path) as journal:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await journal.read(lambda connection: connection.execute("SELECT * FROM nowhere").fetchall())
        with pytest.raises(ZeroDivisionError):
            await journal.read(lambda _: 1 / 0)
        assert await journal.read(notes) == []


async def test_closing_writes_what_was_asked_before_and_refuses_what_comes_after(path: Path) -> None:
    async with opened(path) as journal:
        tasks = [asyncio.create_task(journal.commit(note(str(n)))) for n in range(30)]
        await asyncio.sleep(0)
        await journal.close()
        assert await asyncio.gather(*tasks) == [str(n) for n in range(30)]
        with pytest.raises(Unavailable, match="closed"):
            await journal.commit(note("late"))
        with pytest.raises(Unavailable, match="closed"):
            await journal.read(notes)
        await journal.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.key", "journal.lock"]
    async with opened(path) as journal:
        assert len(await journal.read(notes)) == 30


async def test_a_store_belongs_to_one_daemon_at_a_time(path: Path) -> None:
    async with opened(path):
        with pytest.raises(Unavailable, match="another process"):
            await Journal.open(path, NOTES)
    async with opened(path) as journal:
        assert journal.head == 0


async def test_the_files_are_for_their_owner_only_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(path) as journal:
            await journal.commit(note("a"), RouterReachable("home"))
            assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)


# ── a disk that fails


def failing(code: int) -> Callable[[sqlite3.Connection], None]:
    """A change that meets the error that SQLite reports for a failing disk."""

    def change(connection: sqlite3.Connection) -> None:
        note("lost")(connection)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error

    return change


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
async def test_after_an_io_error_nothing_is_pretended_and_the_whole_state_is_written_anew(path: Path, code: int) -> None:
    async with opened(path) as journal:
        await journal.commit(note("a"), RouterReachable("1"))
        await journal.read(notes)
        assert path.with_name("journal.db-wal").stat().st_size > 0
        results = await asyncio.gather(
            journal.commit(note("b"), RouterReachable("2")), journal.commit(failing(code)), return_exceptions=True
        )
        assert {type(result) for result in results} <= {Unavailable, str}
        assert isinstance(results[1], Unavailable)
        for number, result in enumerate(results):
            assert (["b", "lost"][number] in await journal.read(notes)) == (result == "b")
        before = journal.head
        await journal.commit(nothing)
        assert path.with_name("journal.db-wal").stat().st_size == 0, "what was acknowledged was not put into the file anew"
        await journal.commit(note("c"), RouterReachable("3"))
        assert journal.head == before + 1
        assert (await journal.verify()).broken is None


async def test_an_entry_that_got_through_although_reported_as_failed_is_told_all_the_same(path: Path) -> None:
    """SQLite can report a commit as failed whose pages the kernel writes later on."""
    store = Store(path, NOTES, Retention())
    store.open()
    who = Acting("key:ab")
    store.write([Change(nothing, (RouterReachable("1"),), who)])
    known = store.chain
    store.write([Change(nothing, (RouterReachable("2"), RouterReachable("3")), who)])
    store.chain = known
    store.distrust()
    _, entries = store.write([Change(nothing, (RouterReachable("4"),), who)])
    assert [(entry.number, entry.event) for entry in entries] == [(n, RouterReachable(str(n))) for n in (2, 3, 4)]
    store.close()


async def test_a_store_that_has_lost_what_was_acknowledged_is_not_gone_on_with(path: Path) -> None:
    store = Store(path, NOTES, Retention())
    store.open()
    known = store.chain
    store.chain = Chain(known.floor, Anchor(7, b"h" * 32))
    store.distrust()
    for _ in range(2):
        outcomes, entries = store.write([Change(nothing, (RouterReachable("1"),), Acting())])
        assert isinstance(outcomes[0].error, Unavailable)
        assert "lost acknowledged entries" in outcomes[0].error.detail
        assert entries == []
    store.close()


async def test_entries_that_are_due_go_while_the_daemon_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.daemon.journal.journal.TIDY_EVERY", 0.01)
    async with opened(path, NOTES, keep=10) as journal:
        await journal.commit(nothing, *(RouterReachable(str(number)) for number in range(5_000)))
        while numbers(await journal.entries(0, 1)) != [4_991]:
            await asyncio.sleep(0.005)
        assert (await journal.verify()).broken is None
        assert await anext(journal.follow(0)) == Resync(4_990)


# ── follow


async def test_a_follower_gets_what_comes_after_the_call_and_nothing_before(path: Path) -> None:
    async with opened(path) as journal:
        await journal.commit(nothing, RouterReachable("before"))
        follower = journal.follow()
        await journal.commit(nothing, RouterReachable("1"), RouterReachable("2"))
        assert numbers(await take(follower, 2)) == [2, 3]


async def test_the_past_is_replayed_and_joined_to_the_present(path: Path) -> None:
    async with opened(path) as journal:
        await journal.commit(nothing, *(RouterReachable(str(n)) for n in range(1500)))

        async def write() -> None:
            for n in range(200):
                await journal.commit(nothing, RouterReachable(str(n)))

        writing = asyncio.create_task(write())
        followers = [journal.follow(since) for since in (0, 1, 511, 512, 513, 1024, 1499, 1500)]
        for since, follower in zip((0, 1, 511, 512, 513, 1024, 1499, 1500), followers, strict=True):
            assert numbers(await take(follower, 1700 - since)) == list(range(since + 1, 1701))
        await writing


async def test_an_entry_is_not_told_before_it_is_on_the_disk(path: Path) -> None:
    """Seen from another connection, which sees only what is committed."""
    async with opened(path) as journal:
        follower = journal.follow()
        writing = asyncio.create_task(journal.commit(note("a"), RouterReachable("home")))
        (entry,) = await take(follower, 1)
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
            assert isinstance(entry, Entry)
            assert other.execute("SELECT max(number) FROM entry").fetchone() == (entry.number,)
        other.close()
        await writing


async def test_a_number_from_another_life_of_the_store_is_answered_with_resync(path: Path) -> None:
    async with opened(path) as journal:
        await journal.commit(nothing, RouterReachable("1"))
        follower = journal.follow(99)
        await journal.commit(nothing, RouterReachable("2"))
        resync, entry = await take(follower, 2)
        assert resync.to_wire() == {"type": "resync", "missed": 1}  # type: ignore[attr-defined]
        assert isinstance(entry, Entry)
        assert entry.number == 2


async def test_closing_ends_the_followers_after_what_they_have(path: Path) -> None:
    async with opened(path) as journal:
        idle, busy = journal.follow(), journal.follow()
        waiting = asyncio.create_task(take(idle, 2))
        await journal.commit(nothing, RouterReachable("1"))
        await journal.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert numbers([notice async for notice in busy]) == [1]


async def test_a_forgotten_follower_costs_nothing(path: Path) -> None:
    async with opened(path) as journal:
        for _ in range(100):
            journal.follow()
        kept = journal.follow()
        await journal.commit(nothing, RouterReachable("1"))
        assert len(journal._followers) == 1
        assert numbers(await take(kept, 1)) == [1]


# ── entries that can't be read


async def test_entries_of_a_later_version_and_damaged_ones_keep_their_numbers(path: Path) -> None:
    async with opened(path) as journal:
        await journal.commit(nothing, *(RouterUnreachable("home", str(n)) for n in range(6)))
    with sqlite3.connect(path) as store:
        store.execute("UPDATE entry SET type = 'router_exploded' WHERE number = 2")
        store.execute("UPDATE entry SET data = '[' WHERE number = 3")
        store.execute("UPDATE entry SET at = 'yesterday' WHERE number = 4")
        store.execute("UPDATE entry SET data = CAST(x'ff' AS TEXT) WHERE number = 5")
        store.execute("UPDATE entry SET data = ? WHERE number = 6", ("[" * 100_000,))
    store.close()
    async with opened(path) as journal:
        entries = await journal.entries(0, 10)
        assert numbers(entries) == [1, 2, 3, 4, 5, 6]
        assert [type(entry.event) for entry in entries] == [RouterUnreachable] + [Unreadable] * 5
        assert entries[1].event == Unreadable("router_exploded", "KeyError")
        assert numbers(await take(journal.follow(0), 6)) == [1, 2, 3, 4, 5, 6]
