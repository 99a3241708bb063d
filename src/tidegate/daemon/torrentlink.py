"""Between the control process and the torrent process: one unix socket, and who acts travels along.

The socket can be opened by its owner alone, so what the control process says of a caller is believed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import cast

from tidegate.contract import Scope
from tidegate.contract.acting import acting
from tidegate.contract.client import Address, AsyncLine
from tidegate.contract.guard import Principal
from tidegate.errors import NoDaemon, Unavailable

BY = "x-tidegate-by"

# What the line itself says, "start one with `tidegate up`", is for people: this process is started by its supervisor.
SILENT = "nobody is at its socket, and it is being started again"


class Link:
    """A line to the torrent process that passes on who acts and on which request."""

    def __init__(self, socket: Path) -> None:
        self._line = AsyncLine(Address("http://torrent", str(socket)))

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        who = acting()
        told = {BY: who.by, "x-request-id": who.request} if who.request else {BY: who.by}
        try:
            return await self._line.request(verb, path, {**headers, **told}, body)
        except NoDaemon:
            raise Unavailable(SILENT) from None

    async def messages(self, path: str) -> AsyncIterator[str]:
        messages = self._line.messages(path)
        try:
            async for message in messages:
                yield message
        except NoDaemon:
            raise Unavailable(SILENT) from None
        finally:
            await cast(AsyncGenerator[str, None], messages).aclose()

    async def close(self) -> None:
        await self._line.close()


class LinkDoor:
    """The torrent process's side: whoever has the socket open is the control process."""

    def admit(self, headers: Mapping[str, str], peer: str, *, writes: bool) -> Principal:
        return Principal(headers.get(BY, "daemon"), Scope.ADMIN, lambda: True)
