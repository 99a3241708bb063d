"""`python -m bench`: measure, and tell it in a table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench import answers, commits, downloads, fleet, groups, scale, slow, starting
from bench.figures import Row, Told, as_json, machine, markdown, shown
from bench.processes import ROOT, BenchError
from tidegate.errors import TidegateError
from tidegate.lab import LabError

MARKER = "<!-- bench -->"

Part = Callable[[Path, bool, Told], Coroutine[Any, Any, list[Row]]]
PARTS: dict[str, Part] = {
    "groups": groups.rows,
    "scale": scale.rows,
    "fleet": fleet.rows,
    "slow": slow.rows,
    "downloads": downloads.rows,
    "answers": answers.rows,
    "commits": commits.rows,
    "starting": starting.rows,
}


def main() -> int:
    """Exit status 1 where a target was missed or something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer runs of each")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", action="store_true", help="put the table into README.md, if all parts were measured")
    chosen = parser.parse_args()
    err = Console(stderr=True, soft_wrap=True)
    busy, began = os.getloadavg()[0], time.monotonic()
    if busy > 0.5 * len(os.sched_getaffinity(0)):
        err.print(f"[yellow]The machine is busy already (load {busy:.1f}): expect worse figures on both sides.")
    where = machine(busy)
    rows: list[Row] = []
    whole = True
    for name in chosen.parts or PARTS:
        try:
            rows += _measure(name, chosen.quick, err)
        except (BenchError, LabError, TidegateError) as error:
            err.print(f"{name}: {error}", style="red", markup=False)
            whole = False
    if chosen.json:
        print(as_json(rows, where))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(shown(rows, where))
    if chosen.write and whole and not chosen.parts:
        _write(markdown(rows, where))
    err.print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if whole and all(row.held is not False for row in rows) else 1


def _measure(name: str, quick: bool, err: Console) -> list[Row]:
    """One part, with a folder of its own and its progress told."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, err.status(name) as status:
        began, last = time.monotonic(), [0.0]

        def told(text: str) -> None:
            status.update(f"{name}: {text}")
            if not err.is_terminal and time.monotonic() - last[0] > 5:
                last[0] = time.monotonic()
                err.print(f"{name}: {text}")

        found = uvloop.run(PARTS[name](Path(folder), quick, told))
    for row in found:
        err.print(f"{row.what}: {row.ours}" + (f"; beside it {row.other}" if row.other else ""), highlight=False, markup=False)
    err.print(f"[dim]{name}: {time.monotonic() - began:.0f} s")
    return found


def _write(table: str) -> None:
    readme = ROOT / "README.md"
    before, marker, rest = readme.read_text().partition(MARKER)
    if not marker:
        raise SystemExit(f"README.md has no {MARKER}")
    _, second, after = rest.partition(MARKER)
    readme.write_text(f"{before}{MARKER}\n{table}\n{MARKER}{after if second else rest}")


if __name__ == "__main__":
    sys.exit(main())
