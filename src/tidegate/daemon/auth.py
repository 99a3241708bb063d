"""Checking keys: in memory, in microseconds, and with the same work whatever is shown.

A key is `tg_ID_SECRET_CHECK`: 8 letters and digits, 32 random bytes as 43 characters of base64url, and a CRC-32 that lets a
scanner of leaked keys and a person with a typing error tell a key from noise. Only HMAC-SHA-256(pepper, secret) is kept: a
slow hash is for passwords that can be guessed, 256 random bits can't, and 3 µs per request leave no lever for a flood.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate.contract import Scope
from tidegate.contract.guard import Principal
from tidegate.daemon.lockout import Lockout
from tidegate.daemon.secret import Secret
from tidegate.errors import Unauthorized

_KEY = re.compile(r"tg_([a-z0-9]{8})_([A-Za-z0-9_-]{43})_([0-9A-Za-z]{6})")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_id() -> str:
    return "".join(secrets.choice(_ID_DIGITS) for _ in range(8))


def new_secret() -> Secret:
    return Secret(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"="))


def written(key_id: str, secret: Secret) -> str:
    """The key as its holder keeps it."""
    body = f"tg_{key_id}_{secret.reveal().decode()}"
    return f"{body}_{_check(body)}"


def _check(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = _DIGITS[digit] + digits
    return digits


@dataclass(slots=True)
class Credential:
    """A key as the authenticator knows it. `expires` is in seconds since the epoch."""

    key_id: str
    digest: Secret
    scope: Scope
    expires: float | None
    revoked: bool = False
    used: int = 0  # the minute since the epoch of its last use
    principal: Principal = field(init=False)

    def bind(self, clock: Callable[[], float]) -> None:
        def valid() -> bool:
            return not self.revoked and (self.expires is None or clock() < self.expires)

        self.principal = Principal(f"key:{self.key_id}", self.scope, valid)


class Authenticator:
    """Every key that was ever made, in memory; `KeysService` keeps it in step with the journal."""

    def __init__(self, pepper: Secret, clock: Callable[[], float] = time.time) -> None:
        self._pepper = pepper
        self._clock = clock
        self._known: dict[str, Credential] = {}
        self._nobody = Credential("", Secret(secrets.token_bytes(32)), Scope.READ, None, revoked=True)
        self._nobody.bind(clock)
        self._noise = new_secret()

    def digest(self, secret: Secret) -> Secret:
        return Secret(self._pepper.sign(secret.reveal()))

    def add(self, credential: Credential) -> None:
        credential.bind(self._clock)
        self._known[credential.key_id] = credential

    def revoke(self, key_id: str) -> None:
        """From this moment, also for who is connected already."""
        self._known[key_id].revoked = True

    def used(self) -> dict[str, int]:
        """The minute (since the epoch) of each key's last use; 0 where it was never used."""
        return {credential.key_id: credential.used for credential in self._known.values()}

    def authenticate(self, shown: str | None) -> Principal:
        """Whose key it is. Raises Unauthorized, in the same words and after the same work, whatever is wrong with it."""
        match = _KEY.fullmatch(shown) if shown else None
        key_id, secret = (match[1], Secret(match[2].encode())) if match else ("", self._noise)
        credential = self._known.get(key_id, self._nobody)
        same = credential.digest.matches(self.digest(secret))  # the only comparison, and always made
        if not (same and match and _check(match[0][:-7]) == match[3] and credential.principal.valid()):
            raise Unauthorized("no valid key: show one as `Authorization: Bearer KEY`")
        credential.used = int(self._clock()) // 60
        return credential.principal


class Doorman:
    """What stands at the TCP port: keys, and patience that ends with those who guess."""

    def __init__(self, authenticator: Authenticator, lockout: Lockout, clock: Callable[[], float] = time.monotonic) -> None:
        self._authenticator = authenticator
        self._lockout = lockout
        self._clock = clock

    def authenticate(self, shown: str | None, peer: str) -> Principal:
        """Raises Unauthorized; TooMany after too many wrong keys from that address. A valid key always passes."""
        try:
            return self._authenticator.authenticate(shown)
        except Unauthorized:
            if shown is not None:  # a browser that opens the page without a key guesses nothing
                self._lockout.failed(peer, self._clock())
            raise
