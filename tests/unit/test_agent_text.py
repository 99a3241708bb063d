"""The text that runs on a router is all of the files that it is made of."""

from __future__ import annotations

from pathlib import Path

from tidegate.router import agent


def test_every_file_beside_is_a_part_of_it_once() -> None:
    files = {path.stem: path.read_text() for path in Path(agent.__file__).parent.glob("*.sh")}
    assert sorted(files) == sorted(agent.PARTS)
    text = agent.TEXT.decode()
    functions = [line for line in text.splitlines() if line.endswith("() {")]
    assert len(functions) == len(set(functions))
    assert f"\nVERSION={agent.VERSION}\n" in text
