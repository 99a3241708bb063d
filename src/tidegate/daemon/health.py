"""How a router fares: the one value that its list, its status and its events tell of, and why it is so.

- `unknown`: nobody has asked it since the start.
- `reachable`: it answered last, and holds to what was asked, as far as anybody looked.
- `degraded`: it answered last, and is not as it should be.
- `unreachable`: it did not answer last, or did not let us in.
- `untrusted`: it showed another host key than the pinned one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

NAMED = 5  # places that are told; a flushed table of 1,000 groups has thousands


@dataclass(slots=True)
class Health:
    """`line`: what came of the last contact: unknown, reachable, unreachable, untrusted. `drift`: the places where the router
    was not as it should be when somebody looked last. `since`: when the state became what it is."""

    line: str = "unknown"
    trouble: str = ""
    drift: tuple[str, ...] = ()
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_seen: datetime | None = None
    login: str = "unknown"

    @property
    def state(self) -> str:
        return "degraded" if self.line == "reachable" and self.drift else self.line

    @property
    def why(self) -> str:
        """In words where it is not well, "" where it is."""
        return self.trouble if self.line != "reachable" else in_short(self.drift)

    def contact(self, line: str, trouble: str = "") -> None:
        """It was asked, and this came of it."""
        before = self.state
        self.line, self.trouble = line, trouble
        if line == "reachable":
            self.last_seen = datetime.now(UTC)
        self._changed(before)

    def looked(self, drift: tuple[str, ...]) -> bool:
        """Somebody compared it with what it should be; whether that is news."""
        before, news = self.state, drift != self.drift
        self.drift = drift
        self._changed(before)
        return news

    def _changed(self, before: str) -> None:
        if self.state != before:
            self.since = datetime.now(UTC)


def in_short(places: tuple[str, ...]) -> str:
    """The first few, and how many more."""
    more = len(places) - NAMED
    return "; ".join([*places[:NAMED], *([f"and {more} more"] if more > 0 else [])])
