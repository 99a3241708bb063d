"""What a .torrent file (BEP 3, BEP 52) says, checked before the engine sees a byte of it (SEC-22, SEC-23).

A `Metainfo` that exists has consistent sizes and hashes, and names that stay below its own folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.errors import Fault, Invalid, TooLarge
from tidegate.torrent import bencode, filename

SIZE_LIMIT: Final = 4 << 20  # bytes of a .torrent file
PIECE_LENGTHS: Final = frozenset(1 << power for power in range(14, 25))  # 16 KiB to 16 MiB
FAULT_LIMIT: Final = 100  # as many are named; a hostile file could have a million
BLOCK: Final = 16 * 1024  # the leaves of a v2 hash tree


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it goes below the torrent's folder, and its bytes. `padding` files are never written."""

    path: tuple[str, ...]
    length: int
    padding: bool = False


@dataclass(frozen=True, slots=True)
class Metainfo:
    """A checked .torrent. `v1` has 40 hex digits and `v2` 64; a hybrid has both. Sizes are bytes."""

    v1: str | None
    v2: str | None
    name: str
    files: tuple[File, ...]
    piece_length: int
    private: bool

    @property
    def info_hash(self) -> str:
        """The hash that the torrent goes by: v1 where there is one."""
        found = self.v1 or self.v2
        assert found is not None
        return found

    @property
    def total_size(self) -> int:
        return sum(file.length for file in self.files if not file.padding)

    @property
    def pieces(self) -> int:
        """How many there are: over all files in a row, or of each file alone where there is no version 1 of the torrent."""
        if self.v1:
            return -(-sum(file.length for file in self.files) // self.piece_length)
        return sum(-(-file.length // self.piece_length) for file in self.files)


def read(data: bytes) -> Metainfo:
    """The .torrent file's meaning. Raises TooLarge, or Invalid with every fault and its place ("body/info/files/3/path")."""
    if len(data) > SIZE_LIMIT:
        raise TooLarge(f"a .torrent file is limited to {SIZE_LIMIT} bytes", limit=SIZE_LIMIT)
    try:
        document = bencode.read(data)
    except bencode.NotBencode as error:
        raise Invalid("this is not a .torrent file", [Fault("body", str(error))]) from None
    whole = document.value
    if not isinstance(whole, dict) or not isinstance(info := whole.get(b"info"), dict):
        raise Invalid("this is not a .torrent file", [Fault("body/info", "a dictionary is missing")])
    reading = _Reading(info, whole.get(b"piece layers"))
    files = reading.files()
    if reading.faults:
        raise Invalid("this .torrent file can't be used", reading.faults)
    begin, end = document.spans[b"info"]
    return Metainfo(
        v1=hashlib.sha1(data[begin:end], usedforsecurity=False).hexdigest() if reading.is_v1 else None,
        v2=hashlib.sha256(data[begin:end]).hexdigest() if reading.is_v2 else None,
        name=_text(info[b"name"]),
        files=files,
        piece_length=reading.piece_length,
        private=info.get(b"private") == 1,
    )


def of_info(info: bytes) -> bytes:
    """A .torrent file that holds an info dictionary alone, as it comes from peers for a magnet link (BEP 9)."""
    return b"d4:info" + info + b"e"


class _Reading:
    """One pass over an info dictionary, that goes on after a fault to find the others."""

    def __init__(self, info: dict[bytes, Any], layers: Any) -> None:
        self.faults: list[Fault] = []
        self._info = info
        self._layers = layers
        self.is_v2 = b"meta version" in info
        # Any of them makes it a version 1 torrent for the engine, which then needs them all.
        self.is_v1 = not self.is_v2 or not info.keys().isdisjoint((b"pieces", b"files", b"length"))
        self.piece_length = info.get(b"piece length", 0)
        if self.piece_length not in PIECE_LENGTHS:
            self._fault("piece length", "must be a power of two from 16 KiB to 16 MiB")
            self.piece_length = 0
        if self.is_v2 and info[b"meta version"] != 2:
            self._fault("meta version", "only version 2 is known")
        name = info.get(b"name")
        if not isinstance(name, bytes):
            self._fault("name", "must be a string")
        elif why := filename.fault(name):
            self._fault("name", why)
        if b"name.utf-8" in info and info[b"name.utf-8"] != name:
            self._fault("name.utf-8", "differs from name")

    def _fault(self, at: str, why: str) -> None:
        if len(self.faults) < FAULT_LIMIT:
            self.faults.append(Fault(f"body/info/{at}", why))

    def files(self) -> tuple[File, ...]:
        before = len(self.faults)
        v1 = self._v1_files() if self.is_v1 else ()
        if self.is_v1 and len(self.faults) == before:  # else their sum says nothing
            self._check_pieces(sum(file.length for file in v1))
        v2 = self._v2_files() if self.is_v2 else ()
        if self.is_v1 and self.is_v2 and not self.faults:
            one, two = ([(f.path, f.length) for f in files if not f.padding] for files in (v1, v2))
            if one != two:
                self._fault("file tree", "names other files than the torrent's first version does")
        files = v1 or v2
        self._check_collisions(files)
        return files

    # ── version 1

    def _v1_files(self) -> tuple[File, ...]:
        info = self._info
        if b"files" not in info:
            if b"symlink path" in info or b"l" in _attributes(info):
                self._fault("attr", "symbolic links are refused")
            return (self._sized("length", info.get(b"length"), (_text(info.get(b"name")),), padding=False),)
        if b"length" in info:
            self._fault("length", "must not stand beside files")
        listed = info[b"files"]
        if not isinstance(listed, list) or not listed:
            self._fault("files", "must be a list with at least one file")
            return ()
        return tuple(file for number, entry in enumerate(listed) for file in self._v1_file(number, entry))

    def _v1_file(self, number: int, entry: Any) -> Iterator[File]:
        at = f"files/{number}"
        if not isinstance(entry, dict):
            self._fault(at, "must be a dictionary")
            return
        # Clients that know path.utf-8 use it instead of path, so it is the one that counts.
        key = "path.utf-8" if b"path.utf-8" in entry else "path"
        path: Any = entry.get(key.encode())
        if b"symlink path" in entry or b"l" in _attributes(entry):
            self._fault(f"{at}/attr", "symbolic links are refused")
        elif self._path_is_safe(f"{at}/{key}", path):
            folder = _text(self._info.get(b"name"))
            whole = (folder, *(_text(part) for part in path))
            yield self._sized(f"{at}/length", entry.get(b"length"), whole, padding=b"p" in _attributes(entry))

    def _check_pieces(self, total: int) -> None:
        pieces = self._info.get(b"pieces")
        if not isinstance(pieces, bytes) or len(pieces) % 20:
            self._fault("pieces", "must be a string of 20 bytes per piece")
        elif self.piece_length and len(pieces) != 20 * -(-total // self.piece_length):
            self._fault("pieces", f"{len(pieces) // 20} hashes do not fit {total} bytes in pieces of {self.piece_length}")
        elif not pieces:
            self._fault("pieces", "there is nothing to download")

    # ── version 2

    def _v2_files(self) -> tuple[File, ...]:
        tree = self._info.get(b"file tree")
        if not isinstance(tree, dict) or not tree:
            self._fault("file tree", "must be a dictionary with at least one file")
            return ()
        alone = len(tree) == 1 and set(tree) == {self._info.get(b"name")} and b"" in _dictionary(next(iter(tree.values())))
        root: tuple[bytes, ...] = () if alone else (self._info.get(b"name", b""),)
        return tuple(self._walk(tree, root, ()))

    def _walk(self, tree: dict[bytes, Any], root: tuple[bytes, ...], path: tuple[bytes, ...]) -> Iterator[File]:
        """The tree's files. bencode.read has bounded its depth."""
        for name, below in tree.items():
            here = (*path, name)
            at = "file tree/" + "/".join(filename.shown(_text(part), 60) for part in here)
            if why := filename.fault(name):
                self._fault(at, why)
            elif not isinstance(below, dict) or not below:
                self._fault(at, "must be a dictionary with a file or files in it")
            elif b"" not in below:
                yield from self._walk(below, root, here)
            elif len(below) > 1:
                self._fault(at, "is a file and a folder at once")
            else:
                yield from self._v2_file(at, root + here, _dictionary(below[b""]))

    def _v2_file(self, at: str, path: tuple[bytes, ...], entry: dict[bytes, Any]) -> Iterator[File]:
        if b"symlink path" in entry or b"l" in _attributes(entry):
            self._fault(f"{at}/attr", "symbolic links are refused")
            return
        if not self._path_is_safe(at, list(path)):
            return
        file = self._sized(f"{at}/length", entry.get(b"length"), tuple(_text(part) for part in path), padding=False)
        root = entry.get(b"pieces root")
        if file.length and (not isinstance(root, bytes) or len(root) != 32):
            self._fault(f"{at}/pieces root", "must be a string of 32 bytes")
        elif file.length and isinstance(root, bytes):
            self._check_layer(root, file.length)
        yield file

    def _check_layer(self, root: bytes, length: int) -> None:
        """Where the file spans pieces, their hashes follow beside the info; peers send them where they are missing."""
        if not isinstance(self._layers, dict) or root not in self._layers or not self.piece_length:
            return
        layer = self._layers[root]
        if not isinstance(layer, bytes) or len(layer) != 32 * -(-length // self.piece_length):
            self.faults.append(Fault("body/piece layers", f"the layer of {root.hex()[:16]} does not fit its file's length"))

    # ── both

    def _sized(self, at: str, length: Any, path: tuple[str, ...], *, padding: bool) -> File:
        if not isinstance(length, int) or not 0 <= length < 1 << 48:
            self._fault(at, "must be a size in bytes below 2^48")
            length = 0
        return File(path, length, padding)

    def _path_is_safe(self, at: str, path: Any) -> bool:
        if not isinstance(path, list) or not path or not all(isinstance(part, bytes) for part in path):
            self._fault(at, "must be a list of strings with at least one")
            return False
        if whys := [why for part in path if (why := filename.fault(part))]:
            self._fault(at, whys[0])
            return False
        if sum(len(part) + 1 for part in path) > filename.PATH_LIMIT:
            self._fault(at, f"a path is limited to {filename.PATH_LIMIT} bytes")
            return False
        return True

    def _check_collisions(self, files: Sequence[File]) -> None:
        """No two files in one place, and no file where another one's folder must be, also where case makes no difference."""
        taken: set[tuple[str, ...]] = set()
        folders: set[tuple[str, ...]] = set()
        paths = [(number, filename.folded([p.encode() for p in f.path])) for number, f in enumerate(files) if not f.padding]
        for _, path in paths:
            folders.update(path[:depth] for depth in range(1, len(path)))
        for number, path in paths:
            if path in taken or path in folders:
                self._fault(f"files/{number}/path", "another file or folder has the same place")
            taken.add(path)


def _attributes(entry: dict[bytes, Any]) -> bytes:
    found = entry.get(b"attr", b"")
    return found if isinstance(found, bytes) else b"l"  # an attr of a wrong type is treated as the worst one


def _dictionary(value: Any) -> dict[bytes, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
