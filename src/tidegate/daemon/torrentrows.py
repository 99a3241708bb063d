"""The torrents' rows with revisions: full lists, pages and deltas for any number of readers, without asking anybody.

Each change gives the table a higher revision. A row knows the revision of its last change, so a delta costs what has changed
and not what there is. The same answer object is handed out until something changes: its bytes are then made once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tidegate.api.torrent import TorrentList, TorrentStatus
from tidegate.errors import Fault, Gone, Invalid

LIMIT = 10_000  # rows in one page
WAIT_LIMIT = 30.0  # seconds
REMOVED_KEPT = 10_000  # removals that deltas can still tell; older revisions are Gone
ANSWERS_KEPT = 64  # answers kept for readers that ask the same


@dataclass(slots=True)
class Totals:
    """Sums over all rows, kept as rows change: `by_status` counts torrents, rates are bytes per second."""

    by_status: Counter[str] = field(default_factory=Counter)
    download_rate: int = 0
    upload_rate: int = 0
    left: int = 0
    progress: float = 0.0

    def add(self, row: TorrentStatus, sign: int) -> None:
        self.by_status[row.status] += sign
        self.download_rate += sign * row.download_rate
        self.upload_rate += sign * row.upload_rate
        self.left += sign * row.left
        self.progress += sign * row.progress


class Rows:
    """All rows, oldest torrent first. `revision` is where counting begins; revisions before it are Gone."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self.totals = Totals()
        self._floor = revision
        self._rows: dict[str, TorrentStatus] = {}
        self._v1_of: dict[str, str] = {}  # v2 hash -> the hash that the row goes by
        self._changed: OrderedDict[str, int] = OrderedDict()  # info hash -> revision, latest change last
        self._removed: deque[tuple[int, str]] = deque()
        self._answers: dict[tuple[int | None, int | None, int], TorrentList] = {}
        self._turned = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, info_hash: str) -> TorrentStatus | None:
        """The row of that v1 or v2 hash."""
        return self._rows.get(self._v1_of.get(info_hash, info_hash))

    # ── changing

    def put(self, *rows: TorrentStatus) -> None:
        """Add or replace rows; a row that is as it was is no change."""
        if new := [row for row in rows if self._rows.get(row.info_hash) != row]:
            self._take(new, (), self.revision + 1)

    def remove(self, info_hash: str) -> None:
        if info_hash in self._rows:
            self._take((), (info_hash,), self.revision + 1)

    def apply(self, delta: TorrentList) -> None:
        """What another table says has changed. One that is older than what was applied already changes nothing."""
        if delta.revision > self.revision:
            self._take(delta.torrents, delta.removed, delta.revision)

    def reset(self, whole: TorrentList) -> None:
        """Begin anew with another table's full list; all revisions before its are Gone."""
        self.totals = Totals()
        self._rows.clear()
        self._v1_of.clear()
        self._changed.clear()
        self._removed.clear()
        self._floor = whole.revision
        self._take(whole.torrents, (), whole.revision)

    def _take(self, rows: Iterable[TorrentStatus], removed: Iterable[str], revision: int) -> None:
        for info_hash in removed:
            self._forget(info_hash)
            self._removed.append((revision, info_hash))
        while len(self._removed) > REMOVED_KEPT:
            self._floor = self._removed.popleft()[0]
        # A delta is in the order of changes; among its rows those that are new here come in the order of their adding.
        for row in sorted(rows, key=lambda row: row.added_at):
            before = self._rows.get(row.info_hash)
            if before and before.added_at != row.added_at:  # removed and added again: it is the newest now
                self._forget(row.info_hash)
            elif before:
                self.totals.add(before, -1)
            self.totals.add(row, 1)
            self._rows[row.info_hash] = row
            self._changed[row.info_hash] = revision
            self._changed.move_to_end(row.info_hash)
            if row.info_hash_v2:
                self._v1_of[row.info_hash_v2] = row.info_hash
        self._turn(revision)

    def _forget(self, info_hash: str) -> None:
        if row := self._rows.pop(info_hash, None):
            self.totals.add(row, -1)
            self._changed.pop(info_hash, None)
            self._v1_of.pop(row.info_hash_v2 or "", None)

    def _turn(self, revision: int) -> None:
        self.revision = revision
        self._answers.clear()
        self._turned.set()
        self._turned = asyncio.Event()

    # ── reading

    def list(self, since: int | None, limit: int | None, offset: int) -> TorrentList:
        """The answer to `torrent.list`. Raises Invalid, or Gone where deltas do not reach back to `since`."""
        if faults := _faults(since, limit, offset):
            raise Invalid("the torrents can't be listed so", faults)
        if since is not None and not self._floor <= since <= self.revision:
            raise Gone("changes since that revision are not known any more: read the full list", full="/api/v1/torrents")
        asked = (since, limit, offset)
        if (found := self._answers.get(asked)) is None:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
            found = self._answers[asked] = self._page(limit, offset) if since is None else self._delta(since)
        return found

    async def answer(self, since: int | None, limit: int | None, offset: int, wait_seconds: float) -> TorrentList:
        """The answer to `torrent.list` with `wait_seconds`: with `since`, once something has changed or the time is over."""
        found = self.list(since, limit, offset)
        if since is None or found.revision != since or not wait_seconds > 0 or self._closed:  # not a number: no wait either
            return found
        with suppress(TimeoutError):
            await asyncio.wait_for(self._turned.wait(), min(wait_seconds, WAIT_LIMIT))
        return self.list(since, limit, offset)

    def close(self) -> None:
        """Let those who wait go: there will be no more changes."""
        self._closed = True
        self._turned.set()

    def _page(self, limit: int | None, offset: int) -> TorrentList:
        rows = tuple(self._rows.values())
        page = rows if limit is None and not offset else rows[offset : offset + (limit or len(rows))]
        return TorrentList(self.revision, len(rows), page)

    def _delta(self, since: int) -> TorrentList:
        rows = []
        for info_hash, revision in reversed(self._changed.items()):
            if revision <= since:
                break
            rows.append(self._rows[info_hash])
        gone = (info_hash for revision, info_hash in reversed(self._removed) if revision > since)
        removed = tuple(dict.fromkeys(info_hash for info_hash in gone if info_hash not in self._rows))
        return TorrentList(self.revision, len(self._rows), tuple(reversed(rows)), removed)


def _faults(since: int | None, limit: int | None, offset: int) -> list[Fault]:
    faults = []
    if since is not None and since < 0:
        faults.append(Fault("query/since", "a revision that a list has named: 0 or more"))
    if limit is not None and not 1 <= limit <= LIMIT:
        faults.append(Fault("query/limit", f"1 to {LIMIT}"))
    if offset < 0:
        faults.append(Fault("query/offset", "0 or more"))
    if since is not None and (limit is not None or offset):
        faults.append(Fault("query/since", "what changed is told whole: without limit and offset"))
    return faults
