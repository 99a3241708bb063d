"""`tidegate up`: the daemon for real."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter
from rich.text import Text

from tidegate.contract.cli import Target, err, report
from tidegate.daemon.app import running
from tidegate.errors import TidegateError
from tidegate.settings import Settings, load


def up(
    *,
    config: Annotated[Path | None, Parameter(env_var="TIDEGATE_CONFIG", help="a TOML file with settings")] = None,
    state_dir: Annotated[Path | None, Parameter(help="where everything is kept")] = None,
    listen: Annotated[str | None, Parameter(help="address and port of the API")] = None,
    log_level: Annotated[str | None, Parameter(help="debug, info, warning or error")] = None,
) -> int:
    """Run the daemon until SIGTERM or Ctrl-C.

    Without any settings: an empty state directory, a fresh administrator's key (shown this once), and no routers yet; add
    one with `tidegate router add`. `tidegate settings` prints every setting and what it means.
    """
    try:
        settings, _ = load(config, flags={"state_dir": state_dir, "listen": listen, "log_level": log_level})
        uvloop.run(_up(settings))
    except TidegateError as error:
        return report(error, Target())
    return 0


async def _up(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # Where systemd keeps what we say, a key must not be said.
    logged = "JOURNAL_STREAM" in os.environ
    loop.add_signal_handler(signal.SIGHUP, err.print, Text("settings are read at the start: restart to change them"))
    async with running(settings, show_first_key=not logged) as daemon:
        if daemon.first_key:
            err.print(Text(f"The administrator's key, shown this once: {daemon.first_key}"))
        if logged:
            err.print(Text(f"Make keys with `tidegate keys create NAME --scope admin --socket {settings.socket}`"))
        err.print(Text(f"Tidegate answers at {daemon.url} and, without a key, at {settings.socket}"))
        await stop.wait()
        # A second signal means now.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        err.print(Text("stopping"))
