"""Dialects: the ways in which routers take rules. The planner does not know which one it speaks.

Elements and constant rules are the same values in each; a dialect says how they are written, as parts of a bundle, and reads
back what a router printed. What the parts are called is between a dialect and its file in `router/agent/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Protocol

from tidegate.policy.element import Element

Parts = Mapping[str, list[str]]
"""Lines for the router's tools, by the name of the bundle's part; in the order in which the agent runs them."""


class Dialect(Protocol):
    """How one kind of router is told rules."""

    @property
    def name(self) -> str:
        """As `Capabilities.dialect` and the agent's probe name it."""
        ...

    @property
    def place(self) -> str:
        """Where the constant rules stand, in an operator's words."""
        ...

    def base_rules(self, lan: str) -> tuple[str, ...]:
        """The constant part, line by line in the form in which it is read back."""
        ...

    def whole(self, lan: str, elements: Set[Element]) -> Parts:
        """Put the constant rules with these elements in place of whatever of ours is there."""
        ...

    def nothing(self) -> Parts:
        """Take all of ours away."""
        ...

    def change(self, lan: str, gone: Iterable[Element], new: Iterable[Element], after: Set[Element]) -> Parts:
        """Take some elements away and put others in, under constant rules that stand, so that `after` is what is there then.
        Raises ValueError for what can't be an element."""
        ...

    def place_of(self, element: Element) -> str:
        """Where an element stands, in an operator's words."""
        ...
