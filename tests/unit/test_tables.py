"""Answers as tables: what fits is shown whole, what does not is said to be missing."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tidegate.api.events import AuditPage
from tidegate.api.groups import Durations
from tidegate.api.infrastructure import InfrastructureChange
from tidegate.contract.tables import Uncut, render
from tidegate.events import Entry, GroupSynced

HASH = "0123456789abcdef0123456789abcdef01234567"
TORRENTS = {
    "total": 2,
    "torrents": [
        {
            "info_hash": HASH[:-1] + str(n),
            "info_hash_v2": None,
            "name": "debian-12.5.0-amd64-netinst.iso",
            "status": "downloading",
            "progress": 0.614,
            "download_rate": 1_300_000,
            "num_peers": 17,
            "output_dir": "/var/lib/tidegate/downloads",
            "trackers": [f"http://tracker{i}.example/announce" for i in range(9)],
            "engine": {"version": "2.1.1", "features": ["utp", "dht", "lsd", "pex", "encryption"]},
            "error": None,
        }
        for n in range(2)
    ],
}
COLUMNS = 9  # that have anything in them


def printed(value: Any, width: int) -> list[str]:
    into = StringIO()
    Console(file=into, width=width, force_terminal=True, no_color=True, color_system=None).print(render(value))
    return [line.rstrip() for line in into.getvalue().splitlines()]


def test_a_table_shows_the_columns_that_fit_in_their_order_and_says_how_many_do_not() -> None:
    lines = printed(TORRENTS, 80)
    assert lines[0].split("  ")[0] == "info hash"
    assert [word for word in ("name", "status", "progress", "error") if word in lines[0]] == ["name", "status"]
    assert lines[1].split()[0] == TORRENTS["torrents"][0]["info_hash"]  # type: ignore[index]
    assert lines[-1] == f"2 in all; {COLUMNS - 3} more with --json"
    assert len(lines) <= 1 + 2 * 2 + 1


def test_a_wider_terminal_shows_more_of_it() -> None:
    lines = printed(TORRENTS, 120)
    assert "[###..]  61.4 %" in lines[1]
    assert "1.2 MiB/s" in lines[1]


@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 81, 120, 200, 400])
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_a_tower(width: int) -> None:
    lines = printed(TORRENTS, width)
    assert max(map(len, lines)) <= width
    if width >= 20:
        assert len(lines) <= 12
        assert "".join(lines).count("0123") >= 2


def test_where_nobody_looks_nothing_is_cut() -> None:
    into = StringIO()
    Console(file=into, width=80).print(Uncut(render(TORRENTS)), crop=False)
    text = into.getvalue()
    assert all(f"tracker{i}.example/announce" in text for i in range(9))
    assert "encryption" in text
    assert "61.4 %" in text
    assert "with --json" not in text


def test_a_list_within_a_record_within_a_record_takes_no_more_room_than_it_needs() -> None:
    into = StringIO()
    Console(file=into, width=80).print(Uncut(render({"id": "home", "last": {"at": 3, "steps": [{"n": 1}]}})), crop=False)
    assert max(map(len, into.getvalue().splitlines())) < 60


def test_a_name_is_never_read_as_a_control_sequence() -> None:
    assert printed({"torrents": [{"name": "a\x1b[31m\u202eb"}], "total": 1}, 80)[1] == "a\\u001b[31m\\u202eb"


def test_a_document_is_shown_line_by_line_and_no_name_begins_a_line_of_its_own() -> None:
    shown = printed({"router": "home", "document": '{"schema": 2,\n"groups": []}\x1b', "name": "a\nrouter  other"}, 80)
    assert [line.removeprefix("document").strip() for line in shown[1:3]] == ['{"schema": 2,', '"groups": []}\\u001b']
    assert len(shown) == 4


def test_what_an_event_is_about_is_never_cut() -> None:
    changed = ("group 1: download limit 5 Mbit/s, was 20 Mbit/s", "02:00:5e:10:00:0b joins group 1")
    event = GroupSynced("home", 1, 7, changed, '"Kids": download 20 Mbit/s, upload 20 Mbit/s, 1 device', "")
    page = AuditPage((Entry(1, datetime.now(UTC), "key:ab12cd34", "5f9e2a6e17e5adef", event),), 1, "ab")
    shown = " ".join(" ".join(printed(page, 140)).split())
    assert "router home, group 1, generation 7" in shown
    assert all(words in shown for words in (*changed, event.before))


def test_how_long_a_change_took_is_one_line() -> None:
    took = Durations(observe=0.2, plan=1.4, apply=31.2, verify=2.0, confirm=24.6, commit=0.9, total=61.3)
    answer = InfrastructureChange("home", 7, ("the base rules are put in place",), durations=took)
    assert "durations   61 ms: plan 1, apply 31, verify 2, confirm 25, commit 1" in printed(answer, 100)
