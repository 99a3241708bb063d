"""What holds for every command, read from the contracts: nobody keeps a second list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tidegate import errors, events
from tidegate.api import Tidegate
from tidegate.contract import Command, Scope, areas, codec, commands
from tidegate.contract.guard import KeyedDoor, Principal
from tidegate.contract.openapi import document
from tidegate.contract.problems import STATUS, failure, problem
from tidegate.contract.serve import PREFIX, application
from tidegate.errors import TidegateError, Unauthorized
from tidegate.events import KINDS

pytestmark = pytest.mark.anyio

EVERY = [(contract, command) for contract, _ in areas(Tidegate) for command in commands(contract)]
COMMANDS = [command for _, command in EVERY]
GOLDEN = Path(__file__).parents[2] / "docs" / "openapi.json"


def by_name(command: Command) -> str:
    return command.name


class Nobody:
    """A service that would show up if a request reached it."""

    def __getattr__(self, name: str) -> Any:
        async def reached(**arguments: object) -> None:
            raise AssertionError(f"{name} was reached with {arguments}")

        return reached


def daemon() -> httpx2.AsyncClient:
    scopes = {"read": Scope.READ, "operate": Scope.OPERATE, "admin": Scope.ADMIN}

    def authenticate(key: str | None, peer: str) -> Principal:
        if key not in scopes:
            raise Unauthorized("no valid key")
        return Principal(f"key:{key}", scopes[key], lambda: True)

    app = application([(contract, Nobody()) for contract, _ in areas(Tidegate)], KeyedDoor(authenticate, ["d"]))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://d")


def path_of(command: Command, junk: str = "%00") -> str:
    return PREFIX + command.path.format(**dict.fromkeys(command.path_parameters, junk))


def test_names_and_routes_are_unique() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)
    assert len({(command.verb, command.path) for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=by_name)
def test_a_command_explains_itself(command: Command) -> None:
    assert len(command.summary) > 20 or command.summary.endswith(".")
    assert command.summary.endswith((".", "?")) or "\n" in command.doc


@pytest.mark.parametrize("command", COMMANDS, ids=by_name)
def test_what_changes_something_says_which_event_tells_of_it(command: Command) -> None:
    assert bool(command.emits) == command.changes
    assert not (command.changes and command.verb == "GET")
    assert all(kind in KINDS.values() for kind in command.emits)
    assert command.scope >= (Scope.OPERATE if command.changes else Scope.READ)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.streams], ids=by_name)
async def test_no_key_no_answer(command: Command) -> None:
    async with daemon() as client:
        for headers in ({}, {"Authorization": "Bearer stranger"}, {"X-CCBT-API-Key": "stranger"}):
            reply = await client.request(command.verb, path_of(command, "x"), headers=headers, content=b"{" * 100_000)
            assert reply.status_code == 401
            assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.scope > Scope.READ and not c.streams], ids=by_name)
async def test_too_small_a_scope_is_forbidden_before_the_body_is_read(command: Command) -> None:
    smaller = Scope(command.scope - 1).name.lower()
    async with daemon() as client:
        headers = {"Authorization": f"Bearer {smaller}"}
        reply = await client.request(command.verb, path_of(command, "x"), headers=headers, content=b"{" * 100_000)
    assert reply.status_code == 403
    assert reply.json()["needs"] == command.scope.name.lower()


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.streams], ids=by_name)
async def test_junk_is_answered_with_every_fault_and_never_reaches_the_service(command: Command) -> None:
    headers = {"Authorization": "Bearer admin"}
    content = None
    if command.body and not command.body.raw:
        headers["Content-Type"] = "application/json"
        content = b'{"nonsense": [true]}'
    async with daemon() as client:
        path = path_of(command, "%00%ff") + "?nonsense=1"
        reply = await client.request(command.verb, path, headers=headers, content=content)
    assert reply.status_code == 422
    places = {fault["at"].partition("/")[0] for fault in reply.json()["faults"]}
    assert "query" in places
    assert "body" in places or content is None


def test_the_openapi_document_is_the_golden_one() -> None:
    """A changed API is a visible diff. Write it anew with `python -m tests.golden`."""
    made = document([contract for contract, _ in areas(Tidegate)], PREFIX)
    assert made["openapi"] == "3.1.0"
    assert json.loads(GOLDEN.read_text()) == json.loads(codec.encode(made))


def test_every_failure_has_one_status_and_survives_the_wire() -> None:
    kinds = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, TidegateError)} - {TidegateError}
    assert kinds == STATUS.keys()
    for kind in kinds:
        raised = kind("because", place=3)
        back = failure(json.loads(json.dumps(problem(raised, "r1"))))
        assert (type(back), back.detail, back.facts) == (kind, "because", {"place": 3})


def test_every_event_survives_the_wire() -> None:
    samples: dict[str, Any] = {"str": "text", "int": 3, "bool": True, "tuple[str, ...]": ("a", "b"), "str | None": None}
    for name, kind in KINDS.items():
        event = kind(**{field: samples[str(hint)] for field, hint in kind.__annotations__.items()})
        data = json.loads(codec.encode(events.data_of(event)))
        assert events.event_from(name, data) == event
