"""What Tidegate can do: contracts and the values that they pass. No logic and no framework; a user's Python starts here."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.api.devices import Devices
from tidegate.api.events import Audit, Events
from tidegate.api.groups import Groups
from tidegate.api.infrastructure import Infrastructure
from tidegate.api.keys import Keys
from tidegate.api.routers import Routers
from tidegate.api.security import Security
from tidegate.api.session import Session
from tidegate.api.state import State
from tidegate.api.system import Operations, System
from tidegate.api.torrent import Torrent


@dataclass(frozen=True, slots=True)
class Tidegate:
    """A daemon: one attribute per area. The daemon fills it with services, `tidegate.connect()` with calls over HTTP."""

    routers: Routers
    infrastructure: Infrastructure
    groups: Groups
    state: State
    devices: Devices
    torrent: Torrent
    session: Session
    security: Security
    events: Events
    audit: Audit
    keys: Keys
    operations: Operations
    system: System
