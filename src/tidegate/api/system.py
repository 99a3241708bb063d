"""The daemon itself, and work that takes long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from tidegate.contract import get


@dataclass(frozen=True, slots=True)
class Node:
    """A process of the daemon. `state`: up, starting, down."""

    name: str
    state: str
    pid: int | None
    restarts: int
    why: str | None = None


@dataclass(frozen=True, slots=True)
class SystemStatus:
    version: str
    started_at: datetime
    state_dir: str
    routers: int
    journal_head: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Work that goes on after the 202. `state`: running, done, failed. `stage` and `done`/`total` tell how far it is."""

    id: str
    command: str
    by: str
    state: str
    stage: str
    done: int
    total: int
    started_at: datetime
    finished_at: datetime | None
    result: Any = None
    problem: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OperationList:
    operations: tuple[Operation, ...]
    total: int


class System(Protocol):
    """The daemon itself."""

    @get("/system/status")
    async def status(self) -> SystemStatus:
        """Version, uptime, processes and the journal's newest number."""
        ...


class Operations(Protocol):
    """Work that takes long."""

    @get("/operations")
    async def list(self) -> OperationList:
        """Long operations, newest first: this key's own, with scope admin everybody's. Finished ones are kept for a day."""
        ...

    @get("/operations/{operation_id}")
    async def status(self, operation_id: str) -> Operation:
        """How far a long operation is, and its result or problem once it has ended; NotFound for another key's."""
        ...
