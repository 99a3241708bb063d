"""Which document to believe, where a router's state document is damaged or is not the one that was confirmed last.

Beside `state.json` a router keeps, each in the bundle of its change, the document that was confirmed last (`current`) and the
two before it (`earlier.1`, `earlier.2`). The newest good one stands in, never an empty one; where none is good nobody knows
what the router should do, and it is left as it runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.policy.state import Damaged, StateDocument, from_text

STATE = "state.json"
FILES = (STATE, "current", "earlier.1", "earlier.2")
"""Below /etc/tidegate, newest first."""

_LINES = re.ASCII | re.MULTILINE
_CLAIMS = re.compile(r'^(?:"schema": [0-9]{1,9}, )?"generation": ([0-9]{1,15}), "controller": "([0-9a-f]{16})",$', _LINES)


@dataclass(frozen=True, slots=True)
class Copy:
    """One document on the flash. Where it can't be used `document` is None and `why` says so; `claimed` is the generation and
    the controller that can be made out in it all the same, for what that is worth."""

    file: str
    document: StateDocument | None
    why: str = ""
    claimed: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a router's state document. `used` is the copy that stands in for it, None where none could; `found`
    is all that was there."""

    file: str
    why: str
    used: Copy | None = None
    found: tuple[Copy, ...] = ()

    @property
    def lost(self) -> str:
        """What the copy does not say any more."""
        if self.used is None or self.used.document is None:
            return "everything that it said"
        generation, controller = self.used.document.generation, self.used.document.controller
        claims = [copy.claimed for copy in self.found if copy.claimed and not copy.document]
        newest = max((claimed for claimed, claimant in claims if claimant == controller), default=generation)
        if newest > generation:
            return f"what changed after generation {generation}, up to {newest}"
        return "nothing" if self.used.file in (STATE, "current") else f"what may have changed after generation {generation}"

    def __str__(self) -> str:
        if self.used is None:
            return f"{self.why}, nor can a copy of it be used"
        if self.used.document is None:
            return self.why
        source = "the document itself is whole" if self.used.file == STATE else f"the copy {self.used.file} is used"
        return f"{self.why}; {source}, of generation {self.used.document.generation}; lost: {self.lost}"

    @property
    def claimant(self) -> str:
        """The controller that the damaged document names; "" where none can be made out."""
        return next((each.claimed[1] for each in self.found if each.claimed), "")


def read_copy(file: str, text: str, whole: bool = True) -> Copy:
    """`whole`: it was read to its end, and that is the end of a line. Raises Newer."""
    name = "the state document" if file == STATE else f"the copy {file} of the state document"
    claims = _CLAIMS.search(text)
    claimed = (int(claims[1]), claims[2]) if claims else None
    try:
        document = from_text(text)
    except Damaged as error:
        return Copy(file, None, str(error).replace("the state document", name, 1), claimed)
    if not whole:
        return Copy(file, None, f"{name} is cut short", claimed)
    return Copy(file, document, "", claimed)


def judge(why: str, copies: Sequence[Copy]) -> Damage | None:
    """What is to be believed of all that is there. `why`: what raised the doubt. None: on a closer look, nothing is wrong.

    What was confirmed last is a bundle that the agent itself put there; a state.json that is not of the same router and
    controller, or is older than it, came there by another hand.
    """
    state = next((copy for copy in copies if copy.file == STATE), Copy(STATE, None, "the state document is missing"))
    kept = [copy for copy in copies if copy.file != STATE]
    newest = next((copy for copy in kept if copy.document), None)
    bad = next((copy for copy in kept if not copy.document), None)
    found = tuple(copies)
    if state.document is None:
        return Damage(STATE, state.why or why, newest, found)
    if newest is None or newest.document is None:
        return Damage(bad.file, bad.why, state, found) if bad else None
    ours, theirs = state.document, newest.document
    if (ours.controller, ours.router) != (theirs.controller, theirs.router):
        said = f"the state document is not this router's own: it is of router {ours.router}, by controller {ours.controller}"
        return Damage(STATE, said, newest, found)
    if ours.generation > theirs.generation:
        return Damage(bad.file, bad.why, state, found) if bad else None
    if ours == theirs:
        return None
    said = f"the state document is not the one that was confirmed last: it is of generation {ours.generation}"
    return Damage(STATE, said, newest, found)
