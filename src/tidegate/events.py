"""Everything that can happen, as one union: the journal, the WebSocket, the audit trail and the tests read the same values.

An event's type name on the wire is its class name in snake case (`TorrentAdded` is `torrent_added`); the names that the
original torrent service used are kept where the event exists. Adding an event is adding a class here and to `Event`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, cast, get_args


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """The daemon came up; what happened before under another process is over."""

    version: str


@dataclass(frozen=True, slots=True)
class DaemonStopped:
    """The daemon was told to stop and did so in order."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of an entry that this version can't read: of a type from a later version, or damaged on the disk."""

    kind: str
    why: str


# ── keys


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """An API key was made; the secret stands nowhere."""

    key_id: str
    name: str
    scope: str


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """An API key was ended; connections that were open with it are closed."""

    key_id: str
    name: str


# ── routers and groups


@dataclass(frozen=True, slots=True)
class RouterKeyCreated:
    """The daemon made its key pair for one router; the private half never leaves the state directory."""

    router: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RouterAdded:
    """A router was enrolled: its host key pinned, the agent installed, the base set-up in place. `taken_from`: the id of the
    controller that had taken it up before and can't change it from now on; "" where there was none."""

    router: str
    address: str
    host_key: str
    taken_from: str = ""


@dataclass(frozen=True, slots=True)
class RouterRemoved:
    """A router was forgotten, once what was ours on it had been taken off."""

    router: str


@dataclass(frozen=True, slots=True)
class RouterUnreachable:
    """The router stopped answering; what runs on it goes on."""

    router: str
    why: str


@dataclass(frozen=True, slots=True)
class RouterReachable:
    """The router answers again."""

    router: str


@dataclass(frozen=True, slots=True)
class RouterHeld:
    """No change passes to the router until it is released."""

    router: str
    why: str


@dataclass(frozen=True, slots=True)
class RouterReleased:
    """Changes pass to the router again; `why` is what it was held for."""

    router: str
    why: str


@dataclass(frozen=True, slots=True)
class RouterProbed:
    """The router was asked anew what it can do; `changed` names what is another now, as `leaf: fq_codel, was bfifo`."""

    router: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouterDrifted:
    """Somebody looked, and the router is not as it should be, in so many places; the first 100 of them are named."""

    router: str
    places: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True)
class RouterRecovered:
    """The router is as it should be again, by itself or by somebody else's hand."""

    router: str


@dataclass(frozen=True, slots=True)
class RouterUntrusted:
    """Another host key than the pinned one was shown: nothing is sent to it until an administrator pins it anew."""

    router: str
    pinned: str
    shown: str


@dataclass(frozen=True, slots=True)
class RouterTrusted:
    """An administrator pinned another host key: the one that the router shows now."""

    router: str
    pinned_before: str
    host_key: str


@dataclass(frozen=True, slots=True)
class RouterSealed:
    """The daemon's key was made one that may ask the router's agent and nothing else."""

    router: str


