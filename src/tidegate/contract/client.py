"""Contracts called from afar: an object of the contract's own type whose methods are requests to a daemon.

The failures that the service raised are raised again here. Where nobody answers: Unavailable.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar, cast, get_type_hints
from urllib.parse import quote, urlencode, urlsplit

import httpx2
from websockets.asyncio.client import connect as connect_socket
from websockets.asyncio.client import unix_connect as connect_unix_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect as connect_socket_blocking
from websockets.sync.client import unix_connect as connect_unix_socket_blocking

from tidegate.contract import Command, codec, commands
from tidegate.contract.problems import STATUS, failure
from tidegate.errors import Fault, Invalid, NoDaemon, TidegateError, TimedOut, Unavailable

C = TypeVar("C")
T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:64124"
PREFIX = "/api/v1"
TIMEOUT = httpx2.Timeout(60, connect=5)  # seconds


@dataclass(frozen=True, slots=True)
class Address:
    """Where a daemon listens: a URL, or a unix socket's path with any URL's host; and the key to show.

    Raises Invalid for a URL that is none or a key that no header can carry.
    """

    url: str = DEFAULT_URL
    socket: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        faults = []
        if not _is_url(self.url):
            faults.append(Fault("url", f"{self.url[:80]!r} is not a daemon's URL, such as {DEFAULT_URL}"))
        if self.key and not re.fullmatch(r"[!-~]+", self.key):
            faults.append(Fault("key", "a key has printable ASCII only: no blanks, no line ends"))
        if faults:
            raise Invalid("the daemon can't be asked like this", faults)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False
    return bool(named) and re.fullmatch(r"[!-~]+", text) is not None


class Line(Protocol):
    """How requests travel. The blocking one never suspends, so that its coroutines can be driven without an event loop."""

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]: ...

    def messages(self, path: str) -> AsyncIterator[str]: ...


def remote(contract: type[C], line: Line) -> C:
    """An object of the contract's own type; every call goes over `line`."""
    methods = {c.method: _stream(c, line) if c.streams else _call(c, line) for c in commands(contract)}
    proxy = types.new_class(f"Remote{contract.__name__}", (contract,), exec_body=lambda body: body.update(methods))
    return cast(C, proxy())


def remote_all(holder: type[T], line: Line) -> T:
    """A dataclass whose fields are contracts, with each of them called over `line`."""
    hints = get_type_hints(holder)
    return holder(**{field.name: remote(hints[field.name], line) for field in fields(cast(Any, holder))})


def _call(command: Command, line: Line) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(_self: object, *args: Any, **kwargs: Any) -> Any:
        path, headers, body = _request(command, args, kwargs)
        code, data = await line.request(command.verb, path, headers, body)
        if code >= 400:
            raise _failure(code, data)
        return codec.decode(data, command.returns)

    return call


async def call_with_progress(command: Command, line: Line, arguments: dict[str, Any], told: Callable[[str], None]) -> Any:
    """Run a long command as an operation and tell its stages while it goes on; asks often at first, then every 0.3 s."""
    pause = 0.01
    path, headers, body = _request(command, (), arguments)
    code, data = await line.request(command.verb, path, {**headers, "Prefer": "respond-async"}, body)
    while code == 202 or code == 200:
        operation = codec.decode(data, dict[str, Any])
        if operation["state"] == "done":
            return codec.build(operation["result"], command.returns, "result")
        if operation["state"] == "failed":
            raise failure(operation["problem"])
        told(operation["stage"] + (f" {operation['done']}/{operation['total']}" if operation["total"] else ""))
        await asyncio.sleep(pause)
        pause = min(0.3, pause * 1.5)
        code, data = await line.request("GET", f"{PREFIX}/operations/{operation['id']}", {}, None)
    raise _failure(code, data)


