"""A line to a router that breaks when it is told to: at once, or at a byte of what it carries, loudly or without a word."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

Way = Literal["up", "down"]  # to the router, from it


class Line:
    """TCP from `port` of 127.0.0.1 to another port there. `carried`: bytes each way since it was last told to break."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._pairs: list[Pair] = []
        self._break_at: tuple[Way, int, bool] | None = None
        self.port = 0
        self.carried: dict[Way, int] = {"up": 0, "down": 0}
        self.shut = False  # whoever dials is turned away
        self.broke = 0

    def break_now(self, *, silently: bool = False) -> None:
        """Every connection that stands: reset at both ends, or `silently` carrying nothing more. New ones get through."""
        self.broke += 1
        for pair in self._pairs:
            if silently:
                pair.deaf = True
            else:
                pair.abort()

    def break_at(self, way: Way, count: int, *, silently: bool = False) -> None:
        """So after the next `count` bytes of this way, which still arrive."""
        self.carried = {"up": 0, "down": 0}
        self._break_at = way, count, silently

    def give_up(self) -> None:
        """Both ends of what carries nothing more hear of it."""
        for pair in self._pairs:
            if pair.deaf:
                pair.abort()

    async def _carry(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(writer, far_writer)
        self._pairs.append(pair)
        await asyncio.gather(self._pump("up", reader, far_writer, pair), self._pump("down", far_reader, writer, pair))
        if not pair.deaf:
            self._pairs.remove(pair)
            pair.abort()

    async def _pump(self, way: Way, reader: StreamReader, writer: StreamWriter, pair: Pair) -> None:
        with suppress(OSError):
            while block := await reader.read(1 << 16):
                if pair.deaf:
                    continue
                count = self.carried[way] = self.carried[way] + len(block)
                if self._break_at and self._break_at[0] == way and count >= self._break_at[1]:
                    _, last, silently = self._break_at
                    self._break_at = None
                    writer.write(block[: len(block) - (count - last)])
                    self.break_now(silently=silently)
                    continue
                writer.write(block)
                await writer.drain()
            if not pair.deaf:
                writer.write_eof()


class Pair:
    """The two ends of one connection."""

    def __init__(self, near: StreamWriter, far: StreamWriter) -> None:
        self._ends = near, far
        self.deaf = False

    def abort(self) -> None:
        for end in self._ends:
            end.transport.abort()


@asynccontextmanager
async def a_line(to: int) -> AsyncIterator[Line]:
    """A line to this port of the host; afterwards it is gone, with all that it carries."""
    line, calls = Line(to), set[asyncio.Task[None]]()

    def called(reader: StreamReader, writer: StreamWriter) -> None:
        call = asyncio.create_task(line._carry(reader, writer))
        calls.add(call)
        call.add_done_callback(calls.discard)

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.break_now()
        await asyncio.gather(*calls)
