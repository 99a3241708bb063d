"""The routers that this daemon manages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from tidegate.contract import ADMIN, delete, get, post
from tidegate.events import (
    RouterAdded,
    RouterHeld,
    RouterKeyCreated,
    RouterProbed,
    RouterReleased,
    RouterRemoved,
    RouterSealed,
    RouterTrusted,
)
from tidegate.policy.router import Capabilities, InterfaceName
from tidegate.policy.text import Text


class RouterId(Text):
    """The name of a router in commands."""

    PATTERN = r"[a-z0-9][a-z0-9-]{0,31}"
    EXPECTS = "a router's id: 1 to 32 lower case letters, digits and dashes, such as home"


class HostName(Text):
    """Where a router is reached."""

    _LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 2.1; what else there is makes a resolver stumble
    PATTERN = rf"(?=.{{1,253}}$)(?:{_LABEL}(?:\.{_LABEL})*\.?|[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f.]{{0,15}}){{2,8}})"
    EXPECTS = "an IP address or a DNS name"


class Reason(Text):
    """Why somebody did something, in their words. It stays on the controller; no router ever sees it."""

    EXPECTS = "a reason of 1 to 200 printable characters"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": 200}

    def __new__(cls, text: str) -> Self:
        if not 1 <= len(text) <= 200 or not text.isprintable():
            raise ValueError("a reason is 1 to 200 printable characters")
        return str.__new__(cls, text)


class UserName(Text):
    """Whom we log in as on a router."""

    PATTERN = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
    EXPECTS = "a user's name such as root"


class Fingerprint(Text):
    """A host key's SHA-256 fingerprint as OpenSSH prints it."""

    PATTERN = r"SHA256:[A-Za-z0-9+/]{43}"
    EXPECTS = "a fingerprint: SHA256: and 43 base64 characters"


@dataclass(frozen=True, slots=True)
class HostKey:
    """The key that a host shows, not yet trusted: compare the fingerprint with the one that the router itself prints."""

    host: str
    port: int
    algorithm: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class PublicKey:
    """This daemon's public key for one router, as a line for its authorized_keys that lets it at the agent and nothing else.

    With the key alone in that line, from `ssh-ed25519` on, the daemon logs in as root without limits; `login` says so then."""

    router: str
    line: str


@dataclass(frozen=True, slots=True)
class RouterAddRequest:
    """`host_key` is the confirmed fingerprint. `password` is used once, to put our key in place, and never kept; without
    it the key from `routers.create_key` must be there already. The interfaces are br-lan and wan unless given.
    `clear_former`: rules that the service before Tidegate (NetPilot) left there are taken off; they are in the way else."""

    host: HostName
    host_key: Fingerprint
    port: int = 22
    user: UserName = field(default_factory=lambda: UserName("root"))
    password: str | None = None
    lan: InterfaceName = field(default_factory=lambda: InterfaceName("br-lan"))
    wan: InterfaceName = field(default_factory=lambda: InterfaceName("wan"))
    clear_former: bool = False


@dataclass(frozen=True, slots=True)
class RouterSealRequest:
    """`password` is used once and never kept: for a router that our key does not open, or whose agent can't be mended by it."""

    password: str | None = None


@dataclass(frozen=True, slots=True)
class RouterHoldRequest:
    why: Reason


@dataclass(frozen=True, slots=True)
class Hold:
    """Who holds a router ("key:ID", "local:UID"), since when, and why."""

    by: str
    since: datetime
    why: Reason


@dataclass(frozen=True, slots=True)
class Router:
    """`held`: who keeps changes from it, None where nobody does. `health` is `reachable`, `degraded` (it answers, and is not as
    it should be), `unreachable`, `untrusted` (it shows another host key) or `unknown` (not asked since the start), `since` when
    and for the reason that `why` says."""

    id: RouterId
    health: str
    why: str
    held: Hold | None
    since: datetime
    generation: int
    last_seen: datetime | None
    host: str
    port: int
    user: str
    login: str  # what our key may do there: ask its "agent" and nothing else, whatever "root" may, "unknown"
    lan: str
    wan: str
    host_key: Fingerprint
    capabilities: Capabilities | None


@dataclass(frozen=True, slots=True)
class RouterList:
    routers: tuple[Router, ...]
    total: int


class Routers(Protocol):
    """The routers that this daemon manages."""

    @get("/host-keys/{host}", scope=ADMIN)
    async def scan_host_key(self, host: HostName, port: int = 22) -> HostKey:
        """Ask a host for the key that it shows, without logging in: to be compared by a person before `routers.add`."""
        ...

    @post("/routers/{router_id}/key", scope=ADMIN, emits=(RouterKeyCreated,))
    async def create_key(self, router_id: RouterId) -> PublicKey:
        """This daemon's key pair for one router, made at the first call: put the line into its authorized_keys."""
        ...

    @post("/routers/{router_id}", scope=ADMIN, emits=(RouterAdded,), long=True)
    async def add(self, router_id: RouterId, request: RouterAddRequest) -> Router:
        """Enrol a router: pin its host key, log in, probe what it can do, install the agent.

        Raises Conflict where the router shows another host key or the id is taken, Refused where the log-in or the agent
        is refused, Unavailable where nobody answers.
        """
        ...

    @get("/routers")
    async def list(self) -> RouterList:
        """All routers at once: the health of each, as last seen, and who holds it."""
        ...

    @get("/routers/{router_id}")
    async def status(self, router_id: RouterId) -> Router:
        """One router, as last seen."""
        ...

    @post("/routers/{router_id}/host-key", scope=ADMIN, emits=(RouterTrusted,))
    async def trust(self, router_id: RouterId, host_key: Fingerprint) -> Router:
        """Pin another host key: the one that the router shows now, compared with the one that it prints itself.

        Raises Conflict where it shows another one than that. Nothing is sent to the router.
        """
        ...

    @post("/routers/{router_id}/seal", scope=ADMIN, emits=(RouterSealed,), long=True)
    async def seal(self, router_id: RouterId, request: RouterSealRequest) -> Router:
        """Make our key one that may ask the router's agent and nothing else; with a password also where it opens nothing.

        Raises Refused where the log-in is refused, or the router's SSH server can't do it; the key is as it was then.
        """
        ...

    @post("/routers/{router_id}/hold", emits=(RouterHeld,))
    async def hold(self, router_id: RouterId, request: RouterHoldRequest) -> Router:
        """Let no change pass to the router until it is released; one that is under way comes to its end first.

        Whoever asks for a change is refused (409) and told who holds it, since when and why. Reading goes on, and what runs on
        the router itself does too: its limits, its schedules, its repairs. Held once more, it has the new reason.
        """
        ...

    @post("/routers/{router_id}/release", emits=(RouterReleased,))
    async def release(self, router_id: RouterId) -> Router:
        """Let changes through again. Raises Conflict where nobody holds it."""
        ...

    @post("/routers/{router_id}/probe", emits=(RouterProbed,), long=True)
    async def probe(self, router_id: RouterId) -> Router:
        """Ask the router anew what it can do: after an upgrade, or once a missing package was installed.

        Raises Refused with what it lacks where it can't carry us any more; what was known of it stays then.
        """
        ...

    @delete("/routers/{router_id}", scope=ADMIN, emits=(RouterRemoved,), long=True)
    async def remove(self, router_id: RouterId, forget: bool = False) -> Router:
        """Take everything of Tidegate off the router and forget it.

        With `forget` the router is not asked: for one that is gone, or that shows another host key than the pinned one.
        Raises Unavailable or Conflict where the router can't be cleaned; it stays enrolled then.
        """
        ...
