"""A router that is this very machine, or a namespace of it that `prefix` leads into."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tidegate.errors import Refused, TimedOut, Unavailable
from tidegate.router.shell import OUTPUT_LIMIT, TIME_LIMIT, Dialogue, Result


class LocalShell:
    """Runs commands as child processes, behind `prefix` where one is given (`("nsenter", "-t", "4711", "-n")`)."""

    def __init__(self, prefix: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
        self._prefix = tuple(prefix)
        self._environment = environment
        self._turn = asyncio.Lock()

    @property
    def line(self) -> object | None:
        return self

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> Result:
        async with self._turn:
            process = await self._started(command, PIPE)
            try:
                async with asyncio.timeout(seconds):
                    return await _converse(process, stdin, limit)
            except TimeoutError:
                raise TimedOut(f"no end after {seconds:g} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    @asynccontextmanager
    async def talk(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> AsyncIterator[Dialogue]:
        async with self._turn:
            process = await self._started(command, DEVNULL)
            assert process.stdin
            assert process.stdout
            try:
                dialogue = Dialogue(process.stdout.read, process.stdin.write, seconds, limit)
                dialogue.say(stdin)
                yield dialogue
                process.stdin.close()
                async with asyncio.timeout(seconds):
                    await process.wait()
            except TimeoutError:
                raise TimedOut(f"no end after {seconds:g} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _started(self, command: Sequence[str], stderr: int) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._prefix, *command, stdin=PIPE, stdout=PIPE, stderr=stderr, env=self._environment
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} can't be started here: {error}") from None

    async def knock(self) -> None:
        """There is no line that could be cut."""

    async def renew(self) -> None:
        """Each command is started anew already."""

    async def close(self) -> None:
        """There is no connection to close."""


async def _converse(process: asyncio.subprocess.Process, stdin: bytes, limit: int) -> Result:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    out, err, _ = await asyncio.gather(_read(process.stdout, limit), _read(process.stderr, limit), _write(process.stdin, stdin))
    return Result(await process.wait(), out, err)


async def _write(stream: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):  # it ended without reading all: its status says why
        stream.write(data)
        await stream.drain()
    stream.close()


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Everything to the end, as long as that is not above the limit."""
    parts, size = [], 0
    while part := await stream.read(65536):
        size += len(part)
        if size > limit:
            raise Refused(f"more than {limit} bytes of output")
        parts.append(part)
    return b"".join(parts)
