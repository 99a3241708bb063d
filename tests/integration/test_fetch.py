"""Fetching lists from servers that are slow, large, moved, private, not who they say they are, or down."""

from __future__ import annotations

import asyncio
import datetime
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.swarm import PATIENCE, service
from tidegate.daemon import fetch as fetching
from tidegate.daemon.fetch import Fetched, NotFetched, Trust, fetch, public
from tidegate.daemon.filterlists import RETRIES
from tidegate.daemon.listsource import ListSettings, sources
from tidegate.errors import Invalid

pytestmark = pytest.mark.anyio

LIST = b"Liar:203.0.113.0-203.0.113.9\n"
OURS = Trust(frozenset({"localhost", "127.0.0.1"}))

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each request with what `says` has for its path; `asked` are the requests' heads."""

    scheme: str = "http"
    port: int = 0
    says: dict[str, bytes | Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str = "/list", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            said = self.says[head.split()[1]]
            if isinstance(said, bytes):
                writer.write(said)
            else:
                await said(writer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ok(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", "")).encode() + body


def moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None, **says: bytes | Answer) -> AsyncIterator[Server]:
    server = Server("https" if context else "http", says={f"/{name}": said for name, said in says.items()})
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()


async def fetched(url: str, trust: Trust = OURS, known: str = "", seconds: float = PATIENCE) -> tuple[Fetched, bytes]:
    into = io.BytesIO()
    return await fetch(url, into, known, trust, seconds), into.getvalue()


async def refused(url: str, trust: Trust = OURS, seconds: float = PATIENCE) -> str:
    with pytest.raises(NotFetched) as caught:
        await fetched(url, trust, seconds=seconds)
    return str(caught.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody has signed but itself, and a server's side of it."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, folder / "key.pem")
    return file, context


async def test_a_trusted_host_is_fetched_from_and_asked_for_changes_alone_afterwards() -> None:
    async with serving(list=ok(LIST, 'ETag: "v1"'), same=b"HTTP/1.1 304 Not Modified\r\n\r\n") as server:
        assert await fetched(server.url()) == (Fetched('"v1"'), LIST)
        assert await fetched(server.url("/same"), known='"v1"') == (Fetched('"v1"', unchanged=True), b"")
        await fetched(server.url(), known="Sun, 22 Nov 2026 10:00:00 GMT")
    assert "If-None-Match" not in server.asked[0]
    assert 'If-None-Match: "v1"' in server.asked[1]
    assert "If-Modified-Since: Sun, 22 Nov 2026 10:00:00 GMT" in server.asked[2]
    assert all(f"Host: localhost:{server.port}" in head for head in server.asked)


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_that_we_trust_is_checked_by_name(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    file, context = certificate
    async with serving(context, list=ok(LIST)) as server:
        assert "certificate" in (await refused(server.url())).lower()
        trusting = Trust(OURS.hosts, file)
        assert (await fetched(server.url(), trusting))[1] == LIST
        assert "certificate" in (await refused(server.url(host="127.0.0.1"), trusting)).lower(), "it is another's"
        assert "can't be read" in await refused(server.url(), Trust(OURS.hosts, file.with_name("none.pem")))


async def test_what_is_private_or_unprotected_is_not_asked_unless_it_is_trusted() -> None:
    async with serving(list=ok(LIST)) as server:
        assert "only https" in await refused(server.url(), Trust())
        for host in ("localhost", "127.0.0.1", "[::1]", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::ffff:127.0.0.1]"):
            assert "not on the public internet" in await refused(f"https://{host}:{server.port}/list", Trust())
        assert not server.asked
        assert "only https" in await refused("ftp://localhost/list")
        assert "only https" in await refused("file:///etc/passwd")


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("2002:0a00:0001::", False),  # 6to4 of 10.0.0.1
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("::ffff:192.168.1.1", False),
    ],
)
def test_which_addresses_are_public(address: str, reachable: bool) -> None:
    assert public(ip_address(address)) == reachable


async def test_three_redirections_are_followed_and_each_is_looked_at_anew() -> None:
    async with serving(list=ok(LIST)) as server:
        server.says |= {f"/hop{n}": moved(f"/hop{n + 1}") for n in range(3)}
        server.says["/hop3"] = moved("list")
        assert "more than 3" in await refused(server.url("/hop0"))
        assert (await fetched(server.url("/hop1")))[1] == LIST
        for to in (
            "http://10.0.0.1/list",
            "file:///etc/passwd",
            "//192.168.1.1/",
            "https://192.168.1.1/",
            "gopher://localhost/",
        ):
            server.says["/away"] = moved(to)
            assert await refused(server.url("/away")) != ""
        server.says["/away"] = moved("https://192.168.1.1/list")
        assert "192.168.1.1, which is not on the public internet" in await refused(server.url("/away"))
        server.says["/away"] = moved("http://localhost:x/")
        assert "no URL" in await refused(server.url("/away"))


async def test_a_server_that_drips_sends_too_much_or_says_no_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(1 << 20))
            await writer.drain()

    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE)

    monkeypatch.setattr(fetching, "BYTES", 4 << 20)
    async with serving(drip=drip, flood=flood, silence=silence, no=b"HTTP/1.1 404 Not Found\r\n\r\n", junk=b"\0\1\2") as server:
        assert "did not come within" in await refused(server.url("/drip"), seconds=0.5)
        assert "did not come within" in await refused(server.url("/silence"), seconds=0.5)
        assert "larger than 4 MiB" in await refused(server.url("/flood"))
        assert "answers 404" in await refused(server.url("/no"))
        assert "could not be fetched" in await refused(server.url("/junk"))
        port = server.port
    assert "could not be fetched" in await refused(f"http://localhost:{port}/list")
    assert "is not known" in await refused("https://does-not-exist.invalid/list")


