"""Fetching a file from a URL that somebody else answers for (SEC-21).

- https, with the certificate checked, and nothing else, unless the host is trusted by name.
- Every hop of a redirection is looked at anew: three at most, each to an address that the whole internet could reach. The
  address that was looked at is the one that is connected to.
- So many bytes and so many seconds, from the first name looked up to the last byte, however slowly they drip.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import IO

import httpx2

REDIRECTS = 3
SECONDS = 30.0
BYTES = 64 << 20


class NotFetched(Exception):
    """Why there is no file; in words that hold nothing of the answer's content."""


@dataclass(frozen=True, slots=True)
class Trust:
    """`hosts` may have private addresses and speak http; `authority` is a file of certificates, to trust beside the known."""

    hosts: frozenset[str] = frozenset()
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """`version`: what the server calls this state of the file. `unchanged`: it is the one that was asked about."""

    version: str
    unchanged: bool = False


async def fetch(url: str, into: IO[bytes], known: str = "", trust: Trust = Trust(), seconds: float = SECONDS) -> Fetched:
    """Write what the URL has into a file; nothing where it is as `known` says (`Fetched.version`). Raises NotFetched."""
    try:
        async with asyncio.timeout(seconds):
            return await _follow(url, into, known, trust)
    except TimeoutError:
        raise NotFetched(f"it did not come within {seconds:.0f} s") from None
    except httpx2.InvalidURL:
        raise NotFetched("it is redirected to what is no URL") from None
    except httpx2.HTTPError as error:
        raise NotFetched(f"it could not be fetched: {str(error) or type(error).__name__}") from None


async def _follow(url: str, into: IO[bytes], known: str, trust: Trust) -> Fetched:
    context = ssl.create_default_context()
    if trust.authority is not None:
        try:
            context.load_verify_locations(trust.authority)
        except (OSError, ssl.SSLError) as error:
            raise NotFetched(f"{trust.authority} can't be read as certificates: {error.strerror or error}") from None
    # Neither proxies nor .netrc of whoever started us; the connection is closed after each hop.
    async with httpx2.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=None) as client:
        for _ in range(REDIRECTS + 1):
            request = await _request(client, url, known, trust)
            answer = await client.send(request, stream=True)
            try:
                if answer.has_redirect_location:
                    url = str(httpx2.URL(url).join(answer.headers["location"]))
                    continue
                if answer.status_code == 304 and known:
                    return Fetched(known, unchanged=True)
                if answer.status_code != 200:
                    raise NotFetched(f"the server answers {answer.status_code}")
                await _write(answer, into)
                return Fetched(_version(answer.headers))
            finally:
                await answer.aclose()
    raise NotFetched(f"it is redirected more than {REDIRECTS} times")


async def _request(client: httpx2.AsyncClient, url: str, known: str, trust: Trust) -> httpx2.Request:
    """A request to the address that the URL's host has now, once both are found to be allowed. Raises NotFetched."""
    target = httpx2.URL(url)
    host = target.host
    if target.scheme != "https" and not (target.scheme == "http" and host in trust.hosts):
        raise NotFetched(f"{target.scheme}://{host} is not fetched: only https, or http from a trusted host")
    address = await _address(host, target.port or (443 if target.scheme == "https" else 80), trusted=host in trust.hosts)
    headers = {
        "Host": target.netloc.decode(),
        "Accept-Encoding": "identity",
        "User-Agent": "Tidegate/0.1",
        "Connection": "close",
    }
    if known.startswith(("W/", '"')):
        headers["If-None-Match"] = known
    elif known:
        headers["If-Modified-Since"] = known
    pinned = target.copy_with(host=str(address), userinfo=b"")
    return client.build_request("GET", pinned, headers=headers, extensions={"sni_hostname": host})


async def _address(host: str, port: int, *, trusted: bool) -> IPv4Address | IPv6Address:
    """The first of the host's addresses. Raises NotFetched where one of them is private: such a name is not to be believed."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotFetched(f"{host} is not known") from None
    addresses = [ip_address(each[4][0]) for each in found]
    if not trusted and (private := next((each for each in addresses if not public(each)), None)):
        raise NotFetched(f"{host} has the address {private}, which is not on the public internet")
    return addresses[0]


def public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the whole internet can reach this address. What carries an IPv4 address is as that one is."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or _nat64(address)
        if inner is not None:
            return public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _nat64(address: IPv6Address) -> IPv4Address | None:
    """The address behind the well-known prefix 64:ff9b::/96 (RFC 6052)."""
    return IPv4Address(int(address) & 0xFFFFFFFF) if int(address) >> 32 == 0x64FF9B << 64 else None


def _version(headers: Mapping[str, str]) -> str:
    found = headers.get("etag") or headers.get("last-modified") or ""
    return found if len(found) <= 200 and found.isascii() and found.isprintable() else ""


async def _write(answer: httpx2.Response, into: IO[bytes]) -> None:
    size = 0
    async for piece in answer.aiter_raw():
        size += len(piece)
        if size > BYTES:
            raise NotFetched(f"it is larger than {BYTES >> 20} MiB")
        into.write(piece)
    into.flush()
