"""Reading bencode (BEP 3) that a stranger wrote: strict, bounded, without recursion.

Refused, each with the byte where it stands: nesting deeper than 32, more than 2,000,000 tokens, lengths beyond the end,
integers with leading zeros, `-0` or beyond 64 bits, keys that are not strings or come twice, bytes after the end (SEC-23).
Keys out of order are let pass, because many programs write them so and the info hash is taken over the bytes as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

Value = int | bytes | list["Value"] | dict[bytes, "Value"]

DEPTH_LIMIT: Final = 32
TOKEN_LIMIT: Final = 2_000_000
INTEGER_LIMIT: Final = 2**63 - 1

_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,19})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")


class NotBencode(ValueError):
    """These bytes are not bencode, or not any that an honest program writes."""


@dataclass(slots=True)
class _Open:
    """A list or dictionary whose end has not come yet."""

    items: list[Value] | None = None
    pairs: dict[bytes, Value] = field(default_factory=dict)
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A whole bencoded value; `spans` gives where each value of the outermost dictionary begins and ends."""

    value: Value
    spans: dict[bytes, tuple[int, int]]


def read(data: bytes) -> Document:
    """The one value that `data` is. Raises NotBencode."""
    opened: list[_Open] = []
    spans: dict[bytes, tuple[int, int]] = {}
    at = tokens = began = 0
    while True:
        tokens += 1
        if tokens > TOKEN_LIMIT:
            raise NotBencode(f"more than {TOKEN_LIMIT:,} values")
        if len(opened) == 1:
            began = at
        done: Value
        match data[at : at + 1]:
            case b"i":
                done, at = _integer(data, at)
            case b"l" | b"d" as kind:
                if opened and opened[-1].items is None and opened[-1].key is None:
                    raise NotBencode(f"byte {at}: a key must be a string")
                if len(opened) == DEPTH_LIMIT:
                    raise NotBencode(f"byte {at}: nested deeper than {DEPTH_LIMIT} levels")
                opened.append(_Open(items=[] if kind == b"l" else None))
                at += 1
                continue
            case b"e":
                if not opened or opened[-1].key is not None:
                    raise NotBencode(f"byte {at}: an end where a value belongs")
                closed = opened.pop()
                done = closed.pairs if closed.items is None else closed.items
                at += 1
            case _:
                done, at = _string(data, at)
        if not opened:
            if at != len(data):
                raise NotBencode(f"{len(data) - at} bytes after the end")
            return Document(done, spans)
        inner = opened[-1]
        if inner.items is not None:
            inner.items.append(done)
        elif inner.key is None:
            if not isinstance(done, bytes):
                raise NotBencode(f"byte {at}: a key must be a string")
            if done in inner.pairs:
                raise NotBencode(f"byte {at}: the key {done[:40]!r} comes twice")
            inner.key = done
        else:
            inner.pairs[inner.key] = done
            if len(opened) == 1:
                spans[inner.key] = (began, at)
            inner.key = None


def _integer(data: bytes, at: int) -> tuple[int, int]:
    found = _INTEGER.match(data, at)
    if found is None or abs(value := int(found[1])) > INTEGER_LIMIT:
        raise NotBencode(f"byte {at}: not an integer of 64 bits")
    return value, found.end()


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    found = _LENGTH.match(data, at)
    if found is None:
        raise NotBencode(f"byte {at}: {'the end comes too early' if at >= len(data) else 'neither value nor end'}")
    end = found.end() + int(found[1])
    if end > len(data):
        raise NotBencode(f"byte {at}: a string longer than the file")
    return data[found.end() : end], end
