"""The lines to all routers: kept open, found dead within seconds, and opened again by themselves.

A connection whose other end is silently gone looks like one over which nobody speaks. So each asks for a sign of life
(`router/ssh.py`), and is over where two in a row stay away. Once a second all of them are looked at here: a router whose line
is over counts as unreachable, which an event tells, and is tried again and again, at growing distances, until it answers.
One task per router that does not answer, and none for those that do.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.errors import NotFound, TidegateError, Unavailable

LOOK = 1.0  # seconds between two looks
FIRST, LONGEST = 1.0, 60.0  # seconds between two tries: twice as many each time
AT_ONCE = 8  # routers that are tried at the same moment: after a cut of our own line, all have to be


class Lines:
    def __init__(self, routers: EnrolledRouters) -> None:
        self._routers = routers
        self._trying: dict[str, asyncio.Task[None]] = {}
        self._few = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Reach every router, and go on looking; ends when it is cancelled."""
        try:
            for router in await self._routers.all():
                self._try(str(router.id))
            while True:
                await asyncio.sleep(LOOK)
                for router_id, managed in self._routers.fleet.items():
                    # Whoever has its turn finds out by himself.
                    if managed.shell.line is None and not managed.turn.locked() and router_id not in self._trying:
                        with suppress(Unavailable):  # the journal's trouble; that the router is gone is known here all the same
                            await self._routers.lost(router_id)
                        self._try(router_id)
        finally:
            trying = list(self._trying.values())
            for task in trying:
                task.cancel()
            await asyncio.gather(*trying, return_exceptions=True)

    def _try(self, router_id: str) -> None:
        task = asyncio.create_task(self._reach(router_id))
        self._trying[router_id] = task
        task.add_done_callback(lambda _: self._trying.pop(router_id))

    async def _reach(self, router_id: str) -> None:
        pause = FIRST
        while True:
            try:
                async with self._few, self._routers.at(router_id) as router:
                    await router.engine.observe()
                    return
            except NotFound:  # it was removed
                return
            except TidegateError:
                # What it was, its health and an event tell. Not all routers of a street are tried in the same second.
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - nobody gains from guessing it
                pause = min(pause * 2, LONGEST)
