"""The journal's file: SQLite in WAL mode with synchronous FULL, opened, upgraded, appended to and pruned by one thread.

What this file guarantees to `journal.py`:
- `write` of a batch is one transaction and one fsync; every change of it stands or falls alone (a SAVEPOINT each).
- What `write` reports as done is on the disk. A full disk changes nothing; after an I/O error the file is opened anew and
  everything that was acknowledged is written to the disk once more before the next change is taken, because pages whose
  fsync failed look clean in memory and are not on the disk.
- Entry numbers rise by one; each entry is sealed into the chain (see `chain.py`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tidegate.contract.acting import Acting
from tidegate.daemon.journal.chain import Anchor, Break, Chain, Verifier, link
from tidegate.daemon.journal.diskfault import failure, shakes_trust
from tidegate.daemon.journal.retention import Old, Retention, floor_after
from tidegate.daemon.journal.rows import RAW, chain_in, entry_of
from tidegate.daemon.journal.schema import BEGIN, COMMIT, LAYOUT, ROLLBACK, lost, upgrade
from tidegate.daemon.secret import Secret, secret_file, sync_folder
from tidegate.errors import StorageFull, TidegateError, Unavailable
from tidegate.events import Entry, Event, data_of, type_name

OVERHEAD = 200  # bytes that an entry takes beside its data, by and large
PRUNED_AT_ONCE = 2_000

MARK, UNMARK, BACK = ("SAVEPOINT change /* journal */", "RELEASE change /* journal */", "ROLLBACK TO change /* journal */")

_CONTROL = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
_WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE}


@dataclass(frozen=True, slots=True)
class Change:
    """What one caller of `commit` asks for. `run` may run a second time, if the first was undone for another's fault."""

    run: Callable[[sqlite3.Connection], Any]
    events: tuple[Event, ...]
    acting: Acting


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: its value, or why nothing of it was done."""

    value: Any = None
    error: Exception | None = None


class _Undone(Exception):
    """A change undid the whole transaction (by ON CONFLICT ROLLBACK or RAISE), and with it those of others."""

    def __init__(self, why: Exception) -> None:
        self.why = why


class Store:
    """The open file, for one thread."""

    def __init__(self, path: Path, migrations: Sequence[str], retention: Retention) -> None:
        self.path = path
        self.chain = Chain()
        self._migrations = tuple(migrations)
        self._retention = retention
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None
        self._key: Secret | None = None
        self._in_change = False

    @property
    def key(self) -> Secret:
        assert self._key is not None
        return self._key

    # ── opening

    def open(self) -> None:
        """Make or open the file and bring it to the present schema.

        Raises Unavailable with what to do: in use by another process, written by a newer version, damaged, its key missing.
        """
        try:
            self._lock = _exclusive(self.path)
            self._open()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes damaged bytes, which Python can't decode
            self.close()
            known = failure(error, self.path) if isinstance(error, sqlite3.Error) else None
            raise known or Unavailable(f"{self.path} can't be used: {error}") from None
        except OSError as error:
            self.close()
            raise _refusal(error) from None
        except TidegateError:
            self.close()
            raise

    def _open(self) -> None:
        """The key gets its name once the store stands. So a key without a store is a store that was lost, and is not
        taken for a first start; and a first start may be interrupted anywhere."""
        kept, fresh = self.path.with_suffix(".key"), self.path.with_suffix(".key.fresh")
        begun = os.path.lexists(kept)
        empty = not self.path.exists() or self.path.stat().st_size == 0
        if empty and not begun:
            fresh.unlink(missing_ok=True)
            self._key = secret_file(fresh, create=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        elif empty:
            raise Unavailable(lost(self.path))
        else:
            self._key = secret_file(fresh if not begun and os.path.lexists(fresh) else kept, create=False)
        os.chmod(self.path, 0o600)
        self._connect()
        upgrade(self._open_connection, self.path, self._migrations, begun=begun)
        self._take_up_chain()
        if not begun:
            sync_folder(self.path.parent)
            os.rename(fresh, kept)
        sync_folder(self.path.parent)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        self._connection = connection
        for setting in ("foreign_keys = ON", "trusted_schema = OFF", "temp_store = MEMORY", "journal_size_limit = 67108864"):
            connection.execute(f"PRAGMA {setting}")
        if (mode := connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
            raise Unavailable(f"{self.path} is on a file system where SQLite can't keep a WAL (journal mode {mode})")
        connection.execute("PRAGMA synchronous = FULL")
        connection.set_authorizer(self._authorize)
        return connection

    def _authorize(self, action: int, first: str | None, *_: str | None) -> int:
        """A change neither ends the transaction that it shares with others nor writes what only the journal writes."""
        ours = action in _WRITES and first in ("entry", "chain")
        return sqlite3.SQLITE_DENY if self._in_change and (ours or action in _CONTROL) else sqlite3.SQLITE_OK

    def _take_up_chain(self) -> None:
        """Go on from the end of the chain. Damage is marked in it for good and reported; it does not stop the daemon."""
        connection = self._open_connection
        check = self.key.sign(b"tidegate journal")
        (newest,) = connection.execute("SELECT max(number) FROM entry").fetchone()
        kept = connection.execute("SELECT CAST(key_check AS BLOB) FROM chain").fetchone()
        if kept is not None and kept[0] != check:
            raise Unavailable(f"{self.path.with_suffix('.key')} is not the key of {self.path}: put back the right one")
        found = chain_in(connection, self.key)
        known = self.chain
        if found is None:
            chain = Chain(size=OVERHEAD * connection.execute("SELECT count(*) FROM entry").fetchone()[0])
            why = "the chain's head is missing" if newest is not None else None
        else:
            chain, sealed = found
            why = None if sealed else "the chain's head was altered"
            if why is None and newest != (chain.head.number if chain.head.number > chain.floor.number else None):
                why = f"the newest entry is {newest}, the chain's head says {chain.head.number}"
        if why is not None:
            last = max(chain.head.number, newest or 0)
            chain = replace(chain, head=Anchor(last, chain.head.hash), broken=chain.broken or Break(last, why))
            logging.getLogger(__name__).error("the audit chain of %s is broken: %s", self.path, why)
        if chain.head.number < known.head.number:
            raise Unavailable(f"{self.path} has lost acknowledged entries: {known.head.number} were written")
        self.chain = chain
        if found is None or why is not None:
            connection.execute(BEGIN)
            connection.execute("DELETE FROM chain")
            connection.execute(
                "INSERT INTO chain VALUES (1, ?, 0, x'', 0, x'', 0, NULL, NULL, x'', ?)",
                (LAYOUT, check),
            )
            self._write_chain(chain)
            connection.execute(COMMIT)

    @property
    def _open_connection(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    # ── writing

    def write(self, batch: Sequence[Change]) -> tuple[list[Outcome], list[Entry]]:
        """The outcomes of the changes, in their order, and the entries that are on the disk and were not returned before."""
        found: list[Entry] = []
        try:
            if self._connection is None:
                found = self._reopen()
            outcomes, written = self._transaction(batch)
            return outcomes, found + written
        except TidegateError as error:
            return [Outcome(error=error)] * len(batch), found
        except (_Undone, sqlite3.Error) as error:
            self._recover_from(error)
            if len(batch) > 1 and not shakes_trust(error):  # one change's fault undid them all: each on its own then
                each = [self.write([change]) for change in batch]
                return [outcomes[0] for outcomes, _ in each], [*found, *(entry for _, entries in each for entry in entries)]
            why = error.why if isinstance(error, _Undone) else failure(error, self.path) or error
            return [Outcome(error=why)] * len(batch), found

    def _transaction(self, batch: Sequence[Change]) -> tuple[list[Outcome], list[Entry]]:
        connection = self._open_connection
        outcomes: list[Outcome] = []
        written: list[Entry] = []
        chain = self.chain
        connection.execute(BEGIN)
        for change in batch:
            connection.execute(MARK)
            try:
                outcome = Outcome(self._run(change))
                after, entries = self._append(chain, change)
            except Exception as error:
                if isinstance(error, sqlite3.Error) and failure(error, self.path) is not None:
                    raise
                if not connection.in_transaction:
                    raise _Undone(error) from error
                connection.execute(BACK)
                outcome = Outcome(error=error)
            else:
                chain = after
                written += entries
            connection.execute(UNMARK)
            outcomes.append(outcome)
        if written:
            self._write_chain(chain)
        connection.execute(COMMIT)
        self.chain = chain
        return outcomes, written

    def _run(self, change: Change) -> Any:
        self._in_change = True
        try:
            value = change.run(self._open_connection)
        finally:
            self._in_change = False
        if not self._open_connection.in_transaction:
            raise RuntimeError("the change undid the transaction that it was part of, and went on")
        return value

    def _append(self, chain: Chain, change: Change) -> tuple[Chain, list[Entry]]:
        entries = []
        for event in change.events:
            now = datetime.now(UTC)
            number = chain.head.number + 1
            data = json.dumps(data_of(event), separators=(",", ":"))
            fields = (_utc_text(now), change.acting.by, change.acting.request, type_name(type(event)), data)
            sealed = link(self.key, chain.head.hash, number, *(field.encode() for field in fields))
            self._open_connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *fields, sealed))
            chain = replace(chain, head=Anchor(number, sealed), size=chain.size + OVERHEAD + len(data))
            entries.append(Entry(number, now, change.acting.by, change.acting.request, event))
        return chain, entries

    def _write_chain(self, chain: Chain) -> None:
        broken = (chain.broken.at, chain.broken.why) if chain.broken else (None, None)
        self._open_connection.execute(
            "UPDATE chain SET floor = ?, floor_hash = ?, head = ?, head_hash = ?, size = ?, broken_at = ?, broken_why = ?, "
            "seal = ?",
            (*_pair(chain.floor), *_pair(chain.head), chain.size, *broken, chain.seal(self.key)),
        )

    def _recover_from(self, error: Exception) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute(ROLLBACK)
        if shakes_trust(error):
            self._disconnect()

    def _reopen(self) -> list[Entry]:
        """After an I/O error. Copying the whole WAL into the file writes anew what only seems to be on the disk.

        Returns entries that did get to the disk although their writing was reported as failed.
        """
        known = self.chain.head
        try:
            self._connect()
            self._take_up_chain()
            (busy, *_) = self._open_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise Unavailable("the state could not be written to the disk anew: a reader is in the way; try again")
            return [entry_of(row) for row in self._open_connection.execute(RAW, (known.number, -1))]
        except (sqlite3.Error, TidegateError):
            self._disconnect()
            self.chain = replace(self.chain, head=known)
            raise

    # ── pruning

    def prune(self, now: datetime) -> int:
        """Forget entries that are due, a bounded number at once; how many went. The chain begins at the last of them then."""
        if self._connection is None:
            return 0
        try:
            return self._prune(_utc_text(now - self._retention.age))
        except sqlite3.Error as error:
            self._recover_from(error)
            return 0

    def _prune(self, horizon: str) -> int:
        connection, chain = self._open_connection, self.chain
        rows = connection.execute(RAW, (chain.floor.number, PRUNED_AT_ONCE)).fetchall()
        old = [Old(row[0], (row[1] or b"").decode(errors="replace"), OVERHEAD + len(row[5] or b"")) for row in rows]
        floor = floor_after(old, chain.floor.number, chain.head.number, chain.size, self._retention, horizon)
        going = [row for row in rows if row[0] <= floor]
        if not going:
            return 0
        verifier = Verifier(self.key, chain.floor)
        found = verifier.feed(going)  # what goes unverified now could never be verified again
        chain = replace(
            chain,
            floor=Anchor(floor, going[-1][6] or b""),
            size=max(0, chain.size - sum(row.size for row in old if row.number <= floor)),
            broken=chain.broken or found,
        )
        connection.execute(BEGIN)
        connection.execute("DELETE FROM entry WHERE number <= ?", (floor,))
        self._write_chain(chain)
        connection.execute(COMMIT)
        self.chain = chain
        return len(going)

    # ── closing

    def distrust(self) -> None:
        """Leave this connection; the next write opens the file anew."""
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        self._disconnect()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _exclusive(path: Path) -> IO[bytes]:
    """The store's lock, which the kernel frees when this process ends, however it ends."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lock = open(descriptor, "rb")  # noqa: SIM115 - open as long as the store
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Unavailable(f"another process of Tidegate uses {path}") from None
    return lock


def _refusal(error: OSError) -> TidegateError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the disk that holds the state is full; nothing was changed")
    return Unavailable(f"the state can't be opened: {error}")


def _pair(anchor: Anchor) -> tuple[int, bytes]:
    return anchor.number, anchor.hash


def _utc_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
