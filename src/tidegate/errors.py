"""Every failure that a caller can meet. No HTTP here: `contract/problems.py` holds the one table of statuses.

    TidegateError
    ├── Invalid        the request breaks the rules; `faults` names every place
    ├── Malformed      not even JSON, or not the JSON that we read
    ├── TooLarge       more bytes than this command takes
    ├── Unauthorized   no key, or not a valid one
    ├── Forbidden      a valid key that may not do this
    ├── Misdirected    asked under a host name that is not ours
    ├── NotFound       what the command names is not there
    ├── NotAllowed     the path exists, but not with this method
    ├── Unsupported    a body of a type that this command does not read
    ├── Conflict       right in itself, but not in the present state
    ├── Gone           it was there; start again from a newer place
    ├── TooMany        slow down
    ├── Refused        the router or gateway answered and said no; what was there before is in place
    ├── Unavailable    nobody answers, or not yet; try again
    │   └── NoDaemon   not even the daemon itself
    ├── TimedOut       no answer in time
    └── StorageFull    the disk is full; what was there before is in place

Anything else that is raised is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: `at` is its place ("body/devices/0/mac"), `why` says what would be right."""

    at: str
    why: str


class TidegateError(Exception):
    """Base of all expected failures. `facts` are machine-readable details that travel with it."""

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Invalid(TidegateError):
    """The request breaks the rules. Every fault at once, each with its place."""

    def __init__(self, detail: str, faults: Sequence[Fault] = (), **facts: object) -> None:
        super().__init__(detail, **facts)
        self.faults = tuple(faults)


class Malformed(TidegateError):
    """Not JSON, or JSON that no honest client sends: too deep, NaN, a key twice."""


class TooLarge(TidegateError):
    """More bytes than this command takes."""


class Unauthorized(TidegateError):
    """No key, or not a valid one."""


class Forbidden(TidegateError):
    """A valid key that may not do this."""


class Misdirected(TidegateError):
    """Asked under a host name that is not this daemon's."""


class NotFound(TidegateError):
    """What the command names is not there."""


class NotAllowed(TidegateError):
    """The path exists, but not with this method."""


class Unsupported(TidegateError):
    """A body of a type that this command does not read."""


class Conflict(TidegateError):
    """Right in itself, but not in the present state."""


class Gone(TidegateError):
    """It was there and is no more; start again from a newer place."""


class TooMany(TidegateError):
    """Too many requests, sockets or readers at once."""


class Refused(TidegateError):
    """The router or gateway answered and said no; what was there before is back in place."""


class Unavailable(TidegateError):
    """Nobody answers, or not yet; try again."""


class NoDaemon(Unavailable):
    """Nobody answers where the daemon should be; raised by the client."""


class TimedOut(TidegateError):
    """No answer in time."""


class StorageFull(TidegateError):
    """The disk is full; nothing was changed."""
