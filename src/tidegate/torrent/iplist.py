"""Reading lists of addresses that strangers publish. Pure.

Each line is read for what it is, whatever the file is called:

    Some name:1.2.3.0-1.2.3.255               PeerGuardian text (p2p); the name may hold colons
    1.2.3.0 - 1.2.3.255 , 100 , Some name     eMule (dat); blocked up to level 127, octets may be padded: 001.002.003.000
    1.2.3.0/24   2001:db8::/32                networks
    1.2.3.4   2001:db8::1                     addresses
    1.2.3.0-1.2.3.255                         ranges

with comments after `#`, `;` or `//`, and CR LF. A range in the wrong order means the same addresses. Of what stands in a list
nothing but addresses is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, NamedTuple

from tidegate.torrent.ranges import WIDTH, Ranges, Version
from tidegate.torrent.unpack import NotAList

LINE_LIMIT: Final = 5_000_000  # lines of a list
LENGTH_LIMIT: Final = 1_024  # bytes of a line
FAULTS_SHOWN: Final = 5

_MAPPED: Final = 0xFFFF  # what ::ffff:0:0/96, IPv4 in IPv6's clothes, begins with


class LineFault(NamedTuple):
    """A line that was skipped, counted from 1, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class AddressList:
    """What a list blocks; of the lines that could not be read how many there were, and the first five."""

    v4: Ranges
    v6: Ranges
    lines: int = 0
    skipped: int = 0
    faults: tuple[LineFault, ...] = ()

    @property
    def ranges(self) -> int:
        return len(self.v4) + len(self.v6)

    def of(self, version: int) -> Ranges:
        return self.v4 if version == 4 else self.v6


# Most lists have one form throughout, and are read by whole blocks: half a million lines in half a second. What does not fit
# the form of the moment goes line by line.
_FORMS: Final = (
    # p2p; a line that begins as one of eMule's do is one of eMule's
    re.compile(r"^(?![#;/\s]|[0-9.]+ *- *[0-9.]+ *,)[^\n]{0,980}:([0-9.]+-[0-9.]+)\r?$", re.MULTILINE),
    re.compile(r"^([0-9.]+ ?- ?[0-9.]+) *, *0*(?:[0-9]{1,2}|1[01][0-9]|12[0-7]) *(?:,[^\n]{0,900})?$", re.MULTILINE),
    re.compile(r"^([0-9.]+-[0-9.]+)\r?$", re.MULTILINE),
    re.compile(r"^([0-9.]+)\r?$", re.MULTILINE),
)
_PADDING: Final = re.compile(r"(?<![0-9])0{1,2}(?=[0-9])")

_ADDRESS: Final = r"[0-9a-fA-F:.]+"
_DAT: Final = re.compile(rf"({_ADDRESS})\s*-\s*({_ADDRESS})\s*,\s*([0-9]{{1,3}})\s*(?:,.*)?")
_PLAIN: Final = re.compile(rf"({_ADDRESS})(?:/([0-9]{{1,3}})|\s*-\s*({_ADDRESS}))?\s*(?:(?:[#;]|//).*)?")
_DAT_BLOCKED: Final = 127


