"""Who may connect, when the process that knows it is killed."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.test_torrent_process import Control
from tests.swarm import PATIENCE, quiet_settings
from tidegate.api.security import Address, BlacklistAddRequest, IPFilterLoadRequest, Network, WhitelistAddRequest
from tidegate.daemon.journal import Journal
from tidegate.daemon.takeover import TABLES
from tidegate.daemon.torrentnode import torrent_node
from tidegate.errors import Refused, TidegateError, Unavailable
from tidegate.events import IpFilterLoaded, SecurityBlacklistUpdated

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("TIDEGATE_TEST_KILLS", "3"))


@asynccontextmanager
async def control(state_dir: Path, *lists: str) -> AsyncIterator[Control]:
    """What the control process has of the torrent half, with these lists in the settings."""
    settings = quiet_settings(state_dir)
    settings = replace(settings, torrent=replace(settings.torrent, ip_filter=lists))
    journal = await Journal.open(state_dir / "journal.db", TABLES)
    async with torrent_node(settings, journal) as node:
        yield Control(node, journal, state_dir)
    await journal.close()


def a_list(ranges: int, first: int = 10) -> bytes:
    """So many addresses, no two of them neighbours."""
    addresses = (f"{first}.{n >> 14}.{n >> 6 & 255}.{n % 64 * 4}" for n in range(ranges))
    return "".join(f"Liar:{each}-{each}\n" for each in addresses).encode()


async def test_no_acknowledged_edit_is_lost_when_the_process_is_killed_right_after(tmp_path: Path) -> None:
    """Three kills here, twenty with TIDEGATE_TEST_KILLS."""
    expected: list[str] = []
    for turn in range(ROUNDS):  # each with a daemon of its own: one whose process ends again and again waits longer each time
        async with control(tmp_path) as here:
            security = here.node.security
            for n in range(5):
                added = await security.add_to_blacklist(BlacklistAddRequest(Network(f"203.0.{turn}.{n}")))
                expected.append(added.ip)
            gone = expected.pop(random.Random(turn).randrange(len(expected)))
            await security.remove_from_blacklist(Network(gone))
            here.kill()
            await here.healed()
            assert list((await security.get_blacklist()).ips) == expected
            assert (await security.test_address(Address(expected[-1]))).blocked
            edits = 6 * (turn + 1)
            told = await here.told(lambda event: isinstance(event, SecurityBlacklistUpdated), edits)
            assert sum(isinstance(event, SecurityBlacklistUpdated) for event in told) == edits, "each is told once"


async def test_a_list_is_the_old_or_the_new_wherever_the_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists/own"
    sizes = 20_000, 15_000
    file.write_bytes(a_list(sizes[1], first=11))
    rng = random.Random(1)
    async with control(tmp_path, "own=own") as here:
        await here.told(lambda event: isinstance(event, IpFilterLoaded))
        for turn in range(ROUNDS):
            file.write_bytes(a_list(sizes[turn % 2], first=10 + turn % 2))
            loading = asyncio.create_task(here.node.security.load_ip_filter())
            await asyncio.sleep(rng.random() * 0.4)
            here.kill()
            with suppress(Unavailable):
                await loading
            await here.healed()
            assert (await here.node.security.get_ip_filter_stats()).total_rules in sizes
            # A file that has changed since it was loaded is loaded at the start.
            async with asyncio.timeout(PATIENCE):
                while not (await here.node.security.test_address(Address(f"{10 + turn % 2}.0.7.4"))).blocked:
                    await asyncio.sleep(0.02)
            assert (await here.node.security.get_ip_filter_stats()).total_rules == sizes[turn % 2]
            assert not (await here.node.security.test_address(Address(f"{11 - turn % 2}.0.7.4"))).blocked


async def test_while_the_process_is_gone_every_command_says_so(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        security = here.node.security
        here.kill()
        async with asyncio.timeout(PATIENCE):
            while here.node.node().state == "up":
                await asyncio.sleep(0.001)
        calls = [
            security.get_blacklist(),
            security.add_to_blacklist(BlacklistAddRequest(Network("203.0.113.7"))),
            security.remove_from_whitelist(Network("203.0.113.7")),
            security.add_to_whitelist(WhitelistAddRequest(Network("203.0.113.7"))),
            security.load_ip_filter(),
            security.get_ip_filter_stats(),
            security.test_address(Address("203.0.113.7")),
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * len(calls)


async def test_others_are_answered_while_a_list_is_read_and_what_is_none_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    files = {"big": gzip.compress(a_list(40_000)), "cut": gzip.compress(a_list(999))[:-9]}
    files["bomb"] = gzip.compress(bytes(150 << 20), 1)
    for name, data in files.items():
        (tmp_path / "lists" / name).write_bytes(data)
    async with control(tmp_path, *(f"{name}={name}" for name in files)) as here:
        security = here.node.security
        loading = asyncio.create_task(security.load_ip_filter(IPFilterLoadRequest(accept=True)))
        answered = 0
        while not loading.done():
            await security.add_to_blacklist(BlacklistAddRequest(Network(f"203.0.113.{answered % 250}")))
            await security.test_address(Address("203.0.113.1"))
            answered += 1
        done = {each.name: each for each in (await loading).sources}
        assert answered > 5
        assert (done["big"].rules, done["bomb"].loaded, done["cut"].loaded) == (40_000, False, False)
        assert "times its size" in (done["bomb"].error or "")
        assert "damaged" in (done["cut"].error or "")
        assert set((await security.get_blacklist()).ips) == {f"203.0.113.{n}" for n in range(min(250, answered))}
        assert (await security.test_address(Address("203.0.113.0"))).blocked, "an edit made meanwhile holds with the new list"


async def test_mutated_files_crash_nothing(tmp_path: Path) -> None:
    """Twelve files here; the full run has TIDEGATE_TEST_FILES=1000."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/own").write_bytes(a_list(1))
    rng = random.Random(5)
    loaded = 0
    async with control(tmp_path, "own=own") as here:
        pid = here.pid
        for _ in range(int(os.environ.get("TIDEGATE_TEST_FILES", "12"))):
            data = bytearray(rng.choice([a_list(500), gzip.compress(a_list(500)), gzip.compress(a_list(500), mtime=0)[:900]]))
            for _ in range(rng.randrange(8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            (tmp_path / "lists/own").write_bytes(data)
            try:
                loaded += (await here.node.security.load_ip_filter(IPFilterLoadRequest(accept=True))).loaded
            except Refused:
                continue
            except TidegateError as error:
                raise AssertionError(error.detail) from error
        assert here.pid == pid
    assert loaded > 0
