"""The seam to a router: run one command with this input, get its status and output.

Everything behind is a program that another machine runs, so its output is untrusted (SEC-33): capped in bytes and in time,
and read by strict parsers only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import Refused

OUTPUT_LIMIT = 4 << 20  # bytes
TIME_LIMIT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    out: bytes
    err: bytes


class HostKeyChanged(Exception):
    """The host shows another key than the pinned one; nothing was sent to it. Both are SHA-256 fingerprints."""

    def __init__(self, pinned: str, shown: str) -> None:
        super().__init__(f"the host shows the key {shown}, pinned is {pinned}")
        self.pinned, self.shown = pinned, shown


class LogInRefused(Exception):
    """The host's key is the right one, but it takes neither our key nor the password."""


class Dialogue:
    """A program that runs, prints, and goes on listening. Errors of the line are those of whoever began it."""

    def __init__(
        self, read: Callable[[int], Awaitable[bytes]], write: Callable[[bytes], None], seconds: float, limit: int
    ) -> None:
        self._read = read
        self._write = write
        self._seconds = seconds
        self._left = limit
        self._heard = bytearray()

    def say(self, data: bytes) -> None:
        with suppress(OSError):  # it may have ended without reading its input; what it printed then tells why
            self._write(data)

    async def hear(self, mark: bytes) -> bytes:
        """What it prints up to the next `mark` and with it, or to its end. Raises Refused above the limit in bytes."""
        begin = 0
        async with asyncio.timeout(self._seconds):
            while (found := self._heard.find(mark, begin)) < 0:
                begin = max(0, len(self._heard) - len(mark) + 1)
                if not (part := await self._read(65536)):
                    found = len(self._heard) - len(mark)
                    break
                self._left -= len(part)
                if self._left < 0:
                    raise Refused("the router printed more than is read of it")
                self._heard += part
        text = bytes(self._heard[: found + len(mark)])
        del self._heard[: len(text)]
        return text


class Shell(Protocol):
    """Runs one command at a time; callers that come meanwhile wait for their turn."""

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> Result:
        """Run a program with these arguments (they are never interpreted on the way) to its end.

        Raises Unavailable where nobody answers or the line is cut, TimedOut after `seconds`, Refused where the output
        is larger than `limit`, HostKeyChanged or LogInRefused.
        """
        ...

    def talk(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> AbstractAsyncContextManager[Dialogue]:
        """Run a program that is spoken with. At the end of the block its input ends, and it has `seconds` to end too; as much
        has each of its answers. Nothing else can be run meanwhile. Raises as `run` does."""
        ...

    async def knock(self) -> None:
        """Whether somebody who comes anew is let in: a new connection is made up to the host's greeting, and hung up.
        Raises Unavailable where it is not."""
        ...

    @property
    def line(self) -> object | None:
        """The connection that stands now; None where none does. What a router said over another one may be out of date: it
        may have been restarted since."""
        ...

    async def renew(self) -> None:
        """Go over a new connection from here on; the one that stood is hung up once the new one stands, and kept otherwise.
        Raises as `run` does."""
        ...

    async def close(self) -> None: ...
