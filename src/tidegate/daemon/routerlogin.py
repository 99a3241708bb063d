"""Making a router take this daemon's key, and let it at the agent alone."""

from __future__ import annotations

import asyncssh

from tidegate.daemon.routerkeys import public_blob, public_line
from tidegate.errors import Refused
from tidegate.router.agent import PATH
from tidegate.router.fleet import ManagedRouter
from tidegate.router.link import AgentLink
from tidegate.router.login import place, sealed
from tidegate.router.shell import LogInRefused
from tidegate.router.ssh import Endpoint, SshShell


async def let_in(at: Endpoint, key: asyncssh.SSHKey, password: str) -> None:
    """Log in once by password; put the agent there, and our key's line in place of any other that it has.

    Raises Refused where something can't be written, LogInRefused where the password is not taken, or after all the key is
    not; what was put there is taken off again then.
    """
    by_password, by_key = SshShell(at, None, password), SshShell(at, key)
    try:
        await AgentLink(by_password, PATH).install()
        await place(by_password, public_blob(key), sealed(public_line(key)))
        try:
            await by_key.renew()
        except LogInRefused:
            await AgentLink(by_password, PATH).ask("forget", public_blob(key))
            raise
    finally:
        await by_password.close()
        await by_key.close()


async def seal(router: ManagedRouter, key: asyncssh.SSHKey) -> None:
    """With our key that may do anything on the router, make that it may ask the agent alone.

    Raises Refused where the SSH server does not take such a line, or does not keep to it; the key is as it was then.
    """
    await router.engine.observe()  # an agent of this version is there now, whose gate stands
    if router.engine.login == "agent":
        return
    await place(router.shell, public_blob(key), sealed(public_line(key)))
    try:
        await router.shell.renew()
        await router.engine.observe()
    except LogInRefused:
        # The connection from before still stands.
        await place(router.shell, public_blob(key), public_line(key))
        raise Refused("the router's SSH server lets nobody in whose key is for the agent alone; the key is as it was") from None
    if router.engine.login != "agent":
        await place(router.shell, public_blob(key), public_line(key))
        raise Refused(
            "the router's SSH server does not keep to what ~/.ssh/authorized_keys and /etc/dropbear/authorized_keys say: "
            "put the line of `tidegate routers create-key` where it reads our key"
        )
