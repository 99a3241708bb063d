"""What a contract is, and what can be read from one.

A contract is a `Protocol` class of typed async methods, each marked with its route. Everything else - the HTTP route, the
typed client, the command line, the executor's name, the OpenAPI operation, the audit entry - is read from that one
declaration by `commands()`. This file knows no framework: `api/` imports only it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

Method = TypeVar("Method", bound=Callable[..., Any])

BODY_LIMIT = 64 * 1024  # bytes of a JSON body; SEC-16


class Scope(IntEnum):
    """What a key may do; each includes those below it."""

    READ = 1
    OPERATE = 2
    ADMIN = 3


READ, OPERATE, ADMIN = Scope


@dataclass(frozen=True, slots=True)
class Media:
    """Marks a `bytes` parameter as the raw request body: `Annotated[bytes, Media("application/x-bittorrent", 4 << 20)]`."""

    type: str
    limit: int


@dataclass(frozen=True, slots=True)
class Body:
    """The parameter that travels as the request's body."""

    name: str
    type: Any
    media: Media
    required: bool

    @property
    def raw(self) -> bool:
        return self.media.type != "application/json"


@dataclass(frozen=True, slots=True)
class _Route:
    verb: str
    path: str
    scope: Scope
    emits: tuple[type, ...]
    streams: bool = False
    limit: int = BODY_LIMIT
    long: bool = False
    changes: bool = False


@dataclass(frozen=True)
class Command:
    """What one contract method says about itself."""

    area: str  # "groups"
    method: str  # "sync_group"
    verb: str  # "POST"; "GET" for a stream, which upgrades to a WebSocket
    path: str  # below the prefix, with the path parameters in braces
    doc: str
    scope: Scope
    emits: tuple[type, ...]
    streams: bool
    changes: bool  # whether anything is another afterwards: such a command emits events
    long: bool  # may take more than a few seconds: the command line follows it as an operation
    parameters: dict[str, inspect.Parameter]  # resolved, without self
    path_parameters: tuple[str, ...]
    query_parameters: tuple[str, ...]
    body: Body | None
    returns: Any  # of a stream: the type of one item

    @property
    def name(self) -> str:
        """The executor's and the audit's name: `groups.sync_group`."""
        return f"{self.area}.{self.spoken}"

    @property
    def spoken(self) -> str:
        """The method's name as people say it: Python can't call one `import`, so that is `import_`."""
        return self.method.removesuffix("_")

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]


def _verb(verb: str, default: Scope) -> Callable[..., Callable[[Method], Method]]:
    def at(
        path: str,
        *,
        scope: Scope = default,
        emits: tuple[type, ...] = (),
        limit: int = BODY_LIMIT,
        long: bool = False,
        changes: bool = verb != "GET",
    ) -> Callable[[Method], Method]:
        """`changes=False`: the body is a question, sent with POST only because it does not fit a query."""

        def mark(method: Method) -> Method:
            route = _Route(verb, path, scope, emits, limit=limit, long=long, changes=changes)
            method.__route__ = route  # type: ignore[attr-defined]
            return method

        return mark

    return at


get = _verb("GET", READ)
post = _verb("POST", OPERATE)
put = _verb("PUT", OPERATE)
patch = _verb("PATCH", OPERATE)
delete = _verb("DELETE", OPERATE)


def stream(path: str, *, scope: Scope = READ) -> Callable[[Method], Method]:
    """A method that returns an async iterator: a WebSocket on the server, `async for` at the client."""

    def mark(method: Method) -> Method:
        method.__route__ = _Route("GET", path, scope, (), streams=True)  # type: ignore[attr-defined]
        return method

    return mark


def commands(contract: type) -> tuple[Command, ...]:
    """Every command of a contract, in the order of their declaration. A contract that contradicts itself is a TypeError."""
    return _commands(contract)


def areas(holder: Any) -> list[tuple[type, Any]]:
    """The contracts that a dataclass's fields are annotated with, each with what its field holds (of a class: None)."""
    hints = get_type_hints(holder if isinstance(holder, type) else type(holder))
    return [(hints[field.name], None if isinstance(holder, type) else getattr(holder, field.name)) for field in fields(holder)]


@cache
def _commands(contract: type) -> tuple[Command, ...]:
    return tuple(
        _command(contract, name, function) for name, function in vars(contract).items() if getattr(function, "__route__", None)
    )


def area(contract: type) -> str:
    """The contract's name in routes and commands: class `Groups` is area `groups`."""
    return contract.__name__.lower()


def _command(contract: type, method: str, function: Callable[..., Any]) -> Command:
    route: _Route = function.__route__  # type: ignore[attr-defined]
    hints = get_type_hints(function, include_extras=True)
    returns = hints.pop("return", None)
    parameters = {
        name: parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }
    in_path = tuple(re.findall(r"{(\w+)}", route.path))
    bodies = [body for name, p in parameters.items() if name not in in_path and (body := _body(name, p, route.limit))]
    where = f"{contract.__name__}.{method}"
    if len(bodies) > 1:
        raise TypeError(f"{where}: one body at most")
    if not set(in_path) <= set(parameters):
        raise TypeError(f"{where}: {route.path} names a parameter that the method does not have")
    if route.streams:
        if get_origin(returns) is not AsyncIterator:
            raise TypeError(f"{where}: a stream returns an AsyncIterator")
        (returns,) = get_args(returns)
    return Command(
        area=area(contract),
        method=method,
        verb=route.verb,
        path=route.path,
        doc=inspect.getdoc(function) or "",
        scope=route.scope,
        emits=route.emits,
        streams=route.streams,
        changes=route.changes,
        long=route.long,
        parameters=parameters,
        path_parameters=in_path,
        query_parameters=tuple(n for n in parameters if n not in in_path and n not in {b.name for b in bodies}),
        body=bodies[0] if bodies else None,
        returns=returns,
    )


def _body(name: str, parameter: inspect.Parameter, limit: int) -> Body | None:
    kind = parameter.annotation
    required = parameter.default is inspect.Parameter.empty
    if get_origin(kind) is Annotated:
        media = next((extra for extra in get_args(kind)[1:] if isinstance(extra, Media)), None)
        return Body(name, bytes, media, required) if media else None
    alternatives = [k for k in get_args(kind) if k is not type(None)] if _is_union(kind) else [kind]
    if len(alternatives) == 1 and _is_record(alternatives[0]):
        return Body(name, alternatives[0], Media("application/json", limit), required)
    return None


def _is_union(kind: Any) -> bool:
    return get_origin(kind) is Union or type(kind).__name__ == "UnionType"


def _is_record(kind: Any) -> bool:
    """A dataclass or a msgspec Struct: what travels as a JSON object."""
    return isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "__struct_fields__"))
