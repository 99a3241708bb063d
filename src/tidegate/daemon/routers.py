"""Enrolling routers: pin the key, log in, probe, install the agent, put the base set-up in place; and the way back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime

import asyncssh

from tidegate.api.routers import (
    Fingerprint,
    Hold,
    HostKey,
    HostName,
    PublicKey,
    Router,
    RouterAddRequest,
    RouterHoldRequest,
    RouterId,
    RouterList,
    Routers,
    RouterSealRequest,
)
from tidegate.contract.acting import acting, progress
from tidegate.daemon import devicerows, holds, wishes
from tidegate.daemon.enrolled import EnrolledRouters, learn, store, wholly
from tidegate.daemon.journal import nothing
from tidegate.daemon.routerkeys import public_blob, public_line
from tidegate.daemon.routerlogin import let_in, seal
from tidegate.errors import Conflict, Fault, Invalid, Refused, TidegateError
from tidegate.events import (
    FormerServiceCleared,
    RouterAdded,
    RouterHeld,
    RouterKeyCreated,
    RouterProbed,
    RouterReleased,
    RouterRemoved,
    RouterSealed,
    RouterTrusted,
)
from tidegate.policy.router import Capabilities, Interfaces
from tidegate.router.engine import RouterOperationsEngine
from tidegate.router.fleet import ManagedRouter
from tidegate.router.login import sealed
from tidegate.router.shell import HostKeyChanged, LogInRefused
from tidegate.router.ssh import Endpoint, SshShell, scan_host_key


class RoutersService(Routers):
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._journal = routers.journal
        self._adding: set[str] = set()

    async def scan_host_key(self, host: HostName, port: int = 22) -> HostKey:
        _check_port(port, "query/port")
        algorithm, fingerprint = await scan_host_key(host, port)
        return HostKey(str(host), port, algorithm, Fingerprint(fingerprint))

    async def create_key(self, router_id: RouterId) -> PublicKey:
        return PublicKey(str(router_id), sealed(public_line(await self._key(router_id))))

    @wholly
    async def add(self, router_id: RouterId, request: RouterAddRequest) -> Router:
        _check_port(request.port, "body/port")
        if request.lan == request.wan:
            raise Invalid("a router's devices and its line are on two interfaces", [Fault("body/wan", "is the same as lan")])
        if router_id in self._adding or await self._routers.find(router_id):
            raise Conflict(f"there is a router {router_id} already", router=str(router_id))
        self._adding.add(router_id)
        try:
            return await self._add(router_id, request)
        finally:
            self._adding.discard(router_id)

    async def list(self) -> RouterList:
        found = await self._routers.all()
        return RouterList(found, len(found))

    async def status(self, router_id: RouterId) -> Router:
        return await self._routers.get(router_id)

    async def hold(self, router_id: RouterId, request: RouterHoldRequest) -> Router:
        await self._routers.get(router_id)
        hold = Hold(acting().by, datetime.now(UTC), request.why)
        async with self._routers.alone(router_id):
            event = RouterHeld(str(router_id), str(hold.why))
            await self._journal.commit(lambda db: holds.save(db, router_id, hold), event)
        return await self._routers.get(router_id)

    async def release(self, router_id: RouterId) -> Router:
        if not (hold := (await self._routers.get(router_id)).held):
            raise Conflict(f"nobody holds router {router_id}", router=str(router_id))
        event = RouterReleased(str(router_id), str(hold.why))
        await self._journal.commit(lambda db: holds.remove(db, router_id), event)
        return await self._routers.get(router_id)

    @wholly
    async def probe(self, router_id: RouterId) -> Router:
        before = (await self._routers.get(router_id)).capabilities
        async with self._routers.at(router_id) as router:
            found = await router.engine.probe()
            event = RouterProbed(router.id, _differences(before, found))
            await self._journal.commit(lambda db: learn(db, router_id, found), event)
        return await self._routers.get(router_id)

    @wholly
    async def trust(self, router_id: RouterId, host_key: Fingerprint) -> Router:
        record = await self._routers.get(router_id)
        _, shown = await scan_host_key(HostName(record.host), record.port)
        if shown != host_key:
            raise _other_host_key(record.host, str(host_key), shown)
        async with self._routers.alone(router_id):
            await self._routers.repin(router_id, host_key, RouterTrusted(str(router_id), str(record.host_key), shown))
        return await self._routers.get(router_id)

    @wholly
    async def seal(self, router_id: RouterId, request: RouterSealRequest) -> Router:
        record = await self._routers.get(router_id)
        if request.password is not None:
            key = await self._key(router_id)
            at = Endpoint(record.host, record.port, record.user, str(record.host_key))
            async with self._routers.alone(router_id):
                try:
                    await let_in(at, key, request.password)
                except HostKeyChanged as changed:
                    raise _other_host_key(record.host, changed.pinned, changed.shown) from None
                except LogInRefused as refused:
                    raise Refused(str(refused)) from None
                await self._routers.hang_up(router_id)
        async with self._routers.at(router_id) as router:
            await seal(router, await self._key(router_id))
            await self._journal.commit(nothing, RouterSealed(str(router_id)))
        return await self._routers.get(router_id)

    @wholly
    async def remove(self, router_id: RouterId, forget: bool = False) -> Router:
        record = await self._routers.get(router_id)
        if forget:
            async with self._routers.alone(router_id):
                await self._erase(router_id)
        else:
            key = self._routers.keys.get(router_id)
            async with self._routers.changing(router_id) as router:
                await router.engine.cleanup_group_infrastructure(public_blob(key) if key else "")
                await self._erase(router_id)
        return replace(record, health="unknown", why="", login="unknown")

    async def _erase(self, router_id: RouterId) -> None:
        """Forget the router here; the caller has its turn."""

        def erase(db: sqlite3.Connection) -> None:
            wishes.remove(db, router_id)
            db.execute("DELETE FROM routers WHERE id = ?", (str(router_id),))

        await self._journal.commit(erase, RouterRemoved(str(router_id)))
        await self._routers.fleet.drop(router_id)
        self._routers.keys.remove(router_id)
        self._routers.forget(router_id)

    async def _add(self, router_id: RouterId, request: RouterAddRequest) -> Router:
        progress("asking for the host key", 0, 5)
        _, shown = await scan_host_key(request.host, request.port)
        if shown != request.host_key:
            raise _other_host_key(request.host, str(request.host_key), shown)
        key = await self._key(router_id)
        at = Endpoint(str(request.host), request.port, request.user, str(request.host_key))
        shell = SshShell(at, key)
        enrolled = None
        try:
            progress("logging in", 1, 5)
            placed = await _log_in(shell, at, key, request.password)
            engine = await self._routers.engine_for(router_id, shell, Interfaces(request.lan, request.wan))
            try:
                enrolled = await self._enrol(router_id, request, shell, engine)
            except TidegateError:
                # What we put there goes again; the log-in key stays if it was the operator who put it there.
                with suppress(TidegateError, HostKeyChanged, LogInRefused):
                    await engine.forget_login(public_blob(key) if placed else "")
                raise
            return enrolled
        except HostKeyChanged as changed:
            raise _other_host_key(request.host, changed.pinned, changed.shown) from None
        except LogInRefused as refused:
            raise Refused(str(refused), public_key=sealed(public_line(key))) from None
        finally:
            if enrolled is None:
                await shell.close()

    async def _enrol(
        self, router_id: RouterId, request: RouterAddRequest, shell: SshShell, engine: RouterOperationsEngine
    ) -> Router:
        progress("installing the agent and probing", 2, 5)
        capabilities = await engine.probe()
        progress("putting the base set-up in place", 3, 5)
        await self._clear_former(router_id, request, engine)
        applied = await engine.create_group_infrastructure()
        found = (await engine.observe()).document
        network = (await engine.look_around()).lan
        progress("recording", 4, 5)
        router = Router(
            id=router_id,
            health="reachable",
            why="",
            since=datetime.now(UTC),
            held=None,
            generation=applied.generation,
            host=str(request.host),
            port=request.port,
            user=request.user,
            host_key=request.host_key,
            lan=str(request.lan),
            wan=str(request.wan),
            capabilities=capabilities,
            last_seen=datetime.now(UTC),
            login=engine.login,
        )

        groups = {group.id: wishes.taken_up(group) for group in (found.groups if found else ())}
        rows = wishes.rows(router_id, groups, applied.generation)

        def record(db: sqlite3.Connection) -> None:
            store(db, router)
            devicerows.save_lan(db, router_id, network)
            wishes.save(db, rows)

        added = RouterAdded(str(router_id), f"{request.host}:{request.port}", str(request.host_key), applied.taken_from)
        await self._journal.commit(record, added)
        self._routers.met(router_id, engine.login)
        self._routers.fleet.put(ManagedRouter(str(router_id), shell, engine))
        return router

    async def _clear_former(self, router_id: RouterId, request: RouterAddRequest, engine: RouterOperationsEngine) -> None:
        found = await engine.former_rules(remove=request.clear_former)
        if found and request.clear_former:
            await self._journal.commit(nothing, FormerServiceCleared(str(router_id), found))
        elif found:
            raise Refused(
                f"the rules of the service before Tidegate are on this router: {', '.join(found)}. Take a copy of its state "
                "file if you want its lists, and ask again with clear_former to have the rules taken off",
                found=list(found),
            )

    async def _key(self, router_id: RouterId) -> asyncssh.SSHKey:
        if key := await asyncio.to_thread(self._routers.keys.get, router_id):
            return key
        key = await asyncio.to_thread(self._routers.keys.create, router_id)
        await self._journal.commit(nothing, RouterKeyCreated(str(router_id), key.get_fingerprint()))
        return key


async def _log_in(shell: SshShell, at: Endpoint, key: asyncssh.SSHKey, password: str | None) -> bool:
    """Make `shell` log in with our key; whether we had to put it there, by the password, is returned."""
    try:
        await shell.renew()
        return False
    except LogInRefused:
        if password is None:
            raise
    await let_in(at, key, password)
    await shell.renew()
    return True


def _differences(before: Capabilities | None, now: Capabilities) -> tuple[str, ...]:
    """Each ability that is another, in words."""
    old, new = asdict(before) if before else {}, asdict(now)
    return tuple(
        f"{name}: {_told(new[name])}, was {_told(old.get(name))}"
        for name in new
        if name != "agent" and new[name] != old.get(name)
    )


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value or "nothing")


def _other_host_key(host: str, expected: str, shown: str) -> Conflict:
    return Conflict(f"{host} shows the host key {shown}, not {expected}: nothing was sent", shown=shown, expected=expected)


def _check_port(port: int, place: str) -> None:
    if not 1 <= port <= 65535:
        raise Invalid("the port does not exist", [Fault(place, "a port is a number from 1 to 65535")])
