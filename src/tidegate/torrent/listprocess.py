"""Reading a list of addresses in a process of its own, `listreader.py`, as the torrent process sees it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from typing import IO

from tidegate.torrent.iplist import AddressList, LineFault
from tidegate.torrent.listreader import FRAME
from tidegate.torrent.ranges import Ranges
from tidegate.torrent.unpack import NotAList

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
