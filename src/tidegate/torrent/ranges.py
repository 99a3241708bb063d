"""Ranges of addresses in their shortest form. Pure; a list of half a million costs 4 MB."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, islice
from operator import gt, le, lt
from typing import Literal

Version = Literal[4, 6]
WIDTH = {4: 4, 6: 16}  # bytes of an address


@dataclass(frozen=True, slots=True)
class Ranges:
    """Addresses of one IP version as numbers, in ranges from `firsts[n]` to `lasts[n]`: sorted, disjoint and never adjacent.

    Made by `of` and `of_bytes` from ranges in any order that may overlap.
    """

    version: Version
    firsts: Sequence[int]
    lasts: Sequence[int]

    @classmethod
    def of(cls, version: Version, pairs: Iterable[tuple[int, int]]) -> Ranges:
        """The ranges of these pairs; a pair in the wrong order means the same addresses."""
        found = list(pairs)
        return cls._shortest(version, [first for first, _ in found], [last for _, last in found])

    @classmethod
    def of_bytes(cls, version: Version, packed: bytes) -> Ranges:
        """The ranges of pairs of addresses, first and last, each in network byte order."""
        numbers = _unpack(version, packed)
        return cls._shortest(version, numbers[::2], numbers[1::2])

    @classmethod
    def from_bytes(cls, version: Version, packed: bytes) -> Ranges:
        """What `to_bytes` wrote: in their shortest form already, so this takes a few milliseconds."""
        numbers = _unpack(version, packed)
        return cls(version, numbers[::2], numbers[1::2])

    @classmethod
    def _shortest(cls, version: Version, firsts: Sequence[int], lasts: Sequence[int]) -> Ranges:
        """No step of Python's own per range where they are sorted already: half a million take a tenth of a second."""
        if any(map(lt, lasts, firsts)):
            firsts, lasts = list(map(min, firsts, lasts)), list(map(max, firsts, lasts))
        if not all(map(le, firsts, islice(firsts, 1, None))):
            pairs = sorted(zip(firsts, lasts, strict=True))
            firsts, lasts = [first for first, _ in pairs], [last for _, last in pairs]
        ends = list(accumulate(lasts, max))
        begins = list(
            map(gt, islice(firsts, 1, None), map((1).__add__, ends))
        )  # whether a range begins at the second, third, ...
        firsts = [*firsts[:1], *compress(islice(firsts, 1, None), begins)]
        lasts = [*compress(ends, begins), *ends[-1:]]
        return cls(version, _numbers(version, firsts), _numbers(version, lasts))

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads."""
        if self.version == 4:
            numbers = array("I", bytes(8 * len(self)))
            numbers[::2], numbers[1::2] = array("I", self.firsts), array("I", self.lasts)
            return _swapped(numbers).tobytes()
        return b"".join(number.to_bytes(16, "big") for pair in zip(self.firsts, self.lasts, strict=True) for number in pair)

    def __len__(self) -> int:
        return len(self.firsts)

    @property
    def addresses(self) -> int:
        """How many addresses there are in all ranges."""
        return sum(self.lasts) - sum(self.firsts) + len(self)

    def find(self, address: int) -> tuple[int, int] | None:
        """The range that the address is in."""
        at = bisect_right(self.firsts, address) - 1
        return (self.firsts[at], self.lasts[at]) if at >= 0 and address <= self.lasts[at] else None

    def within(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What lies between two addresses, cut to them."""
        for at in range(bisect_left(self.lasts, first), bisect_right(self.firsts, last)):
            yield max(first, self.firsts[at]), min(last, self.lasts[at])


def _numbers(version: Version, numbers: list[int]) -> Sequence[int]:
    return array("I", numbers) if version == 4 else numbers


def _unpack(version: Version, packed: bytes) -> Sequence[int]:
    if version == 4:
        return _swapped(array("I", packed))
    return [int.from_bytes(packed[at : at + 16], "big") for at in range(0, len(packed), 16)]


def _swapped(numbers: array[int]) -> array[int]:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
