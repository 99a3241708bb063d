"""A process that reads one list: `python -m tidegate.torrent.listreader`, the list on its standard input.

Unpacking and reading what strangers wrote happens here, where it can neither hold up a request nor take more memory than the
limit. On standard output: lines of `first-last-first-last...` while it reads, for the engine; then one line of JSON, which
begins with a brace, and behind it the ranges of both IP versions as bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from tidegate.torrent.iplist import ListReader
from tidegate.torrent.unpack import NotAList, unpacked

MEMORY = 2 << 30  # bytes of address space; five million lines of IPv6 take 1.3 GB while they are sorted
CPU = 60  # seconds


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = sys.stdout.buffer
    reader = ListReader()
    try:
        for piece in unpacked(lambda size: os.read(0, size)):
            if text := reader.feed(piece):
                out.write(text.encode() + b"\n")
        text, found = reader.end()
    except (NotAList, MemoryError) as error:
        out.write(json.dumps({"refused": str(error) or "it takes too much memory"}).encode() + b"\n")
        return
    if text:
        out.write(text.encode() + b"\n")
    v4, v6 = found.v4.to_bytes(), found.v6.to_bytes()
    told = {"v4": len(v4), "v6": len(v6), "lines": found.lines, "skipped": found.skipped, "faults": found.faults}
    out.write(json.dumps(told).encode() + b"\n" + v4 + v6)


if __name__ == "__main__":
    main()
