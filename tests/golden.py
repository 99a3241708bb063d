"""What is made from the code: `docs/openapi.json`, and the tables between markers in the documents.

`python -m tests.golden` writes all of it anew, after a change that was meant. Tests fail while any of it is stale.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_type_hints

from tests.unit.test_layers import ALLOWED, files, imported_room, imports, room
from tidegate.api import Tidegate
from tidegate.contract import Command, areas, codec, commands
from tidegate.contract.openapi import document
from tidegate.contract.problems import STATUS, problem
from tidegate.contract.serve import PREFIX
from tidegate.errors import TidegateError
from tidegate.events import KINDS, type_name
from tidegate.settings import manual

ROOT = Path(__file__).parents[1]
OPENAPI = ROOT / "docs" / "openapi.json"

BLOCK = re.compile(r"(<!-- made from the code: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Everything that people read."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(text: str) -> str:
    """The document with each part between markers as the code has it now."""
    return BLOCK.sub(lambda block: f"{block[1]}{PARTS[block[2]]()}\n{block[4]}", text)


def openapi() -> str:
    made = codec.plain(document([contract for contract, _ in areas(Tidegate)], PREFIX))
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


# ── the parts


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _doc(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def settings_part() -> str:
    def row(name: str, text: str, value: Any) -> tuple[str, ...]:
        default = f"`{json.dumps(value)}`" if value not in (None, ()) else "-"
        if name == "state_dir":
            default = "see above"  # it is another one for each user
        return f"`{name}`", f"`TIDEGATE_{name.upper().replace('.', '__')}`", default, text

    found = [(name, text, None if isinstance(value, Path) else value) for name, text, value in manual()]
    return _table(("setting", "in the environment", "default", "what it means"), (row(*each) for each in found))


def commands_part() -> str:
    def row(command: Command) -> tuple[str, ...]:
        body = "-"
        if command.body:
            kind = f"`{command.body.media.type}`" if command.body.raw else f"`{command.body.type.__name__}`"
            limit = command.body.media.limit
            body = f"{kind}, {f'{limit >> 20} MiB' if limit >= 1 << 20 else f'{limit >> 10} KiB'}"
        verb = "WebSocket" if command.streams else command.verb
        told = ", ".join(f"`{type_name(kind)}`" for kind in command.emits) or "-"
        name, route = f"`{command.spoken}`", f"{verb} `{command.path}`"
        return name, route, command.scope.name.lower(), body, told, " ".join(command.summary.split())

    titles = ("command", "route", "key", "body, at most", "events", "what it does")
    parts = []
    for contract, _ in areas(Tidegate):
        found = commands(contract)
        parts.append(f"### {found[0].area}\n\n{_doc(contract)}\n\n{_table(titles, map(row, found))}\n")
    return "\n" + "\n".join(parts)


def problems_part() -> str:
    def row(kind: type[TidegateError], status: int) -> tuple[str, ...]:
        return str(status), f"`{problem(kind('-'), '-')['type']}`", f"`{kind.__name__}`", _doc(kind)

    return _table(("status", "type", "in Python", "meaning"), (row(kind, status) for kind, status in STATUS.items()))


def events_part() -> str:
    words: dict[Any, str] = {
        str: "text",
        str | None: "text or null",
        int: "number",
        bool: "yes or no",
        tuple[str, ...]: "list of texts",
    }

    def row(name: str, kind: type) -> tuple[str, ...]:
        data = ", ".join(f"`{field}` {words[hint]}" for field, hint in get_type_hints(kind).items())
        return f"`{name}`", data or "-", _doc(kind)

    return _table(("type", "data", "when"), (row(name, kind) for name, kind in KINDS.items()))


def imports_part() -> str:
    found: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for file in files():
        here = room(file)
        ours = (module for module in imports(file) if module.partition(".")[0] == "tidegate")
        found[here] |= {imported_room(module) for module in ours} - {here}
    rows = ((f"`{name}`", ", ".join(f"`{other}`" for other in sorted(others)) or "-") for name, others in found.items())
    return _table(("package or file", "imports, of Tidegate"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_part,
    "commands": commands_part,
    "problems": problems_part,
    "events": events_part,
    "imports": imports_part,
}


if __name__ == "__main__":
    OPENAPI.write_text(openapi())
    for path in documents():
        text = path.read_text()
        if (new := rewritten(text)) != text:
            path.write_text(new)
            print(f"wrote {path}")
