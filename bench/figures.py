"""Samples, and the table that they end in."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

Told = Callable[[str], None]


class Samples:
    """How long each of many runs took. All figures are milliseconds."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def __len__(self) -> int:
        return len(self._taken)

    def __iter__(self) -> Iterator[float]:
        return iter(self._taken)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """One run: what is in the block."""
        began = time.perf_counter()
        yield
        self._taken.append((time.perf_counter() - began) * 1000)

    def add(self, milliseconds: float) -> None:
        self._taken.append(milliseconds)

    def share(self, part: float) -> float:
        """What that part of all runs stayed within: 0.95 gives the 95th percentile."""
        ordered = sorted(self._taken)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def p50(self) -> float:
        return median(self._taken)

    def told(self, tail: float = 0.95) -> str:
        """In the words of the table."""
        return f"{short(self.p50)} ms (p{100 * tail:.0f} {short(self.share(tail))})"


def short(figure: float) -> str:
    """Three digits that matter."""
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.3g}" if figure < 1 else f"{figure:.{2 - len(str(int(figure))) + 1}f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `ratio` above 1: ours is ahead. `held` is None where no target was set.

    `figures` are the numbers behind the texts, for programs; their names end in their unit.
    """

    what: str
    ours: str
    other: str = ""
    ratio: float | None = None
    target: str = ""
    held: bool | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def compared(
    what: str,
    ours: Samples,
    other: Samples,
    than: str,
    *,
    most_ms: float = 0.0,
    at_least: float = 0.0,
    tail: float = 0.95,
) -> Row:
    """Two ways of doing the same. `most_ms`: the target for our median; `at_least`: for the ratio; 0 for none."""
    ratio = other.p50 / ours.p50
    targets = [f"p50 ≤ {most_ms:g} ms"] * bool(most_ms) + [f"≥ {at_least:g}x"] * bool(at_least)
    held = (not most_ms or ours.p50 <= most_ms) and ratio >= at_least if targets else None
    figures = _of(ours, "ours") | _of(other, "other")
    return Row(what, ours.told(tail), f"{other.told(tail)} {than}", ratio, ", ".join(targets), held, figures)


def alone(what: str, ours: Samples, *, most_ms: float = 0.0) -> Row:
    """A measurement that has nothing beside it."""
    target = f"p50 ≤ {most_ms:g} ms" if most_ms else ""
    return Row(what, ours.told(), target=target, held=ours.p50 <= most_ms if most_ms else None, figures=_of(ours, "ours"))


def _of(samples: Samples, whose: str) -> dict[str, float]:
    found = {"p50": samples.p50, "p95": samples.share(0.95), "p99": samples.share(0.99)}
    return {f"{whose}_{name}_ms": round(value, 4) for name, value in found.items()} | {f"{whose}_runs": len(samples)}


async def in_turns(
    ours: Callable[[int], Awaitable[float | None]],
    other: Callable[[int], Awaitable[float | None]],
    rounds: int,
    told: Told,
    *,
    warm_up: int = 2,
) -> tuple[Samples, Samples]:
    """Run both in each round, in turning order; the first rounds don't count.

    Each is given the round's number, and may return how many seconds count; by default all of its run does.
    """
    taken = Samples(), Samples()
    for number in range(rounds + warm_up):
        told(f"{max(0, number - warm_up + 1)}/{rounds}")
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            took = await (ours, other)[which](number)
            if number >= warm_up:
                taken[which].add((time.perf_counter() - began if took is None else took) * 1000)
    return taken


# ── the table


def shown(rows: Sequence[Row], where: str) -> Table:
    """For a terminal."""
    table = Table(title="Measured side by side in this run", title_justify="left", caption=where, caption_justify="left")
    for name in ("", "Tidegate", "beside it", "ratio", "target", "held"):
        table.add_column(name, justify="right" if name == "ratio" else "left")
    for row in rows:
        held = Text("") if row.held is None else Text("yes", "green") if row.held else Text("no", "bold red")
        table.add_row(row.what, row.ours, row.other, _ratio(row), row.target, held)
    return table


def markdown(rows: Sequence[Row], where: str) -> str:
    """For the README."""
    lines = ["| | Tidegate | beside it | ratio | target | held |", "|---|---|---|---:|---|---|"]
    for row in rows:
        held = "" if row.held is None else "yes" if row.held else "**no**"
        lines.append(f"| {row.what} | {row.ours} | {row.other} | {_ratio(row)} | {row.target} | {held} |")
    return "\n".join([*lines, "", f"{where}."])


def as_json(rows: Sequence[Row], where: str) -> str:
    return json.dumps({"machine": where, "rows": [asdict(row) for row in rows]}, indent=2, ensure_ascii=False)


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{short(row.ratio)}x"


def machine(load: float) -> str:
    """What it was measured on, and how busy that was with other things."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in info if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0))
    what = f"{cores} cores of {' '.join(model.split())}, Linux {platform.release()}, Python {platform.python_version()}"
    return f"{what}; load before the run {load:.1f}"
