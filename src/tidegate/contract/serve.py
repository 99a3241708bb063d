"""Contracts over HTTP and WebSocket. The one file that knows the web framework.

Every request passes in this order: host, origin, key, scope, size, body, command. Every failure leaves as one problem
document with the request's id, which also stands in the log line and in the journal.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Asgi
from starlette.websockets import WebSocket, WebSocketDisconnect

from tidegate.contract import ADMIN, Command, codec, commands
from tidegate.contract.acting import Acting, act
from tidegate.contract.guard import Guard, Principal, permit
from tidegate.contract.openapi import document
from tidegate.contract.problems import problem, status
from tidegate.errors import Fault, Invalid, Malformed, NotAllowed, NotFound, TidegateError, TooLarge, Unavailable, Unsupported

PREFIX = "/api/v1"
PROBLEM = "application/problem+json"
LONG = 64 << 10  # bytes of a body that is read beside the event loop
CLIENT_LEFT = 499  # in the log only: nobody was there any more to be answered
ONCE = {b"host", b"origin", b"authorization", b"x-ccbt-api-key"}  # whom another reader would take for a different one if twice

log: structlog.stdlib.BoundLogger = structlog.get_logger("tidegate.http")

Services = Sequence[tuple[type, Any]]


class Deferrals(Protocol):
    """Takes work that goes on after the answer, and gives back the operation to follow."""

    def start(self, command: str, work: Coroutine[Any, Any, Any]) -> Any: ...


def application(
    services: Services, guard: Guard, *, deferrals: Deferrals | None = None, ready: Callable[[], bool] = lambda: True
) -> ASGIApp:
    """An ASGI application with one route per command of each contract, answered by its service.

    `deferrals` serves `Prefer: respond-async`; `ready` answers /readyz.
    """
    routes = _Routes()
    for contract, service in services:
        for command in commands(contract):
            if command.streams:
                routes.add_stream(PREFIX + command.path, _stream_endpoint(command, service))
            else:
                routes.add(command.verb, PREFIX + command.path, _endpoint(command, service, deferrals))
    openapi = codec.encode(document([contract for contract, _ in services], PREFIX))

    async def readiness(_: Request) -> Response:
        if not ready():
            raise Unavailable("not ready yet")
        return _json({"ready": True})

    async def api_document(_: Request) -> Response:
        return Response(openapi, media_type="application/json")

    routes.add("GET", "/readyz", readiness)
    routes.add("GET", "/openapi.json", api_document)
    return _Door(routes, guard)


Endpoint = Callable[[Request], Awaitable[Response]]
StreamEndpoint = Callable[[WebSocket], Awaitable[None]]


class _Routes:
    """Which endpoint answers a path. Fixed paths are found by name, and before those with a placeholder, so that
    /torrents/add is never taken for a torrent's hash; a framework's router looks through its list one by one."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
        self._streams: dict[str, StreamEndpoint] = {}

    def add(self, verb: str, path: str, endpoint: Endpoint) -> None:
        if "{" in path:
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
            self._patterns.setdefault(path, (pattern, {}))[1][verb] = endpoint
        else:
            self._fixed.setdefault(path, {})[verb] = endpoint

    def add_stream(self, path: str, endpoint: StreamEndpoint) -> None:
        self._streams[path] = endpoint

    def find(self, verb: str, path: str, raw: bytes) -> tuple[Endpoint, dict[str, str]]:
        """The endpoint and the path's parameters. Raises NotFound, or NotAllowed with the verbs that the path has.

        `raw` is the path as it was sent: a parameter may hold a slash, written %2F, as a network does.
        """
        if path in self._streams:
            raise NotAllowed("this is a stream: connect with a WebSocket", allow="GET", upgrade="websocket")
        found = (self._fixed[path], {}) if path in self._fixed else self._match(raw.decode("latin-1"))
        if found is None:
            raise NotFound("no such path")
        verbs, parameters = found
        if endpoint := verbs.get("GET" if verb == "HEAD" else verb):
            return endpoint, parameters
        raise NotAllowed(f"not with {verb}", allow=", ".join(sorted(verbs)))

    def _match(self, path: str) -> tuple[dict[str, Endpoint], dict[str, str]] | None:
        for pattern, verbs in self._patterns.values():
            if match := pattern.fullmatch(path):
                return verbs, {name: unquote(value) for name, value in match.groupdict().items()}
        return None

    def find_stream(self, path: str) -> StreamEndpoint:
        if path not in self._streams:
            raise NotFound("no such stream")
        return self._streams[path]


