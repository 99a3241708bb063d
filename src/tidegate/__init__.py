"""Tidegate: who on the network gets how much, of what, and when; and torrents that keep to the same rules.

async with tidegate.connect(key="tg_...") as daemon:
    await daemon.groups.list_groups(RouterId("home"))

with tidegate.connect_blocking(key="tg_...") as (daemon, run):
    run(daemon.groups.list_groups(RouterId("home")))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tidegate import errors, events

if TYPE_CHECKING:
    from tidegate.api import Tidegate
    from tidegate.contract.executor import Executor

__all__ = ["__version__", "connect", "connect_blocking", "errors", "events", "executor"]

__version__ = "0.1.0"

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:64124"


class Run(Protocol):
    """Runs one call to its end and returns its result."""

    def __call__(self, call: Coroutine[Any, Any, T], /) -> T: ...


@asynccontextmanager
async def connect(url: str = DEFAULT_URL, *, key: str | None = None, socket: str | None = None) -> AsyncIterator[Tidegate]:
    """A daemon's commands for an asyncio program. `socket` is a unix socket's path, where no key is needed."""
    from tidegate.api import Tidegate
    from tidegate.contract.client import Address, AsyncLine, remote_all

    line = AsyncLine(Address(url, socket, key))
    try:
        yield remote_all(Tidegate, line)
    finally:
        await line.close()


@contextmanager
def connect_blocking(
    url: str = DEFAULT_URL, *, key: str | None = None, socket: str | None = None
) -> Iterator[tuple[Tidegate, Run]]:
    """The same commands for a program without an event loop: `run(daemon.groups.list_groups(...))`, every call typed."""
    from tidegate.api import Tidegate
    from tidegate.contract.client import Address, BlockingLine, drive, remote_all

    line = BlockingLine(Address(url, socket, key))
    try:
        yield remote_all(Tidegate, line), drive
    finally:
        line.close()


def executor(daemon: Tidegate) -> Executor:
    """The same commands by name, with plain values: `await executor(daemon).execute(name, router_id="home")`.

    `execute` raises NotFound for the name, Invalid for the arguments; of a stream it gives the async iterator.
    """
    from tidegate.contract import areas
    from tidegate.contract.executor import Executor

    return Executor(areas(daemon))
