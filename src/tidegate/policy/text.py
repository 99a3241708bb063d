"""Text with a grammar: a value that exists has passed it, so nothing behind needs to ask again."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self


class Text(str):
    """A string that matches `PATTERN` as a whole; `EXPECTS` says so to people. Subclasses may also put it in canonical form.

    `SCHEMA`, `to_wire` and `from_wire` are how the value travels in JSON (see `contract/codec.py`).
    """

    PATTERN: ClassVar[str] = ".*"
    EXPECTS: ClassVar[str] = "text"
    SCHEMA: ClassVar[dict[str, Any]] = {"type": "string"}

    def __init_subclass__(cls) -> None:
        schema = vars(cls).get("SCHEMA", {"type": "string", "pattern": f"^(?:{cls.PATTERN})$"})
        cls.SCHEMA = {**schema, "description": cls.EXPECTS}

    def __new__(cls, text: str) -> Self:
        if not re.fullmatch(cls.PATTERN, text, re.ASCII):
            raise ValueError(f"{text[:60]!r} is not {cls.EXPECTS}")
        return super().__new__(cls, text)

    def to_wire(self) -> str:
        return str.__str__(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        return cls(value)
