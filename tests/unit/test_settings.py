"""Settings: where each comes from, and what is said of those that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.errors import Invalid
from tidegate.settings import load, manual


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "tidegate.toml"
    file.write_text(text)
    return file


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'listen = "127.0.0.1:1"\nlog_level = "debug"\nhosts = ["a:1"]\n[torrent]\ndht = false\n')
    environment = {"TIDEGATE_LISTEN": "127.0.0.1:2", "TIDEGATE_TORRENT__LISTEN": "0.0.0.0:7", "TIDEGATE_KEY": "not a setting"}
    settings, sources = load(file, environment, {"listen": "127.0.0.1:3", "state_dir": None})
    assert (settings.listen, settings.log_level, settings.hosts) == ("127.0.0.1:3", "debug", ("a:1",))
    assert (settings.torrent.dht, settings.torrent.lsd, settings.torrent.listen) == (False, True, "0.0.0.0:7")
    assert sources == {
        "listen": "flag",
        "log_level": str(file),
        "hosts": str(file),
        "torrent.dht": str(file),
        "torrent.listen": "environment",
    }


def test_every_unknown_setting_and_wrong_value_is_named_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    file = written(tmp_path, 'lisen = "x"\nlog_level = "loud"\ntorrent = 3\n')
    with pytest.raises(Invalid) as caught:
        load(file, {"TIDEGATE_TORRENT__DHT": "perhaps", "TIDEGATE_HOSTS": "a:1, b:2", "TIDEGATE_TORRENT__NOPE__X": "1"})
    told = {fault.at.rpartition(": ")[2]: fault.why for fault in caught.value.faults}
    assert told == {
        "lisen": "no such setting; did you mean listen?",
        "log_level": "one of debug, info, warning, error",
        "torrent": "this names a group of settings",
        "torrent.dht": "true or false",
        "torrent.nope.x": "no such setting",
    }


@pytest.mark.parametrize("text", ["listen = ", "\xff", "listen = 3", "hosts = [1]", "[state_dir]\nx = 1"])
def test_a_file_that_is_not_settings_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Invalid):
        load(file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nowhere"):
        load(tmp_path / "nowhere.toml", {})


def test_every_setting_has_a_manual() -> None:
    names = [name for name, text, _ in manual() if text.endswith(".")]
    assert len(names) == len(list(manual()))
    assert "torrent.command_prefix" in names


@pytest.mark.parametrize(("text", "number"), [("10", 10), ("600", 600), ("45", 45)])
def test_a_number_is_read_from_the_environment_within_its_bounds(text: str, number: int) -> None:
    assert load(None, {"TIDEGATE_CONFIRM_SECONDS": text})[0].confirm_seconds == number


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("9", "from 10 to 600"),
        ("601", "from 10 to 600"),
        ("1e2", "a whole number"),
        ("-30", "a whole number"),
        ("", "a whole number"),
    ],
)
def test_a_number_beyond_its_bounds_or_none_at_all_is_refused(value: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(None, {"TIDEGATE_CONFIRM_SECONDS": value})
    assert [fault.why for fault in caught.value.faults] == [why]


def test_a_number_in_a_file_is_a_number(tmp_path: Path) -> None:
    assert load(written(tmp_path, "confirm_seconds = 20\n"), {})[0].confirm_seconds == 20
    with pytest.raises(Invalid):
        load(written(tmp_path, "confirm_seconds = true\n"), {})
