"""Lines that must be type errors are type errors: a wrong call never gets as far as a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_strict_checker_rejects_each_marked_line_and_no_other(file: Path) -> None:
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", "--hide-error-context", "--no-color-output"]
    found, trouble, _ = api.run([*options, str(file)])
    assert not trouble
    rejected = {int(n) for n in re.findall(rf"{file.name}:(\d+): error:", found)}
    marked = {n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# reject")}
    assert rejected == marked, found
