"""Answers as people read them: a record as names and values, a list of records as a table.

Names may come from strangers: nothing in a value is ever read as markup or reaches the terminal as a control sequence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tidegate.contract import codec

UNCUT = 1_000_000  # columns: wider than any answer
ID_WIDTH = 40  # the first column names the row, to be copied into the next command: an info-hash in one piece
CELL_WIDTH = 20  # where other columns begin to be folded
GAP = 2  # between two columns
LIST_LENGTH = 3  # entries of a list in a cell

RATES = {"download_rate", "upload_rate", "total_download_rate", "total_upload_rate"}
SIZES = {"total_size", "downloaded", "uploaded", "left", "total_downloaded", "total_uploaded", "download_bytes", "upload_bytes"}
TEXTS = {"document", "tc_before", "rules", "tc_after"}  # files of lines, to be read as they are


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
        return Group(*(_Rows(rows) for rows in lists.values()))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        nested = isinstance(value, dict) and value and name != "durations"
        shown: RenderableType = _record(value) if nested else _cell(name, value)
        grid.add_row(_words(name), shown)
    return Group(grid, *(Group(Text(_words(name), style="bold"), _Rows(rows)) for name, rows in lists.items()))


class Uncut:
    """Something printed as wide as it is, for readers that are no terminal; print it with `crop=False`."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._inner, options.update(width=UNCUT))


class _Rows:
    """A table of the columns that fit, in the order of their declaration; its caption says how many do not."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table(options))

    def _table(self, options: ConsoleOptions) -> Table:
        room, cut = options.max_width, options.max_width < UNCUT
        names = [name for name in self._rows[0] if any(row.get(name) not in (None, "", [], {}) for row in self._rows)]
        columns = {name: [_cell(name, row.get(name), cut=cut) for row in self._rows] for name in names}
        natural = {name: _width(name, cells) for name, cells in columns.items()}
        widths = _widths(natural, room) if cut else natural
        shown = list(widths)
        hidden = len(names) - len(shown)
        caption = f"{len(self._rows)} in all" + (f"; {hidden} more with --json" if hidden else "")
        table = Table(box=None, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")
        for name in shown:
            number = any(isinstance(row.get(name), (int, float)) and not isinstance(row.get(name), bool) for row in self._rows)
            table.add_column(_words(name), justify="right" if number else "left", overflow="fold", width=widths[name])
        for cells in zip(*(columns[name] for name in shown), strict=True):
            table.add_row(*cells)
        return table


def _width(name: str, cells: Sequence[Text]) -> int:
    """How wide a column is when nothing in it is folded."""
    return max(cell_len(line) for cell in [_words(name), *map(str, cells)] for line in cell.split("\n"))


def _widths(natural: Mapping[str, int], room: int) -> dict[str, int]:
    """The columns that fit, folded to what each needs at least; what is left over widens them again, from the first on."""
    widths: dict[str, int] = {}
    for name, width in natural.items():
        need = min(width, CELL_WIDTH if widths else min(ID_WIDTH, room))
        if widths and need > room - sum(widths.values()) - GAP * len(widths):
            break
        widths[name] = need
    spare = room - sum(widths.values()) - GAP * (len(widths) - 1)
    for name, width in widths.items():
        more = min(spare, natural[name] - width)
        widths[name] += more
        spare -= more
    return widths


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(name: str, value: Any, *, cut: bool = False) -> Text:
    """A value in one cell; `cut` to what a table in a terminal has room for."""
    if value is None or value in ([], {}):
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if name in RATES:
        return Text(size(value) + "/s")
    if name in SIZES:
        return Text(size(value))
    if name == "progress":
        percent = f"{value * 100:.1f} %"
        return Text(f"[{'#' * int(value * 5):.<5}] {percent:>7}" if cut else percent)
    if isinstance(value, float):
        return Text(f"{value:g}")
    if isinstance(value, list):
        lines = [str(_cell("", item, cut=cut)) for item in value]
        if cut and len(lines) > LIST_LENGTH:
            lines = [*lines[: LIST_LENGTH - 1], f"and {len(lines) - LIST_LENGTH + 1} more"]
        return Text("\n".join(lines))
    if name == "durations":
        return Text(_took(value))
    if isinstance(value, dict):
        said = [f"{_words(k)} {_cell(k, v)}" for k, v in value.items() if v not in (None, [], "")]
        if name == "data":  # of an event: what its reader came for
            short = [each for each in said if len(each) <= CELL_WIDTH]
            return Text("\n".join([", ".join(short)] * bool(short) + [each for each in said if each not in short]))
        told = ", ".join(said)
        return Text(told[: CELL_WIDTH - 1] + "…" if cut and len(told) > CELL_WIDTH else told)
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value, re.ASCII):
        return Text(f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}")
    if name in TEXTS:
        return Text("\n".join(harmless(line) for line in str(value).split("\n")))
    return Text(harmless(str(value)))


def _took(stages: Mapping[str, float]) -> str:
    """Milliseconds per stage in a line: "61 ms: apply 31, verify 2, confirm 27". What took next to nothing is left out."""
    parts = ", ".join(f"{name} {took:.0f}" for name, took in stages.items() if name != "total" and took >= 0.5)
    return f"{stages.get('total', 0.0):.0f} ms" + (f": {parts}" if parts else "")


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
