"""A contract served on real sockets: streams, the unix socket, both clients, long operations."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

import tidegate.api
from tests.harbour import Berth, Harbour, HarbourService
from tidegate.api.system import System, SystemStatus
from tidegate.contract import Scope, areas
from tidegate.contract.absent import absent
from tidegate.contract.client import Address, AsyncLine, BlockingLine, drive, remote
from tidegate.contract.guard import KeyedDoor, OpenDoor, Principal
from tidegate.contract.serve import application
from tidegate.daemon.connection import Connection
from tidegate.daemon.listen import serving, tcp_socket, unix_socket
from tidegate.daemon.torrentlink import Link
from tidegate.errors import Conflict, Invalid, NoDaemon, NotFound, TidegateError, Unauthorized, Unavailable
from tidegate.policy.device import Label

pytestmark = pytest.mark.anyio


@dataclass
class Keyring:
    """Keys that can be taken away while they are in use."""

    scopes: dict[str, Scope] = field(default_factory=lambda: {"reader": Scope.READ, "boss": Scope.ADMIN})

    def authenticate(self, key: str | None, peer: str) -> Principal:
        if key is None or key not in self.scopes:
            raise Unauthorized("no such key")
        return Principal(f"key:{key}", self.scopes[key], lambda: key in self.scopes)


class TidalService(HarbourService):
    """Its tides go on until somebody stops listening; it counts who listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = 0

    async def tides(self, count: int = 3) -> AsyncIterator[int]:
        self.listening += 1
        try:
            n = 0
            while n < count:
                yield n
                n += 1
                await asyncio.sleep(0.01)
            if count == 7:
                raise Conflict("the sea is closed")
        finally:
            self.listening -= 1


class LoneSystem(System):
    async def status(self) -> SystemStatus:
        return SystemStatus("1", datetime.now(UTC), "/", 7, 0, ())


@asynccontextmanager
async def harbour_at_sea(service: Harbour, keyring: Keyring) -> AsyncIterator[str]:
    listener = tcp_socket("127.0.0.1:0")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = application([(Harbour, service)], KeyedDoor(keyring.authenticate, [url.removeprefix("http://")]))
    async with serving(app, listener):
        yield url


async def test_a_stream_gives_every_item_and_ends() -> None:
    service, keyring = TidalService(), Keyring()
    async with harbour_at_sea(service, keyring) as url:
        line = AsyncLine(Address(url, key="reader"))
        assert [n async for n in remote(Harbour, line).tides(count=5)] == [0, 1, 2, 3, 4]
        with pytest.raises(Conflict, match="the sea is closed"):
            assert [n async for n in remote(Harbour, line).tides(count=7)]
        await line.close()


async def test_a_stream_is_refused_before_the_upgrade() -> None:
    async with harbour_at_sea(TidalService(), Keyring()) as url:
        for key, failure in ((None, Unauthorized), ("stranger", Unauthorized)):
            line = AsyncLine(Address(url, key=key))
            with pytest.raises(failure):
                assert [n async for n in remote(Harbour, line).tides()]
            await line.close()
        host, _, port = url.removeprefix("http://").partition(":")
        for headers, status in (("", 401), ("Authorization: Bearer boss\r\nOrigin: http://evil.example\r\n", 403)):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"GET /api/v1/tides HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n".encode()
            )
            assert int((await reader.readline()).split()[1]) == status
            writer.close()
            await writer.wait_closed()


async def test_a_bad_parameter_of_a_stream_is_named() -> None:
    async with harbour_at_sea(TidalService(), Keyring()) as url:
        line = AsyncLine(Address(url, key="reader"))
        with pytest.raises(Invalid) as caught:
            async for _ in line.messages("/api/v1/tides?count=many"):
                pass
        assert caught.value.faults[0].at == "query/count"
        await line.close()


