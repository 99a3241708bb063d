"""Who may connect, with real sessions on loopback: 127.0.0.2 and its like are the peers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import pytest

from tests.swarm import PATIENCE, Seeder, Service, seeder, service, until
from tidegate.api.security import (
    Address,
    BlacklistAddRequest,
    IPFilterLoadRequest,
    ListName,
    Network,
    Reason,
    Seconds,
    WhitelistAddRequest,
)
from tidegate.daemon import peerfilter
from tidegate.daemon.listsource import ListSettings, sources
from tidegate.errors import Conflict, Invalid, NotFound, Refused
from tidegate.events import (
    IpFilterDropped,
    IpFilterFailed,
    IpFilterLoaded,
    SecurityBlacklistUpdated,
    SecurityWhitelistUpdated,
)

pytestmark = pytest.mark.anyio

STRANGER = "127.0.0.66"


@pytest.fixture(scope="module")
def slow_seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    with seeder(tmp_path_factory.mktemp("slow"), mib=24, rate_kib=4096, host="127.0.0.2") as running:
        yield running


def ban(ip: str, reason: str | None = None, seconds: int | None = None) -> BlacklistAddRequest:
    return BlacklistAddRequest(Network(ip), Reason(reason) if reason else None, Seconds(seconds) if seconds else None)


def lists(folder: Path, *texts: str) -> ListSettings:
    (folder / "lists").mkdir(exist_ok=True)
    return ListSettings(sources(texts), str(folder / "lists"))


async def holds(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not what():
            await asyncio.sleep(0.005)


async def peers(here: Service, seed: Seeder) -> int:
    return (await here.torrent.get_peers(seed.info_hash)).count


async def knock(here: Service, seed: Seeder, source: str = STRANGER) -> bool:
    """Connect as a peer does, from that address; whether we were answered."""
    port = await here.library.engine.listen_port()
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setblocking(False)
        peer.bind((source, 0))
        hello = b"\x13BitTorrent protocol" + bytes(8) + bytes.fromhex(seed.info_hash) + b"-XX0001-" + bytes(12)
        try:
            await loop.sock_connect(peer, ("127.0.0.1", port))
            await loop.sock_sendall(peer, hello)
            return len(await asyncio.wait_for(loop.sock_recv(peer, 68), 10)) > 0
        except ConnectionError:
            return False


# ── the two lists


async def test_a_ban_in_mid_transfer_ends_the_connection_and_its_end_lets_it_go_on(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(slow_seed.request)
        await until(here.torrent, slow_seed.info_hash, lambda row: 0 < row.progress < 0.5)
        began = perf_counter()
        banned = await here.security.add_to_blacklist(ban("127.0.0.2", "sends rubbish"))
        while await peers(here, slow_seed):
            await asyncio.sleep(0.002)
        print(f"cut off after {(perf_counter() - began) * 1000:.0f} ms")
        assert (banned.ip, banned.reason, banned.expires_at) == ("127.0.0.2", "sends rubbish", None)
        before = (await here.torrent.status(slow_seed.info_hash)).downloaded
        await asyncio.sleep(0.7)
        stopped = (await here.torrent.status(slow_seed.info_hash)).downloaded
        assert stopped - before < 1 << 20, "what was under way may still have come"
        await here.security.remove_from_blacklist(Network("127.0.0.2"))
        # The engine forgets a peer that it was told to refuse: the tracker or somebody else has to name it anew.
        await here.torrent.remove(slow_seed.info_hash)
        await here.torrent.add(slow_seed.request)
        await until(here.torrent, slow_seed.info_hash, lambda row: row.progress > 0)
        await here.library.recorder.settled()
        told = [event for event in await here.events() if isinstance(event, SecurityBlacklistUpdated)]
        assert [(each.ip, each.action) for each in told] == [("127.0.0.2", "added"), ("127.0.0.2", "removed")]


async def test_the_whitelist_beats_the_blacklist_at_the_door(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.upload(slow_seed.torrent)
        assert await knock(here, slow_seed)
        await here.security.add_to_blacklist(ban("127.0.0.64/26"))
        assert not await knock(here, slow_seed)
        await here.security.add_to_whitelist(WhitelistAddRequest(Network(STRANGER)))
        assert await knock(here, slow_seed)
        assert not await knock(here, slow_seed, "127.0.0.67")
        await here.security.remove_from_whitelist(Network(STRANGER))
        assert not await knock(here, slow_seed)
        await here.security.remove_from_blacklist(Network("127.0.0.64/26"))
        assert await knock(here, slow_seed)


async def test_a_ban_and_an_exception_hold_on_when_a_list_is_loaded_again(tmp_path: Path, slow_seed: Seeder) -> None:
    async with own_list(tmp_path, "127.0.0.64/28") as (here, _):
        await here.torrent.upload(slow_seed.torrent)
        await here.security.load_ip_filter()
        await here.security.add_to_blacklist(ban("127.0.3.0/24"))
        await here.security.add_to_whitelist(WhitelistAddRequest(Network(STRANGER)))
        for _ in range(2):
            assert not await knock(here, slow_seed, "127.0.3.1")
            assert not await knock(here, slow_seed, "127.0.0.65")
            assert await knock(here, slow_seed)
            await here.security.load_ip_filter()


async def test_who_was_refused_is_counted_by_source_and_direction_and_who_was_let_in_too(
    tmp_path: Path, slow_seed: Seeder
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/own.txt").write_text(STRANGER)
    async with service(tmp_path, lists=lists(tmp_path, "own=own.txt")) as here:
        await here.security.load_ip_filter()
        await here.torrent.upload(slow_seed.torrent)
        await here.security.add_to_blacklist(ban("127.0.0.67"))
        await here.security.add_to_whitelist(WhitelistAddRequest(Network("127.0.0.68")))
        for source in (STRANGER, STRANGER, "127.0.0.67", "127.0.0.68"):
            assert await knock(here, slow_seed, source) == (source == "127.0.0.68")
        counts = here.library.peer_filter.counts
        await holds(lambda: counts.incoming.total() == 3 and counts.accepted >= 1)
        found = await here.security.get_ip_filter_stats()
        assert (found.enabled, found.total_rules, found.blocked_count) == (True, 3, 3)
        assert (found.stats.sources[0].incoming, found.stats.blacklist, found.stats.outgoing) == (2, 1, 0)
        assert (await here.security.get_blacklist()).entries[0].hits == 1
        assert (await here.security.get_whitelist()).entries[0].hits == 1
    async with service(tmp_path, lists=lists(tmp_path, "own=own.txt")) as again:
        assert (await again.security.get_blacklist()).entries[0].hits == 1, "hits outlast the process"


async def test_a_peer_that_the_tracker_names_is_counted_as_outgoing(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.security.add_to_blacklist(ban("127.0.0.0/8"))
        await here.security.add_to_whitelist(WhitelistAddRequest(Network("127.0.0.1")))
        await here.torrent.add(slow_seed.request)
        await holds(lambda: here.library.peer_filter.counts.outgoing["blacklist"] > 0)
        assert await peers(here, slow_seed) == 0


async def test_adding_twice_updates_and_a_stranger_is_not_found(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        first = await here.security.add_to_blacklist(ban("2001:DB8::/32", "scan"))
        assert (await here.security.add_to_blacklist(ban("2001:db8::/32", "scan"))) == first
        second = await here.security.add_to_blacklist(ban("2001:db8::/32", "worse", 60))
        assert (second.reason, second.added_at) == ("worse", first.added_at)
        assert second.expires_at is not None
        assert (await here.security.get_blacklist()).ips == ("2001:db8::/32",)
        verdict = await here.security.test_address(Address("2001:db8::1"))
        assert (verdict.blocked, verdict.by, verdict.matches[0].reason) == (True, "blacklist", "worse")
        for missing in ("2001:db8::", "1.2.3.4"):
            with pytest.raises(NotFound):
                await here.security.remove_from_blacklist(Network(missing))
            with pytest.raises(NotFound):
                await here.security.remove_from_whitelist(Network(missing))
        await here.library.recorder.settled()
        actions = [event.action for event in await here.events() if isinstance(event, SecurityBlacklistUpdated)]
        assert actions == ["added", "updated"], "what changes nothing is no news"


async def test_a_ban_ends_by_itself_also_while_nobody_runs(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.upload(slow_seed.torrent)
        await here.security.add_to_blacklist(ban(STRANGER, seconds=1))
        assert not await knock(here, slow_seed)
        await holds(lambda: not here.library.peer_filter.entries("blacklist"))
        assert await knock(here, slow_seed)
        await here.security.add_to_blacklist(ban(STRANGER, seconds=1))
    await asyncio.sleep(1)
    async with service(tmp_path) as again:
        await holds(lambda: not again.library.peer_filter.entries("blacklist"))
        await again.library.recorder.settled()
        told = [event.action for event in await again.events() if isinstance(event, SecurityBlacklistUpdated)]
        assert told == ["added", "expired"] * 2


async def test_both_lists_and_the_loaded_ones_are_in_force_from_the_first_moment_of_the_next_life(
    tmp_path: Path, slow_seed: Seeder
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/own.txt").write_text("Liar:127.0.0.70-127.0.0.79")
    async with service(tmp_path, lists=lists(tmp_path, "own=own.txt")) as here:
        await here.torrent.upload(slow_seed.torrent)
        await here.security.load_ip_filter()
        await here.security.add_to_blacklist(ban(STRANGER))
        await here.security.add_to_whitelist(WhitelistAddRequest(Network("127.0.0.75"), Reason("ours")))
    async with service(tmp_path, lists=lists(tmp_path, "own=own.txt")) as again:
        assert not await knock(again, slow_seed)
        assert not await knock(again, slow_seed, "127.0.0.71")
        assert await knock(again, slow_seed, "127.0.0.75")
        assert (await again.security.get_ip_filter_stats()).stats.sources[0].rules == 1
        loads = [event for event in await again.events() if isinstance(event, IpFilterLoaded)]
        assert len(loads) == 2, "loaded at the first start and on request, and not again: it has not changed since"
    async with service(tmp_path, lists=lists(tmp_path)) as without:
        assert await knock(without, slow_seed, "127.0.0.71")
        assert IpFilterDropped("own") in await without.events()


async def test_a_list_that_is_full_says_so_and_its_entries_can_still_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peerfilter, "ENTRY_LIMIT", 2)
    async with service(tmp_path) as here:
        for ip in ("10.0.0.1", "10.0.0.2"):
            await here.security.add_to_blacklist(ban(ip))
        with pytest.raises(Conflict, match="the blacklist is full"):
            await here.security.add_to_blacklist(ban("10.0.0.3"))
        assert (await here.security.add_to_blacklist(ban("10.0.0.2", "worse"))).reason == "worse"
        await here.security.add_to_whitelist(WhitelistAddRequest(Network("10.0.0.3")))


async def test_many_edits_at_once_all_come_into_force(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.upload(slow_seed.torrent)
        await asyncio.gather(*(here.security.add_to_blacklist(ban(f"127.0.1.{n}")) for n in range(100)))
        assert (await here.security.get_blacklist()).count == 100
        for n in (0, 57, 99):
            assert not await knock(here, slow_seed, f"127.0.1.{n}")
        await asyncio.gather(*(here.security.remove_from_blacklist(Network(f"127.0.1.{n}")) for n in range(100)))
        assert await knock(here, slow_seed, "127.0.1.57")


# ── lists


@asynccontextmanager
async def own_list(folder: Path, text: str) -> AsyncIterator[tuple[Service, Path]]:
    settings = lists(folder, "own=own.txt")
    file = folder / "lists/own.txt"
    file.write_text(text)
    async with service(folder, lists=settings) as here:
        yield here, file


async def test_while_a_list_is_loaded_again_and_again_nobody_on_it_ever_gets_in(tmp_path: Path, slow_seed: Seeder) -> None:
    text = f"Liar:{STRANGER}-{STRANGER}\n" + "".join(f"10.0.{n // 250}.{n % 250}\n" for n in range(20_000))
    async with own_list(tmp_path, text) as (here, _):
        await here.security.load_ip_filter()
        await here.torrent.upload(slow_seed.torrent)
        over = asyncio.Event()
        tries = 0

        async def keep_trying() -> bool:
            nonlocal tries
            while not over.is_set():
                tries += 1
                if await knock(here, slow_seed):
                    return True
                await asyncio.sleep(0.01)
            return False

        trying = [asyncio.create_task(keep_trying()) for _ in range(3)]
        for turn in range(20):
            await here.security.load_ip_filter()
            edit = ban(f"127.0.2.{turn}")
            await here.security.add_to_blacklist(edit)
            await here.security.remove_from_blacklist(edit.ip)
        over.set()
        assert await asyncio.gather(*trying) == [False] * 3
        print(f"{tries} tries")
        assert tries > 60
        assert await knock(here, slow_seed, "127.0.0.67"), "others do get in"


async def test_a_list_that_can_not_be_loaded_leaves_the_old_one_and_says_why(tmp_path: Path) -> None:
    text = "".join(f"10.0.0.{n * 2}\n" for n in range(10)) + "nonsense\n"
    async with own_list(tmp_path, text) as (here, file):
        first = await here.security.load_ip_filter()
        assert (first.loaded, first.sources[0].rules, first.sources[0].skipped) == (True, 10, 1)
        assert (first.sources[0].faults[0].line, first.sources[0].lines) == (11, 11)
        for bad, why in (("<html>\n", "none of its"), ("10.0.0.2\n", "shrunk from 10 to 1"), ("0.0.0.0/0", "more than half")):
            file.write_text(bad)
            with pytest.raises(Refused, match=why):
                await here.security.load_ip_filter()
            stats = await here.security.get_ip_filter_stats()
            assert stats.stats.sources[0].rules == 10
            assert why in (stats.stats.last_error or "")
            assert (await here.security.test_address(Address("10.0.0.4"))).by == "own"
        file.unlink()
        with pytest.raises(Refused, match="there is no file"):
            await here.security.load_ip_filter()
        file.write_text("10.0.0.2\n")
        accepted = await here.security.load_ip_filter(IPFilterLoadRequest((ListName("own"),), accept=True))
        assert accepted.sources[0].rules == 1
        assert (await here.security.get_ip_filter_stats()).stats.last_error is None
        await here.library.recorder.settled()
        told = [event for event in await here.events() if isinstance(event, IpFilterFailed)]
        assert len(told) == 4
        with pytest.raises(Invalid) as caught:
            await here.security.load_ip_filter(IPFilterLoadRequest((ListName("own"), ListName("none"))))
        assert caught.value.faults[0].at == "body/sources/1"


async def test_one_list_fails_and_another_is_loaded(tmp_path: Path) -> None:
    settings = lists(tmp_path, "good=good.txt", "bad=bad.txt")
    (tmp_path / "lists/good.txt").write_text("10.0.0.1")
    async with service(tmp_path, lists=settings) as here:
        done = await here.security.load_ip_filter()
        assert (done.loaded, [(each.name, each.loaded) for each in done.sources]) == (False, [("good", True), ("bad", False)])
        assert IpFilterLoaded("good", 1, 0) in await here.events()


async def test_whitelist_events_tell_what_was_done(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        await here.security.add_to_whitelist(WhitelistAddRequest(Network("10.1.2.3"), Reason("ours")))
        await here.security.remove_from_whitelist(Network("10.1.2.3"))
        assert [event for event in await here.events() if isinstance(event, SecurityWhitelistUpdated)] == [
            SecurityWhitelistUpdated("10.1.2.3", "added", "ours"),
            SecurityWhitelistUpdated("10.1.2.3", "removed", "ours"),
        ]
