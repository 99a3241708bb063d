"""An HTTP client that costs next to nothing: one kept connection, one request at a time, the whole body read."""

from __future__ import annotations

import re
import socket
import time
from types import TracebackType
from typing import Self

from bench.figures import Samples
from bench.processes import BenchError

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class KeptConnection:
    """A connection to a daemon that stays open."""

    def __init__(self, address: tuple[str, int], key: str = "") -> None:
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tail = f" HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        self._tail += f"Authorization: Bearer {key}\r\n\r\n" if key else "\r\n"
        self._buffer = bytearray(8 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def get(self, path: str) -> bytes:
        """The body. Raises BenchError for any status but 200."""
        self._socket.sendall(("GET " + path + self._tail).encode())
        view = memoryview(self._buffer)
        there = 0
        while (end := self._buffer.find(b"\r\n\r\n", 0, there)) < 0:
            there += self._receive(view[there:])
        head = bytes(view[: end + 2])
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise BenchError(f"GET {path}: {bytes(view[:there]).decode(errors='replace')[:500]}")
        whole = end + 4 + int(length[1])
        while there < whole:
            there += self._receive(view[there:])
        return bytes(view[end + 4 : whole])

    def time(self, path: str, times: int, into: Samples) -> None:
        """Get it so often, one after the other."""
        for _ in range(times):
            began = time.perf_counter()
            self.get(path)
            into.add((time.perf_counter() - began) * 1000)

    def _receive(self, into: memoryview) -> int:
        size = self._socket.recv_into(into)
        if not size:
            raise BenchError("the daemon hung up")
        return size
