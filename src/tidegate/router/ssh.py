"""The seam over SSH: one kept connection per router, one command at a time, and only to the host whose key is pinned.

One at a time is not politeness: dropbear up to 2024.85 loses or refuses a session when two are opened at once on one
connection (measured: 9 to 43 % fail; mkj/dropbear 321). And it takes five log-ins at once per address, so the connection
is kept. Nothing of this machine is offered to the router: no agent, no forwarding, no configuration of the user's, one key.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncssh

from tidegate.errors import Refused, TimedOut, Unavailable
from tidegate.router.shell import OUTPUT_LIMIT, TIME_LIMIT, Dialogue, HostKeyChanged, LogInRefused, Result

HOST_KEY_ALGORITHMS: Final = ["ssh-ed25519"]
# What OpenSSH has had since 6.5 and dropbear since 2013.61; nothing of SHA-1, CBC or DSA (SEC-31).
KEX_ALGORITHMS: Final = ["curve25519-sha256", "curve25519-sha256@libssh.org"]
MODERN: Final = {
    "kex_algs": KEX_ALGORITHMS,
    "encryption_algs": ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr"],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"],
}
CONNECT_SECONDS: Final = 6.0
KEEPALIVE_SECONDS: Final = 2.0  # twice unanswered, and the line counts as dead


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a router's SSH server is and the fingerprint of its key ("SHA256:...")."""

    host: str
    port: int
    user: str
    host_key: str


def new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519", comment="tidegate")


