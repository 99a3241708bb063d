"""The torrent process as a process: started, killed, stopped, hung and healed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.swarm import PATIENCE, Seeder, is_seeding, link, quiet_settings, seeder, sha256, until
from tidegate.api.torrent import AddTorrentRequest, InfoHash
from tidegate.contract.acting import Acting, act
from tidegate.daemon.journal import Journal
from tidegate.daemon.library import MIGRATIONS
from tidegate.daemon.takeover import TABLES
from tidegate.daemon.torrentnode import TorrentNode, torrent_node
from tidegate.errors import Gone, Invalid, NotFound, Unavailable
from tidegate.events import Entry, Event, TorrentAdded, TorrentCompleted, TorrentEngineDown, TorrentEngineUp, TorrentRemoved

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def slow_seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    with seeder(tmp_path_factory.mktemp("slow"), mib=24, rate_kib=8 * 1024) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Control:
    """What the control process has of the torrent half."""

    node: TorrentNode
    journal: Journal
    state_dir: Path
    killed: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        pid = self.node.node().pid
        assert pid is not None
        return pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.killed.append(self.pid)
        os.kill(self.pid, number)

    async def events(self) -> list[Event]:
        return [entry.event for entry in await self.journal.entries(0, 100_000)]

    async def told(self, wanted: Callable[[Event], bool], times: int = 1) -> list[Event]:
        """All events once so many of the wanted kind are among them."""
        async with asyncio.timeout(PATIENCE):
            while True:
                events = await self.events()
                if sum(map(wanted, events)) >= times:
                    return events
                await asyncio.sleep(0.02)

    async def healed(self) -> None:
        """Return when another process than those killed answers."""
        async with asyncio.timeout(PATIENCE):
            while (now := self.node.node()).state != "up" or now.pid in self.killed:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def control(state_dir: Path, save_every: float = 5.0, patience: float = 15.0) -> AsyncIterator[Control]:
    journal = await Journal.open(state_dir / "journal.db", TABLES)
    async with torrent_node(quiet_settings(state_dir), journal, save_every, patience) as node:
        yield Control(node, journal, state_dir)
    await journal.close()


async def stored(state_dir: Path) -> tuple[list[str], list[Entry]]:
    """The names and events in the torrent process's own journal, while it does not run."""
    journal = await Journal.open(state_dir / "torrent/torrents.db", MIGRATIONS)
    names = await journal.read(lambda db: [name for (name,) in db.execute("SELECT name FROM torrent")])
    entries = await journal.entries(0, 100_000)
    await journal.close()
    return names, entries


def of_torrents(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, TorrentEngineUp | TorrentEngineDown)]


