"""`tidegate watch`: what happens, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

from cyclopts import Parameter
from rich.text import Text

from tidegate.api.events import Events
from tidegate.contract.cli import Target, ToTarget, err, out, run, show
from tidegate.contract.client import AsyncLine, remote
from tidegate.contract.tables import harmless
from tidegate.errors import NoDaemon, Unavailable
from tidegate.events import Entry, Notice, data_of

Notices = AsyncGenerator[Notice, None]

RETRY = 1.0  # seconds between two tries to reach a daemon that went away


def watch(
    *,
    since: Annotated[int | None, Parameter(help="replay what came after this number first")] = None,
    types: Annotated[str | None, Parameter(help="only these types of events, with commas between")] = None,
    router: Annotated[str | None, Parameter(help="only events of this router")] = None,
    info_hash: Annotated[str | None, Parameter(help="only events of this torrent")] = None,
    to: ToTarget = Target(),  # noqa: B008 - frozen
) -> int:
    """Follow everything that happens, until Ctrl-C (exit status 130). After a restart of the daemon nothing is missed."""
    from tidegate.console import default_socket

    return run(lambda line: _watch(line, to, since, types, router, info_hash), to, default_socket)


async def _watch(
    line: AsyncLine, to: Target, since: int | None, types: str | None, router: str | None, info_hash: str | None
) -> None:
    events = remote(Events, line)
    last = since
    seen = False
    while True:
        try:
            async with aclosing(cast(Notices, events.follow(last, types, router, info_hash))) as notices:
                async for notice in notices:
                    seen = True
                    last = notice.number if isinstance(notice, Entry) else last
                    show(notice, to) if to.json else out.print(told(notice), soft_wrap=True)
        except NoDaemon:
            if not seen:
                raise
        except Unavailable as error:
            err.print(Text(f"{error.detail}; trying again", style="dim"))
        await asyncio.sleep(RETRY)


def told(notice: Notice) -> Text:
    """One event as one line: when, its number, what, by whom, and its facts."""
    if not isinstance(notice, Entry):
        return Text("some events are gone: read the state anew", style="yellow")
    line = Text()
    line.append(notice.at.astimezone().strftime("%H:%M:%S "), style="dim")
    line.append(f"#{notice.number} ", style="dim")
    line.append(notice.type, style="bold")
    for name, value in data_of(notice.event).items():
        shown = "; ".join(value) if isinstance(value, tuple) else str(value)
        line.append(f" {name}=", style="dim")
        line.append(harmless(shown))
    line.append(f" by {notice.by}", style="dim")
    return line
