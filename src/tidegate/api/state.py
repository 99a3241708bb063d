"""A router's state document: what it is to do, kept on the router itself, with copies of the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from tidegate.api.routers import RouterId
from tidegate.contract import Media, get, post
from tidegate.events import GroupDeleted, GroupSynced, StateImported, StateRestored

StateFile = Annotated[bytes, Media("text/plain", 4 << 20)]
"""The bytes of a state document, or of a state file of the former service."""


@dataclass(frozen=True, slots=True)
class StateExport:
    """`document` is the text of the file, to be kept as it is; the last line of its own first one is the checksum of the rest.
    `health`: "degraded" where the file on the router is damaged, and `why`; this is the copy then that is believed."""

    router: str
    generation: int
    controller: str
    written: str | None
    checksum: str
    health: str
    why: str
    document: str


@dataclass(frozen=True, slots=True)
class StateGroup:
    """A group as the document would have it. `was`: "new", "changed", "kept", or "removed" where the document has it not."""

    group: int
    was: str
    name: str
    devices: int
    download_mbps: float | None
    upload_mbps: float | None
    active: bool
    internet_blocked: bool


@dataclass(frozen=True, slots=True)
class StateChange:
    """`applied` is false where it was only to be shown. `changes`: in words; empty where the router has it so already.
    `notes`: what of the file is not taken over, or is told as it stands."""

    router: str
    source: str
    generation: int
    applied: bool
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[StateGroup, ...]


@dataclass(frozen=True, slots=True)
class StateBackup:
    """One document on the router's flash. Where it is damaged only `file`, `good` and `why` say something."""

    file: str
    good: bool
    generation: int | None
    written: str | None
    controller: str
    groups: int
    devices: int
    why: str


@dataclass(frozen=True, slots=True)
class StateBackups:
    router: str
    backups: tuple[StateBackup, ...]
    total: int


@dataclass(frozen=True, slots=True)
class StateRestoreRequest:
    """`generation`: one that `state.backups` lists as good."""

    generation: int
    dry_run: bool = False


class State(Protocol):
    """A router's state document: what it is to do, kept on the router itself, with copies of the last ones."""

    @get("/routers/{router_id}/state")
    async def export(self, router_id: RouterId) -> StateExport:
        """The router's state document as it stands there, with its checksum.

        Raises Refused where it is damaged and no copy of it is good, NotFound where there is none.
        """
        ...

    @post("/routers/{router_id}/state/import", emits=(GroupSynced, GroupDeleted, StateImported), long=True)
    async def import_(self, router_id: RouterId, document: StateFile, dry_run: bool = False) -> StateChange:
        """Make the groups of a document the router's, all others gone: a Tidegate document (of any router), or a state file of
        the former service, whose rules are then taken off the router too.

        With `dry_run` it is only shown what that would do. Raises Invalid with every fault of the file and its place, and
        otherwise what `groups.sync_all_groups` raises; the router then stays as it is.
        """
        ...

    @get("/routers/{router_id}/state/backups")
    async def backups(self, router_id: RouterId) -> StateBackups:
        """The documents on the router's flash, the one in force first: good ones, and damaged ones with the reason."""
        ...

    @post("/routers/{router_id}/state/restore", emits=(GroupSynced, GroupDeleted, StateRestored), long=True)
    async def restore(self, router_id: RouterId, request: StateRestoreRequest) -> StateChange:
        """Make the groups of an earlier document the router's again: a change as any other, with a new generation.

        Raises NotFound where no good document of that generation is there, and otherwise what `groups.sync_all_groups` raises.
        """
        ...
