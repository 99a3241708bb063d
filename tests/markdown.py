"""Reading the project's documents: their code blocks, headings, links and command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what stands after the fence ("python", "sh run"), its text, and the line that it begins on."""

    info: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def prose(text: str) -> str:
    """The document without its code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.DOTALL)


def code_words(text: str) -> list[str]:
    """What stands in backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """The names under which a heading can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines_of(block: Block) -> Iterator[str]:
    """The block's lines, those that end in a backslash joined with the next."""
    yield from block.text.replace("\\\n", " ").splitlines()


def command_lines(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of the program that the document shows, in blocks and in backticks."""
    shown = [line for block in blocks(text) for line in lines_of(block)] + code_words(text)
    found = []
    for line in shown:
        call = re.match(rf"\s*(?:sudo )?(?:-u \S+ )?(?:\S*/)?{program}(?: (.*))?$", line)
        if call and not line.lstrip().startswith("#"):
            words = shlex.split(call[1] or "", comments=True)
            ends = [words.index(word) for word in ("|", ">", "<", "&&") if word in words]
            found.append(words[: min(ends, default=len(words))])
    return found


def name_of(path: Path) -> str:
    return path.name
