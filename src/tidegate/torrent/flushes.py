"""Waiting until what the engine calls done is in the files.

libtorrent tells that a piece, a torrent or its resume data is there while the last blocks are still in its own cache, and
`save_resume_data(flush_disk_cache)` does not wait for them either: of 60 small downloads on a busy machine, 9 had other bytes
in their file at that moment. A process killed then would come back believing what is not there. So whatever depends on bytes in
files waits for `flush_cache` and its `cache_flushed_alert` first.
"""

from __future__ import annotations

from collections.abc import Callable

# The engine flushes by itself too, when a torrent is paused, and its alert looks the same. Of two alerts one is ours at least.
ALERTS = 2


class Flushes:
    """One round of flushing per torrent at a time; who asks during a round is served by the next one.

    `flush` asks the engine to flush one torrent's cache.
    """

    def __init__(self, flush: Callable[[str], None]) -> None:
        self._flush = flush
        self._rounds: dict[str, tuple[int, list[Callable[[], None]]]] = {}  # alerts still to come, who is served then
        self._next: dict[str, list[Callable[[], None]]] = {}

    def ask(self, key: str, done: Callable[[], None]) -> None:
        """Have `done` called once all that this torrent has in the cache now is in its files."""
        if key in self._rounds:
            self._next.setdefault(key, []).append(done)
        else:
            self._begin(key, [done])

    def flushed(self, key: str) -> None:
        """The engine's alert for that torrent came."""
        if key not in self._rounds:
            return
        left, served = self._rounds.pop(key)
        if left > 1:
            self._rounds[key] = left - 1, served
            return
        if waiting := self._next.pop(key, None):
            self._begin(key, waiting)
        for done in served:
            done()

    def forget(self, key: str) -> None:
        """The torrent is leaving: no alert will come any more, and nobody is to wait for one."""
        _, served = self._rounds.pop(key, (0, []))
        for done in (*served, *self._next.pop(key, ())):
            done()

    def _begin(self, key: str, served: list[Callable[[], None]]) -> None:
        self._rounds[key] = ALERTS, served
        for _ in range(ALERTS):
            self._flush(key)
