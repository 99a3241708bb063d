"""The line to a router, against a host that ends it at an awkward moment."""

from __future__ import annotations

import asyncssh
import pytest

from tidegate.errors import Unavailable
from tidegate.router.ssh import Endpoint, SshShell, new_key

pytestmark = pytest.mark.anyio


class _Host(asyncssh.SSHServer):
    """Lets anybody in and hangs up as soon as it was told what to run."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[str]:
        return _Session(self._connection, self._told)


class _Session(asyncssh.SSHServerSession[str]):
    def __init__(self, connection: asyncssh.SSHServerConnection, told: list[str]) -> None:
        self._connection = connection
        self._told = told

    def exec_requested(self, command: str) -> bool:
        self._told.append(command)
        self._connection.abort()
        return True


@pytest.mark.parametrize(("stdin", "times"), [(b"a change", 1), (b"", 2)])
async def test_what_may_have_begun_with_its_input_is_not_begun_again(stdin: bytes, times: int) -> None:
    """Over a line that stood already; without input it is asked once more over a new one."""
    told: list[str] = []
    key = new_key()
    async with asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], server_factory=lambda: _Host(told)) as host:
        shell = SshShell(Endpoint("127.0.0.1", host.get_port(), "root", key.get_fingerprint()), new_key())
        await shell.renew()
        with pytest.raises(Unavailable):
            await shell.run(["true"], stdin)
        assert told == ["true"] * times
        await shell.close()
