"""The mechanics of a contract, on a small one: what holds in-process must hold over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import httpx2
import pytest

from tests.harbour import Berth, Berths, Harbour, HarbourService
from tidegate.contract import Scope, codec, commands, get, post
from tidegate.contract.client import Address, AsyncLine, remote
from tidegate.contract.executor import Executor
from tidegate.contract.guard import KeyedDoor, OpenDoor, Principal
from tidegate.contract.serve import application
from tidegate.errors import Conflict, Fault, Forbidden, Invalid, Malformed, NotFound, TidegateError, Unauthorized
from tidegate.policy.device import IpAddress, Label, MacAddress

pytestmark = pytest.mark.anyio


def http(app: Any, **headers: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://harbour", headers=headers)


@pytest.fixture(params=["in-process", "http"])
async def harbour(request: pytest.FixtureRequest) -> AsyncIterator[Harbour]:
    service = HarbourService()
    if request.param == "in-process":
        yield service
        return
    app = application([(Harbour, service)], OpenDoor("local:0", Scope.ADMIN))
    line = AsyncLine(Address("http://harbour"), httpx2.ASGITransport(app))
    yield remote(Harbour, line)
    await line.close()


async def test_what_was_moored_is_listed(harbour: Harbour) -> None:
    berth = Berth(Label("Albatros"), MacAddress("02:AA:00:00:00:01"), (1.5, 2))
    assert await harbour.moor(3, berth) == berth
    assert await harbour.list() == Berths((berth,), 1)
    assert await harbour.list(limit=0) == Berths((), 1)
    assert await harbour.list(afloat=False) == Berths((), 1)


async def test_a_taken_berth_is_a_conflict_with_its_facts(harbour: Harbour) -> None:
    await harbour.moor(3, Berth(Label("Albatros")))
    with pytest.raises(Conflict, match="berth 3 is taken") as caught:
        await harbour.moor(number=3, berth=Berth(Label("Möwe")))
    assert caught.value.facts == {"by": "Albatros"}


async def test_a_part_of_what_is_there_is_changed(harbour: Harbour) -> None:
    await harbour.moor(3, Berth(Label("Albatros"), draughts=(2.0,)))
    assert await harbour.rename(3, Label("Möwe")) == Berth(Label("Möwe"), draughts=(2.0,))
    with pytest.raises(NotFound, match="berth 4 is free"):
        await harbour.rename(4, Label("Möwe"))


async def test_a_fault_arrives_with_its_place(harbour: Harbour) -> None:
    with pytest.raises(Invalid) as caught:
        await harbour.moor(11, Berth(Label("Albatros")))
    assert caught.value.faults == (Fault("path/number", "0 to 9"),)


async def test_raw_bytes_arrive_as_they_were_sent(harbour: Harbour) -> None:
    assert await harbour.photograph(1, b"\x00\xff" * 400) == 800


async def test_an_address_in_a_path_is_canonical(harbour: Harbour) -> None:
    assert await harbour.nearest(IpAddress("2001:DB8::0:1")) == "v6"


@pytest.fixture
def app() -> Any:
    def authenticate(key: str | None, peer: str) -> Principal:
        scopes = {"reader": Scope.READ, "boss": Scope.ADMIN}
        if key not in scopes:
            raise Unauthorized("no such key")
        return Principal(f"key:{key}", scopes[key], lambda: True)

    return application([(Harbour, HarbourService())], KeyedDoor(authenticate, ["harbour"]))


async def problem_of(reply: httpx2.Response) -> dict[str, Any]:
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["status"] == reply.status_code
    assert document["request"] == reply.headers["x-request-id"]
    return dict(document)


async def test_every_fault_of_a_body_is_named_at_once_with_its_place(app: Any) -> None:
    async with http(app, Authorization="Bearer boss") as client:
        body = {"ship": "", "mac": "zz", "draughts": [1, "deep"], "colour": "red"}
        problem = await problem_of(await client.post("/api/v1/berths/x", json=body))
    places = {fault["at"] for fault in problem["faults"]}
    assert problem["status"] == 422
    assert {"path/number", "body/ship", "body/mac", "body/draughts/1", "body"} <= places
    assert any("colour" in fault["why"] for fault in problem["faults"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 100_00 + b"]" * 100_00, 400),
        (b'{"a":' * 40 + b"1" + b"}" * 40, 400),
        (b'{"ship": "A", "ship": "B"}', 400),
        (b'{"ship": "A", "draughts": [NaN]}', 400),
        (b'{"ship": "A", "draughts": [1e999]}', 400),
        (b'{"ship": "A", "draughts": [99999999999999999999]}', 400),
        (b'{"ship": "\\ud800"}', 400),
        (b'{"ship": "\xff"}', 400),
        (b'{"ship": "\xed\xa0\x80"}', 400),
        ('{"ship": "A"}'.encode("utf-16"), 400),
        ('{"ship": "A"}'.encode("utf-16-le"), 400),
        ('{"ship": "A"}'.encode("utf-32-be"), 400),
        ('{"ship": "A"}'.encode("utf-8-sig"), 400),
        (b"", 400),
        (b"null", 422),
        (b'{"ship": 5}', 422),
        (b'{"ship": "tab\\there"}', 422),
        (b'{"ship": "A", "mac": "01:00:5e:00:00:01"}', 422),
        (b'{"ship": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
async def test_junk_is_refused_and_nothing_changes(app: Any, body: bytes, status: int) -> None:
    async with http(app, Authorization="Bearer boss") as client:
        reply = await client.post("/api/v1/berths/1", content=body, headers={"content-type": "application/json"})
        assert (await problem_of(reply))["status"] == status
        assert (await client.get("/api/v1/berths")).json() == {"berths": [], "total": 0}


@pytest.mark.parametrize(
    ("query", "at", "why"),
    [
        ("since=9223372036854775808", "query/since", "2^53"),
        ("since=9007199254740992", "query/since", "2^53"),
        ("since=-9007199254740992", "query/since", "2^53"),
        ("since=" + "9" * 5000, "query/since", ""),
        ("within=nan", "query/within", "finite"),
        ("within=inf", "query/within", "finite"),
        ("within=-Infinity", "query/within", "finite"),
        ("within=1e999", "query/within", "range"),
        ("within=1&within=2", "query/within", "more than once"),
        ("within=1&within=1", "query/within", "more than once"),
    ],
)
async def test_a_query_that_no_command_can_mean_is_refused_with_its_place(app: Any, query: str, at: str, why: str) -> None:
    async with http(app, Authorization="Bearer reader") as client:
        problem = await problem_of(await client.get(f"/api/v1/soundings?{query}"))
    assert (problem["status"], [fault["at"] for fault in problem["faults"]]) == (422, [at])
    assert why in problem["faults"][0]["why"]


async def test_the_largest_safe_integer_and_any_finite_number_are_taken(app: Any) -> None:
    async with http(app, Authorization="Bearer reader") as client:
        assert (await client.get("/api/v1/soundings?since=9007199254740991&within=-2.5e3")).json() == -2500


async def test_a_header_that_says_who_is_asked_or_asks_stands_once(app: Any) -> None:
    async with http(app) as client:
        for twice in (
            [("Host", "harbour"), ("Host", "harbour"), ("Authorization", "Bearer boss")],
            [("Host", "evil.example"), ("Host", "harbour"), ("Authorization", "Bearer boss")],
            [("Authorization", "Bearer stranger"), ("Authorization", "Bearer boss")],
        ):
            problem = await problem_of(await client.get("/api/v1/berths", headers=twice))
            assert (problem["status"], "twice" in problem["detail"]) == (400, True)
        fine = [("Authorization", "Bearer boss"), ("Accept", "text/html"), ("Accept", "application/json")]
        assert (await client.get("/api/v1/berths", headers=fine)).status_code == 200


async def test_a_stream_asked_without_an_upgrade_says_that_it_is_one(app: Any) -> None:
    async with http(app, Authorization="Bearer reader") as client:
        reply = await client.get("/api/v1/tides")
    problem = await problem_of(reply)
    assert (problem["status"], problem["detail"]) == (405, "this is a stream: connect with a WebSocket")
    assert reply.headers["upgrade"] == "websocket"


async def test_doors_answer_in_order_host_origin_key_scope(app: Any) -> None:
    async with http(app) as client:

        async def status(verb: str = "GET", path: str = "/api/v1/berths", **headers: str) -> int:
            reply = await client.request(verb, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            await problem_of(reply) if reply.status_code >= 400 else None
            return reply.status_code

        assert await status(host="evil.example") == 421
        assert await status(origin="http://evil.example", authorization="Bearer boss") == 403
        assert await status("POST", sec_fetch_site="cross-site", authorization="Bearer boss") == 403
        assert await status() == 401
        assert await status(authorization="Bearer stranger") == 401
        assert await status(authorization="Basic Ym9zczpib3Nz") == 401
        assert await status(authorization="Bearer reader") == 200
        assert await status(x_ccbt_api_key="reader") == 200
        assert await status("DELETE", "/api/v1/berths/1", authorization="Bearer reader") == 403
        assert await status("DELETE", "/api/v1/berths/1", authorization="Bearer boss") == 404
        assert await status("PATCH", "/api/v1/berths", authorization="Bearer boss") == 405
        assert await status("OPTIONS", "/api/v1/berths", origin="http://harbour", authorization="Bearer boss") == 405
        assert await status(path="/nowhere", authorization="Bearer boss") == 404
        assert await status(path="/nowhere") == 401
        assert await status(path="/openapi.json") == 401
        assert await status(path="/healthz") == 200
        assert await status(path="/api/v1/berths?limt=5", authorization="Bearer reader") == 422


async def test_a_bug_is_a_bare_500_without_internals(app: Any) -> None:
    async with http(app, Authorization="Bearer boss") as client:
        reply = await client.get("/api/v1/broken")
    assert reply.status_code == 500
    assert "shadow" not in reply.text


async def test_a_body_of_another_type_is_unsupported(app: Any) -> None:
    async with http(app, Authorization="Bearer boss") as client:
        reply = await client.post("/api/v1/berths/1", content=b'{"ship":"A"}', headers={"content-type": "text/plain"})
        assert (await problem_of(reply))["status"] == 415


async def test_commands_run_by_name_with_plain_values() -> None:
    executor = Executor([(Harbour, HarbourService())])
    assert executor.names()[0] == "harbour.list"
    moored = await executor.execute("harbour.moor", number=2, berth={"ship": "Albatros"})
    assert moored == Berth(Label("Albatros"))
    assert (await executor.execute("harbour.list")).total == 1
    assert [n async for n in await executor.execute("harbour.tides", count=2)] == [0, 1]
    with pytest.raises(NotFound):
        await executor.execute("harbour.sink")
    with pytest.raises(Invalid) as caught:
        await executor.execute("harbour.moor", berth={"ship": 5}, colour="red")
    assert {fault.at for fault in caught.value.faults} == {"number", "berth/ship", "colour"}


def test_a_contract_that_contradicts_itself_is_refused() -> None:
    class Twice(Protocol):
        @post("/x")
        async def two(self, a: Berth, b: Berth) -> int: ...

    class Missing(Protocol):
        @get("/x/{y}")
        async def nothing(self) -> int: ...

    for contract in (Twice, Missing):
        with pytest.raises(TypeError):
            commands(contract)


def test_json_that_we_write_is_json_that_we_read() -> None:
    berth = Berth(Label("Zoë"), MacAddress("02:00:00:00:00:01"), (1.0,))
    assert codec.decode(codec.encode(berth), Berth) == berth


@pytest.mark.parametrize("kind", [Forbidden, Malformed, NotFound])
def test_failures_are_expected_ones(kind: type[TidegateError]) -> None:
    assert issubclass(kind, TidegateError)
