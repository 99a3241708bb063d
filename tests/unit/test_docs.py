"""The documents say what is so: links lead somewhere, commands can be typed, tables and messages are the code's own."""

from __future__ import annotations

import ast
import importlib
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cyclopts.exceptions import CycloptsError

from tests import golden
from tests.golden import ROOT, documents
from tests.markdown import anchors, blocks, code_words, command_lines, links, name_of
from tidegate import events, settings
from tidegate.api import Tidegate
from tidegate.console import application
from tidegate.contract import areas, commands
from tidegate.contract.serve import PREFIX

SOURCE = ROOT / "src" / "tidegate"
DOCUMENTS = documents()
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


# ── what is made from the code


@every_document
def test_what_is_made_from_the_code_is_as_the_code_is_now(path: Path) -> None:
    """Write it anew with `python -m tests.golden`."""
    text = path.read_text()
    assert golden.rewritten(text) == text


def test_every_part_that_is_made_from_the_code_stands_in_one_document() -> None:
    found = sorted(name for path in DOCUMENTS for _, name, *_ in golden.BLOCK.findall(path.read_text()))
    assert found == sorted(golden.PARTS)


def test_every_event_says_when_it_happens() -> None:
    made_up = [name for name, kind in events.KINDS.items() if (kind.__doc__ or "").startswith(f"{kind.__name__}(")]
    assert not made_up


def test_the_operations_manual_names_every_variable_that_is_no_setting() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in sorted(settings._NOT_SETTINGS) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("user", "home", "state"), [(0, "/root", None), (1000, "/home/ada", "/kept"), (1000, "/home/ada", None)]
)
def test_the_default_state_directory_is_as_the_manual_says(
    user: int, home: str, state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if state:
        monkeypatch.setenv("XDG_STATE_HOME", state)
    said = str(settings.Settings().state_dir).replace(home, "~").replace("/kept", "$XDG_STATE_HOME")
    assert f"`{said}`" in (ROOT / "docs" / "operations.md").read_text()


def test_a_user_without_a_home_has_the_state_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 64999)
    monkeypatch.setattr(os, "getuid", lambda: 64999)  # nobody's, as a container may be run
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert settings.Settings().state_dir == Path("/var/lib/tidegate")
    assert "a user without a home" in (ROOT / "docs" / "operations.md").read_text()


# ── what people click, type and look up


@every_document
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in links(path.read_text()):
        target = urlsplit(link)
        if target.scheme:
            continue
        file = path.parent / target.path if target.path else path
        assert file.exists(), link
        assert not target.fragment or target.fragment in anchors(file.read_text()), link


@every_document
def test_every_command_line_shown_can_be_typed(path: Path) -> None:
    app = application()
    for words in command_lines(path.read_text(), "tidegate"):
        if words and not app.parse_commands(words)[2]:
            continue  # a command named without its arguments
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{path.name}: tidegate {' '.join(words)}: {error}")


def test_settings_that_the_manual_shows_can_be_read(tmp_path: Path) -> None:
    found = blocks((ROOT / "docs" / "operations.md").read_text())
    files = [block.text for block in found if block.info == "toml"]
    variables = [line for block in found for line in block.text.splitlines() if re.match(r"(Environment=)?TIDEGATE_\w+=", line)]
    assert files
    assert variables
    for number, text in enumerate(files):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        settings.load(file, {})
    settings.load(environment=dict(line.removeprefix("Environment=").split("=", 1) for line in variables))


@every_document
def test_every_request_shown_asks_a_route_that_exists(path: Path) -> None:
    routes = [
        (c.verb, re.sub(r"{\w+}", "[^/]+", PREFIX + c.path)) for contract, _ in areas(Tidegate) for c in commands(contract)
    ]
    routes += [("GET", route) for route in ("/healthz", "/readyz", "/openapi.json")]
    for words in command_lines(path.read_text(), "curl"):
        verb = "POST" if {"-d", "--data", "--data-binary"} & set(words) else "GET"
        verb = words[words.index("-X") + 1] if "-X" in words else verb
        (target,) = [word for word in words if word.startswith(("http://", "https://"))]
        assert any(verb == v and re.fullmatch(route, urlsplit(target).path) for v, route in routes), f"{verb} {target}"


@every_document
def test_every_file_and_module_named_exists(path: Path) -> None:
    for word in code_words(path.read_text()):
        if re.fullmatch(r"tidegate(\.\w+)+", word):
            assert _resolves(word), word
        elif re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*(\.(py|sh|toml|lock|service|md)|/)", word) and not word.startswith("~"):
            assert any(ROOT.glob(word)) or any(SOURCE.glob(word)) or _is_explained(word), word


def _resolves(dotted: str) -> bool:
    """Whether this is a module, or something in one."""
    try:
        importlib.import_module(dotted)
    except ImportError:
        parent, _, name = dotted.rpartition(".")
        return "." in dotted and hasattr(importlib.import_module(parent), name)
    return True


def _is_explained(word: str) -> bool:
    """Names in the state directory and on the operator's machine, which the manual itself introduces."""
    return f"| `{word}` |" in (ROOT / "docs" / "operations.md").read_text() or word == "tidegate.toml"


# ── messages


@cache
def _messages() -> list[re.Pattern[str]]:
    """Every text in the source, with what is filled in later as anything."""
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = list(_parts(node))
            if sum(len(part) for part in parts if part) >= 10:
                found.append(re.compile("".join(".+?" if part is None else re.escape(part) for part in parts)))
    return found


def _parts(node: ast.AST) -> Iterator[str | None]:
    """The text's fixed parts, and None for each that is filled in."""
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield str(value.value) if isinstance(value, ast.Constant) else None
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        first, *others = node.value.split("%s")
        yield first
        for other in others:
            yield from (None, other)


def _said(path: Path) -> list[str]:
    """The messages that a document quotes, with … for what differs."""
    return [line.removeprefix("> ") for line in path.read_text().splitlines() if line.startswith("> ")]


def _is_said(quoted: str) -> bool:
    return any(message.fullmatch(quoted) or message.fullmatch(quoted.removesuffix("…")) for message in _messages())


@every_document
def test_every_message_quoted_is_one_that_the_code_says(path: Path) -> None:
    assert [quoted for quoted in _said(path) if not _is_said(quoted)] == []


def test_a_message_that_nobody_says_is_found() -> None:
    assert _is_said("there is a router … already")
    assert not _is_said("the router … is tired")


def test_the_troubleshooting_guide_quotes_messages() -> None:
    assert len(_said(ROOT / "docs" / "troubleshooting.md")) > 40


def test_examples_in_python_are_marked_to_be_run() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert not [block.line for block in blocks(path.read_text()) if block.info == "python"], path.name


def test_answers_stand_behind_the_requests_that_they_answer() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        before = ""
        for block in blocks(path.read_text()):
            assert block.info != "json answer" or (before == "sh run"), f"{path.name}:{block.line}"
            before = block.info


def test_no_line_of_a_document_is_wider_than_the_code() -> None:
    for path in DOCUMENTS:
        # Tables, quotes, and lines of a file that is shown byte by byte are as wide as they are.
        may = ("|", "<!--", "> ", "{", '"')
        wide = [line for line in path.read_text().splitlines() if len(line) > 128 and not line.startswith(may)]
        assert wide == [], path.name
