"""Answers as people read them: a record as names and values, a list of records as a table.

Names may come from strangers: nothing in a value is ever read as markup or reaches the terminal as a control sequence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tidegate.contract import codec

RATES = {"download_rate", "upload_rate", "total_download_rate", "total_upload_rate"}
SIZES = {"total_size", "downloaded", "uploaded", "left", "total_downloaded", "total_uploaded", "download_bytes", "upload_bytes"}


def render(value: Any) -> RenderableType:
    """A value of any contract as something that rich can print."""
    plain = codec.plain(value)
    if isinstance(plain, dict):
        return _record(plain)
    return _cell("", plain)


def _record(record: dict[str, Any]) -> RenderableType:
    lists = {k: v for k, v in record.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    facts = {k: v for k, v in record.items() if k not in lists}
    # An answer that is little more than a list shows the list alone; its total stands in the caption.
    if lists and facts.keys() <= {"total", "count", "revision", "router", "removed", "head", "hash"}:
        return Group(*(_table(rows) for rows in lists.values()))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        shown: RenderableType = _record(value) if isinstance(value, dict) and value else _cell(name, value)
        grid.add_row(_words(name), shown)
    return Group(grid, *(Group(Text(_words(name), style="bold"), _table(rows)) for name, rows in lists.items()))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, caption=f"{len(rows)} in all", caption_justify="left")
    names = [name for name in rows[0] if any(row.get(name) not in (None, "", [], {}) for row in rows)]
    for name in names:
        number = any(isinstance(row.get(name), (int, float)) and not isinstance(row.get(name), bool) for row in rows)
        table.add_column(_words(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, row.get(name)) for name in names))
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(name: str, value: Any) -> Text:
    if value is None or value == []:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if name in RATES:
        return Text(size(value) + "/s")
    if name in SIZES:
        return Text(size(value))
    if name == "progress":
        return Text(f"{value * 100:.1f} %")
    if isinstance(value, float):
        return Text(f"{value:g}")
    if isinstance(value, list):
        return Text("\n".join(str(_cell("", item)) for item in value))
    if isinstance(value, dict):
        return Text(", ".join(f"{_words(k)} {_cell(k, v)}" for k, v in value.items() if v not in (None, [], "")))
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value, re.ASCII):
        return Text(f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}")
    return Text(harmless(str(value)))


def harmless(text: str) -> str:
    """The text with everything that is not printable (control, bidi, escape sequences) shown as a code point."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def size(count: float) -> str:
    """Bytes as people read them: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
