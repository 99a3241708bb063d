"""The daemon about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path

from tidegate import __version__
from tidegate.api.system import Node, System, SystemStatus


class SystemService(System):
    """Asked of its parts at each call: `routers` and `journal_head` count, `nodes` lists the processes."""

    def __init__(
        self,
        state_dir: Path,
        started_at: datetime,
        routers: Callable[[], Awaitable[int]],
        journal_head: Callable[[], int],
        nodes: Callable[[], Sequence[Node]],
    ) -> None:
        self._state_dir = state_dir
        self._started_at = started_at
        self._routers = routers
        self._journal_head = journal_head
        self._nodes = nodes

    async def status(self) -> SystemStatus:
        return SystemStatus(
            version=__version__,
            started_at=self._started_at,
            state_dir=str(self._state_dir),
            routers=await self._routers(),
            journal_head=self._journal_head(),
            nodes=tuple(self._nodes()),
        )
