"""What stands before every command: whose host name is asked, which page asks, whose key is shown.

Decided before a byte of the body is read and before a WebSocket is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tidegate.contract import Command, Scope
from tidegate.errors import Forbidden, Misdirected, Unauthorized


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: `by` as events name it, what its key may do, and whether it still may, asked again on open connections."""

    by: str
    scope: Scope
    valid: Callable[[], bool]


class Guard(Protocol):
    """Raises TidegateError unless this request may go on to its command."""

    def admit(self, headers: Mapping[str, str], peer: str, *, writes: bool) -> Principal: ...


class OpenDoor:
    """A unix socket that only its owner can open: the file's mode is the key."""

    def __init__(self, by: str, scope: Scope) -> None:
        self._principal = Principal(by, scope, lambda: True)

    def admit(self, headers: Mapping[str, str], peer: str, *, writes: bool) -> Principal:
        return self._principal


class KeyedDoor:
    """A TCP port: our own host names only (DNS rebinding), no foreign pages (CSRF), and a key on everything.

    `authenticate(key, peer)` returns the key's principal or raises Unauthorized or TooMany.
    """

    def __init__(self, authenticate: Callable[[str | None, str], Principal], hosts: Iterable[str]) -> None:
        self._authenticate = authenticate
        self._hosts = frozenset(host.lower() for host in hosts)

    def admit(self, headers: Mapping[str, str], peer: str, *, writes: bool) -> Principal:
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            raise Misdirected("this daemon does not answer under that host name; add it to `hosts` in the settings")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Forbidden("asked by a page of another origin")
        if writes and origin is None and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Forbidden("asked by a page of another origin")
        return self._authenticate(shown_key(headers), peer)


def shown_key(headers: Mapping[str, str]) -> str | None:
    """The key of `Authorization: Bearer KEY`, or of `X-CCBT-API-Key: KEY`, which the original service's clients send."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-ccbt-api-key")
    kind, _, key = authorization.partition(" ")
    if kind.lower() != "bearer":
        raise Unauthorized("show the key as `Authorization: Bearer KEY`")
    return key


def permit(principal: Principal, command: Command) -> None:
    """Raises Forbidden where the principal's scope is too small for the command."""
    if principal.scope < command.scope:
        needs, has = command.scope.name.lower(), principal.scope.name.lower()
        raise Forbidden(f"{command.name} needs a key with scope {needs}; this one has {has}", needs=needs, has=has)
