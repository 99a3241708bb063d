"""A daemon killed at a step of a change: before or after the n-th time that it writes to its journal or asks or hears a router.

    python -m tests.e2e.interrupted STATE_DIR STEP COMMAND ARGUMENTS     the arguments in JSON

Prints "acknowledged" where it came to the end of the command, and ends by itself then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from tidegate.contract import areas
from tidegate.contract.executor import Executor
from tidegate.daemon.app import running
from tidegate.daemon.journal import Journal
from tidegate.router.link import AgentLink, Exchange
from tidegate.settings import load

Asks = Callable[..., Coroutine[Any, Any, Any]]


class Fate:
    """Counts the steps from the moment when `left` is set, and ends the process at the last."""

    left: int | None = None

    def step(self) -> None:
        if self.left is not None:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1

    def over(self, call: Asks) -> Asks:
        @wraps(call)
        async def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            found = await call(*args, **kwargs)
            self.step()
            return found

        return counted


async def main(state_dir: str, step: int, command: str, arguments: dict[str, Any]) -> None:
    fate = Fate()
    Journal.commit = fate.over(Journal.commit)  # type: ignore[method-assign]
    AgentLink.ask = fate.over(AgentLink.ask)  # type: ignore[method-assign]
    AgentLink.knock = fate.over(AgentLink.knock)  # type: ignore[method-assign]
    Exchange.answer = fate.over(Exchange.answer)  # type: ignore[method-assign]
    Exchange.say = fate.over(Exchange.say)  # type: ignore[method-assign]
    flags = {"state_dir": state_dir, "listen": "127.0.0.1:0", "torrent.enabled": False, "log_level": "error"}
    async with running(load(environment={}, flags=flags)[0]) as daemon:
        fate.left = step
        await Executor(areas(daemon.services)).execute(command, **arguments)
        print("acknowledged", flush=True)
        fate.left = None


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])))
