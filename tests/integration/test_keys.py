"""Keys from their making to their end, on a real store."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tidegate.api.keys import CreateKeyRequest, NewKey, ScopeName
from tidegate.contract import Scope
from tidegate.contract.acting import Acting, act
from tidegate.daemon.journal import Journal
from tidegate.daemon.keys import TABLES, KeysService
from tidegate.errors import Conflict, Invalid, NotFound, Unauthorized, Unavailable
from tidegate.events import KeyCreated, KeyRevoked
from tidegate.policy.device import Label

pytestmark = pytest.mark.anyio


@dataclass
class Daemon:
    journal: Journal
    keys: KeysService

    async def make(self, scope: ScopeName = "read", days: int | None = None, name: str = "a key") -> NewKey:
        return await self.keys.create(CreateKeyRequest(Label(name), scope, days))

    def opens(self, key: str) -> bool:
        try:
            return self.keys.authenticator.authenticate(key).valid()
        except Unauthorized:
            return False


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Daemon]:
    journal = await Journal.open(folder / "journal.db", (TABLES,))
    try:
        yield Daemon(journal, await KeysService.open(journal, folder / "pepper"))
    finally:
        await journal.close()


async def test_the_first_start_makes_one_admin_key_and_the_second_none(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        first = await daemon.keys.bootstrap()
        assert first is not None
        assert daemon.keys.authenticator.authenticate(first.key).scope is Scope.ADMIN
        assert await daemon.keys.bootstrap() is None
    async with started(tmp_path) as daemon:
        assert await daemon.keys.bootstrap() is None
        assert daemon.opens(first.key)


async def test_a_key_is_listed_without_its_secret_and_the_journal_says_who_made_it(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        act(Acting("local:0", "r-7"))
        made = await daemon.make("operate", 30, "heating")
        (listed,) = (await daemon.keys.list()).keys
        assert (listed.id, listed.name, listed.scope, listed.expires_at) == (made.id, "heating", "operate", made.expires_at)
        assert made.expires_at is not None
        assert timedelta(days=29.9) < made.expires_at - datetime.now(UTC) <= timedelta(days=30)
        assert (listed.last_used, listed.revoked_at) == (None, None)
        (entry,) = await daemon.journal.entries(0, 9)
        assert (entry.event, entry.by, entry.request) == (KeyCreated(made.id, "heating", "operate"), "local:0", "r-7")
        assert made.key not in repr(made)


async def test_a_revoked_key_is_shut_out_at_once_and_stays_out_after_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        await daemon.keys.bootstrap()
        made = await daemon.make()
        connection = daemon.keys.authenticator.authenticate(made.key)
        revoked = await daemon.keys.revoke(made.id)
        assert revoked.revoked_at is not None
        assert not connection.valid()
        assert not daemon.opens(made.key)
        assert (await daemon.journal.entries(2, 9))[0].event == KeyRevoked(made.id, "a key")
    async with started(tmp_path) as daemon:
        assert not daemon.opens(made.key)
        assert [key.revoked_at for key in (await daemon.keys.list()).keys if key.id == made.id] == [revoked.revoked_at]


async def test_an_expiry_holds_across_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        made = await daemon.make(days=1)
        assert daemon.opens(made.key)
        await daemon.journal.commit(
            lambda connection: (
                connection.execute(
                    "UPDATE key SET expires = ?", ((datetime.now(UTC) - timedelta(seconds=1)).isoformat(),)
                ).rowcount
            )
        )
    async with started(tmp_path) as daemon:
        assert not daemon.opens(made.key)


async def test_revoking_twice_is_revoking_once(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        await daemon.keys.bootstrap()
        made = await daemon.make()
        results = await asyncio.gather(*(daemon.keys.revoke(made.id) for _ in range(5)))
        assert len({result.revoked_at for result in results}) == 1
        assert daemon.journal.head == 3


async def test_the_last_valid_admin_key_can_not_be_revoked(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        first = await daemon.keys.bootstrap()
        assert first is not None
        await daemon.make("operate")
        with pytest.raises(Conflict, match="make another"):
            await daemon.keys.revoke(first.id)
        assert daemon.opens(first.key)
        second = await daemon.make("admin")
        results = await asyncio.gather(*(daemon.keys.revoke(key.id) for key in (first, second)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Key"]


async def test_with_no_valid_admin_key_left_the_next_start_makes_one(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        await daemon.keys.bootstrap()
        await daemon.journal.commit(lambda c: c.execute("UPDATE key SET expires = '2020-01-01T00:00:00+00:00'").rowcount)
    async with started(tmp_path) as daemon:
        fresh = await daemon.keys.bootstrap()
        assert fresh is not None
        assert daemon.opens(fresh.key)


async def test_an_unknown_key_can_not_be_revoked(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        for key_id in ("unknown1", "", "x" * 10_000, "'; DROP TABLE key; --"):
            with pytest.raises(NotFound):
                await daemon.keys.revoke(key_id)
        assert daemon.journal.head == 0


@pytest.mark.parametrize("days", [0, -1, 36_501, 10**12])
async def test_a_life_that_can_not_be_is_refused(tmp_path: Path, days: int) -> None:
    async with started(tmp_path) as daemon:
        with pytest.raises(Invalid) as caught:
            await daemon.make(days=days)
        assert [fault.at for fault in caught.value.faults] == ["body/expires_in_days"]
        assert (await daemon.keys.list()).total == 0


async def test_the_last_use_is_shown_at_once_and_written_down_later(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        made = await daemon.make()
        for _ in range(100):
            daemon.opens(made.key)
        (listed,) = (await daemon.keys.list()).keys
        assert listed.last_used is not None
        assert listed.last_used.second == listed.last_used.microsecond == 0
        question = "SELECT last_used FROM key"
        assert await daemon.journal.read(lambda c: c.execute(question).fetchone()) == (None,)
        await daemon.keys.record_use()
        assert await daemon.journal.read(lambda c: c.execute(question).fetchone()) == (listed.last_used.isoformat(),)
        assert daemon.journal.head == 1
    async with started(tmp_path) as daemon:
        assert [key.last_used for key in (await daemon.keys.list()).keys] == [listed.last_used]


async def test_keys_made_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        made = await asyncio.gather(*(daemon.make(name=f"key {number}") for number in range(50)))
        assert all(daemon.opens(key.key) for key in made)
        assert len({key.id for key in made}) == 50
    async with started(tmp_path) as daemon:
        assert all(daemon.opens(key.key) for key in made)


async def test_a_pepper_that_is_missing_foreign_or_open_to_others_is_refused(tmp_path: Path) -> None:
    async with started(tmp_path) as daemon:
        made = await daemon.make()
    pepper = tmp_path / "pepper"
    right = pepper.read_bytes()
    pepper.chmod(0o640)
    with pytest.raises(Unavailable, match="others may read"):
        async with started(tmp_path):
            pass
    pepper.chmod(0o600)
    pepper.write_bytes(bytes(32))
    with pytest.raises(Unavailable, match="is not the pepper of these keys"):
        async with started(tmp_path):
            pass
    pepper.unlink()
    with pytest.raises(Unavailable, match="backup"):
        async with started(tmp_path):
            pass
    assert not pepper.exists()
    pepper.write_bytes(right)
    pepper.chmod(0o600)
    async with started(tmp_path) as daemon:
        assert daemon.opens(made.key)


async def test_no_secret_is_anywhere_on_the_disk_or_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a whole life at log level DEBUG: the state directory with its WAL and a backup, and every log line."""
    caplog.set_level(logging.DEBUG)
    keys = []
    async with started(tmp_path) as daemon:
        first = await daemon.keys.bootstrap()
        assert first is not None
        keys = [first, await daemon.make("admin"), await daemon.make("read", 5)]
        for key in keys:
            assert daemon.opens(key.key)
            assert not daemon.opens(key.key[:-1])
        await daemon.keys.record_use()
        await daemon.keys.revoke(first.id)
        texts = [str(await daemon.keys.list()), repr(daemon.keys.authenticator.__dict__), repr(keys)]
        files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {"journal.db", "journal.db-wal", "pepper"} <= set(files)
    journal = await Journal.open(tmp_path / "journal.db", (TABLES, "CREATE TABLE later (a)"))
    await journal.close()
    files |= {f"later/{file.name}": file.read_bytes() for file in tmp_path.iterdir()}
    assert any(name.endswith(".backup") for name in files)
    everything = b"\0".join([*files.values(), caplog.text.encode(), *(text.encode() for text in texts)])
    for key in keys:
        assert key.id.encode() in everything
        secret = key.key[12:55].encode()
        raw = base64.urlsafe_b64decode(secret + b"=")
        forms = [secret, secret[:20], raw, raw[:8], raw.hex().encode(), base64.b64encode(raw)]
        forms += [base64.b64encode(secret), secret.hex().encode(), base64.b64encode(key.key.encode())]
        for form in forms:
            assert form not in everything
            assert form.upper() not in everything
