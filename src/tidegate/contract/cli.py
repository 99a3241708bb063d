"""Contracts on a command line: `tidegate groups sync-group home 1 Kids --bandwidth-policy.limit-mbps 20`.

Each command of each contract becomes `AREA COMMAND`: what has no default is positional, the rest are options. Exit status:
0 done, 1 refused (the problem is on standard error), 2 wrong usage, 3 no daemon, 130 ended by Ctrl-C, 141 nobody reads it.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, get_args, get_origin, get_type_hints

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from tidegate.contract import Command, area, codec, commands
from tidegate.contract.client import DEFAULT_URL, Address, AsyncLine, call_with_progress, remote
from tidegate.contract.problems import problem
from tidegate.contract.tables import Uncut, harmless, render
from tidegate.errors import Invalid, Malformed, NoDaemon, TidegateError

REFUSED, WRONG_USAGE, NO_DAEMON = 1, 2, 3
INTERRUPTED, NOBODY_READS = 130, 141  # as a shell shows an end by SIGINT and by SIGPIPE

T = TypeVar("T")
Work = Callable[[AsyncLine], Coroutine[Any, Any, T]]


class Unwritable(Exception):
    """What was to be said can't be: `left` if nobody reads any more, else the disk is full, or the like."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.left = isinstance(error, BrokenPipeError)


class Screen(Console):
    """A console that raises Unwritable."""

    def print(self, *objects: Any, **how: Any) -> None:
        try:
            super().print(*objects, **how)
        except OSError as error:
            raise Unwritable(error) from None

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = Screen(highlight=False, soft_wrap=False)
err = Screen(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Target:
    """Which daemon is asked, and how the answer is shown."""

    url: Annotated[str | None, Parameter(env_var="TIDEGATE_URL", help="the daemon's URL")] = None
    key: Annotated[str | None, Parameter(env_var="TIDEGATE_KEY", help="the API key to show")] = None
    socket: Annotated[str | None, Parameter(env_var="TIDEGATE_SOCKET", help="the daemon's unix socket; needs no key")] = None
    json: Annotated[bool, Parameter(negative="", help="print JSON")] = False

    def address(self, default_socket: Callable[[], Path]) -> Address:
        """The socket of the daemon on this machine, unless a URL or a key says otherwise. Raises Invalid."""
        if self.socket:
            return Address(socket=self.socket)
        if self.url:
            return Address(self.url, None, self.key)
        default = default_socket()  # looked up with a key too: settings that can't be read are told, not passed over
        if not self.key and default.exists():
            return Address(socket=str(default))
        return Address(DEFAULT_URL, None, self.key)


ToTarget = Annotated[Target, Parameter(name="*", group="Daemon")]


def add_commands(
    app: App, contracts: Sequence[type], default_socket: Callable[[], Path], by_hand: Collection[str] = ()
) -> dict[str, App]:
    """One sub-command per area and one below it per command, but for those written `by_hand`. Returns the areas' apps."""
    apps: dict[str, App] = {}
    for contract in contracts:
        name = area(contract)
        names = (name, name.removesuffix("s")) if name.endswith("s") else (name,)
        group = apps[name] = App(name=names, help=inspect.getdoc(contract))
        app.command(group)
        for command in (each for each in commands(contract) if each.name not in by_hand):
            group.command(_entry(contract, command, default_socket), name=command.spoken.replace("_", "-"))
    return apps


def _entry(contract: type, command: Command, default_socket: Callable[[], Path]) -> Callable[..., int]:
    """A function with the signature that the command line is read from, and that runs the command."""

    def entry(*given: Any, to: Target = Target(), **typed: Any) -> int:
        by_name = dict(zip((p.name for p in positional), given, strict=False)) | typed
        return run(lambda line: _run(contract, command, to, line, by_name), to, default_socket)

    parameters = [
        *_parameters(command),
        inspect.Parameter("to", inspect.Parameter.KEYWORD_ONLY, annotation=ToTarget, default=Target()),
    ]
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keyword = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    entry.__signature__ = inspect.Signature([*positional, *keyword])  # type: ignore[attr-defined]
    entry.__annotations__ = {p.name: p.annotation for p in parameters}
    entry.__doc__ = command.doc.partition("Raises ")[0]  # a shell has its exit status instead
    return entry


def _parameters(command: Command) -> list[inspect.Parameter]:
    found = []
    for name, parameter in command.parameters.items():
        if command.body is None or name != command.body.name:
            found.append(_parameter(name, parameter.annotation, parameter.default))
        elif command.body.raw:
            found.append(_parameter(name, A_FILE, parameter.default))
        else:
            hints = get_type_hints(command.body.type, include_extras=True)
            for field in fields(command.body.type):
                plain = field.default if field.default_factory is MISSING else field.default_factory()
                found.append(_parameter(field.name, hints[field.name], inspect.Parameter.empty if plain is MISSING else plain))
    return found


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    required = default is inspect.Parameter.empty
    how = inspect.Parameter.POSITIONAL_OR_KEYWORD if required else inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, how, default=default, annotation=_readable(kind))


def _readable(kind: Any) -> Any:
    """The type with how its text is read, where it is one of ours; cyclopts reads the others itself."""
    if _is_list_of_records(kind):
        return Annotated[kind, AS_JSON]
    return Annotated[kind, OWN] if _reader(kind) else kind


