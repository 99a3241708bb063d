"""A process that reads one list: `python -m tidegate.torrent.listreader`, the list on its standard input.

Unpacking and reading what strangers wrote happens here, where it can neither hold up a request nor take more memory than the
limit. On standard output, frames of a kind, a length and so many bytes:

    +   addresses in text while the list is read, for the engine (`ListReader.feed`)
    4 6 the list's ranges (`Ranges.to_bytes`)
    =   the last one: lines, skipped and faults as JSON
    !   instead: why this is no list
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from typing import IO, Final

from tidegate.torrent.iplist import AddressList, LineFault, ListReader
from tidegate.torrent.ranges import Ranges
from tidegate.torrent.unpack import NotAList, unpacked

MEMORY: Final = 3 << 30  # bytes of address space; five million lines of IPv6 need less than half of that
CPU: Final = 60  # seconds
FRAME: Final = struct.Struct(">cI")
TOLD_AT_ONCE: Final = 1 << 18  # bytes of text

Learn = Callable[[str], Awaitable[None]]


async def read_list(file: IO[bytes], learn: Learn) -> AddressList:
    """Read an open file's list in a process of its own; `learn` is given its addresses while that goes on.

    Raises NotAList. The process is gone when this returns, raises or is cancelled.
    """
    command = (sys.executable, "-I", "-m", "tidegate.torrent.listreader")
    process = await asyncio.create_subprocess_exec(*command, stdin=file, stdout=PIPE, stderr=DEVNULL, env={})
    assert process.stdout is not None
    ranges = {b"4": b"", b"6": b""}
    try:
        while True:
            kind, size = FRAME.unpack(await process.stdout.readexactly(FRAME.size))
            data = await process.stdout.readexactly(size)
            match kind:
                case b"+":
                    await learn(data.decode())
                case b"!":
                    raise NotAList(data.decode())
                case b"=":
                    told = json.loads(data)
                    faults = tuple(LineFault(*fault) for fault in told["faults"])
                    v4, v6 = Ranges.from_bytes(4, ranges[b"4"]), Ranges.from_bytes(6, ranges[b"6"])
                    return AddressList(v4, v6, told["lines"], told["skipped"], faults)
                case _:
                    ranges[kind] = data
    except asyncio.IncompleteReadError:
        raise NotAList("it takes more memory or time to read than a list may") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
