"""Answers that are handed out many times unchanged."""

from __future__ import annotations

import msgspec


class EncodedOnce(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Base of an answer whose bytes are made once per object: hand out the same object until it changes."""