async def test_what_a_listener_says_is_no_fault_and_ends_nothing() -> None:
    service, keyring = TidalService(), Keyring()
    async with harbour_at_sea(service, keyring) as url:
        uri = url.replace("http", "ws") + "/api/v1/tides?count=10000"
        async with connect(uri, additional_headers={"Authorization": "Bearer reader"}, proxy=None) as tides:
            await tides.send(b"\xff\x00")
            await tides.send("hello")
            heard = [int(await tides.recv()) for _ in range(50)]
        assert heard == list(range(50))


async def test_a_client_that_leaves_in_mid_body_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    async with harbour_at_sea(TidalService(), Keyring()) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /api/v1/berths/1 HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer boss\r\n"
        writer.write(f"{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b"100 Continue" in await reader.readline()  # it is waiting for the body
        writer.close()
        await writer.wait_closed()
        said = ""
        for _ in range(1000):
            said += capsys.readouterr().out
            if "status=" in said:
                break
            await asyncio.sleep(0.01)
    assert "status=499" in said
    assert "bug" not in said + capsys.readouterr().out


async def test_commands_run_by_name_over_http() -> None:
    listener = tcp_socket("127.0.0.1:0")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    others = [contract for contract, _ in areas(tidegate.api.Tidegate) if contract is not System]
    pairs = [(System, LoneSystem()), *((contract, absent(contract, "not here")) for contract in others)]
    async with serving(application(pairs, OpenDoor("local:0", Scope.ADMIN)), listener), tidegate.connect(address) as daemon:
        executor = tidegate.executor(daemon)
        assert "groups.list_groups" in executor.names()
        assert (await executor.execute("system.status")).routers == 7
        with pytest.raises(Unavailable, match="not here"):
            await executor.execute("groups.list_groups", router_id="home")
        with pytest.raises(NotFound, match="no command is called"):
            await executor.execute("system.sink")


async def test_a_revoked_key_ends_its_open_streams() -> None:
    service, keyring = TidalService(), Keyring()
    async with harbour_at_sea(service, keyring) as url:
        line = AsyncLine(Address(url, key="reader"))
        tides = remote(Harbour, line).tides(count=10_000)
        assert await anext(tides) == 0
        del keyring.scopes["reader"]
        with pytest.raises(Unauthorized):
            assert [n async for n in tides]
        await line.close()
    assert service.listening == 0


async def test_a_listener_that_leaves_is_let_go() -> None:
    service = TidalService()
    async with harbour_at_sea(service, Keyring()) as url:
        line = AsyncLine(Address(url, key="reader"))
        tides = remote(Harbour, line).tides(count=10_000)
        async for n in tides:
            if n == 3:
                break
        await tides.aclose()  # type: ignore[attr-defined]
        for _ in range(100):
            if not service.listening:
                break
            await asyncio.sleep(0.02)
        await line.close()
    assert service.listening == 0


async def test_a_program_without_an_event_loop_calls_the_same_commands() -> None:
    service, keyring = TidalService(), Keyring()

    def program(url: str) -> list[Any]:
        line = BlockingLine(Address(url, key="boss"))
        harbour = remote(Harbour, line)
        seen: list[Any] = [drive(harbour.moor(1, Berth(Label("Albatros")))), drive(harbour.list()).total]
        try:
            drive(harbour.clear(5))
        except TidegateError as error:
            seen.append(type(error))
        tides = harbour.tides(count=2)
        seen += [drive(anext(tides)), drive(anext(tides))]
        line.close()
        return seen

    async with harbour_at_sea(service, keyring) as url:
        assert await asyncio.to_thread(program, url) == [Berth(Label("Albatros")), 1, NotFound, 0, 1]


async def test_the_unix_socket_is_its_owners_alone_and_needs_no_key(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    app = application([(Harbour, TidalService())], OpenDoor("local:0", Scope.ADMIN))
    async with serving(app, unix_socket(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        line = AsyncLine(Address(socket=str(path)))
        harbour = remote(Harbour, line)
        assert (await harbour.moor(1, Berth(Label("Albatros")))).ship == "Albatros"
        assert [n async for n in harbour.tides(count=2)] == [0, 1]
        await line.close()


async def test_where_nobody_listens_there_is_no_daemon(tmp_path: Path) -> None:
    for address in (Address("http://127.0.0.1:1"), Address(socket=str(tmp_path / "none.sock"))):
        line = AsyncLine(address)
        with pytest.raises(NoDaemon, match="tidegate up"):
            await remote(Harbour, line).list()
        with pytest.raises(NoDaemon):
            assert [n async for n in remote(Harbour, line).tides()]
        await line.close()


async def test_nobody_is_told_to_start_the_torrent_process_by_hand(tmp_path: Path) -> None:
    link = Link(tmp_path / "torrent.sock")
    with pytest.raises(Unavailable, match="is being started again") as asked:
        await remote(Harbour, link).list()
    with pytest.raises(Unavailable, match="is being started again") as followed:
        assert [n async for n in remote(Harbour, link).tides()]
    assert type(asked.value) is type(followed.value) is Unavailable
    await link.close()


async def test_asked_to_respond_later_it_answers_202_with_the_operation_to_follow() -> None:
    started: list[tuple[str, Coroutine[Any, Any, Any]]] = []

    @dataclass(frozen=True)
    class Ticket:
        id: str

    class Deferrals:
        def start(self, command: str, work: Coroutine[Any, Any, Any]) -> Ticket:
            started.append((command, work))
            return Ticket("op1")

    listener = tcp_socket("127.0.0.1:0")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    service = TidalService()
    app = application([(Harbour, service)], OpenDoor("local:0", Scope.ADMIN), deferrals=Deferrals())
    async with serving(app, listener), httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        reply = await client.post("/api/v1/berths/4", json={"ship": "Albatros"}, headers={"Prefer": "respond-async"})
        assert (reply.status_code, reply.headers["location"]) == (202, "/api/v1/operations/op1")
        assert not service.berths
        [(command, work)] = started
        assert command == "harbour.moor"
        await work
        assert service.berths[4].ship == "Albatros"
        # What is not long is answered at once, whatever was asked: its result is nobody else's.
        swift = await client.request("DELETE", "/api/v1/berths/4", headers={"Prefer": "respond-async"})
        assert (swift.status_code, len(started)) == (200, 1)


async def test_who_asks_is_the_socket_and_not_what_a_header_says() -> None:
    peers: list[str] = []

    class Doorman(Keyring):
        def authenticate(self, key: str | None, peer: str) -> Principal:
            peers.append(peer)
            return super().authenticate(key, peer)

    async with harbour_at_sea(TidalService(), Doorman()) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        for forged in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            await client.get("/api/v1/berths", headers={forged: "203.0.113.7"})
    assert set(peers) == {"127.0.0.1"}


class Hasty(Connection):
    """The same limits, sooner."""

    HEAD_TIME = BODY_TIME = 0.2
    LOOK = 0.02
    MOST = 20


@asynccontextmanager
async def hasty_harbour() -> AsyncIterator[tuple[str, int]]:
    listener = tcp_socket("127.0.0.1:0")
    host, port = listener.getsockname()
    app = application([(Harbour, TidalService())], KeyedDoor(Keyring().authenticate, [f"{host}:{port}"]))
    async with serving(app, listener, Hasty):
        yield host, port


async def said_to(address: tuple[str, int], *pieces: bytes, pause: float = 0) -> bytes:
    """What is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection(*address)
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    answer = b""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            answer += data
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


RESET = b""  # what is left of an answer when its reader was still sending


def request_to(address: tuple[str, int], rest: str = "\r\n", line: str = "GET /api/v1/berths") -> bytes:
    return f"{line} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nAuthorization: Bearer boss\r\n{rest}".encode()


async def test_a_head_that_is_too_large_is_refused_and_the_connection_closed() -> None:
    async with hasty_harbour() as at:
        endless = [request_to(at, "X-Long: "), *[b"y" * 4096] * 8]
        many = request_to(at, "".join(f"X-{n}: {'y' * 100}\r\n" for n in range(200)) + "\r\n")
        assert (await said_to(at, many)).startswith(b"HTTP/1.1 431 ")
        for pieces in (endless, [many[i : i + 1000] for i in range(0, len(many), 1000)]):
            assert (await said_to(at, *pieces))[:13] in (b"HTTP/1.1 431 ", RESET)
        path = "GET /api/v1/berths?limit=" + "1" * 9000
        assert (await said_to(at, request_to(at, line=path))).startswith(b"HTTP/1.1 414 ")
        fits = request_to(at, f"X-Long: {'y' * 15_000}\r\nConnection: close\r\n\r\n")
        assert (await said_to(at, fits)).startswith(b"HTTP/1.1 200 ")


async def test_a_head_or_a_body_that_does_not_come_ends_the_connection() -> None:
    async with hasty_harbour() as at:
        moor = request_to(at, "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n", line="POST /api/v1/berths/1")
        for pieces in ([], [b"GET / HT"], [request_to(at, "")], [moor], [moor, b"{"]):
            assert (await said_to(at, *pieces)).startswith(b"HTTP/1.1 408 ")
        for dripping in ([b"\r\n"] * 60, [bytes([byte]) for byte in request_to(at)[:60]], [moor, *[b" "] * 60]):
            assert (await said_to(at, *dripping, pause=0.02))[:13] in (b"HTTP/1.1 408 ", RESET)
        # Refused, and goes on sending: the answer stands, nothing is added to it.
        unasked = moor.replace(b"boss", b"stranger")
        answer = await said_to(at, unasked)
        assert (answer[:13], answer.count(b"HTTP/1.1")) == (b"HTTP/1.1 401 ", 1)
        # After an answered request the next one has its own time.
        assert (await said_to(at, request_to(at), b"GET / HT")).count(b"HTTP/1.1 408 ") == 1


async def test_a_body_that_comes_steadily_is_read_to_its_end_however_long_it_takes() -> None:
    async with hasty_harbour() as at:
        head = "Content-Type: image/png\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n"
        photo = request_to(at, head, line="POST /api/v1/berths/1/photo")
        answer = await said_to(at, photo, *[b"x" * 40] * 25, pause=0.02)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"1000")


async def test_half_open_connections_give_way_to_the_next() -> None:
    class Patient(Hasty):
        HEAD_TIME = 600.0

    listener = tcp_socket("127.0.0.1:0")
    host, port = listener.getsockname()
    app = application([(Harbour, TidalService())], OpenDoor("local:0", Scope.ADMIN))
    async with serving(app, listener, Patient):
        line = AsyncLine(Address(f"http://{host}:{port}"))
        harbour = remote(Harbour, line)
        tides = harbour.tides(count=10_000)
        assert await anext(tides) == 0
        half = []
        for n in range(200):
            half.append(socket.create_connection((host, port)))
            half[-1].sendall(b"GET / HTTP/1.1\r\n")
            if n % 20 == 0:
                assert (await harbour.list()).total == 0
        assert [await anext(tides) for _ in range(3)] == [1, 2, 3]
        assert half[0].recv(1) == b""
        await tides.aclose()  # type: ignore[attr-defined]
        await line.close()
        for each in half:
            each.close()


async def test_a_slow_body_and_half_a_request_leave_the_others_served() -> None:
    async with harbour_at_sea(TidalService(), Keyring()) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(50)]
        for each in slow:
            each.sendall(b"POST /api/v1/berths/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        line = AsyncLine(Address(url, key="reader"))
        assert (await remote(Harbour, line).list()).total == 0
        await line.close()
        for each in slow:
            each.close()


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999999", "0.0.0.0:0", "192.168.1.1:80"])
def test_an_address_that_can_not_be_listened_on_is_refused(listen: str) -> None:
    with pytest.raises((Invalid, Conflict)):
        tcp_socket(listen)


def test_a_taken_port_is_said_to_be_taken() -> None:
    first = tcp_socket("127.0.0.1:0")
    with pytest.raises(Conflict, match="can't listen"):
        tcp_socket(f"127.0.0.1:{first.getsockname()[1]}")
    first.close()
