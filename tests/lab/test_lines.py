"""A line that is dead is found so without anybody asking for something, and opened again without anybody's help."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tidegate.daemon.lines import Lines
from tidegate.events import RouterReachable, RouterUnreachable
from tidegate.lab import Lab
from tidegate.router.fleet import ManagedRouter

pytestmark = pytest.mark.anyio

CUTS = int(os.environ.get("TIDEGATE_CUTS", "2"))

SILENCE = """
nft -f - <<'END'
table inet silence {
chain in { type filter hook input priority -300; policy drop;
}
chain out { type filter hook output priority -300; policy drop;
}
}
END
"""


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        yield found
        await found.routers.remove(HOME)


@asynccontextmanager
async def looked_after(home: Controller) -> AsyncIterator[None]:
    looking = asyncio.create_task(Lines(home.enrolled).run())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def becomes(what: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it is so; fails the test after a minute, where it would take a few seconds."""
    began = time.monotonic()
    while not await what():
        assert time.monotonic() < began + 60
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def fares(home: Controller, health: str) -> bool:
    return (await home.routers.status(HOME)).health == health


async def test_a_router_that_falls_silent_is_unreachable_within_seconds_and_comes_back_by_itself(home: Controller) -> None:
    await home.sync(1, home.device("child"), down=20)
    asked = managed(home).engine.answers
    async with looked_after(home):
        await becomes(lambda: has_answered(home, asked))
        assert home.lab.router.run(SILENCE).returncode == 0
        dead = await becomes(lambda: fares(home, "unreachable"))
        home.lab.router.run("nft delete table inet silence")
        back = await becomes(lambda: fares(home, "reachable"))
    print(f"found dead after {dead:.1f} s, back {back:.1f} s after it could be reached")
    told = [event for event in await home.events() if isinstance(event, RouterUnreachable | RouterReachable)]
    assert [type(event) for event in told] == [RouterUnreachable, RouterReachable]
    answers = managed(home).engine.answers
    assert (await home.sync(1, home.device("child"), down=20)).applied == ()
    assert managed(home).engine.answers == answers, "it was asked already how it is"


async def test_nothing_is_left_behind_by_lines_that_come_and_go(home: Controller) -> None:
    """REL-19: descriptors and tasks are as many as before."""
    async with looked_after(home):
        await becomes(lambda: fares(home, "reachable"))
        tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        for _ in range(CUTS):
            line = managed(home).shell.line
            await asyncio.to_thread(home.lab.router.reboot)
            await becomes(lambda line=line: another_line_than(home, line))  # type: ignore[misc]
        await becomes(lambda: fares(home, "reachable"))
        for _ in range(100):  # what is closing may take a moment
            if len(asyncio.all_tasks()) <= tasks + 2 and len(os.listdir("/proc/self/fd")) <= descriptors + 2:
                break
            await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= tasks + 2
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


async def test_every_router_is_known_to_be_there_soon_after_a_start(lab: Lab, tmp_path: Path) -> None:
    async with a_controller(lab, tmp_path) as first:
        await first.enrol()
    async with a_controller(lab, tmp_path) as second:
        assert await fares(second, "unknown")
        async with looked_after(second):
            await becomes(lambda: fares(second, "reachable"))
        await second.routers.remove(HOME)


def managed(home: Controller) -> ManagedRouter:
    found = home.fleet.get(HOME)
    assert found
    return found


async def has_answered(home: Controller, since: int) -> bool:
    return managed(home).engine.answers > since and not managed(home).turn.locked()


async def another_line_than(home: Controller, line: object) -> bool:
    return managed(home).shell.line not in (None, line)
