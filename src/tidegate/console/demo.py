"""`tidegate demo`: a household in network namespaces, the daemon, and a story told live with real measurements."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from tidegate.console.story import Story
from tidegate.contract.cli import Target, err, out, report
from tidegate.daemon.app import running
from tidegate.errors import TidegateError, Unavailable
from tidegate.lab import Lab, LabUnavailable
from tidegate.settings import load

CLIENTS = ("child", "guest", "parent", "nas")


def demo(
    *,
    once: Annotated[bool, Parameter(negative="", help="end after the table; exit status 0 only if every line held")] = False,
    listen: Annotated[str, Parameter(help="address and port of the API")] = "127.0.0.1:0",
) -> int:
    """See everything at work: an internet, a router and a household's clients in network namespaces, and the daemon.

    Nothing outside is touched, and all that it started is gone afterwards. Takes about twenty seconds, then stays up for
    you to try commands against it until Ctrl-C, unless `--once`.
    """
    try:
        return uvloop.run(_demo(once, listen))
    except LabUnavailable as error:
        return report(Unavailable(str(error)), Target())
    except TidegateError as error:
        return report(error, Target())


# Its standard input ends with the demo, however that ends. The torrent process may write for a moment longer.
_SWEEP = 'cat; n=0; while [ -e "$0" ] && [ $n -lt 60 ]; do rm -rf "$0"; sleep 0.2; n=$((n+1)); done'


@contextmanager
def _vanishing_directory() -> Iterator[Path]:
    """A directory that is gone after the block, and also if this process is killed in it: keys are in there."""
    path = tempfile.mkdtemp(prefix="tidegate-demo-")
    with subprocess.Popen(["/bin/sh", "-c", _SWEEP, path], stdin=subprocess.PIPE, start_new_session=True):
        yield Path(path)


async def _demo(once: bool, listen: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        # Loaded from nothing but flags: the demo is the same whatever this machine's settings are.
        lab = await asyncio.to_thread(lambda: Lab(clients=CLIENTS))
        stack.push_async_callback(asyncio.to_thread, lab.close)
        home = stack.enter_context(_vanishing_directory())
        flags = {
            "state_dir": home / "state",
            "listen": listen,
            "log_level": "error",
            # The torrent process runs on the household's NAS: its packets cross the router like any other device's.
            "torrent.command_prefix": tuple(lab.clients["nas"].command([])),
            "torrent.listen": f"{lab.clients['nas'].ipv4}:6881",
            **dict.fromkeys(("torrent.dht", "torrent.lsd", "torrent.upnp", "torrent.natpmp", "torrent.utp"), False),
        }
        settings, _ = load(environment={}, flags=flags)
        daemon = await stack.enter_async_context(running(settings))
        assert daemon.first_key is not None
        story = Story(lab, daemon.url, daemon.first_key, home, out)
        telling = asyncio.create_task(story.tell())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({telling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            return 130
        held = telling.result()
        if not once:
            err.print(f"\nThe daemon goes on at [bold]{daemon.url}[/bold] until Ctrl-C. Try, in another terminal:\n")
            for command in ("groups list-groups home", "infrastructure get-status home", "torrent list", "watch --since 0"):
                err.print(f"  .venv/bin/tidegate {command} --socket {settings.socket}", soft_wrap=True)
            err.print(f"\nThe key for HTTP: {daemon.first_key}", soft_wrap=True)
            await stop.wait()
        stopping.cancel()
        return 0 if held else 1
