"""Sockets and the HTTP server on them. No decisions about commands here."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from tidegate.daemon.connection import Connection
from tidegate.errors import Conflict, Fault, Invalid

SOCKET_PATH_LIMIT = 107  # sun_path in sys/un.h, less the closing zero
SHUTDOWN_GRACE = 3  # seconds that open requests get when the daemon stops


def tcp_socket(listen: str) -> socket.socket:
    """A listening socket for `address:port`. Raises Invalid for what is no such thing, is taken or lies beyond loopback."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise Invalid("these settings can't be used", [Fault("listen", "an address and a port: 127.0.0.1:64124")]) from None
    if not address.is_loopback:
        why = "a key would cross the network in clear: listen on loopback and put a TLS proxy in front (see docs/operations.md)"
        raise Invalid("these settings can't be used", [Fault("listen", why)])
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, number))
    except (OSError, OverflowError) as error:
        listener.close()
        raise Conflict(f"can't listen on {listen}: {error}") from None
    listener.listen(256)
    return listener


def unix_socket(path: Path) -> socket.socket:
    """A listening unix socket that only this user can open. The caller holds the state directory's lock, so an old file
    at that path belongs to nobody."""
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        why = f"its sockets' paths have at most {SOCKET_PATH_LIMIT} bytes: choose a shorter one"
        raise Invalid("these settings can't be used", [Fault("state_dir", why)])
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _umask(0o177):
        listener.bind(str(path))
    listener.listen(256)
    return listener


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the daemon's to handle, not each server's."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, http: type[Connection] = Connection) -> AsyncIterator[None]:
    """Serve `app` on the socket until the block is left; open requests then get a few seconds to end."""
    config = uvicorn.Config(
        app,
        http=http,
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has a flag for it, and no event
        await asyncio.sleep(0.005)
    if task.done():
        await task
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()
