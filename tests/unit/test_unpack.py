"""Unpacking what strangers packed, within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.torrent.unpack import PIECE, NotAList, unpacked

TEXT = "".join(f"Name {number}:1.2.{number % 256}.0-1.2.{number % 256}.255\n" for number in range(20_000)).encode()


def zipped(
    content: bytes, *, method: int = zipfile.ZIP_DEFLATED, streamed: bool = False, names: tuple[str, ...] = ("l",)
) -> bytes:
    whole = io.BytesIO()

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return whole.write(data)

    with zipfile.ZipFile(Pipe() if streamed else whole, "w", method) as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else content)
    return whole.getvalue()


def unpack(data: bytes, limit: int = 64 << 20) -> bytes:
    pieces = list(unpacked(io.BytesIO(data).read, limit))
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zipped,
        lambda data: zipped(data, streamed=True),
        lambda data: zipped(data, method=zipfile.ZIP_STORED),
        lambda data: zipped(data, names=("folder/", "folder/list")),
        lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
        lambda data: gzip.compress(data) + bytes(512),
    ],
)
@pytest.mark.parametrize("content", [TEXT, TEXT[:1], b"a" * PIECE, random.Random(1).randbytes(3 * PIECE)])
def test_whatever_packed_it_the_content_comes_out(pack: Callable[[bytes], bytes], content: bytes) -> None:
    assert unpack(pack(content)) == content


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped, lambda data: zipped(data, streamed=True)])
def test_what_was_cut_or_altered_is_refused_as_damaged(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    for size in (7, 40, len(packed) // 2, len(packed) - 90):
        with pytest.raises(NotAList):
            unpack(packed[:size])
    middle = len(packed) // 2
    with pytest.raises(NotAList):
        unpack(packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_follows_the_end_is_not_passed_over(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(NotAList, match="something else follows"):
        unpack(pack(TEXT) + b"more")


def test_what_is_packed_twice_is_refused() -> None:
    for inner in (gzip.compress(TEXT), zipped(TEXT), lzma.compress(TEXT)):
        with pytest.raises(NotAList, match="packed twice"):
            unpack(gzip.compress(inner))


@pytest.mark.parametrize("names", [("a", "b"), ("folder/",)])
def test_a_zip_archive_has_one_file(names: tuple[str, ...]) -> None:
    with pytest.raises(NotAList, match="zip archive"):
        unpack(zipped(TEXT, names=names))


def test_a_zip_archive_whose_header_lies_is_refused() -> None:
    packed = bytearray(zipped(TEXT))
    packed[6] |= 1  # encrypted
    with pytest.raises(NotAList, match="can't be read"):
        unpack(bytes(packed))
    stored = bytearray(zipped(TEXT, method=zipfile.ZIP_STORED))
    stored[18:22] = b"\xff\xff\xff\x7f"  # 2 GiB, says the header
    with pytest.raises(NotAList, match="too early"):
        unpack(bytes(stored))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
def test_a_bomb_is_left_alone_after_a_few_pieces(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 << 20))
    came = 0

    def take_all() -> None:
        nonlocal came
        for piece in unpacked(io.BytesIO(bomb).read):
            came += len(piece)

    tracemalloc.start()
    try:
        with pytest.raises(NotAList, match="100 times its size"):
            take_all()
        assert tracemalloc.get_traced_memory()[1] < 12 << 20  # xz's dictionary has 8 MiB
    finally:
        tracemalloc.stop()
    assert came <= 20 << 20


def test_what_is_not_packed_has_the_same_limit() -> None:
    with pytest.raises(NotAList, match="larger than 1 MiB"):
        unpack(b"1.2.3.4\n" * (1 << 18), limit=1 << 20)
