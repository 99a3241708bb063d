"""`tidegate settings`: the manual of every setting, its effective value and where that came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from tidegate.contract.cli import Target, out, report, show
from tidegate.errors import TidegateError
from tidegate.settings import Settings, load, manual


def settings(
    *,
    config: Annotated[Path | None, Parameter(env_var="TIDEGATE_CONFIG", help="a TOML file")] = None,
    json: Annotated[bool, Parameter(negative="", help="print JSON")] = False,
) -> int:
    """Print every setting: its effective value, where that came from, and what it means.

    A setting is given in a TOML file, in the environment (`torrent.listen` is TIDEGATE_TORRENT__LISTEN), or as a flag of
    `tidegate up`; later ones win.
    """
    try:
        effective, sources = load(config)
    except TidegateError as error:
        return report(error, Target(json=json))
    rows = [(name, text, _plain(_value(effective, name)), sources.get(name, "default")) for name, text, _ in manual()]
    if json:
        document = [{"name": n, "value": v, "source": s, "text": t} for n, t, v, s in rows]
        show(document, Target(json=True))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "from", "what it means"):
        table.add_column(title, overflow="fold")
    for name, text, value, source in rows:
        table.add_row(name, Text("-" if value in (None, []) else str(value)), source, text)
    out.print(table)
    return 0


def _value(tree: Settings, name: str) -> Any:
    value: Any = tree
    for step in name.split("."):
        value = getattr(value, step)
    return value


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
