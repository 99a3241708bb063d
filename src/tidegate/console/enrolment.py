"""`tidegate router add` and `seal`: a person puts a router under the daemon's care, step by step, and its key in order."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.prompt import Confirm
from rich.text import Text

from tidegate.api.routers import (
    Fingerprint,
    HostKey,
    HostName,
    Router,
    RouterAddRequest,
    RouterId,
    Routers,
    RouterSealRequest,
    UserName,
)
from tidegate.contract import commands
from tidegate.contract.cli import OWN, Target, ToTarget, attempt, err, over, show
from tidegate.contract.client import Address, AsyncLine, call_with_progress, remote
from tidegate.contract.tables import harmless
from tidegate.errors import Refused
from tidegate.policy.router import InterfaceName

LAN, WAN, ROOT = InterfaceName("br-lan"), InterfaceName("wan"), UserName("root")


def add(
    router_id: Annotated[RouterId, OWN],
    host: Annotated[HostName, OWN],
    *,
    host_key: Annotated[Fingerprint | None, OWN, Parameter(help="the router's fingerprint, confirmed already")] = None,
    port: int = 22,
    user: Annotated[UserName, OWN] = ROOT,
    lan: Annotated[InterfaceName, OWN] = LAN,
    wan: Annotated[InterfaceName, OWN] = WAN,
    key_in_place: Annotated[bool, Parameter(negative="", help="our public key is in its authorized_keys already")] = False,
    clear_former: Annotated[bool, Parameter(negative="", help="take the rules of NetPilot, if there are any, off it")] = False,
    to: ToTarget = Target(),  # noqa: B008 - frozen
) -> int:
    """Enrol a router: compare its host key, log in once, probe it, install the agent.

    Shows the host key's fingerprint to be compared with the one that the router itself prints, then asks for the
    password, which is used once to put this daemon's own key in place and is never kept. Without a terminal give
    `--host-key`, and the password on standard input or `--key-in-place`.
    """
    from tidegate.console import default_socket

    request = _Answers(router_id, host, host_key, port, user, lan, wan, key_in_place, clear_former)
    return attempt(lambda address: _add(request, to, address), to, default_socket)


def seal(
    router_id: Annotated[RouterId, OWN],
    *,
    password: Annotated[bool, Parameter(negative="", help="ask for the router's password: our key does not open it")] = False,
    to: ToTarget = Target(),  # noqa: B008 - frozen
) -> int:
    """Make this daemon's key one that may ask the router's agent and nothing else.

    By that key itself where it may do more; with `--password` also where it opens nothing any more, or where the agent on the
    router is damaged. The password is used once and never kept. Without a terminal it is read from standard input.
    """
    from tidegate.console import default_socket

    def steps(address: Address) -> None:
        request = RouterSealRequest(_asked(f"the router's password for {router_id} (used once): ") if password else None)
        show(over(address, lambda line: remote(Routers, line).seal(router_id, request)), to)

    return attempt(steps, to, default_socket)


class _Answers:
    """What the person gave on the command line."""

    def __init__(
        self,
        router_id: RouterId,
        host: HostName,
        host_key: Fingerprint | None,
        port: int,
        user: UserName,
        lan: InterfaceName,
        wan: InterfaceName,
        key_in_place: bool,
        clear_former: bool,
    ) -> None:
        self.router_id, self.host, self.host_key, self.port = router_id, host, host_key, port
        self.user, self.lan, self.wan = user, lan, wan
        self.key_in_place, self.clear_former = key_in_place, clear_former


def _add(given: _Answers, to: Target, address: Address) -> None:
    try:
        host_key = given.host_key or _confirmed(address, given)
        password = _password(given)
    except EOFError:
        raise Refused("not answered; nothing was changed") from None
    request = RouterAddRequest(given.host, host_key, given.port, given.user, password, given.lan, given.wan, given.clear_former)
    show(over(address, lambda line: _added(line, given.router_id, request)), to)


async def _added(line: AsyncLine, router_id: RouterId, request: RouterAddRequest) -> Router:
    command = next(command for command in commands(Routers) if command.method == "add")
    with err.status("logging in") as status:
        arguments = {"router_id": router_id, "request": request}
        added: Router = await call_with_progress(command, line, arguments, lambda told: status.update(harmless(told)))
    return added


def _confirmed(address: Address, given: _Answers) -> Fingerprint:
    """The fingerprint that the host shows, once a person has said that it is the router's."""
    if not sys.stdin.isatty():
        raise Refused("a person must compare the host key: give --host-key SHA256:... or run this in a terminal")
    shown: HostKey = over(address, lambda line: remote(Routers, line).scan_host_key(given.host, given.port))
    err.print(Text(f"{shown.host} shows this {shown.algorithm} host key:\n  {shown.fingerprint}"))
    err.print("On the router, `dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key` or `ssh-keygen -l` prints the same.")
    if not Confirm.ask("Is it this router's?", console=err, default=False):
        raise Refused("not confirmed; nothing was changed")
    return shown.fingerprint


def _password(given: _Answers) -> str | None:
    return None if given.key_in_place else _asked(f"{given.user}'s password on {given.host} (used once): ")


def _asked(question: str) -> str | None:
    if sys.stdin.isatty():
        return getpass.getpass(question)
    return sys.stdin.readline().rstrip("\n") or None