class _Door:
    """The outermost layer: admits or refuses, names the request, writes its log line, sets the headers of every answer."""

    HEADERS = (
        (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    )

    def __init__(self, routes: _Routes, guard: Guard) -> None:
        self._routes = routes
        self._guard = guard
        self._log = log.bind()

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = _request_id(headers.get("x-request-id"))
        extra = [(b"x-request-id", request_id.encode()), *self.HEADERS]
        answered = 0
        by = "-"

        async def sending(message: Message) -> None:
            nonlocal answered
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answered = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            elif message["type"] == "websocket.accept":
                answered = 101
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            by = await self._admitted(scope, headers, receive, sending)
        except TidegateError as error:
            by = scope["state"]["principal"].by if "principal" in scope["state"] else by
            await _refuse(error, request_id, scope, receive, sending)
        except (ClientDisconnect, WebSocketDisconnect):
            answered = answered or CLIENT_LEFT
        except Exception as error:  # a bug, told once and without internals
            log.error("bug", id=request_id, path=scope["path"], exc_info=error)
            if answered:
                raise
            document = {"type": "about:blank", "title": "Internal error", "status": 500, "request": request_id}
            await _send(Response(codec.encode(document), 500, None, PROBLEM), scope, receive, sending)
        finally:
            took = (time.perf_counter() - began) * 1000
            verb = scope.get("method", "WS")
            self._log.info("request", id=request_id, by=by, verb=verb, path=scope["path"], status=answered, ms=round(took, 2))

    async def _admitted(self, scope: Asgi, headers: dict[str, str], receive: Receive, send: Send) -> str:
        """Answer the request if the guard lets it in; who asked."""
        if len(headers) < len(scope["headers"]):
            _refuse_twice([name for name, _ in scope["headers"]])
        writes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if scope["path"] == "/healthz" and not writes:
            await _json({"alive": True})(scope, receive, send)
            return "-"
        peer = scope["client"][0] if scope.get("client") else ""
        principal = scope["state"]["principal"] = self._guard.admit(headers, peer, writes=writes)
        if scope["type"] == "websocket":
            await self._routes.find_stream(scope["path"])(WebSocket(scope, receive, send))
        else:
            endpoint, scope["path_params"] = self._routes.find(scope["method"], scope["path"], scope["raw_path"])
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)
        return principal.by


def _refuse_twice(names: list[bytes]) -> None:
    for name in ONCE:
        if names.count(name) > 1:
            raise Malformed(f"the header {name.decode()} stands twice in the request")


def _request_id(given: str | None) -> str:
    """The caller's own id where it is harmless in a log, else a fresh one."""
    if given and re.fullmatch(r"[A-Za-z0-9-]{1,64}", given, re.ASCII):
        return given
    return secrets.token_hex(8)


async def _refuse(error: TidegateError, request_id: str, scope: Asgi, receive: Receive, send: Send) -> None:
    await _send(_problem(error, request_id), scope, receive, send)


