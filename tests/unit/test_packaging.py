"""The systemd unit: what it starts exists, what it sets is a setting, and what keeps the daemon in its place stays on."""

from __future__ import annotations

import shlex
from collections import defaultdict

from tests.golden import ROOT
from tidegate.console import application
from tidegate.settings import load, manual


def unit() -> dict[str, list[str]]:
    """The directives of the unit's sections, each with its values in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (ROOT / "packaging" / "tidegate.service").read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def test_it_starts_a_command_that_exists() -> None:
    (start,) = unit()["ExecStart"]
    program, *words = shlex.split(start)
    assert program.endswith("/bin/tidegate")
    application().parse_args(words, exit_on_error=False, print_error=False)


def test_what_it_puts_into_the_environment_are_settings_and_a_home() -> None:
    given = dict(pair.split("=", 1) for line in unit()["Environment"] for pair in line.split())
    assert given.pop("HOME") == given["TIDEGATE_STATE_DIR"]
    settings, sources = load(environment=given)
    assert len(sources) == len(given)
    assert sources.keys() <= {name for name, _, _ in manual()}
    assert settings.state_dir.name == unit()["StateDirectory"][0]


def test_the_daemon_alone_is_told_to_stop_and_has_the_time_to_end_its_torrent_process() -> None:
    from tidegate.daemon.listen import SHUTDOWN_GRACE
    from tidegate.daemon.torrentprocess import END_LIMIT

    assert unit()["KillMode"] == ["mixed"]
    assert int(unit()["TimeoutStopSec"][0]) > 2 * SHUTDOWN_GRACE + END_LIMIT + 1


def test_it_holds_no_power_and_sees_only_its_own_files() -> None:
    directives = unit()
    for name, value in {
        "DynamicUser": "yes",
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "StateDirectoryMode": "0700",
        "MemoryDenyWriteExecute": "yes",
        "RestrictNamespaces": "yes",
        "UMask": "0077",
    }.items():
        assert directives[name] == [value], name
    assert not {"ReadWritePaths", "User", "PrivateNetwork"} & directives.keys()
