"""The torrent service with real sessions on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import libtorrent as lt
import pytest

from tests.swarm import QUIET, Seeder, is_seeding, link, seeder, service, sha256, until
from tests.unit.test_metainfo import KIB, PIECE, many, single, torrent, tree
from tidegate.api.torrent import AddTorrentRequest, Folder, InfoHash, Magnet
from tidegate.daemon import torrentstore
from tidegate.daemon.torrents import SessionService
from tidegate.errors import Gone, Invalid, NotFound, TooLarge, Unavailable
from tidegate.events import (
    MetadataReceived,
    TorrentAdded,
    TorrentCompleted,
    TorrentFailed,
    TorrentRemoved,
    TorrentStatusChanged,
)
from tidegate.lab.seeder import settings as quiet_session

pytestmark = pytest.mark.anyio

UNKNOWN = InfoHash("ab" * 20)


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    with seeder(tmp_path_factory.mktemp("seed"), mib=8) as running:
        yield running


@pytest.fixture(scope="module")
def slow_seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeder]:
    with seeder(tmp_path_factory.mktemp("slow"), mib=6, rate_kib=2048) as running:
        yield running


# ── downloading


async def test_a_magnet_link_downloads_to_its_end_and_tells_of_it_in_order(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        added = await here.torrent.add(seed.request)
        assert (added.info_hash, added.name, added.duplicate) == (seed.info_hash, seed.name, False)
        row = await until(here.torrent, seed.info_hash, is_seeding)
        assert (row.progress, row.left, row.total_size, row.pieces_completed) == (1.0, 0, seed.size, row.pieces_total)
        assert row.completed_at
        assert sha256(here.downloads / seed.name) == seed.sha256
        await here.library.recorder.settled()
        events = await here.events()
    at, name = seed.info_hash, seed.name
    turns = [event for event in events if isinstance(event, TorrentStatusChanged)]
    # The engine may be through with a stage before it is looked at; those that are seen follow one another.
    assert [turn.previous for turn in turns] == ["queued", *(turn.status for turn in turns[:-1])]
    stages = ["fetching_metadata", "downloading", "finished", "seeding"]
    assert [turn.status for turn in turns] == [stage for stage in stages if stage in {turn.status for turn in turns}]
    assert events[0] == TorrentAdded(at, name)
    metadata, completed = events.index(MetadataReceived(at, name, seed.size)), events.index(TorrentCompleted(at, name))
    assert all(events.index(turn) < metadata for turn in turns if turn.status == "fetching_metadata")
    assert all(metadata < events.index(turn) < completed for turn in turns if turn.status == "downloading")
    assert events[completed + 1 :] == turns[-1:]


async def test_a_torrent_file_downloads_into_its_folder_from_the_peer_that_its_tracker_names(
    tmp_path: Path, seed: Seeder
) -> None:
    async with service(tmp_path) as here:
        added = await here.torrent.upload(seed.torrent, Folder("films/2026"))
        assert added.info_hash == seed.info_hash
        row = await until(here.torrent, seed.info_hash, is_seeding)
        assert row.output_dir == str(here.downloads / "films/2026")
        assert sha256(here.downloads / "films/2026" / seed.name) == seed.sha256


async def test_peers_are_those_that_are_connected_now(tmp_path: Path, slow_seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(slow_seed.request)
        await until(here.torrent, slow_seed.info_hash, lambda row: 0 < row.progress < 1)
        found = await here.torrent.get_peers(slow_seed.info_hash)
        assert (found.count, found.peers[0].ip, found.peers[0].progress) == (1, "127.0.0.1", 1.0)
        assert found.peers[0].client.startswith("libtorrent")
        assert not found.peers[0].utp


async def test_statistics_count_torrents_and_what_passed(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        session = SessionService(here.library)
        await here.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        await here.torrent.add(seed.request)
        await until(here.torrent, seed.info_hash, is_seeding)
        async with asyncio.timeout(10):
            while (stats := await session.get_global_stats()).total_downloaded < seed.size:
                await asyncio.sleep(0.1)
        assert (stats.num_torrents, stats.num_active, stats.num_paused) == (2, 1, 1)
        assert stats.stats["num_seeding"] == 1


async def test_the_same_statistics_are_handed_out_until_they_change(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        session = SessionService(here.library)
        before = await session.get_global_stats()
        assert await session.get_global_stats() is before
        await here.torrent.add(link(1))
        assert (await session.get_global_stats()).num_torrents == 1


# ── adding and removing


async def test_adding_twice_changes_nothing_and_says_so(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        answers = await asyncio.gather(*(here.torrent.add(link(7)) for _ in range(20)))
        assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 19
        assert {answer.info_hash for answer in answers} == {f"{7:040x}"}
        await here.library.recorder.settled()
        assert [event for event in await here.events() if isinstance(event, TorrentAdded)] == [
            TorrentAdded(f"{7:040x}", "nobody-7")
        ]


async def test_a_hybrid_answers_to_both_of_its_hashes(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.upload(seed.torrent, paused=True)
        row = await here.torrent.status(seed.info_hash)
        assert row.info_hash_v2
        second = InfoHash(row.info_hash_v2.upper())
        assert await here.torrent.status(second) == row
        by_second = AddTorrentRequest(Magnet(f"magnet:?xt=urn:btmh:1220{second}"))
        assert (await here.torrent.add(by_second)).duplicate
        await here.torrent.remove(second)
        assert (await here.torrent.list()).total == 0


async def test_a_hybrid_asked_for_by_its_second_hash_is_found_by_its_first(tmp_path: Path, seed: Seeder) -> None:
    second = lt.torrent_info(seed.torrent).info_hashes().v2
    peer = seed.magnet.partition("&x.pe=")[2]
    async with service(tmp_path) as here:
        added = await here.torrent.add(AddTorrentRequest(Magnet(f"magnet:?xt=urn:btmh:1220{second}&x.pe={peer}")))
        assert added.info_hash == str(second)
        await until(here.torrent, InfoHash(str(second)), is_seeding)
        assert (await here.torrent.status(seed.info_hash)).info_hash == seed.info_hash
        assert (await here.torrent.list()).total == 1


async def test_removing_keeps_the_files_unless_asked_to_delete_them(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        for delete in (False, True):
            await here.torrent.add(seed.request)
            await until(here.torrent, seed.info_hash, is_seeding)
            answer = await here.torrent.remove(seed.info_hash, delete_data=delete)
            assert answer.data_deleted is delete
            assert (here.downloads / seed.name).exists() is not delete
            with pytest.raises(NotFound):
                await here.torrent.status(seed.info_hash)
        await here.library.recorder.settled()
        removed = [event for event in await here.events() if isinstance(event, TorrentRemoved)]
        assert [event.data_deleted for event in removed] == [False, True]


async def test_what_was_removed_can_be_added_again_at_once(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(seed.request)
        await until(here.torrent, seed.info_hash, is_seeding)
        _, again = await asyncio.gather(
            here.torrent.remove(seed.info_hash, delete_data=True), here.torrent.upload(seed.torrent)
        )
        assert not again.duplicate
        await until(here.torrent, seed.info_hash, is_seeding)
        assert sha256(here.downloads / seed.name) == seed.sha256


async def test_files_that_were_to_be_deleted_when_the_process_died_are_deleted_at_the_next_start(
    tmp_path: Path, seed: Seeder
) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(seed.request)
        await until(here.torrent, seed.info_hash, is_seeding)
    async with service(tmp_path) as here:
        id_ = await here.journal.read(lambda db: db.execute("SELECT id FROM torrent").fetchone()[0])
        await here.journal.commit(lambda db: torrentstore.leave(db, id_))
    async with service(tmp_path) as here:
        assert (await here.torrent.list()).total == 0
        assert not (await here.torrent.add(seed.request)).duplicate  # waits until they are gone
        rows = await here.journal.read(lambda db: db.execute("SELECT count(*) FROM torrent").fetchone()[0])
        assert rows == 1


@pytest.mark.parametrize("command", ["status", "remove", "pause", "resume", "get_peers"])
async def test_a_torrent_that_is_not_there_is_not_found(tmp_path: Path, command: str) -> None:
    async with service(tmp_path) as here:
        with pytest.raises(NotFound):
            await getattr(here.torrent, command)(UNKNOWN)


BAD = {
    "no bencode": b"spam",
    "deep": b"l" * 5000,
    "outside": torrent(many({"path": ["..", "..", "evil"]})),
    "absolute": torrent(single(name="/etc/cron.d/evil")),
    "link": torrent(many({"path": ["a"], "attr": "l", "symlink path": ["etc"]})),
    "pieces": torrent(single(pieces=b"h" * 20)),
    "second version": torrent(tree(a={"": {"length": KIB, "pieces root": b"short"}})),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_torrent_is_refused_and_nothing_has_changed(tmp_path: Path, name: str) -> None:
    async with service(tmp_path) as here:
        before = await here.torrent.list()
        with pytest.raises(Invalid) as refused:
            await here.torrent.upload(BAD[name])
        assert all(fault.at.startswith("body") for fault in refused.value.faults)
        assert await here.torrent.list() is before
        assert await here.events() == []
        assert list(here.downloads.iterdir()) == []


async def test_a_torrent_beyond_the_size_limit_and_a_bad_link_are_refused(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        with pytest.raises(TooLarge):
            await here.torrent.upload(b"d" * ((4 << 20) + 1))
        with pytest.raises(Invalid):
            await here.torrent.add(AddTorrentRequest(cast(Magnet, "magnet:?xt=urn:btih:nothing")))


async def test_what_the_strict_reader_lets_pass_the_engine_can_use(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        for number, info in enumerate(
            (single(), many({"path": ["a"]}), tree(a={"": {"length": KIB, "pieces root": b"r" * 32}}))
        ):
            added = await here.torrent.upload(torrent(info), Folder(f"folder-{number}"), paused=True)
            assert (await here.torrent.status(InfoHash(added.info_hash))).error is None


# ── metadata from strangers


async def test_metadata_from_peers_is_held_to_the_same_rules_as_a_file(tmp_path: Path) -> None:
    """The peer's torrent has pieces of 32 MiB, which we refuse and it does not."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/big").write_bytes(bytes(PIECE))
    made = lt.create_torrent(lt.list_files(str(tmp_path / "theirs/big")), 32 << 20, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, str(tmp_path / "theirs"))
    theirs = lt.load_torrent_buffer(lt.bencode(made.generate()))
    theirs.save_path = str(tmp_path / "theirs")
    theirs.flags = lt.torrent_flags.seed_mode
    session: Any = lt.session(cast(Any, quiet_session("127.0.0.1:0", 0)))
    handle = session.add_torrent(theirs)
    at = InfoHash(str(handle.info_hashes().v1))
    while not handle.status().is_seeding:
        await asyncio.sleep(0.01)
    (tmp_path / "ours").mkdir()
    async with service(tmp_path / "ours") as here:
        await here.torrent.add(
            AddTorrentRequest(Magnet(f"magnet:?xt=urn:btih:{at}&dn=big&x.pe=127.0.0.1:{session.listen_port()}"))
        )
        row = await until(here.torrent, at, lambda row: row.status == "error")
        assert "16 MiB" in (row.error or "")
        await here.library.recorder.settled()
        assert [type(event) for event in await here.events() if isinstance(event, TorrentFailed | MetadataReceived)] == [
            TorrentFailed
        ]
    async with service(tmp_path / "ours") as here:
        assert (await here.torrent.status(at)).status == "error"