# ── sources that refresh


async def test_a_list_from_a_url_is_loaded_by_itself_and_survives_its_servers_faults(tmp_path: Path) -> None:
    async with serving(list=ok(LIST, 'ETag: "v1"')) as server:
        settings = ListSettings(sources([f"remote={server.url()}"]), str(tmp_path / "lists"), tuple(OURS.hosts))
        async with service(tmp_path, lists=settings) as here:
            async with asyncio.timeout(PATIENCE):
                while not (stats := await here.security.get_ip_filter_stats()).total_rules:
                    await asyncio.sleep(0.02)
            due = stats.stats.sources[0].next_load
            assert due is not None
            assert due > datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=12)
            server.says["/list"] = b"HTTP/1.1 304 Not Modified\r\n\r\n"
            assert (await here.security.load_ip_filter()).sources[0].unchanged
            server.says["/list"] = ok(b"<html>gone</html>")
            await asyncio.gather(here.security.load_ip_filter(), return_exceptions=True)
            stats = await here.security.get_ip_filter_stats()
            assert stats.total_rules == 1, "what is in force stays in force"
            assert "none of its" in (stats.stats.sources[0].last_error or "")
            again = stats.stats.sources[0].next_load
            assert again is not None
            assert again < datetime.datetime.now(datetime.UTC) + RETRIES[0], "a failure is tried again soon"
        asked = len(server.asked)
        async with service(tmp_path, lists=settings) as next_life:
            assert (await next_life.security.get_ip_filter_stats()).total_rules == 1
        assert len(server.asked) == asked, "a restart asks nobody: the list is not old yet"


@pytest.mark.parametrize(
    "text",
    ["nothing", "=file", "Name=file", "a=../etc/passwd", "a=/etc/passwd", "a=", "a=ftp://x/y", "a=https://x y"],
)
def test_a_source_that_can_not_be_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        sources(["good=file.txt", text, "good=twice"])
    assert [fault.at for fault in caught.value.faults] == ["torrent.ip_filter"] * 2
    assert repr(text) in caught.value.faults[0].why
