"""What runs on a router: one text of POSIX sh, put together of the files beside this one.

Its version is a checksum of all of it, so two texts never bear the same one; the agent carries it and answers to no other.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

PARTS = (
    "promises",
    "tools",
    "lock",
    "rules",
    "neighbours",
    "standing",
    "change",
    "lan",
    "copies",
    "ending",
    "drift",
    "minute",
    "hooks",
    "leaving",
    "former",
    "gate",
    "verbs",
)
"""In the order in which they stand in the text: what it promises and where things are first, what is asked of it last."""

PATH = "/usr/lib/tidegate/agent"
"""Where it is on a router."""

LARGEST = 256 << 10
"""Bytes that an agent may have at most; no more of one that is offered comes onto a router."""

_SOURCE = "\n".join(files(__name__).joinpath(f"{part}.sh").read_text() for part in PARTS)
VERSION = sha256(_SOURCE.encode()).hexdigest()[:16]
TEXT = _SOURCE.replace("@VERSION@", VERSION).replace("@LARGEST@", str(LARGEST)).encode()