def _is_list_of_records(kind: Any) -> bool:
    """What no flags can spell, unless the record has a text form of its own."""
    item = get_args(kind)[0] if get_origin(kind) is tuple else None
    return is_dataclass(item) and not hasattr(item, "from_text")


def _from_json(kind: Any, tokens: Sequence[Any]) -> Any:
    """JSON as it stands on the command line, in a file (`@groups.json`), or on standard input (`@-`).

    Raises ValueError, which the command line reports as wrong usage, with every fault and its place.
    """
    (token,) = tokens
    text: str | bytes = token.value
    try:
        if token.value.startswith("@"):
            text = read_file(Path(token.value[1:]), JSON_LIMIT)
        return codec.read_body(text.encode() if isinstance(text, str) else text, kind)
    except Invalid as invalid:
        raise ValueError("; ".join(f"{fault.at}: {fault.why}" for fault in invalid.faults) or invalid.detail) from None
    except Malformed as malformed:
        raise ValueError(malformed.detail) from None


def _reader(kind: Any) -> Callable[[str], Any] | None:
    """How a type of ours reads its text: its own `from_text`, or the form that it has in JSON."""
    alternatives = [k for k in (get_args(kind) or (kind,)) if k not in (type(None), ...)]
    if len(alternatives) != 1:
        return None
    return getattr(alternatives[0], "from_text", None) or getattr(alternatives[0], "from_wire", None)


def _convert(kind: Any, tokens: Sequence[Any]) -> Any:
    read = _reader(kind)
    assert read is not None, kind
    values = tuple(read(token.value) for token in tokens)
    return values if get_origin(kind) is tuple else values[0]


AS_JSON = Parameter(
    converter=_from_json,
    n_tokens=1,
    negative="",
    accepts_keys=False,
    json_list=False,
    help="JSON, @FILE, or @- for standard input",
)
A_FILE = Annotated[Path, Parameter(allow_leading_hyphen=True, help="a file, or - for standard input")]
JSON_LIMIT = 8 << 20
OWN = Parameter(converter=_convert, n_tokens=1, negative="", accepts_keys=False)  # for parameters of our own types


async def _run(contract: type, command: Command, to: Target, line: AsyncLine, typed: dict[str, Any]) -> None:
    arguments = _arguments(command, typed)
    if command.streams:
        async with aclosing(getattr(remote(contract, line), command.method)(**arguments)) as items:
            async for item in items:
                show(item, to)
    elif command.long and err.is_terminal and not to.json:
        with err.status("asking") as status:
            result = await call_with_progress(command, line, arguments, lambda told: status.update(harmless(told)))
        show(result, to)
    else:
        show(await getattr(remote(contract, line), command.method)(**arguments), to)


def _arguments(command: Command, typed: dict[str, Any]) -> dict[str, Any]:
    """What was typed, as the arguments of the contract's method."""
    body = command.body
    if body is None:
        return typed
    if body.raw:
        path = typed[body.name]
        return {**typed, body.name: read_file(path, body.media.limit)}
    names = {field.name for field in fields(body.type)}
    record = body.type(**{name: value for name, value in typed.items() if name in names})
    return {**{name: value for name, value in typed.items() if name not in names}, body.name: record}


def read_file(path: Path, limit: int) -> bytes:
    """A file, or standard input for `-`. Raises Invalid, also where it is larger than `limit` bytes: it may have no end."""
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as source:
            data = source.read(limit + 1)
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise Invalid(f"{path}: is larger than {limit >> 20} MiB, which is what the daemon takes")
    return data


# ── what a person sees


def show(value: Any, to: Target) -> None:
    """Print an answer, as JSON or as a table."""
    if to.json:
        _write(sys.stdout, codec.encode(value) + b"\n")
    else:
        out.print(render(value) if out.is_terminal else Uncut(render(value)), crop=out.is_terminal)


def _write(stream: TextIO | None, data: bytes) -> None:
    try:
        if stream is None:  # closed before we were started
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        stream.buffer.write(data)
        stream.flush()
    except OSError as error:
        raise Unwritable(error) from None


def run(work: Work[None], to: Target, default_socket: Callable[[], Path]) -> int:
    """Do a command's work; a failure goes to standard error and becomes the exit status."""
    return attempt(lambda address: over(address, work), to, default_socket)


def attempt(steps: Callable[[Address], None], to: Target, default_socket: Callable[[], Path]) -> int:
    """The same for work of several steps, between which a person may be asked: outside the loop, where Ctrl-C ends a prompt."""
    try:
        address = to.address(default_socket)
    except Invalid as error:
        return report(error, to, WRONG_USAGE)
    try:
        steps(address)
    except TidegateError as error:
        return report(error, to)
    return 0


def over(address: Address, work: Work[T]) -> T:
    """What the work gives, done on a line to that address."""

    async def doing() -> T:
        line = AsyncLine(address)
        try:
            return await work(line)
        finally:
            await line.close()

    return asyncio.run(doing())


def report(error: TidegateError, to: Target, status: int | None = None) -> int:
    """Say on standard error what went wrong and where; returns the exit status, which follows from the error if not given."""
    if to.json:
        _write(sys.stderr, codec.encode(problem(error, "")) + b"\n")
    else:
        err.print(f"[red]{escape(harmless(error.detail))}[/red]")
        for fault in error.faults if isinstance(error, Invalid) else ():
            err.print(f"  {escape(harmless(fault.at))}: {escape(harmless(fault.why))}")
    if status is not None:
        return status
    return NO_DAEMON if isinstance(error, NoDaemon) else REFUSED
