"""Between the control process and the torrent process: one unix socket, and who acts travels along.

The socket can be opened by its owner alone, so what the control process says of a caller is believed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tidegate.contract import Scope
from tidegate.contract.acting import acting
from tidegate.contract.client import Address, AsyncLine
from tidegate.contract.guard import Principal

BY = "x-tidegate-by"


class Link:
    """A line to the torrent process that passes on who acts and on which request."""

    def __init__(self, socket: Path) -> None:
        self._line = AsyncLine(Address("http://torrent", str(socket)))

    async def request(self, verb: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        who = acting()
        told = {BY: who.by, "x-request-id": who.request} if who.request else {BY: who.by}
        return await self._line.request(verb, path, {**headers, **told}, body)

    def messages(self, path: str) -> AsyncIterator[str]:
        return self._line.messages(path)

    async def close(self) -> None:
        await self._line.close()


class LinkDoor:
    """The torrent process's side: whoever has the socket open is the control process."""

    def admit(self, headers: Mapping[str, str], peer: str, *, writes: bool) -> Principal:
        return Principal(headers.get(BY, "daemon"), Scope.ADMIN, lambda: True)
