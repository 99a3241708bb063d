"""A small contract of its own, on which the mechanics of contracts are tested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

from tidegate.contract import ADMIN, Media, delete, get, patch, post, stream
from tidegate.errors import Conflict, Fault, Invalid, NotFound
from tidegate.policy.device import IpAddress, Label, MacAddress


@dataclass(frozen=True, slots=True)
class Berth:
    ship: Label
    mac: MacAddress | None = None
    draughts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Berths:
    berths: tuple[Berth, ...]
    total: int


class Harbour(Protocol):
    """A harbour."""

    @get("/berths")
    async def list(self, limit: int = 100, afloat: bool = True) -> Berths:
        """All berths."""
        ...

    @post("/berths/{number}", long=True)
    async def moor(self, number: int, berth: Berth) -> Berth:
        """Take a berth."""
        ...

    @post("/berths/{number}/photo")
    async def photograph(self, number: int, photo: Annotated[bytes, Media("image/png", 1000)]) -> int:
        """Keep a picture; answers its size."""
        ...

    @patch("/berths/{number}")
    async def rename(self, number: int, ship: Label) -> Berth:
        """Give the ship of a berth another name."""
        ...

    @delete("/berths/{number}", scope=ADMIN)
    async def clear(self, number: int) -> Berth:
        """Free a berth."""
        ...

    @get("/nearest/{address}")
    async def nearest(self, address: IpAddress) -> str:
        """Where an address would berth."""
        ...

    @get("/soundings")
    async def sound(self, within: float = 1.0, since: int | None = None) -> float:
        """How deep it is, measured within so many seconds."""
        ...

    @get("/broken")
    async def broken(self) -> int:
        """A bug."""
        ...

    @stream("/tides")
    def tides(self, count: int = 3) -> AsyncIterator[int]:
        """The tide as it rises."""
        ...


class HarbourService(Harbour):
    def __init__(self) -> None:
        self.berths: dict[int, Berth] = {}

    async def list(self, limit: int = 100, afloat: bool = True) -> Berths:
        found = tuple(self.berths.values())[:limit] if afloat else ()
        return Berths(found, len(self.berths))

    async def moor(self, number: int, berth: Berth) -> Berth:
        if number in self.berths:
            raise Conflict(f"berth {number} is taken", by=str(self.berths[number].ship))
        if number > 9:
            raise Invalid("no such berth", [Fault("path/number", "0 to 9")])
        self.berths[number] = berth
        return berth

    async def photograph(self, number: int, photo: bytes) -> int:
        return len(photo)

    async def rename(self, number: int, ship: Label) -> Berth:
        if number not in self.berths:
            raise NotFound(f"berth {number} is free")
        self.berths[number] = replace(self.berths[number], ship=ship)
        return self.berths[number]

    async def clear(self, number: int) -> Berth:
        if number not in self.berths:
            raise NotFound(f"berth {number} is free")
        return self.berths.pop(number)

    async def nearest(self, address: IpAddress) -> str:
        return f"v{address.version}"

    async def sound(self, within: float = 1.0, since: int | None = None) -> float:
        return within

    async def broken(self) -> int:
        raise RuntimeError("a secret path /etc/shadow")

    async def tides(self, count: int = 3) -> AsyncIterator[int]:
        for n in range(count):
            yield n