def _stream(command: Command, line: Line) -> Callable[..., AsyncIterator[Any]]:
    async def follow(_self: object, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        path, _, _ = _request(command, args, kwargs)
        messages = line.messages(path)
        try:
            async for message in messages:
                yield codec.decode(message, command.returns)
        finally:
            await cast(Any, messages).aclose()

    return follow


def _request(command: Command, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, dict[str, str], bytes | None]:
    """The path with its query, the headers and the body of a call."""
    values = dict(zip(command.parameters, args, strict=False)) | kwargs
    unknown = values.keys() - command.parameters.keys()
    if unknown or len(args) > len(command.parameters):
        raise TypeError(f"{command.name} takes {', '.join(command.parameters)}")
    path = PREFIX + command.path.format(**{n: quote(_text(values[n]), safe="") for n in command.path_parameters})
    query = {n: _text(values[n]) for n in command.query_parameters if values.get(n) is not None}
    if query:
        path += "?" + urlencode(query)
    body = command.body
    if body is None or values.get(body.name) is None:
        return path, {}, None
    value = values[body.name]
    return path, {"Content-Type": body.media.type}, value if body.raw else codec.encode(value)


def _text(value: Any) -> str:
    plain = codec.plain(value)
    return ("true" if plain else "false") if isinstance(plain, bool) else str(plain)


def _failure(code: int, data: bytes) -> TidegateError:
    try:
        document = codec.decode(data, dict[str, Any])
    except ValueError:
        document = {"detail": f"the daemon answered {code} without a problem document"}
    return failure(document)


# ── lines


class AsyncLine:
    """For asyncio programs. Keeps its connections; close it with `close()`."""

    def __init__(self, address: Address, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        transport = transport or (httpx2.AsyncHTTPTransport(uds=address.socket) if address.socket else None)
        self._address = address
        self._http = httpx2.AsyncClient(
            base_url=address.url, headers=address.headers, transport=transport, timeout=TIMEOUT, trust_env=False
        )

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        try:
            reply = await self._http.request(verb, path, headers=dict(headers), content=body)
        except httpx2.TransportError as error:
            raise _silence(self._address, error) from error
        return reply.status_code, reply.content

    async def messages(self, path: str) -> AsyncIterator[str]:
        address = self._address
        uri, options = _socket_uri(address, path)
        opening = connect_unix_socket(address.socket, uri, **options) if address.socket else connect_socket(uri, **options)
        try:
            async with opening as socket:
                async for message in socket:
                    yield cast(str, message)
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            raise _broken(address, error) from error

    async def close(self) -> None:
        await self._http.aclose()


class BlockingLine:
    """For plain programs: `drive(call)` runs a call to its end in the calling thread, with no event loop."""

    def __init__(self, address: Address) -> None:
        transport = httpx2.HTTPTransport(uds=address.socket) if address.socket else None
        self._address = address
        self._http = httpx2.Client(
            base_url=address.url, headers=address.headers, transport=transport, timeout=TIMEOUT, trust_env=False
        )

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        try:
            reply = self._http.request(verb, path, headers=dict(headers), content=body)
        except httpx2.TransportError as error:
            raise _silence(self._address, error) from error
        return reply.status_code, reply.content

    async def messages(self, path: str) -> AsyncIterator[str]:
        address = self._address
        uri, options = _socket_uri(address, path)
        try:
            opening = (
                connect_unix_socket_blocking(address.socket, uri, **options)
                if address.socket
                else connect_socket_blocking(uri, **options)
            )
            with opening as socket:
                for message in socket:
                    yield cast(str, message)
        except (OSError, ConnectionClosed, InvalidHandshake) as error:
            raise _broken(address, error) from error

    def close(self) -> None:
        self._http.close()


def drive(call: Awaitable[T]) -> T:
    """The result of a call over a `BlockingLine`. Its coroutine never suspends, so one step runs it to its end."""
    step = call.__await__()
    try:
        next(step)
    except StopIteration as end:
        return cast(T, end.value)
    raise RuntimeError("this call waits for an event loop; use `async with tidegate.connect()`")


def _socket_uri(address: Address, path: str) -> tuple[str, dict[str, Any]]:
    scheme, _, host = address.url.partition("://")
    # Whoever leaves a stream with unread messages waits for the whole of close_timeout: nothing reads the farewell behind them.
    options: dict[str, Any] = {"additional_headers": address.headers, "max_size": 4 << 20, "compression": None, "proxy": None}
    options["close_timeout"] = 1
    if address.socket:
        options.pop("proxy")
    if scheme == "https" and not address.socket:
        options["ssl"] = ssl.create_default_context()
    return f"{'wss' if scheme == 'https' and not address.socket else 'ws'}://{host.rstrip('/')}{path}", options


def _silence(address: Address, error: httpx2.TransportError) -> TidegateError:
    where = address.socket or address.url
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
        return TimedOut(f"no answer from {where} in time")
    return NoDaemon(f"no daemon answers at {where}; start one with `tidegate up`")


def _broken(address: Address, error: Exception) -> TidegateError:
    """Why a stream ended, as the failure that the daemon meant."""
    if isinstance(error, InvalidStatus):
        return _failure(error.response.status_code, bytes(error.response.body or b""))
    if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code > 4000:
        kinds = {code: kind for kind, code in STATUS.items() if kind is not NoDaemon}
        return kinds.get(error.rcvd.code - 4000, Unavailable)(error.rcvd.reason or "the daemon closed the stream")
    if isinstance(error, OSError) and not isinstance(error, ConnectionClosed):
        return NoDaemon(f"no daemon answers at {address.socket or address.url}; start one with `tidegate up`")
    return Unavailable(f"the stream from {address.socket or address.url} broke off: {error}")
