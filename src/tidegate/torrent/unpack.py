"""What is packed, unpacked as a stream and with limits: gzip, zip with one file in it, bzip2, xz, or not packed at all.

What it is is read from its first bytes, never from a name. A kilobyte may unpack to gigabytes, so nothing is unpacked further
than the next piece, and no more than the limits allow (SEC-18).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

PIECE: Final = 1 << 16  # bytes read, and bytes given, at once
OUTPUT_LIMIT: Final = 64 << 20
RATIO_LIMIT: Final = 100  # lists of addresses have 5 to 9, a bomb has 1,028
RATIO_FREE: Final = 1 << 20  # bytes that may come out before the ratio counts
XZ_MEMORY: Final = 64 << 20

Read = Callable[[int], bytes]

GZIP, ZIP, BZIP2, XZ = b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00"


class NotAList(Exception):
    """This can't be taken as a list; the text says why, in words that hold nothing of its content."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def unpacked(read: Read, limit: int = OUTPUT_LIMIT) -> Iterator[bytes]:
    """The content in pieces. `read(n)` gives at most n bytes of the packed form, none at its end. Raises NotAList."""
    source = _Source(read)
    packed = True
    match source.peek(6):
        case head if head.startswith(GZIP):
            pieces = _members(source, lambda: zlib.decompressobj(31), GZIP)
        case head if head.startswith(ZIP):
            pieces = _only_file(source)
        case head if head.startswith(BZIP2):
            pieces = _members(source, bz2.BZ2Decompressor, BZIP2)
        case head if head.startswith(XZ):
            pieces = _members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), XZ)
        case _:
            packed = False
            pieces = source.rest()
    given = 0
    try:
        for piece in pieces:
            if packed and given == 0 and piece.startswith((GZIP, ZIP, BZIP2, XZ)):
                raise NotAList("it is packed twice")
            given += len(piece)
            if given > limit:
                raise NotAList(f"it is larger than {limit >> 20} MiB")
            if packed and given > RATIO_FREE and given > RATIO_LIMIT * source.taken:
                raise NotAList(f"it unpacks to more than {RATIO_LIMIT} times its size, which no list does")
            yield piece
    except (zlib.error, lzma.LZMAError, OSError, EOFError, struct.error) as error:
        raise NotAList(f"it is damaged: {error}") from None


class _Source:
    """The packed bytes with a look ahead; `taken` is how many have been read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._ahead = b""
        self.taken = 0

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._more()):
            self._ahead += more
        return self._ahead[:size]

    def take(self, size: int) -> bytes:
        """Exactly so many bytes. Raises EOFError."""
        found = self.peek(size)
        if len(found) < size:
            raise EOFError("it ends too early")
        self._ahead = self._ahead[size:]
        return found

    def piece(self) -> bytes:
        """The next bytes, as many as there are at hand; none at the end."""
        found, self._ahead = self._ahead or self._more(), b""
        return found

    def give_back(self, data: bytes) -> None:
        self._ahead = data + self._ahead

    def rest(self) -> Iterator[bytes]:
        while piece := self.piece():
            yield piece

    def _more(self) -> bytes:
        found = self._read(PIECE)
        self.taken += len(found)
        return found


def _stream(source: _Source, machine: _Decompressor) -> Iterator[bytes]:
    """One compressed stream to its end; what follows it is given back to the source."""
    data = piece = b""
    while not machine.eof:
        more_inside = len(piece) == PIECE or not getattr(machine, "needs_input", True)
        if not data and not more_inside and not (data := source.piece()):
            raise EOFError("it ends too early")
        piece = machine.decompress(data, PIECE)
        data = getattr(machine, "unconsumed_tail", b"")  # bz2 and lzma keep theirs to themselves
        if piece:
            yield piece
    source.give_back(machine.unused_data)


def _members(source: _Source, machine: Callable[[], _Decompressor], magic: bytes) -> Iterator[bytes]:
    """One stream after the other, as `cat a.gz b.gz` makes them; zeros may fill the end."""
    yield from _stream(source, machine())
    while head := source.peek(len(magic)):
        if head != magic:
            if any(any(piece) for piece in source.rest()):
                raise EOFError("something else follows its end")
            return
        yield from _stream(source, machine())


_ENCRYPTED, _SIZES_FOLLOW = 1, 8
_STORED, _DEFLATED = 0, 8
_FOLDER_SIZE = 2  # bytes of what nothing is deflated to


def _only_file(source: _Source) -> Iterator[bytes]:
    """The one file of a zip archive, read from the front: the directory at the end, which may lie, is not needed."""
    found = False
    while source.peek(4) == ZIP:
        _, _, flags, method, _, _, crc, size, _, name, extra = struct.unpack("<4sHHHHHIIIHH", source.take(30))
        is_folder = source.take(name).endswith(b"/")
        source.take(extra)
        if is_folder and size <= _FOLDER_SIZE and not flags & _SIZES_FOLLOW:
            source.take(size)
            continue
        if found:
            raise NotAList("it is a zip archive of more than one file")
        found = True
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED) or (method == _STORED and flags & _SIZES_FOLLOW):
            raise NotAList("it is a zip archive of a kind that can't be read: encrypted, or not packed by deflate")
        checksum = 0
        for piece in _taken(source, size) if method == _STORED else _stream(source, zlib.decompressobj(-15)):
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if flags & _SIZES_FOLLOW:
            if source.peek(4) == b"PK\x07\x08":
                source.take(4)
            crc, _, _ = struct.unpack("<III", source.take(12))
        if checksum != crc:
            raise EOFError("its checksum does not fit")
    if not found:
        raise NotAList("it is a zip archive without a file")


def _taken(source: _Source, size: int) -> Iterator[bytes]:
    while size:
        piece = source.take(min(size, PIECE))
        size -= len(piece)
        yield piece
