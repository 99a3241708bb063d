"""Strict reading of JSON that came from elsewhere: every field by its type, none that is unknown, and every fault at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NoReturn, TypeVar

from tidegate.errors import Fault

T = TypeVar("T")

FAULTS_NAMED = 100  # what is wrong in more places than that is not mended place by place


class Fields:
    """Notes what is wrong, and where, while a value is read; nothing may be built of it once `faults` has an entry.

    Places are paths such as `groups/3/devices/0/mac`. A method that notes a fault returns something of its type.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, at: str, why: str) -> None:
        if len(self.faults) < FAULTS_NAMED:
            self.faults.append(Fault(at, why))

    def record(self, value: Any, at: str, needed: Set[str], may: Set[str] = frozenset()) -> Mapping[str, Any]:
        """An object that has each field of `needed`, and of others only those of `may`; what is missing reads as None."""
        if type(value) is dict and value.keys() == needed:  # nearly always; a document has thousands
            return value
        if not isinstance(value, dict):
            self.fault(at, "should be an object")
            return dict.fromkeys(needed)
        for name in needed:
            if name not in value:
                self.fault(f"{at}/{name}".lstrip("/"), "is missing")
        for name in value:
            if name not in needed and name not in may:
                self.fault(at, f"has a field that nobody knows, {str(name)[:40]!r}")
        return {**dict.fromkeys(needed), **value}

    def items(self, value: Any, at: str, most: int) -> Iterator[tuple[str, Any]]:
        """The items of a list with the place of each. None of a list that is too long."""
        if not isinstance(value, list):
            self.fault(at, "should be a list")
        elif len(value) > most:
            self.fault(at, f"has {len(value)} items, {most} is the most")
        else:
            yield from ((f"{at}/{number}", item) for number, item in enumerate(value))

    def whole(self, value: Any, at: str, least: int, most: int) -> int:
        """A whole number. True and 1.0 are none."""
        if type(value) is not int or not least <= value <= most:
            self.fault(at, f"should be a whole number from {least} to {most}")
            return least
        return value

    def flag(self, value: Any, at: str) -> bool:
        if type(value) is not bool:
            self.fault(at, "should be true or false")
        return value is True

    def text(self, value: Any, at: str, kind: Callable[[str], T]) -> T | None:
        """A string that `kind` takes."""
        if not isinstance(value, str):
            self.fault(at, "should be a text")
            return None
        return self.made(lambda: kind(value), at)

    def made(self, make: Callable[[], T], at: str) -> T | None:
        """What `make` makes; its ValueError is a fault here."""
        try:
            return make()
        except ValueError as error:
            self.fault(at, str(error))
            return None


def parsed(text: str) -> Any:
    """JSON as its own types. Raises ValueError for what is none: a key twice, NaN, or nested too deep among it."""
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
