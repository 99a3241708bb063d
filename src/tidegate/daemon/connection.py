"""One HTTP connection, with limits on what a client may send before it has shown who it is, and on how slowly (SEC-16).

A head has at most 16 KiB, of it 8 KiB of URL, and is there within 10 s; a body comes at 1 KiB/s or faster. Connections are
numbered too: beyond that number the one that has waited longest for its head gives way, so that half-open ones can't keep
others out. A limit is looked at once a second, which costs a request nothing.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class _Phase(Enum):
    HEAD = auto()  # of a request that has begun, or the first one of the connection
    BODY = auto()
    DONE = auto()  # all of the request is here; between two requests uvicorn's own keep-alive limit holds


class _TooMuch(Exception):
    """Raised out of the parser, which stops at once."""


class Connection(HttpToolsProtocol):
    URL_LIMIT = 8 * 1024  # bytes
    HEAD_LIMIT = 16 * 1024  # bytes, names and values of headers and the URL
    HEAD_TIME = 10.0  # seconds
    BODY_TIME = 30.0  # seconds over which a body's rate is taken
    BODY_RATE = 1024  # bytes per second at least
    LOOK = 1.0  # seconds between two looks
    MOST = 500  # connections of one server; half of the descriptors that a process may have by default

    _refusal = HTTPStatus.BAD_REQUEST
    _phase = _Phase.HEAD
    _since = 0.0  # when this phase began, or the stretch of the body that is measured now
    _size = 0  # bytes of the head that are parsed
    _arrived = 0  # bytes of an unfinished head, or of the body since `_since`
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin(_Phase.HEAD)
        self._looking = self.loop.call_later(self.LOOK, self._look)
        if len(self.connections) > self.MOST:
            waiting = [each for each in self.connections if isinstance(each, Connection) and each._phase is _Phase.HEAD]
            oldest = min(waiting, key=lambda each: each._since)
            self.connections.discard(oldest)  # now: it is told of its end only in the loop's next turn
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_looking()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.DONE:
            self._begin(_Phase.HEAD)
        elif self._phase is _Phase.HEAD:
            self._arrived += len(data)
        super().data_received(data)
        if self._phase is _Phase.HEAD and self._arrived > self.HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # ── the parser's callbacks

    def on_message_begin(self) -> None:
        if self._phase is not _Phase.HEAD:
            self._begin(_Phase.HEAD)
        self._size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._size += len(url)
        if self._size > self.URL_LIMIT:
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise _TooMuch

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > self.HEAD_LIMIT:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _TooMuch
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._begin(_Phase.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._arrived += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.DONE
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    # ── time

    def _begin(self, phase: _Phase) -> None:
        self._phase, self._since, self._arrived = phase, self.loop.time(), 0

    def _look(self) -> None:
        late = self.loop.time() - self._since
        if self._phase is _Phase.HEAD:
            if self._answering():  # a client that sends requests ahead waits for us, not we for it
                self._since = self.loop.time()
            elif late > self.HEAD_TIME:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif self._phase is _Phase.BODY:
            if self.flow.read_paused:
                self._begin(_Phase.BODY)
            elif late > self.BODY_TIME:
                if self._arrived < late * self.BODY_RATE:
                    self._refuse(HTTPStatus.REQUEST_TIMEOUT)
                self._begin(_Phase.BODY)
        self._looking = None if self.transport.is_closing() else self.loop.call_later(self.LOOK, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def _answering(self) -> bool:
        cycle: Any = self.cycle  # None until the first request
        return cycle is not None and not cycle.response_complete

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, unless an answer is on its way or was given already, and close."""
        if self._phase is _Phase.HEAD or (self._answering() and not self.cycle.response_started):
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
