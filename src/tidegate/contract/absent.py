"""A contract that nobody serves here: every call says why."""

from __future__ import annotations

import types
from typing import Any, TypeVar, cast

from tidegate.contract import commands
from tidegate.errors import Unavailable

C = TypeVar("C")


def absent(contract: type[C], why: str) -> C:
    """An object of the contract's own type whose every command raises Unavailable with that reason."""

    async def call(_self: object, *_args: Any, **_kwargs: Any) -> Any:
        raise Unavailable(why)

    methods = {command.method: call for command in commands(contract)}
    kind = types.new_class(f"Absent{contract.__name__}", (contract,), exec_body=lambda body: body.update(methods))
    return cast(C, kind())