async def gone(pid: int) -> None:
    """Return when that process has ended."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(0.02)


# ── as long as all is well


async def test_who_writes_reads_what_was_written(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        torrent, session = here.node.torrent, here.node.session
        for number in range(1, 6):
            added = await torrent.add(AddTorrentRequest(link(number).magnet, paused=True))
            assert (await torrent.list()).torrents[-1].info_hash == added.info_hash
            assert (await session.get_global_stats()).num_torrents == number
        at = InfoHash(f"{5:040x}")
        await torrent.resume(at)
        assert (await torrent.status(at)).status != "paused"
        await torrent.pause(at)
        assert (await torrent.status(at)).status == "paused"
        assert (await torrent.get_peers(at)).count == 0
        await torrent.remove(at)
        assert (await torrent.list()).total == 4
        with pytest.raises(NotFound):
            await torrent.status(at)


async def test_the_same_answers_are_handed_out_until_they_change(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        await here.node.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        whole, stats = await here.node.torrent.list(), await here.node.session.get_global_stats()
        await asyncio.sleep(1.5)  # longer than the counters' period
        assert await here.node.torrent.list() is whole
        assert await here.node.session.get_global_stats() is stats
        assert (await here.node.torrent.list(since=whole.revision)).torrents == ()


async def test_failures_pass_as_they_were_raised(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        with pytest.raises(Invalid) as refused:
            await here.node.torrent.upload(b"spam")
        assert [fault.at for fault in refused.value.faults] == ["body"]
        with pytest.raises(NotFound):
            await here.node.torrent.pause(InfoHash("ab" * 20))
        with pytest.raises(Gone):
            await here.node.torrent.list(since=1)


async def test_events_say_who_acted_on_which_request(tmp_path: Path) -> None:
    async with control(tmp_path) as here:

        async def somebody() -> None:
            act(Acting("key:ab12cd34", "request-7", "torrent.add"))
            await here.node.torrent.add(link(1))

        await asyncio.create_task(somebody())
        await here.told(lambda event: isinstance(event, TorrentAdded))
        entries = await here.journal.entries(0, 100)
        (added,) = [entry for entry in entries if isinstance(entry.event, TorrentAdded)]
        assert (added.by, added.request) == ("key:ab12cd34", "request-7")


# ── killed


async def test_what_was_acknowledged_is_there_after_kill_9_and_none_of_it_twice(tmp_path: Path) -> None:
    """Six rounds: the process is killed within moments of an answer, while other requests are on their way."""
    acknowledged: set[str] = set()
    number = 0
    for _ in range(2):
        async with control(tmp_path) as here:
            for _ in range(3):
                killed = asyncio.Event()

                async def add(number: int, killed: asyncio.Event = killed) -> None:
                    try:
                        acknowledged.add(
                            (await here.node.torrent.add(AddTorrentRequest(link(number).magnet, paused=True))).name
                        )
                    except Unavailable:
                        return
                    if number % 11 == 0 and not killed.is_set():
                        killed.set()
                        here.kill()

                adding = [asyncio.create_task(add(number + each)) for each in range(1, 23)]
                number += 22
                await asyncio.gather(*adding)
                assert killed.is_set()
                await here.healed()
                await here.told(lambda event: isinstance(event, TorrentAdded), len(acknowledged))
            names = [row.name for row in (await here.node.torrent.list()).torrents]
            assert acknowledged <= set(names)
            assert len(names) == len(set(names))
            events = of_torrents(await here.events())
        kept, entries = await stored(tmp_path)
        assert sorted(kept) == sorted(names)
        # The public stream has each of the process's events once, in its order.
        assert events == [entry.event for entry in entries][: len(events)]


async def test_a_download_goes_on_after_kill_9_and_nothing_is_fetched_twice_that_was_saved(
    tmp_path: Path, slow_seed: Seeder
) -> None:
    async with control(tmp_path, save_every=0.2) as here:
        torrent, at = here.node.torrent, slow_seed.info_hash
        await torrent.add(slow_seed.request)
        await until(torrent, at, lambda row: row.progress > 0.4)
        await asyncio.sleep(0.7)
        here.kill()
        await here.healed()
        after = await until(torrent, at, lambda row: row.status == "downloading" and row.progress > 0)
        assert after.progress > 0.3
        await until(torrent, at, is_seeding)
        assert sha256(tmp_path / "downloads" / slow_seed.name) == slow_seed.sha256
        events = await here.told(lambda event: isinstance(event, TorrentCompleted))
        downs = [event for event in events if isinstance(event, TorrentEngineDown)]
        assert [event.why for event in downs] == ["was ended by SIGKILL"]
        kinds = [type(event) for event in events if isinstance(event, TorrentEngineUp | TorrentEngineDown)]
        assert kinds == [TorrentEngineUp, TorrentEngineDown, TorrentEngineUp]
        assert len([event for event in events if isinstance(event, TorrentCompleted)]) == 1
        assert here.node.node().restarts == 1


async def test_while_it_is_down_nothing_is_answered_as_if_it_were_up(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        await here.node.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        waiting = asyncio.create_task(here.node.torrent.list(since=(await here.node.torrent.list()).revision, wait_seconds=20))
        await asyncio.sleep(0.1)
        here.kill()
        await here.told(lambda event: isinstance(event, TorrentEngineDown))
        with pytest.raises((Unavailable, Gone)):
            await waiting
        await here.healed()
        assert (await here.node.torrent.list()).total == 1


async def test_paused_torrents_stay_paused_after_kill_9(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        for number in (1, 2):
            await here.node.torrent.add(link(number))
        await here.node.torrent.pause(InfoHash(f"{1:040x}"))
        here.kill()
        await here.healed()
        assert (await here.node.torrent.status(InfoHash(f"{1:040x}"))).status == "paused"
        assert (await here.node.torrent.status(InfoHash(f"{2:040x}"))).status != "paused"


# ── hanging, not starting, ending


async def test_a_process_that_hangs_is_replaced(tmp_path: Path) -> None:
    async with control(tmp_path, patience=1.5) as here:
        await here.node.torrent.add(link(1))
        here.kill(signal.SIGSTOP)
        await here.healed()
        assert TorrentEngineDown("did not answer any more") in await here.events()
        assert (await here.node.torrent.list()).total == 1


async def test_a_process_that_can_not_start_leaves_the_rest_running_and_says_why(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db", TABLES)
    async with torrent_node(quiet_settings(tmp_path, "false"), journal) as node:
        assert node.node().state != "up"
        with pytest.raises(Unavailable, match="ended with status 1"):
            await node.torrent.list()
        with pytest.raises(Unavailable, match="ended with status 1"):
            await node.session.get_global_stats()
        with pytest.raises(Unavailable):
            await node.torrent.add(link(1))
        assert [entry.event for entry in await journal.entries(0, 10)] == [TorrentEngineDown("ended with status 1")]
    await journal.close()


async def test_a_command_in_front_runs_it_elsewhere(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path / "journal.db", TABLES)
    async with torrent_node(quiet_settings(tmp_path, "env", "TIDEGATE_ELSEWHERE=1"), journal) as node:
        pid = node.node().pid
        assert b"TIDEGATE_ELSEWHERE=1" in Path(f"/proc/{pid}/environ").read_bytes()
        assert (await node.torrent.list()).total == 0
    await journal.close()


async def test_it_holds_nothing_but_its_own(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        limits = Path(f"/proc/{here.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        assert (tmp_path / "torrent.sock").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "torrent").stat().st_mode & 0o077 == 0
        files = [os.readlink(fd) for fd in Path(f"/proc/{here.pid}/fd").iterdir()]
        ours = [file for file in files if file.startswith(str(tmp_path))]
        assert ours
        assert all(file.startswith(f"{tmp_path}/torrent/") for file in ours)


async def test_sigterm_under_load_saves_everything_and_ends_within_its_limit(tmp_path: Path, slow_seed: Seeder) -> None:
    async with control(tmp_path, save_every=60) as here:
        await asyncio.gather(*(here.node.torrent.add(link(number)) for number in range(1, 201)))
        await here.node.torrent.add(slow_seed.request)
        before = await until(here.node.torrent, slow_seed.info_hash, lambda row: row.progress > 0.3)
        pid = here.pid
        async with asyncio.timeout(10):
            here.kill(signal.SIGTERM)
            await gone(pid)
        await here.healed()
        assert (await here.node.torrent.list()).total == 201
        row = await until(here.node.torrent, slow_seed.info_hash, lambda row: row.progress > 0)
        assert row.progress >= before.progress - 0.05
        assert TorrentEngineDown("ended with status 0") in await here.events()


async def test_it_ends_with_its_parent_however_that_died(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from tests.e2e.test_torrent_process import control
async def main():
    async with control(Path(sys.argv[1])) as here:
        print(here.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert process.stdout
    child = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    await gone(child)
    async with control(tmp_path) as here:
        assert here.node.node().state == "up"


async def test_removal_is_final_though_killed_right_after_the_answer(tmp_path: Path) -> None:
    async with control(tmp_path) as here:
        await here.node.torrent.add(link(1))
        await here.node.torrent.add(link(2))
        await here.node.torrent.remove(InfoHash(f"{1:040x}"), delete_data=True)
        here.kill()
        await here.healed()
        assert [row.name for row in (await here.node.torrent.list()).torrents] == ["nobody-2"]
        events = await here.told(lambda event: isinstance(event, TorrentRemoved))
        assert [event for event in events if isinstance(event, TorrentRemoved)] == [
            TorrentRemoved(f"{1:040x}", "nobody-1", data_deleted=True)
        ]
