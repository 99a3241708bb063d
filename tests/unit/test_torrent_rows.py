"""Lists of torrents with revisions: whoever follows the changes has what a reader of everything has."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from tidegate.api.torrent import TorrentStatus
from tidegate.daemon import torrentrows
from tidegate.daemon.torrentrows import Rows
from tidegate.errors import Gone

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, *, status: str = "downloading", rate: int = 0, left: int = 0, added: int = 0) -> TorrentStatus:
    return TorrentStatus(
        info_hash=f"{number:040x}",
        info_hash_v2=f"{number:064x}",
        name=f"torrent {number}",
        status=status,
        progress=0.5,
        download_rate=rate,
        upload_rate=rate * 2,
        num_peers=0,
        num_seeds=0,
        total_size=100,
        downloaded=0,
        uploaded=0,
        left=left,
        eta_seconds=None,
        is_private=False,
        output_dir="/",
        pieces_completed=0,
        pieces_total=1,
        added_at=BEGIN + timedelta(seconds=added),
        completed_at=None,
        error=None,
    )


def everything(rows: Rows) -> list[TorrentStatus]:
    return list(rows.list(None, None, 0).torrents)


@pytest.mark.parametrize("seed", range(20))
def test_a_mirror_fed_by_deltas_at_any_time_is_equal_in_rows_order_revision_and_sums(seed: int) -> None:
    chance = random.Random(seed)
    source, mirror = Rows(7 << 32), Rows()
    mirror.reset(source.list(None, None, 0))
    late = source.list(source.revision, None, 0)
    for step in range(400):
        number = chance.randrange(30)
        if chance.random() < 0.3:
            source.remove(f"{number:040x}")
        else:
            known = source.get(f"{number:064x}")
            added = int((known.added_at - BEGIN).total_seconds()) if known else step
            source.put(
                row(number, status=chance.choice(["paused", "seeding"]), rate=chance.randrange(9), left=step, added=added)
            )
        if chance.random() < 0.3:
            late, delta = source.list(mirror.revision, None, 0), source.list(mirror.revision, None, 0)
            mirror.apply(delta)
        if chance.random() < 0.1:
            mirror.apply(late)  # an answer that comes after a newer one
    mirror.apply(source.list(mirror.revision, None, 0))
    assert everything(mirror) == everything(source)
    assert mirror.revision == source.revision
    for table in (source, mirror):
        rows = everything(table)
        assert table.totals.download_rate == sum(each.download_rate for each in rows)
        assert table.totals.upload_rate == sum(each.upload_rate for each in rows)
        assert table.totals.left == sum(each.left for each in rows)
        assert table.totals.progress == sum(each.progress for each in rows)
        assert +table.totals.by_status == {
            status: count for status in ("paused", "seeding") if (count := sum(each.status == status for each in rows))
        }


def test_a_row_that_is_as_it_was_is_no_change() -> None:
    rows = Rows()
    rows.put(row(1))
    before = rows.list(None, None, 0)
    rows.put(row(1))
    assert rows.list(None, None, 0) is before


def test_a_delta_tells_a_removed_torrent_that_is_there_again_as_there() -> None:
    rows = Rows()
    rows.put(row(1), row(2))
    since = rows.revision
    rows.remove(f"{1:040x}")
    rows.put(row(1, added=9))
    delta = rows.list(since, None, 0)
    assert ([each.name for each in delta.torrents], delta.removed) == (["torrent 1"], ())
    assert [each.name for each in everything(rows)] == ["torrent 2", "torrent 1"]


def test_removals_that_are_not_known_any_more_make_a_revision_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torrentrows, "REMOVED_KEPT", 2)
    rows = Rows()
    rows.put(*(row(number) for number in range(5)))
    revisions = []
    for number in range(4):
        revisions.append(rows.revision)
        rows.remove(f"{number:040x}")
    with pytest.raises(Gone):
        rows.list(revisions[1], None, 0)
    assert rows.list(revisions[2], None, 0).removed == (f"{3:040x}", f"{2:040x}")


@pytest.mark.anyio
async def test_waiting_ends_with_a_change_with_the_time_or_with_the_table() -> None:
    rows = Rows()
    assert (await rows.answer(0, None, 0, float("nan"))).revision == 0
    assert (await rows.answer(0, None, 0, 0.01)).revision == 0
    waiting = asyncio.create_task(rows.answer(0, None, 0, 20))
    await asyncio.sleep(0)
    rows.put(row(1))
    assert [each.name for each in (await waiting).torrents] == ["torrent 1"]
    waiting = asyncio.create_task(rows.answer(rows.revision, None, 0, 20))
    await asyncio.sleep(0)
    rows.close()
    assert (await waiting).torrents == ()
