"""A store from yesterday under today's daemon, and the other way round."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.daemon.journal import Journal, nothing
from tidegate.errors import Unavailable
from tidegate.events import RouterReachable

pytestmark = pytest.mark.anyio

FIRST = "CREATE TABLE note (text TEXT); -- a comment; with a semicolon\nCREATE TABLE other (a TEXT DEFAULT ';');"
SECOND = """
ALTER TABLE note ADD COLUMN at TEXT;
CREATE TRIGGER noted AFTER INSERT ON note BEGIN
  INSERT INTO other VALUES (new.text);
  UPDATE note SET at = 'now' WHERE text = new.text;
END;
-- the end"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def run(path: Path, migrations: tuple[str, ...], *statements: str) -> None:
    journal = await Journal.open(path, migrations)
    try:
        for statement in statements:

            def change(connection: sqlite3.Connection, statement: str = statement) -> None:
                connection.execute(statement)

            await journal.commit(change, RouterReachable(statement))
        assert (await journal.verify()).broken is None
    finally:
        await journal.close()


def asked(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as store:
        return store.execute(question).fetchall()


async def test_steps_run_once_and_in_order(path: Path) -> None:
    await run(path, (FIRST,), "INSERT INTO note VALUES ('a')")
    await run(path, (FIRST, SECOND), "INSERT INTO note (text) VALUES ('b')")
    await run(path, (FIRST, SECOND))
    assert asked(path, "SELECT * FROM note") == [("a", None), ("b", "now")]
    assert asked(path, "SELECT * FROM other") == [("b",)]
    assert asked(path, "PRAGMA user_version") == [(2,)]


async def test_a_backup_is_there_before_the_upgrade_and_is_a_whole_store(path: Path, tmp_path: Path) -> None:
    await run(path, (FIRST,), "INSERT INTO note VALUES ('a')")
    assert not list(tmp_path.glob("*.backup"))
    await run(path, (FIRST, SECOND), "INSERT INTO note (text) VALUES ('b')")
    (backup,) = tmp_path.glob("*.backup")
    assert backup.name == "journal.db.schema-1.backup"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    backup.rename(path)
    await run(path, (FIRST,), "INSERT INTO note VALUES ('c')")
    assert asked(path, "SELECT text FROM note") == [("a",), ("c",)]


async def test_a_step_that_fails_changes_nothing_and_the_old_version_goes_on(path: Path) -> None:
    await run(path, (FIRST,), "INSERT INTO note VALUES ('a')")
    with pytest.raises(Unavailable, match="nowhere"):
        await Journal.open(path, (FIRST, "ALTER TABLE note ADD COLUMN at TEXT; INSERT INTO nowhere VALUES (1);"))
    assert asked(path, "PRAGMA user_version") == [(1,)]
    await run(path, (FIRST,), "INSERT INTO note VALUES ('b')")
    assert asked(path, "SELECT * FROM note") == [("a",), ("b",)]


async def test_the_steps_before_a_failing_one_stay(path: Path) -> None:
    with pytest.raises(Unavailable):
        await Journal.open(path, (FIRST, SECOND, "nonsense"))
    assert asked(path, "PRAGMA user_version") == [(2,)]
    await run(path, (FIRST, SECOND, "CREATE TABLE third (a)"), "INSERT INTO third VALUES (1)")


async def test_a_store_of_a_newer_version_is_refused_in_clear_words_and_left_alone(path: Path) -> None:
    await run(path, (FIRST, SECOND), "INSERT INTO note (text) VALUES ('a')")
    before = path.read_bytes()
    with pytest.raises(Unavailable, match=r"written by a newer Tidegate \(schema 2, this one knows 1\)"):
        await Journal.open(path, (FIRST,))
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("UPDATE chain SET layout = 2")
    with pytest.raises(Unavailable, match="written by a newer Tidegate"):
        await Journal.open(path, (FIRST, SECOND))
    with closing(sqlite3.connect(path, isolation_level=None)) as store:
        store.execute("UPDATE chain SET layout = 1")
    await run(path, (FIRST, SECOND))
    assert len(path.read_bytes()) == len(before)


async def test_an_interrupted_backup_is_made_anew(path: Path) -> None:
    await run(path, (FIRST,), "INSERT INTO note VALUES ('a')")
    path.with_name(".journal.db.schema-1.backup.part").write_bytes(b"half")
    await run(path, (FIRST, SECOND))
    assert asked(path.with_name("journal.db.schema-1.backup"), "SELECT * FROM note") == [("a",)]
    assert not list(path.parent.glob(".*.part"))


async def test_a_journal_without_steps_is_a_journal(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.commit(nothing, RouterReachable("home"))
    await journal.close()
    assert asked(path, "PRAGMA user_version") == [(0,)]
