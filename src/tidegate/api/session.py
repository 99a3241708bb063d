"""The torrent engine as a whole."""

from __future__ import annotations

from typing import Protocol

import msgspec

from tidegate.contract import get
from tidegate.contract.answers import EncodedOnce


class GlobalStatsResponse(EncodedOnce, frozen=True, eq=False):
    """Rates are bytes per second and totals bytes since the session began; `stats` are the engine's own counters."""

    num_torrents: int
    num_active: int
    num_paused: int
    total_download_rate: int
    total_upload_rate: int
    total_downloaded: int
    total_uploaded: int
    stats: dict[str, float] = msgspec.field(default_factory=dict)


class Session(Protocol):
    """The torrent engine as a whole."""

    @get("/session/stats")
    async def get_global_stats(self) -> GlobalStatsResponse:
        """How many torrents, how fast, how much; at most a second old."""
        ...