async def _send(response: Response, scope: Asgi, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    # A WebSocket is refused before the upgrade: with a status and a problem, not with a close code.
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": response.body})


# ── answers


def _json(value: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(codec.encode(value), code, headers, "application/json")


def _problem(error: TidegateError, request_id: str) -> Response:
    headers = {}
    if "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts["retry_after"])
    if "allow" in error.facts:
        headers["Allow"] = str(error.facts["allow"])
    if "upgrade" in error.facts:
        headers["Upgrade"] = str(error.facts["upgrade"])
    return Response(codec.encode(problem(error, request_id)), status(error), headers, PROBLEM)


# ── commands


def _endpoint(command: Command, service: Any, deferrals: Deferrals | None) -> Endpoint:
    method: Callable[..., Coroutine[Any, Any, Any]] = getattr(service, command.method)

    async def endpoint(request: Request) -> Response:
        state = request.scope["state"]
        principal: Principal = state["principal"]
        permit(principal, command)
        bare = not (command.path_parameters or command.body or request.scope["query_string"])
        arguments = {} if bare else await _arguments(command, request)
        act(Acting(principal.by, state["request_id"], command.name, principal.scope >= ADMIN))
        # Only long commands: the result of one such as `keys.create` is for its asker's eyes, once.
        if deferrals and command.long and "respond-async" in request.headers.get("prefer", ""):
            operation = deferrals.start(command.name, method(**arguments))
            headers = {"Location": f"{PREFIX}/operations/{operation.id}", "Preference-Applied": "respond-async"}
            return _json(operation, 202, headers)
        return _json(await method(**arguments))

    return endpoint


async def _arguments(command: Command, request: Request) -> dict[str, Any]:
    arguments, faults = read_parameters(command, request.path_params, request.query_params.multi_items())
    if body := command.body:
        try:
            data = await _body(request, body.media.type, body.media.limit)
            if data or body.required:
                arguments[body.name] = data if body.raw else await _read_body(data, body.type)
        except Invalid as error:
            faults += error.faults
    if faults:
        raise Invalid("the request does not fit the command", faults)
    return arguments


async def _read_body(data: bytes, kind: Any) -> Any:
    """Where it is long, in a thread: 1,000 groups of 10 devices take half a second, and nobody else is to wait for them."""
    if len(data) < LONG:
        return codec.read_body(data, kind)
    return await asyncio.to_thread(codec.read_body, data, kind)


def read_parameters(
    command: Command, path: Mapping[str, str], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], list[Fault]]:
    """The path's and the query's texts as typed values, and every fault in them."""
    arguments: dict[str, Any] = {}
    query = dict(pairs)
    faults = [Fault(f"query/{name}", "unknown parameter") for name in query if name not in command.query_parameters]
    if len(query) < len(pairs):
        names = [name for name, _ in pairs]
        faults += [Fault(f"query/{name}", "given more than once") for name in query if names.count(name) > 1]
    given = [("path", n, path[n]) for n in command.path_parameters]
    given += [("query", n, query[n]) for n in command.query_parameters if n in query]
    for where, name, text in given:
        try:
            arguments[name] = codec.read_text(text, command.parameters[name].annotation)
        except ValueError as error:
            faults.append(Fault(f"{where}/{name}", str(error)))
    return arguments, faults


async def _body(request: Request, media: str, limit: int) -> bytes:
    too_large = TooLarge(f"the body is limited to {limit} bytes", limit=limit)
    if (length := request.headers.get("content-length", "0")).isdigit() and int(length) > limit:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise too_large
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if data and kind != media:
        raise Unsupported(f"send the body as {media}", expects=media)
    return bytes(data)


# ── streams

VALIDITY_CHECK = 0.5  # seconds between two looks at whether an open stream's key is still valid; SEC-05 allows 1


def _stream_endpoint(command: Command, service: Any) -> StreamEndpoint:
    async def endpoint(socket: WebSocket) -> None:
        principal: Principal = socket.scope["state"]["principal"]
        request_id = socket.scope["state"]["request_id"]
        try:
            permit(principal, command)
            arguments, faults = read_parameters(command, socket.path_params, socket.query_params.multi_items())
            if faults:
                raise Invalid("the request does not fit the command", faults)
        except TidegateError as error:
            await _refuse(error, request_id, socket.scope, socket.receive, socket.send)
            return
        act(Acting(principal.by, request_id, command.name, principal.scope >= ADMIN))
        items = getattr(service, command.method)(**arguments)
        await socket.accept()
        sender = asyncio.create_task(_send_items(items, socket))
        reader = asyncio.create_task(_until_closed(socket))
        try:
            while not (sender.done() or reader.done()):
                await asyncio.wait({sender, reader}, timeout=VALIDITY_CHECK, return_when=asyncio.FIRST_COMPLETED)
                if not principal.valid():
                    await socket.close(4401, "the key is no longer valid")
                    return
            if sender.done():
                sender.result()
                await socket.close(1000)
        except TidegateError as error:
            await socket.close(4000 + status(error), error.detail[:120])
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)
            await items.aclose()

    return endpoint


async def _send_items(items: Any, socket: WebSocket) -> None:
    async for item in items:
        await socket.send_text(codec.encode(item).decode())


async def _until_closed(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":  # what a listener says is of no interest
        pass
