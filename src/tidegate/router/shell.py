"""The seam to a router: run one command with this input, get its status and output.

Everything behind is a program that another machine runs, so its output is untrusted (SEC-33): capped in bytes and in time,
and read by strict parsers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
