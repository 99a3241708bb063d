"""The process that reads one list, the list on its standard input; started by `listprocess.py`.

Unpacking and reading what strangers wrote happens here, where it can neither hold up a request nor take more memory than the
limit. On standard output, frames of a kind, a length and so many bytes:

    +   addresses in text while the list is read, for the engine (`ListReader.feed`)
    4 6 the list's ranges (`Ranges.to_bytes`)
    =   the last one: lines, skipped and faults as JSON
    !   instead: why this is no list
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from tidegate.torrent.iplist import ListReader
from tidegate.torrent.unpack import NotAList, unpacked

MEMORY: Final = 2 << 30  # bytes of address space; four million lines of IPv6 take 1.1 GB, half a million of IPv4 80 MB
CPU: Final = 60  # seconds
FRAME: Final = struct.Struct(">cI")
TOLD_AT_ONCE: Final = 1 << 18  # bytes of text


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # should memory run out, this is the process that the kernel is to end
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        _read()
    except NotAList as error:
        _tell(b"!", str(error).encode())


def _read() -> None:
    reader = ListReader()
    waiting: list[str] = []
    for piece in unpacked(lambda size: os.read(0, size)):
        waiting += filter(None, (reader.feed(piece),))
        if sum(map(len, waiting)) > TOLD_AT_ONCE:
            _tell(b"+", "-".join(waiting).encode())
            waiting = []
    last, found = reader.end()
    if text := "-".join(filter(None, (*waiting, last))):
        _tell(b"+", text.encode())
    _tell(b"4", found.v4.to_bytes())
    _tell(b"6", found.v6.to_bytes())
    _tell(b"=", json.dumps({"lines": found.lines, "skipped": found.skipped, "faults": found.faults}).encode())


def _tell(kind: bytes, data: bytes) -> None:
    sys.stdout.buffer.write(FRAME.pack(kind, len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