class ListReader:
    """A list as it comes in, in pieces of any size. `feed` gives what is new as text for the engine, `end` the whole."""

    def __init__(self, line_limit: int = LINE_LIMIT) -> None:
        self._line_limit = line_limit
        self._packed = {4: bytearray(), 6: bytearray()}
        self._rest = b""  # a line that has begun
        self._form = 0
        self._lines = 0
        self._skipped = 0
        self._faults: list[LineFault] = []

    def feed(self, data: bytes) -> str:
        """Take the next bytes. What they block: first and last addresses, all joined by "-". Raises NotAList."""
        whole, end, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest if len(rest) <= LENGTH_LIMIT else b"x" * (LENGTH_LIMIT + 1)  # too long it stays, and grows no further
        return self._block((whole + end).decode("latin-1")) if end else ""

    def end(self) -> tuple[str, AddressList]:
        """What the last line blocks, and the whole list. Raises NotAList where no line could be read."""
        last = self._block(self._rest.decode("latin-1") + "\n") if self._rest else ""
        v4, v6 = (Ranges.of_bytes(version, bytes(self._packed[version])) for version in (4, 6))
        if not (v4 or v6) and self._skipped:
            raise NotAList(f"none of its {self._lines} lines is an address, a network or a range")
        return last, AddressList(v4, v6, self._lines, self._skipped, tuple(self._faults))

    def _block(self, text: str) -> str:
        if not self._lines:
            text = text.removeprefix("\xef\xbb\xbf")  # a byte order mark
        before, lines = self._lines, text.count("\n")
        if before + lines > self._line_limit:
            raise NotAList(f"it has more than {self._line_limit:,} lines")
        self._lines += lines
        for form in range(self._form, self._form + len(_FORMS)):
            found = _FORMS[form % len(_FORMS)].findall(text)
            if len(found) != lines:
                continue
            if "-" not in found[0]:  # single addresses, each the first and the last
                found = [f"{each}-{each}" for each in found]
            if pairs := self._fast("-".join(found).replace(" ", "")):
                self._form = form % len(_FORMS)
                return pairs
        return "-".join(self._slow(text, before))

    def _fast(self, pairs: str) -> str:
        """Take pairs of IPv4 addresses; empty where one of them is none."""
        if self._take(pairs):
            return pairs
        plain = _PADDING.sub("", pairs)  # as much work as all the rest, so not before it is needed
        return plain if self._take(plain) else ""

    def _take(self, pairs: str) -> bool:
        try:
            self._packed[4] += b"".join(map(inet_pton, repeat(AF_INET), pairs.split("-")))
        except OSError:
            return False
        return True

    def _slow(self, text: str, before: int) -> Iterator[str]:
        for number, line in enumerate(text[:-1].split("\n"), before + 1):
            try:
                found = read_line(line)
            except ValueError as error:
                self._skipped += 1
                if len(self._faults) < FAULTS_SHOWN:
                    self._faults.append(LineFault(number, str(error)))
                continue
            if found:
                version, first, last = found
                ends = first.to_bytes(WIDTH[version], "big"), last.to_bytes(WIDTH[version], "big")
                self._packed[version] += b"".join(ends)
                yield from (inet_ntop(AF_INET if version == 4 else AF_INET6, each) for each in ends)


Found = tuple[Version, int, int]  # an IP version, the first and the last address


def read_line(line: str) -> Found | None:
    """What a line blocks; None for a comment and the like. Raises ValueError that says what is wrong with it."""
    if len(line) > LENGTH_LIMIT:
        raise ValueError(f"longer than {LENGTH_LIMIT:,} bytes")
    text = line.strip()
    if not text or text[0] in "#;" or text.startswith("//"):
        return None
    if dat := _DAT.fullmatch(text):
        return _between(_address(dat[1]), _address(dat[2])) if int(dat[3]) <= _DAT_BLOCKED else None
    if plain := _PLAIN.fullmatch(text):
        try:
            return _plain(plain[1], plain[2], plain[3])
        except ValueError:
            if plain[3] is None or ":" not in plain[1]:
                raise
    return _named(text)


def _plain(first: str, prefix: str | None, last: str | None) -> Found:
    start = _address(first)
    if last is not None:
        return _between(start, _address(last))
    version, number = start
    bits = 8 * WIDTH[version]
    length = bits if prefix is None else int(prefix)
    if length > bits:
        raise ValueError("a network with more bits than its address has")
    size = 1 << (bits - length)
    number -= number % size
    return _between((version, number), (version, number + size - 1))


def _named(text: str) -> Found:
    """A line of a p2p list: what stands before the range is anybody's guess, colons and hyphens among it."""
    left, _, right = text.rpartition("-")
    try:
        end = _address(right.strip())
    except ValueError:
        raise ValueError("no address, network or range") from None
    if end[0] == 4:
        return _between(_address(left.rpartition(":")[2].strip()), end)
    for at in (at for at, sign in enumerate(left) if sign == ":"):
        try:
            return _between(_address(left[at + 1 :].strip()), end)
        except ValueError:
            continue
    raise ValueError("no address, network or range")


def _address(text: str) -> tuple[Version, int]:
    try:
        if ":" in text:
            return 6, int.from_bytes(inet_pton(AF_INET6, text), "big")
        return 4, int.from_bytes(inet_pton(AF_INET, _PADDING.sub("", text)), "big")
    except (OSError, ValueError):  # ValueError: a NUL in it
        raise ValueError("no address, network or range") from None


def _between(start: tuple[Version, int], end: tuple[Version, int]) -> Found:
    version, first = start
    if version != end[0]:
        raise ValueError("a range from one kind of address to the other")
    first, last = sorted((first, end[1]))
    if version == 6 and first >> 32 == last >> 32 == _MAPPED:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return version, first, last