# ── pausing


async def test_a_torrent_added_paused_waits_until_it_is_resumed(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.upload(seed.torrent, paused=True)
        assert (await here.torrent.status(seed.info_hash)).status == "paused"
        await here.torrent.resume(seed.info_hash)
        await until(here.torrent, seed.info_hash, is_seeding)


async def test_pausing_stops_the_transfer_and_lasts_over_a_restart(tmp_path: Path, slow_seed: Seeder) -> None:
    at = slow_seed.info_hash
    async with service(tmp_path) as here:
        await here.torrent.add(slow_seed.request)
        await until(here.torrent, at, lambda row: row.progress > 0.1)
        row = await here.torrent.pause(at)
        assert (row.status, row.download_rate) == ("paused", 0)
        assert (await here.torrent.pause(at)).status == "paused"  # and no second event
        await until(here.torrent, at, lambda row: row.num_peers == 0)
    async with service(tmp_path) as here:
        row = await here.torrent.status(at)
        assert row.status == "paused"
        await here.torrent.resume(at)
        await until(here.torrent, at, is_seeding)
        assert sha256(here.downloads / slow_seed.name) == slow_seed.sha256
        await here.library.recorder.settled()
        events = await here.events()
    told = [event.status for event in events if isinstance(event, TorrentStatusChanged)]
    # Two stages that may be over before they are looked at: the metadata, and what the engine knows of the files at a restart.
    told = [status for status in told if status not in ("fetching_metadata", "queued")]
    assert told == ["downloading", "paused", "downloading", "seeding"]


async def test_a_change_that_can_not_be_recorded_is_not_made(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        at = InfoHash(f"{1:040x}")
        await here.library.recorder.settled()
        await here.journal.close()
        for command in (here.torrent.resume, here.torrent.remove):
            with pytest.raises(Unavailable):
                await command(at)
        with pytest.raises(Unavailable):
            await here.torrent.add(link(2))
        assert (await here.torrent.status(at)).status == "paused"
        assert [(row.info_hash, row.status) for row in (await here.torrent.list()).torrents] == [(at, "paused")]


# ── restarting


async def test_a_restart_brings_everything_back_and_tells_nothing_twice(tmp_path: Path, seed: Seeder) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(seed.request)
        await until(here.torrent, seed.info_hash, is_seeding)
        for number in range(1, 50):
            await here.torrent.add(link(number))
        await here.torrent.pause(InfoHash(f"{5:040x}"))
        before = {row.info_hash: (row.name, row.status, row.added_at) for row in (await here.torrent.list()).torrents}
    async with service(tmp_path) as here:
        events = await here.events()
        row = await until(here.torrent, seed.info_hash, lambda row: row.pieces_completed > 0)
        assert (row.status, row.progress, row.downloaded) == ("seeding", 1.0, row.downloaded)
        after = {row.info_hash: (row.name, row.status, row.added_at) for row in (await here.torrent.list()).torrents}
        assert after.keys() == before.keys()
        assert {at: kept for at, kept in after.items() if kept[1] != "fetching_metadata"} == {
            at: kept for at, kept in before.items() if kept[1] not in ("queued", "fetching_metadata")
        }
        await here.library.recorder.settled()
        assert [event for event in (await here.events())[len(events) :] if not isinstance(event, TorrentStatusChanged)] == []


async def test_a_torrent_whose_file_can_not_be_written_fails_alone_and_goes_on_once_it_can(
    tmp_path: Path, seed: Seeder
) -> None:
    in_the_way = tmp_path / "downloads" / seed.name
    in_the_way.mkdir(parents=True)
    async with service(tmp_path) as here:
        await here.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        await here.torrent.upload(seed.torrent)
        row = await until(here.torrent, seed.info_hash, lambda row: row.status == "error")
        assert seed.name in (row.error or "")
        assert (await here.torrent.status(InfoHash(f"{1:040x}"))).status == "paused"
        in_the_way.rmdir()
        assert (await here.torrent.resume(seed.info_hash)).error is None
        await until(here.torrent, seed.info_hash, is_seeding)
        await here.library.recorder.settled()
        failed = [event for event in await here.events() if isinstance(event, TorrentFailed)]
        assert [(event.info_hash, event.why) for event in failed] == [(seed.info_hash, row.error)]


# ── lists


async def test_two_readers_of_changes_each_see_every_change_once(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        first = second = (await here.torrent.list()).revision
        await here.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        await here.torrent.add(AddTorrentRequest(link(2).magnet, paused=True))
        page = await here.torrent.list(since=first)
        assert [row.name for row in page.torrents] == ["nobody-1", "nobody-2"]
        await here.torrent.remove(InfoHash(f"{1:040x}"))
        later = await here.torrent.list(since=page.revision)
        assert ([row.name for row in later.torrents], later.removed) == ([], (f"{1:040x}",))
        both = await here.torrent.list(since=second)
        assert ([row.name for row in both.torrents], both.removed) == (["nobody-2"], (f"{1:040x}",))
        assert later.revision == both.revision
        nothing = await here.torrent.list(since=both.revision)
        assert (nothing.torrents, nothing.removed, nothing.total) == ((), (), 1)


async def test_a_reader_can_wait_for_a_change(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        revision = (await here.torrent.list()).revision
        waiting = asyncio.create_task(here.torrent.list(since=revision, wait_seconds=20))
        await asyncio.sleep(0)
        await here.torrent.add(link(1))
        assert [row.name for row in (await waiting).torrents] == ["nobody-1"]


async def test_a_revision_of_another_life_is_gone(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(link(1))
        old = (await here.torrent.list()).revision
        for wrong in (0, old + 1000):
            with pytest.raises(Gone):
                await here.torrent.list(since=wrong)
    async with service(tmp_path) as here:
        with pytest.raises(Gone):
            await here.torrent.list(since=old)


async def test_a_list_can_be_read_in_pages(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        for number in range(1, 8):
            await here.torrent.add(link(number))
        pages = [await here.torrent.list(limit=3, offset=offset) for offset in (0, 3, 6)]
        assert [row.name for page in pages for row in page.torrents] == [f"nobody-{number}" for number in range(1, 8)]
        assert {page.total for page in pages} == {7}
        for bad in ({"limit": 0}, {"limit": 10_001}, {"offset": -1}, {"since": -1}, {"since": 0, "limit": 5}):
            with pytest.raises(Invalid):
                await here.torrent.list(**cast(Any, bad))


async def test_the_same_list_is_handed_out_until_it_changes(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        await here.torrent.add(AddTorrentRequest(link(1).magnet, paused=True))
        before = await here.torrent.list()
        assert await here.torrent.list() is before
        await here.torrent.add(link(2))
        assert await here.torrent.list() is not before


async def test_the_engine_listens_where_it_was_told(tmp_path: Path) -> None:
    async with service(tmp_path) as here:
        assert QUIET.listen == "127.0.0.1:0"
        assert await here.library.engine.listen_port() > 0
