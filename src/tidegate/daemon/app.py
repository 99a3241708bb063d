"""The composition root: which service answers which contract, and in which process. Nothing else decides that."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import resource
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate import __version__
from tidegate.api import Tidegate
from tidegate.api.security import Security
from tidegate.api.session import Session
from tidegate.api.system import Node
from tidegate.api.torrent import Torrent
from tidegate.contract import Scope, areas
from tidegate.contract.absent import absent
from tidegate.contract.guard import KeyedDoor, OpenDoor
from tidegate.contract.serve import application
from tidegate.daemon import devicerows, enrolled, holds, intents, keys, log, takeover, wishes
from tidegate.daemon.auth import Doorman
from tidegate.daemon.devices import DevicesService
from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.daemon.events import AuditService, EventsService
from tidegate.daemon.groups import GroupAPIService
from tidegate.daemon.infrastructure import InfrastructureService
from tidegate.daemon.journal import Journal, nothing
from tidegate.daemon.keys import KeysService
from tidegate.daemon.lines import Lines
from tidegate.daemon.listen import serving, tcp_socket, unix_socket
from tidegate.daemon.lockout import Lockout
from tidegate.daemon.operations import OperationsService
from tidegate.daemon.routerkeys import RouterKeys
from tidegate.daemon.routers import RoutersService
from tidegate.daemon.state import StateService
from tidegate.daemon.system import SystemService
from tidegate.daemon.torrentnode import torrent_node
from tidegate.daemon.watch import Watch
from tidegate.errors import Conflict, Unavailable
from tidegate.events import DaemonStarted, DaemonStopped
from tidegate.router.fleet import Fleet
from tidegate.settings import Settings

# The numbered steps of the control journal's schema. A step that was released is never changed; new ones go to the end.
MIGRATIONS = (
    keys.TABLES,
    *enrolled.TABLES,
    *wishes.TABLES,
    *takeover.TABLES,
    *devicerows.TABLES,
    *intents.TABLES,
    *holds.TABLES,
)


@dataclass(frozen=True, slots=True)
class TorrentHalf:
    """The torrent contracts as this process serves them, and the process behind them."""

    torrent: Torrent
    session: Session
    security: Security
    nodes: Callable[[], Sequence[Node]]


@asynccontextmanager
async def torrent_half(settings: Settings, journal: Journal) -> AsyncIterator[TorrentHalf]:
    """The torrent process with its mirror in this one; or, switched off, contracts that say so."""
    if settings.torrent.enabled:
        async with torrent_node(settings, journal) as node:
            yield TorrentHalf(node.torrent, node.session, node.security, lambda: (node.node(),))
    else:
        why = "the torrent half is switched off (setting torrent.enabled)"
        yield TorrentHalf(absent(Torrent, why), absent(Session, why), absent(Security, why), lambda: ())


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon. `first_key` is the administrator's key where there was none, to be shown once; `services` are the
    same contracts that are served, for calls in this process."""

    url: str
    first_key: str | None
    services: Tidegate
    journal: Journal


