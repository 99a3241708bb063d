"""Who is acting, on whose request, by which command: set at the edge, read where something is written down."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acting:
    """`by` is "key:ID", "local:UID" (the daemon's own unix socket) or "daemon"; `admin`: may see what others began.

    `report(stage, done, total)` tells a follower how far long work is.
    """

    by: str = "daemon"
    request: str = ""
    command: str = ""
    admin: bool = True
    report: Callable[[str, int, int], None] | None = None


_acting: ContextVar[Acting] = ContextVar("acting")
_NOBODY = Acting()


def acting() -> Acting:
    """Who acts in this task; the daemon itself where nobody asked."""
    return _acting.get(_NOBODY)


def act(as_: Acting) -> None:
    """From here on, in this task and those it starts, `as_` acts."""
    _acting.set(as_)


def progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Tell whoever follows this work where it is. Free of cost where nobody does."""
    if report := acting().report:
        report(stage, done, total)
