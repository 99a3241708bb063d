"""Commands by name, for callers that have names and plain values: `execute("security.get_blacklist")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.contract import codec, commands
from tidegate.errors import Fault, Invalid, NotFound


class Executor:
    """Dispatches by a command's name to the object that serves its contract, in this process or far away."""

    def __init__(self, services: Sequence[tuple[type, Any]]) -> None:
        self._commands = {c.name: (c, service) for contract, service in services for c in commands(contract)}

    def names(self) -> list[str]:
        """Every command's name, in the order of their declaration."""
        return list(self._commands)

    async def execute(self, name: str, /, **arguments: Any) -> Any:
        """Run a command; of a stream the result is its async iterator.

        Arguments may be plain JSON values; raises NotFound for the name, Invalid for the arguments.
        """
        if name not in self._commands:
            raise NotFound(f"no command is called {name[:80]!r}")
        command, service = self._commands[name]
        faults = [Fault(key, "unknown argument") for key in arguments if key not in command.parameters]
        faults += [
            Fault(key, "missing")
            for key, parameter in command.parameters.items()
            if parameter.default is parameter.empty and key not in arguments
        ]
        typed: dict[str, Any] = {}
        for key in arguments.keys() & command.parameters.keys():
            try:
                kind = command.parameters[key].annotation
                typed[key] = arguments[key] if codec.fits(arguments[key], kind) else codec.build(arguments[key], kind, key)
            except Invalid as error:
                faults += error.faults
        if faults:
            raise Invalid(f"the arguments do not fit {name}", faults)
        called = getattr(service, command.method)(**typed)
        return called if command.streams else await called