@asynccontextmanager
async def running(settings: Settings, *, show_first_key: bool = True) -> AsyncIterator[Daemon]:
    """The daemon, from its state directory to its sockets; what was opened is closed in the opposite order.

    Without `show_first_key` no key is made where there is none: somebody must be there to be shown it.

    Raises Invalid for settings that can't be used, Conflict where another daemon has the state directory or the port,
    Unavailable where the store can't be opened.
    """
    _harden()
    _pace()
    log.configure(settings)
    started_at = datetime.now(UTC)
    async with AsyncExitStack() as stack:
        stack.enter_context(_state_dir(settings.state_dir))
        listener = tcp_socket(settings.listen)
        stack.callback(listener.close)
        journal = await Journal.open(settings.state_dir / "journal.db", MIGRATIONS)
        stack.push_async_callback(journal.close)
        await journal.commit(nothing, DaemonStarted(__version__))
        stack.push_async_callback(journal.commit, nothing, DaemonStopped())
        key_service = await KeysService.open(journal, settings.state_dir / "pepper")
        first = await key_service.bootstrap() if show_first_key else None
        fleet = Fleet()
        stack.push_async_callback(fleet.close)
        routers = EnrolledRouters(
            journal, fleet, RouterKeys(settings.state_dir / "router-keys"), confirm_seconds=settings.confirm_seconds
        )
        stack.push_async_callback(routers.close)

        async def routers_count() -> int:
            return len(await routers.all())

        operations = OperationsService(journal)
        stack.push_async_callback(operations.close)
        torrents = await stack.enter_async_context(torrent_half(settings, journal))
        infrastructure = InfrastructureService(routers)
        devices = DevicesService(routers)
        services = Tidegate(
            routers=RoutersService(routers),
            infrastructure=infrastructure,
            groups=GroupAPIService(routers),
            state=StateService(routers),
            devices=devices,
            torrent=torrents.torrent,
            session=torrents.session,
            security=torrents.security,
            events=EventsService(journal),
            audit=AuditService(journal),
            keys=key_service,
            operations=operations,
            system=SystemService(settings.state_dir, started_at, routers_count, lambda: journal.head, torrents.nodes),
        )
        keyed = KeyedDoor(Doorman(key_service.authenticator, Lockout()).authenticate, _hosts(settings, listener.getsockname()))
        by_owner = OpenDoor(f"local:{os.getuid()}", Scope.ADMIN)
        pairs = areas(services)

        def ready() -> bool:
            return all(node.state == "up" for node in torrents.nodes())

        await stack.enter_async_context(serving(application(pairs, keyed, deferrals=operations, ready=ready), listener))
        await stack.enter_async_context(
            serving(application(pairs, by_owner, deferrals=operations, ready=ready), unix_socket(settings.socket))
        )
        await stack.enter_async_context(_supervised(key_service.run()))
        await stack.enter_async_context(_supervised(routers.settle()))
        await stack.enter_async_context(_supervised(Lines(routers).run()))
        if settings.watch_seconds:
            watch = Watch(routers, infrastructure, devices, max(10, settings.watch_seconds), repair=settings.repair)
            await stack.enter_async_context(_supervised(watch.run()))
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        yield Daemon(url, first.key if first else None, services, journal)


def _harden() -> None:
    """What this process holds - routers' keys among it - goes into no core dump, and what it writes is its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    for name, value in (("HOME", "/"), ("LOGNAME", "tidegate")):  # a service may have neither; asyncssh asks for both
        os.environ.setdefault(name, value)


def _pace() -> None:
    """Nobody waits long for another's work: threads take turns each millisecond, and the search for cyclic garbage, for which
    all of them stop, is not begun anew with every 700 of a large router's 100,000 values (it took two thirds of the time)."""
    sys.setswitchinterval(0.001)
    gc.set_threshold(50_000, 20, 50)
    gc.freeze()


@contextmanager
def _state_dir(path: Path) -> Iterator[None]:
    """The state directory, made where there is none, for this daemon alone. Raises Conflict, Unavailable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (mode := path.stat().st_mode & 0o777) & 0o077:
            raise Unavailable(f"the state directory {path} is open to others (mode {mode:o}): chmod 700 it, or choose another")
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Unavailable(f"the state directory {path} can't be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Conflict(f"another daemon runs on {path}") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _hosts(settings: Settings, bound: tuple[Any, ...]) -> list[str]:
    """The names under which this daemon may be asked: itself on loopback, and what the settings add."""
    own, port = bound[:2]
    names = {"127.0.0.1", "localhost", "[::1]", f"[{own}]" if ":" in own else own}
    return [f"{name}:{port}" for name in names] + list(settings.hosts)


@asynccontextmanager
async def _supervised(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on beside the daemon and ends with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
