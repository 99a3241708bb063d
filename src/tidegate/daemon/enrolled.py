"""The enrolled routers: their records in the journal, the way to each, and how each fares.

`at(router)` is the one way to a router for every service: it holds the router's turn, opens the connection's engine at the
first use, and turns what went wrong on the line into failures that callers know and events that followers see.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import structlog

from tidegate.api.routers import Fingerprint, Hold, Router, RouterId
from tidegate.contract.codec import decode, encode
from tidegate.daemon import changes, holds, intents
from tidegate.daemon.health import Health
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.routerkeys import RouterKeys
from tidegate.errors import Conflict, NotFound, Refused, StorageFull, TidegateError, TimedOut, Unavailable
from tidegate.events import (
    Event,
    GroupChangeReverted,
    InfrastructureRepaired,
    RouterDrifted,
    RouterReachable,
    RouterRecovered,
    RouterUnreachable,
    RouterUntrusted,
    StateDocumentMended,
)
from tidegate.policy.nftables import NFTABLES
from tidegate.policy.router import Capabilities, Interfaces
from tidegate.policy.state import AuditAnchor, ControllerId, Moment, RouterName, Sha256, Stamp
from tidegate.router.engine import WINDOW, RouterOperationsEngine
from tidegate.router.fleet import Fleet, ManagedRouter
from tidegate.router.shell import HostKeyChanged, LogInRefused
from tidegate.router.ssh import Endpoint, SshShell

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.routers")

TABLES = (
    """
    CREATE TABLE routers (
      id TEXT PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL, user TEXT NOT NULL, host_key TEXT NOT NULL,
      lan TEXT NOT NULL, wan TEXT NOT NULL, capabilities TEXT NOT NULL, generation INTEGER NOT NULL, last_seen TEXT NOT NULL
    ) STRICT;
    CREATE TABLE controller (id TEXT NOT NULL) STRICT;
    INSERT INTO controller SELECT lower(hex(randomblob(8)));
    """,
)

TOLD = 100  # places of a router that drifted which its event names
PATIENCE = 5.0  # seconds that a change under way is given when the daemon stops, after 3 for its requests
_COLUMNS = "id, host, port, user, host_key, lan, wan, capabilities, generation, last_seen"


class _ServesRouters(Protocol):
    _routers: EnrolledRouters


S = TypeVar("S", bound=_ServesRouters)
P = ParamSpec("P")


def wholly(
    command: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """A command that runs to its end, also where the one who asked hangs up or the daemon is told to stop in the middle of it:
    what runs on the router and what is written down here must stay one thing."""

    @wraps(command)
    async def whole(service: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await service._routers.wholly(command(service, *args, **kwargs))

    return whole


class EnrolledRouters:
    def __init__(self, journal: Journal, fleet: Fleet, keys: RouterKeys, *, confirm_seconds: int = WINDOW) -> None:
        """`confirm_seconds`: how long a router waits for a change to be confirmed before it takes it back."""
        self.journal = journal
        self.fleet = fleet
        self.keys = keys
        self._window = confirm_seconds
        self._health: dict[str, Health] = {}
        self._opening = asyncio.Lock()
        self._work: set[asyncio.Task[Any]] = set()
        self._controller: ControllerId | None = None

    async def wholly(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a change in a task of its own, which `close` waits for."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def close(self, patience: float = PATIENCE) -> None:
        """Wait for the changes that are under way, so many seconds. What has not ended by then is left to the routers: each
        takes back by itself what nobody confirms, and the next start asks how it ended."""
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def settle(self) -> None:
        """Ask every router of which it is not known how its last change ended, all at once. One that does not answer now is
        asked at the next contact with it."""
        left = await self.journal.read(intents.waiting)
        asked = await asyncio.gather(*(self._settle(router_id) for router_id in left), return_exceptions=True)
        for router_id, failure in zip(left, asked, strict=True):
            if isinstance(failure, Exception) and not isinstance(failure, TidegateError):
                log.error("how a change ended could not be settled", router=router_id, exc_info=failure)

    async def _settle(self, router_id: str) -> None:
        async with self.at(router_id):
            pass

    async def controller(self) -> ControllerId:
        """This controller's id: 16 hex digits, made with its journal, written into each router's state document."""
        if self._controller is None:
            (found,) = await self.journal.read(lambda db: db.execute("SELECT id FROM controller").fetchone())
            self._controller = ControllerId(found)
        return self._controller

    async def find(self, router_id: str) -> Router | None:
        def query(db: sqlite3.Connection) -> Router | None:
            row = db.execute(f"SELECT {_COLUMNS} FROM routers WHERE id = ?", (str(router_id),)).fetchone()  # noqa: S608
            return self._router(row, holds.load(db)) if row else None

        return await self.journal.read(query)

    async def get(self, router_id: str) -> Router:
        if found := await self.find(router_id):
            return found
        raise NotFound(f"there is no router {router_id}", router=str(router_id))

    async def all(self) -> tuple[Router, ...]:
        def query(db: sqlite3.Connection) -> tuple[Router, ...]:
            rows = db.execute(f"SELECT {_COLUMNS} FROM routers ORDER BY id").fetchall()  # noqa: S608
            held = holds.load(db)
            return tuple(self._router(row, held) for row in rows)

        return await self.journal.read(query)

    @asynccontextmanager
    async def at(self, router_id: str) -> AsyncIterator[ManagedRouter]:
        """The router, for us alone until the end of the block. Raises NotFound, Conflict (untrusted), Unavailable, TimedOut."""
        async with self._turn(router_id) as router:
            heard = router.engine.answers
            try:
                if not router.settled:
                    # What can't be understood now, a damaged document, say, must not keep anybody from mending it.
                    with suppress(Refused):
                        await changes.settle(self.journal, router)
                yield router
            except HostKeyChanged as changed:
                await self._fares(
                    router_id, "untrusted", RouterUntrusted(router.id, changed.pinned, changed.shown), str(changed)
                )
                raise Conflict(
                    f"router {router_id} shows another host key than the pinned one; nothing was sent to it. Compare the new "
                    "one with the one that the router itself prints; if it is that, pin it with `tidegate routers trust`",
                    pinned=changed.pinned,
                    shown=changed.shown,
                ) from None
            except LogInRefused as refused:
                await self._fares(router_id, "unreachable", RouterUnreachable(router.id, str(refused)), str(refused))
                raise Refused(str(refused)) from None
            except (Unavailable, TimedOut) as error:
                if router.shell.line is None or isinstance(error, TimedOut):  # not the journal's disk, with the line standing
                    await self._fares(router_id, "unreachable", RouterUnreachable(router.id, error.detail), error.detail)
                raise
            finally:
                await self._tell_of_its_own(router)
                await self._tell_of_mending(router)
            if router.engine.answers > heard and self.fleet.get(router_id) is router:
                self._health.setdefault(router_id, Health()).login = router.engine.login
                await self._fares(router_id, "reachable", RouterReachable(router.id))

    @asynccontextmanager
    async def _turn(self, router_id: str) -> AsyncIterator[ManagedRouter]:
        """The router once it is our turn; what was waited for may have been hung up meanwhile, and is opened anew then."""
        while True:
            router = self.fleet.get(router_id) or await self._open(router_id)
            async with router.turn:
                if self.fleet.get(router_id) is router:
                    yield router
                    return

    @asynccontextmanager
    async def alone(self, router_id: str) -> AsyncIterator[None]:
        """Nobody changes the router by the connection that stands until the end of the block, nor do we need to reach it."""
        router = self.fleet.get(router_id)
        async with router.turn if router else nullcontext():
            yield

    async def hang_up(self, router_id: str) -> None:
        """Whoever asks the router next does so by what stands in its record and key by now."""
        async with self._opening:
            await self.fleet.drop(router_id)

    async def repin(self, router_id: str, host_key: Fingerprint, event: Event) -> None:
        """From now on this is the router's host key; the caller has it `alone`."""

        def pin(db: sqlite3.Connection) -> None:
            db.execute("UPDATE routers SET host_key = ? WHERE id = ?", (str(host_key), str(router_id)))

        await self.journal.commit(pin, event)
        await self.hang_up(router_id)
        self.forget(router_id)

    @asynccontextmanager
    async def changing(self, router_id: str) -> AsyncIterator[ManagedRouter]:
        """As `at`, for whoever changes what the router is to do. Raises Conflict too where somebody holds it."""
        async with self.at(router_id) as router:
            if hold := (await self.journal.read(holds.load)).get(str(router_id)):
                raise holds.in_the_way(router_id, hold)
            yield router

    async def lost(self, router_id: str) -> None:
        """The line to the router is over, without anybody having asked for something."""
        if self._health.get(router_id, Health()).line == "reachable":
            why = "the line was cut, or gave no sign of life any more"
            await self._fares(router_id, "unreachable", RouterUnreachable(router_id, why), why)

    def forget(self, router_id: str) -> None:
        self._health.pop(router_id, None)

    def met(self, router_id: str, login: str) -> None:
        """A router that was just enrolled is reachable without an event of its own. `login` is what our key may do there."""
        self._health[router_id] = health = Health(login=login)
        health.contact("reachable")

    async def looked(self, router_id: str, drift: tuple[str, ...]) -> None:
        """Somebody compared the router with what it should be, place by place. Where that is news it is told."""
        if self._health.setdefault(router_id, Health()).looked(drift):
            event = RouterDrifted(router_id, drift[:TOLD], len(drift)) if drift else RouterRecovered(router_id)
            with suppress(StorageFull, Unavailable):  # whoever looked has the answer
                await self.journal.commit(nothing, event)

    def mended(self, router_id: str, left: tuple[str, ...]) -> None:
        """The router was put right, but for these places; the event of that tells of it."""
        self._health.setdefault(router_id, Health()).looked(left)

    async def engine_for(
        self, router_id: str, shell: SshShell, interfaces: Interfaces, able: Capabilities | None = None
    ) -> RouterOperationsEngine:
        """For a router of which `able` is known; without, it has to be probed first."""
        leaf, dialect = (able.leaf, able.rules) if able else ("bfifo", NFTABLES)
        return RouterOperationsEngine(
            shell,
            RouterName(router_id),
            await self.controller(),
            interfaces,
            leaf,
            window=self._window,
            stamp=self._stamp,
            dialect=dialect,
        )

    async def _stamp(self) -> Stamp:
        """What each change notes on the router: an end of our audit trail that is cut off later shows against it."""
        audit = None
        with suppress(Unavailable, ValueError):  # a journal in trouble must not keep a router from going back to what was
            head = await self.journal.anchor()
            audit = AuditAnchor(head.number, Sha256(head.hash.hex()))
        return Stamp(Moment(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"), audit)

    async def _open(self, router_id: str) -> ManagedRouter:
        async with self._opening:
            if found := self.fleet.get(router_id):
                return found
            record = await self.get(router_id)
            key = self.keys.get(router_id)
            if key is None:
                raise Unavailable(
                    f"the key for router {router_id} is gone: `tidegate routers seal` with its password makes a new one"
                )
            shell = SshShell(Endpoint(record.host, record.port, record.user, record.host_key), key)
            engine = await self.engine_for(router_id, shell, Interfaces.of(record.lan, record.wan), record.capabilities)
            return self.fleet.put(ManagedRouter(str(router_id), shell, engine))

    async def _tell_of_its_own(self, router: ManagedRouter) -> None:
        """A router that took a change back, or put itself right, says so until it has been written down."""
        if found := router.engine.reverted:
            change, generation, verified = found
            with suppress(StorageFull, Unavailable, TimedOut, Refused, HostKeyChanged, LogInRefused):
                await self.journal.commit(nothing, GroupChangeReverted(router.id, change.id, generation, verified))
                await router.engine.hear_of_revert()
        if put_right := router.engine.put_right:
            with suppress(StorageFull, Unavailable, TimedOut, Refused, HostKeyChanged, LogInRefused):
                generation = (await self.get(router.id)).generation
                await self.journal.commit(nothing, InfrastructureRepaired(router.id, generation, put_right.words))
                await router.engine.hear_of_mending(put_right)

    async def _tell_of_mending(self, router: ManagedRouter) -> None:
        if damage := router.engine.documents.mended:
            used = damage.used.file if damage.used else ""
            generation = damage.used.document.generation if damage.used and damage.used.document else 0
            event = StateDocumentMended(router.id, damage.file, damage.why, used, generation, damage.lost)
            with suppress(StorageFull, Unavailable):
                await self.journal.commit(nothing, event)
                router.engine.documents.mended = None

    async def _fares(self, router_id: str, line: str, event: Event, trouble: str = "") -> None:
        health = self._health.setdefault(router_id, Health())
        before = health.line
        health.contact(line, trouble)
        if before != line and (before, line) != ("unknown", "reachable"):
            with suppress(StorageFull):  # what went wrong on the line is what the caller should learn
                await self.journal.commit(nothing, event)

    def _router(self, row: tuple[str, str, int, str, str, str, str, str, int, str], held: Mapping[str, Hold]) -> Router:
        id_, host, port, user, host_key, lan, wan, capabilities, generation, last_seen = row
        health = self._health.get(id_, Health())
        return Router(
            id=RouterId(id_),
            health=health.state,
            why=health.why,
            since=health.since,
            held=held.get(id_),
            generation=generation,
            last_seen=health.last_seen or datetime.fromisoformat(last_seen),
            host=host,
            port=port,
            user=user,
            login=health.login,
            lan=lan,
            wan=wan,
            host_key=Fingerprint(host_key),
            capabilities=decode(capabilities, Capabilities),
        )


def store(db: sqlite3.Connection, router: Router) -> None:
    """Write a new router's record. Raises Conflict where the id is taken."""
    last_seen = (router.last_seen or datetime.now(UTC)).isoformat()
    row = (str(router.id), router.host, router.port, router.user, str(router.host_key), router.lan, router.wan)
    row += (encode(router.capabilities).decode(), router.generation, last_seen)  # type: ignore[assignment]
    try:
        db.execute(f"INSERT INTO routers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    except sqlite3.IntegrityError:
        raise Conflict(f"there is a router {router.id} already", router=str(router.id)) from None


def learn(db: sqlite3.Connection, router_id: str, capabilities: Capabilities) -> None:
    """Remember what the router can do."""
    db.execute("UPDATE routers SET capabilities = ? WHERE id = ?", (encode(capabilities).decode(), str(router_id)))
