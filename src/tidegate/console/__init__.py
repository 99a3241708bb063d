"""The command line: every command of every contract, made from the contracts, and the few that are written by hand."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from tidegate import __version__
from tidegate.api import Tidegate
from tidegate.console import enrolment, manual, watch
from tidegate.contract import areas
from tidegate.contract.cli import INTERRUPTED, NOBODY_READS, REFUSED, WRONG_USAGE, Screen, Unwritable, add_commands, out
from tidegate.settings import load

HELP = """Who on the network gets how much, of what, and when; and torrents that keep to the same rules.

Start a daemon with `tidegate up`, see everything at work with `tidegate demo`, follow what happens with `tidegate watch`.
Every command takes `--json`. On this machine no key is needed; elsewhere give `--url` and `--key`.

Exit status: 0 done, 1 refused, 2 wrong usage, 3 no daemon, 130 ended by Ctrl-C (`watch` and `events follow` too).
"""


def application() -> App:
    """The whole command line."""
    app = App(
        name="tidegate",
        help=HELP,
        version=__version__,
        help_format="plaintext",
        console=out,
        error_console=Screen(stderr=True, highlight=False),
    )
    contracts = [contract for contract, _ in areas(Tidegate)]
    groups = add_commands(app, contracts, default_socket, by_hand={"routers.add", "routers.seal"})
    groups["routers"].command(enrolment.add, name="add")
    groups["routers"].command(enrolment.seal, name="seal")
    app.command(watch.watch, name="watch")
    app.command(manual.settings, name="settings")
    # By name, so that a command as quick as `groups list-groups` need not load the daemon.
    app.command("tidegate.console.up:up", name="up", help="Run the daemon until SIGTERM or Ctrl-C.")
    app.command(
        "tidegate.console.demo:demo", name="demo", help="A household in namespaces, and a story told with measurements."
    )
    return app


def default_socket() -> Path:
    """Where the daemon of this machine listens, as its settings say. Raises Invalid where they can't be read."""
    config = os.environ.get("TIDEGATE_CONFIG")
    return load(Path(config) if config else None)[0].socket


def main() -> None:
    """Run one command; the process's exit status tells how it went."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without a letter still shows which one it is
    try:
        status = application()(sys.argv[1:], exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:  # it has printed what is wrong with the usage; anything else is a bug and shows itself
        status = WRONG_USAGE
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Unwritable as error:
        status = _unwritten(error)
    sys.exit(status or 0)


def _unwritten(error: Unwritable) -> int:
    """Say that it could not be said, where somebody may still hear it; then nothing more is written, at exit neither."""
    if not error.left:
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write(f"the output can't be written: {error}\n")
            sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    return NOBODY_READS if error.left else REFUSED