@dataclass(frozen=True, slots=True)
class GroupSynced:
    """A group's wish was applied and verified on its router; `changed` says in words what that was. `before` and `after`: the
    wish in short ("" where there was none)."""

    router: str
    group: int
    generation: int
    changed: tuple[str, ...]
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class GroupDeleted:
    """Everything of a group was taken off its router; `removed` says in words what that was, `before` the wish in short."""

    router: str
    group: int
    generation: int
    removed: tuple[str, ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class GroupSyncFailed:
    """A change did not reach its end; the router runs what it ran before. `before` and `wanted`: the wish in short ("" where
    there was none, or where the group was to be deleted)."""

    router: str
    group: int
    why: str
    before: str = ""
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class RouterChangeFailed:
    """A change to the router as a whole (`what`) did not reach its end; the router runs what it ran before. `wanted`: of a sync
    of many groups the wish for each in short, the first 50."""

    router: str
    what: str
    why: str
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InfrastructureSetUp:
    """The base set-up was put in place; `changed` says in words what that took."""

    router: str
    generation: int
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InfrastructureRepaired:
    """A router that had drifted was mended; `mended` names every place."""

    router: str
    generation: int
    mended: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InfrastructureTornDown:
    """All groups and the base set-up were taken off the router; it stays enrolled."""

    router: str
    generation: int
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupChangeReverted:
    """A change ran on a router and was not confirmed in time, so the router took it back by itself: the daemon was gone, or
    could not reach the router any more. `verified`: what it runs now was read back and is what its state document says.
    `generation` is the one that stands, `change` the id of what was taken back."""

    router: str
    change: str
    generation: int
    verified: bool


@dataclass(frozen=True, slots=True)
class StateDocumentMended:
    """A router's state document was damaged or not its own (`file`, `why`), and was put right from the copy `used`, of that
    generation ("" where it was written anew from what the controller knew); `lost` says what that copy did not say."""

    router: str
    file: str
    why: str
    used: str
    generation: int
    lost: str


@dataclass(frozen=True, slots=True)
class FormerServiceCleared:
    """Rules that the service before Tidegate had left on a router were taken off it; `removed` names each."""

    router: str
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateImported:
    """The groups of a document (`source` says which) were made the router's, all others gone; `changed` says in words what
    that took. Each group that is another now has an event of its own before this one."""

    router: str
    generation: int
    source: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateRestored:
    """The groups of an earlier generation, `restored`, were made the router's again, as this new generation."""

    router: str
    generation: int
    restored: int
    changed: tuple[str, ...]


# ── devices


@dataclass(frozen=True, slots=True)
class DeviceDiscovered:
    """A device is on the network that was not known. `name`: what it calls itself, or nothing; it can say what it likes."""

    router: str
    mac: str
    ip: tuple[str, ...]
    name: str
    random_mac: bool


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A known device has other IPv4 addresses than before. What goes by its MAC, as its group does, holds on."""

    router: str
    mac: str
    ip: tuple[str, ...]
    previous: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceAddressMoved:
    """An address that a group names without a MAC has gone over to another device, and that device is under the group's policy
    now. `previous`: the MAC that had it."""

    router: str
    group: int
    address: str
    mac: str
    previous: str


@dataclass(frozen=True, slots=True)
class DeviceRenamed:
    """People call a device by another name now; an empty one: by none any more."""

    router: str
    mac: str
    name: str


# ── torrents


@dataclass(frozen=True, slots=True)
class TorrentAdded:
    """A torrent was added and is on disk. Of a magnet link `name` may be a stand-in until `metadata_received`."""

    info_hash: str
    name: str


@dataclass(frozen=True, slots=True)
class TorrentRemoved:
    """A torrent was removed, with its files where `data_deleted`."""

    info_hash: str
    name: str
    data_deleted: bool


@dataclass(frozen=True, slots=True)
class TorrentCompleted:
    """Everything that was wanted of a torrent is here."""

    info_hash: str
    name: str


@dataclass(frozen=True, slots=True)
class TorrentStatusChanged:
    """The torrent's `status` is another than before: downloading, seeding, paused, checking, ..."""

    info_hash: str
    name: str
    status: str
    previous: str


@dataclass(frozen=True, slots=True)
class MetadataReceived:
    """A magnet link's torrent is now known in full."""

    info_hash: str
    name: str
    total_size: int


@dataclass(frozen=True, slots=True)
class TorrentFailed:
    """The engine stopped this torrent because of an error; the others run on."""

    info_hash: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class SecurityBlacklistUpdated:
    """An address or network was put on the blacklist or taken off it; `action`: added, updated, removed, expired."""

    ip: str
    action: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class SecurityWhitelistUpdated:
    """An address or network was put on the whitelist or taken off it; `action`: added, updated, removed."""

    ip: str
    action: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class IpFilterLoaded:
    """A list of addresses was read and is in force: so many ranges, and so many lines that could not be read."""

    source: str
    ranges: int
    skipped: int


@dataclass(frozen=True, slots=True)
class IpFilterFailed:
    """A list of addresses could not be loaded, or waits for a person; what was loaded before is in force."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class IpFilterDropped:
    """A list of addresses is in force no more: the settings do not name it any longer."""

    source: str


@dataclass(frozen=True, slots=True)
class TorrentEngineDown:
    """The torrent process ended without being asked; it is being started again."""

    why: str


@dataclass(frozen=True, slots=True)
class TorrentEngineUp:
    """The torrent process answers; `torrents` were brought back."""

    torrents: int


# ── long operations


@dataclass(frozen=True, slots=True)
class OperationStarted:
    """Work was taken on that goes on after its answer (202)."""

    operation: str
    command: str


@dataclass(frozen=True, slots=True)
class OperationFinished:
    """Such work has ended; `state` is done or failed."""

    operation: str
    command: str
    state: str


Event = (
    DaemonStarted
    | DaemonStopped
    | Unreadable
    | KeyCreated
    | KeyRevoked
    | RouterKeyCreated
    | RouterAdded
    | RouterRemoved
    | RouterUnreachable
    | RouterReachable
    | RouterHeld
    | RouterReleased
    | RouterProbed
    | RouterDrifted
    | RouterRecovered
    | RouterUntrusted
    | RouterTrusted
    | RouterSealed
    | GroupSynced
    | GroupDeleted
    | GroupSyncFailed
    | RouterChangeFailed
    | InfrastructureSetUp
    | InfrastructureRepaired
    | InfrastructureTornDown
    | GroupChangeReverted
    | DeviceDiscovered
    | DeviceChanged
    | DeviceAddressMoved
    | DeviceRenamed
    | StateDocumentMended
    | FormerServiceCleared
    | StateImported
    | StateRestored
    | TorrentAdded
    | TorrentRemoved
    | TorrentCompleted
    | TorrentStatusChanged
    | MetadataReceived
    | TorrentFailed
    | SecurityBlacklistUpdated
    | SecurityWhitelistUpdated
    | IpFilterLoaded
    | IpFilterFailed
    | IpFilterDropped
    | TorrentEngineDown
    | TorrentEngineUp
    | OperationStarted
    | OperationFinished
)


def type_name(kind: type) -> str:
    """The event class's name on the wire: `TorrentAdded` is `torrent_added`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


KINDS: dict[str, type[Any]] = {type_name(kind): kind for kind in get_args(Event)}


class Notice:
    """What a follower of events gets: an `Entry`, or a `Resync` where entries are gone."""

    SCHEMA: ClassVar[dict[str, Any]] = {"type": "object", "required": ["type"]}

    __slots__ = ()

    @classmethod
    def from_wire(cls, value: Any) -> Notice:
        return Resync(value["missed"]) if value["type"] == "resync" else Entry.from_wire(value)


class Entry(Notice):
    """An event in its place. `number` rises by one and never skips, so a reader knows what it missed.

    `by` is who did it ("key:ab12cd34", "local:0", "daemon"); `request` is the id of the request that led to it, if one did.
    """

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "required": ["number", "at", "by", "request", "type", "data"],
        "properties": {
            "number": {"type": "integer", "minimum": 1},
            "at": {"type": "string", "format": "date-time"},
            "by": {"type": "string"},
            "request": {"type": "string"},
            "type": {"type": "string"},
            "data": {"type": "object"},
        },
    }

    __slots__ = ("at", "by", "event", "number", "request")

    def __init__(self, number: int, at: datetime, by: str, request: str, event: Event) -> None:
        self.number, self.at, self.by, self.request, self.event = number, at, by, request, event

    @property
    def type(self) -> str:
        return type_name(self.event.__class__)

    def to_wire(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "at": self.at.isoformat().replace("+00:00", "Z"),
            "by": self.by,
            "request": self.request,
            "type": self.type,
            "data": data_of(self.event),
        }

    @classmethod
    def from_wire(cls, value: Any) -> Entry:
        at = datetime.fromisoformat(value["at"])
        return cls(value["number"], at, value["by"], value["request"], event_from(value["type"], value["data"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self.to_wire() == other.to_wire()

    def __hash__(self) -> int:
        return hash((self.number, self.type))

    def __repr__(self) -> str:
        return f"Entry({self.number}, {self.event})"


class Resync(Notice):
    """In place of entries that are gone: up to and including `missed` they can't be had; read the state anew."""

    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object",
        "required": ["type", "missed"],
        "properties": {"type": {"const": "resync"}, "missed": {"type": "integer"}},
    }

    __slots__ = ("missed",)

    def __init__(self, missed: int) -> None:
        self.missed = missed

    def to_wire(self) -> dict[str, Any]:
        return {"type": "resync", "missed": self.missed}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resync) and self.missed == other.missed

    def __hash__(self) -> int:
        return hash(self.missed)

    def __repr__(self) -> str:
        return f"Resync(missed={self.missed})"


def data_of(event: Event) -> dict[str, Any]:
    """The event's fields as JSON's own types."""
    return {field.name: getattr(event, field.name) for field in fields(event)}


def event_from(name: str, data: dict[str, Any]) -> Event:
    """The event of that type name; its lists become tuples. Raises KeyError for a name that is not an event's."""
    built = KINDS[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    return cast(Event, built)