async def scan_host_key(host: str, port: int) -> tuple[str, str]:
    """The algorithm and fingerprint of the key that a host shows, without logging in. Raises Unavailable or TimedOut."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            key = await asyncssh.get_server_host_key(
                host, port, server_host_key_algs=HOST_KEY_ALGORITHMS, kex_algs=KEX_ALGORITHMS, config=None
            )
    except TimeoutError:
        raise TimedOut(f"{host} port {port} did not answer within {CONNECT_SECONDS:g} s") from None
    except (OSError, asyncssh.Error) as error:
        raise Unavailable(f"{host} port {port} can't be reached, or has no ed25519 host key: {_reason(error)}") from None
    if key is None:
        raise Unavailable(f"{host} port {port} shows no host key")
    return key.get_algorithm(), key.get_fingerprint()


class _Client(asyncssh.SSHClient):
    """Takes the pinned key and no other; remembers what was shown."""

    def __init__(self, pinned: str) -> None:
        self._pinned = pinned
        self.shown = ""
        self.lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key.get_fingerprint()
        return self.shown == self._pinned


class _Process(asyncssh.SSHClientProcess[bytes]):
    """A command whose first input is sent along with the request to run it, a round trip before the host answers that:
    RFC 4254, section 5.4, allows it, and dropbear and OpenSSH take things in order. `told`: it may be at work on it.
    """

    def __init__(self, stdin: bytes) -> None:
        super().__init__()
        self._first = stdin
        self.told = False

    def itself(self) -> _Process:
        return self

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:  # type: ignore[override]
        super().connection_made(chan)
        if self._first:
            # asyncssh requests the command before it next gives way; a host drops what comes before that.
            self.told = True
            chan.get_loop().call_soon(self._tell, chan)

    def _tell(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        with suppress(OSError):  # cut in this very moment: whoever waits for the answer is told
            chan.write(self._first)


class SshShell:
    """A router behind SSH. Connects at the first command and again after the line was cut.

    Logs in with `key`, or with `password` alone where one is given.
    """

    def __init__(self, endpoint: Endpoint, key: asyncssh.SSHKey | None, password: str | None = None) -> None:
        self._endpoint = endpoint
        self._key = key
        self._password = password
        self._turn = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: _Client | None = None

    @property
    def line(self) -> object | None:
        return self._client if self._connection and self._client and not self._client.lost else None

    async def run(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> Result:
        async with self._turn:
            process = await self._started(shlex.join(command), stdin)
            whole = False
            try:
                async with asyncio.timeout(seconds):
                    result = await _converse(process, limit)
                    await process.wait_closed()
                whole = True
                return result
            except TimeoutError:
                raise TimedOut(f"{self._endpoint.host} did not finish within {seconds:g} s") from None
            except (OSError, asyncssh.Error) as error:
                raise Unavailable(f"the line to {self._endpoint.host} was cut: {_reason(error)}") from None
            finally:
                if not whole:
                    self._drop()  # whatever still runs there must not meet the next command

    @asynccontextmanager
    async def talk(
        self, command: Sequence[str], stdin: bytes = b"", *, seconds: float = TIME_LIMIT, limit: int = OUTPUT_LIMIT
    ) -> AsyncIterator[Dialogue]:
        async with self._turn:
            process = await self._started(shlex.join(command), stdin)
            whole = False
            try:
                yield Dialogue(process.stdout.read, process.stdin.write, seconds, limit)
                async with asyncio.timeout(seconds):
                    await _converse(process, limit)
                    await process.wait_closed()
                whole = True
            except TimeoutError:
                raise TimedOut(f"{self._endpoint.host} did not finish within {seconds:g} s") from None
            except (OSError, asyncssh.Error) as error:
                raise Unavailable(f"the line to {self._endpoint.host} was cut: {_reason(error)}") from None
            finally:
                if not whole:
                    self._drop()

    async def knock(self) -> None:
        at = self._endpoint
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(at.host, at.port)
                try:
                    greeting = await reader.readexactly(8)
                finally:
                    writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            raise Unavailable(f"{at.host} port {at.port} lets nobody in anew: {_reason(error)}") from None
        if greeting != b"SSH-2.0-":
            raise Unavailable(f"{at.host} port {at.port} does not greet who comes anew")

    async def renew(self) -> None:
        async with self._turn:
            before, self._connection = self._connection, None
            client = self._client
            try:
                self._connection = await self._connect()
            except BaseException:
                self._connection, self._client = before, client
                raise
            if before:
                before.close()

    async def close(self) -> None:
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection:
                connection.close()
                await connection.wait_closed()

    async def _started(self, command: str, stdin: bytes) -> _Process:
        """The command, begun. A kept connection may have died unseen, so it is tried once more over a new one, unless it may
        have begun already with its input."""
        while True:
            fresh = self._connection is None
            connection = self._connection or await self._connect()
            self._connection = connection
            process = _Process(stdin)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.create_session(process.itself, command, encoding=None)
                    return process
            except (OSError, asyncssh.Error) as error:  # TimeoutError is an OSError
                self._drop()
                if process.told:
                    raise Unavailable(f"the line to {self._endpoint.host} was cut: {_reason(error)}") from None
                if fresh:
                    raise Unavailable(f"{self._endpoint.host} opens no session: {_reason(error)}") from None

    async def _connect(self) -> asyncssh.SSHClientConnection:
        at = self._endpoint
        client = self._client = _Client(at.host_key)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncssh.connect(
                    at.host,
                    at.port,
                    username=at.user,
                    client_factory=lambda: client,
                    known_hosts=([], [], []),
                    server_host_key_algs=HOST_KEY_ALGORITHMS,
                    **MODERN,
                    config=None,
                    agent_path=None,
                    client_keys=None if self._key is None else [self._key],
                    password=self._password,
                    preferred_auth=["publickey"] if self._password is None else ["password", "keyboard-interactive"],
                    keepalive_interval=KEEPALIVE_SECONDS,
                    keepalive_count_max=2,
                )
        except asyncssh.HostKeyNotVerifiable:
            raise HostKeyChanged(at.host_key, client.shown) from None
        except asyncssh.PermissionDenied as error:
            raise LogInRefused(f"{at.host} refuses to let {at.user} in: {_reason(error)}") from None
        except TimeoutError:
            raise Unavailable(f"{at.host} port {at.port} did not answer within {CONNECT_SECONDS:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise Unavailable(f"{at.host} port {at.port} can't be reached: {_reason(error)}") from None

    def _drop(self) -> None:
        if self._connection:
            self._connection.abort()
        self._connection = self._client = None


async def _converse(process: _Process, limit: int) -> Result:
    # A command may have ended without reading its input; what it said and its status then tell why.
    with suppress(OSError):
        process.stdin.write_eof()
    out, err = await asyncio.gather(_read(process.stdout, limit), _read(process.stderr, limit))
    completed = await process.wait()
    if completed.exit_status is None or completed.exit_status < 0:
        raise ConnectionResetError("no exit status")
    return Result(completed.exit_status, out, err)


async def _read(stream: asyncssh.SSHReader[bytes], limit: int) -> bytes:
    """Everything to the end, as long as that is not above the limit."""
    parts, size = [], 0
    while part := await stream.read(65536):
        size += len(part)
        if size > limit:
            raise Refused(f"the router printed more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
