"""Many routers: each has one connection, one lock and one engine of its own, made together and handed down together.

Nothing here is shared between two routers, so none can see another's data or wait for another's answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tidegate.router.engine import RouterOperationsEngine
from tidegate.router.shell import Shell


@dataclass(slots=True)
class ManagedRouter:
    """`turn` is held by whoever changes this router or what we know of it, from checking a wish to recording it. `settled`:
    it is known here how every change that this router was asked for has ended."""

    id: str
    shell: Shell
    engine: RouterOperationsEngine
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: bool = False


class Fleet:
    """The routers that this process talks to, by id."""

    def __init__(self) -> None:
        self._routers: dict[str, ManagedRouter] = {}

    def get(self, router_id: str) -> ManagedRouter | None:
        return self._routers.get(router_id)

    def items(self) -> list[tuple[str, ManagedRouter]]:
        """All of them as they are now."""
        return list(self._routers.items())

    def put(self, router: ManagedRouter) -> ManagedRouter:
        """Take a router in; one of the same id must have been taken out before."""
        if router.id in self._routers:
            raise ValueError(f"router {router.id} is in the fleet already")
        self._routers[router.id] = router
        return router

    async def drop(self, router_id: str) -> None:
        """Hang up on a router and forget it; others are not touched."""
        if router := self._routers.pop(router_id, None):
            await router.shell.close()

    async def close(self) -> None:
        """Hang up on all of them, at once."""
        await asyncio.gather(*(self.drop(router_id) for router_id in list(self._routers)))
