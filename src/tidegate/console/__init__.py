"""The command line: every command of every contract, made from the contracts, and the few that are written by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cyclopts import App

from tidegate import __version__
from tidegate.api import Tidegate
from tidegate.console import enrolment, manual, watch
from tidegate.contract import areas
from tidegate.contract.cli import WRONG_USAGE, add_commands
from tidegate.errors import TidegateError
from tidegate.settings import load

HELP = """Who on the network gets how much, of what, and when; and torrents that keep to the same rules.

Start a daemon with `tidegate up`, see everything at work with `tidegate demo`, follow what happens with `tidegate watch`.
Every command takes `--json`. On this machine no key is needed; elsewhere give `--url` and `--key`.

Exit status: 0 done, 1 refused, 2 wrong usage, 3 no daemon.
"""


def application() -> App:
    """The whole command line."""
    app = App(name="tidegate", help=HELP, version=__version__, help_format="plaintext")
    contracts = [contract for contract, _ in areas(Tidegate)]
    groups = add_commands(app, contracts, default_socket, by_hand={"routers.add"})
    groups["routers"].command(enrolment.add, name="add")
    app.command(watch.watch, name="watch")
    app.command(manual.settings, name="settings")
    # By name, so that a command as quick as `groups list-groups` need not load the daemon.
    app.command("tidegate.console.up:up", name="up", help="Run the daemon until SIGTERM or Ctrl-C.")
    app.command(
        "tidegate.console.demo:demo", name="demo", help="A household in namespaces, and a story told with measurements."
    )
    return app


def default_socket() -> Path:
    """Where the daemon of this machine listens, as its settings say."""
    config = os.environ.get("TIDEGATE_CONFIG")
    try:
        return load(Path(config) if config else None)[0].socket
    except TidegateError:
        return Path("/var/lib/tidegate/control.sock")


def main() -> None:
    """Run one command; the process's exit status tells how it went."""
    try:
        status = application()(sys.argv[1:], exit_on_error=False, print_error=True, result_action="return_value")
    except Exception as error:  # cyclopts has printed what is wrong with the usage; anything else is a bug and shows itself
        if type(error).__module__.startswith("cyclopts"):
            sys.exit(WRONG_USAGE)
        raise
    sys.exit(status or 0)
