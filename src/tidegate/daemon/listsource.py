"""Where lists of addresses come from, as the settings say it: `NAME=FILE` or `NAME=URL`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.api.security import ListName
from tidegate.daemon.jail import steps
from tidegate.errors import Fault, Invalid


@dataclass(frozen=True, slots=True)
class ListSource:
    """A list by name. `origin` is a URL, or a file in the folder of lists."""

    name: str
    origin: str

    @property
    def is_url(self) -> bool:
        return "://" in self.origin


@dataclass(frozen=True, slots=True)
class ListSettings:
    """All of it. `folder` has the lists that are files; `hosts` and `authority` as in `fetch.Trust`."""

    sources: tuple[ListSource, ...] = ()
    folder: str = "lists"
    hosts: tuple[str, ...] = ()
    authority: str | None = None
    refresh_hours: int = 24


NO_LISTS = ListSettings()


def sources(texts: Sequence[str]) -> tuple[ListSource, ...]:
    """The sources that the settings name. Raises Invalid with every fault."""
    found: list[ListSource] = []
    faults: list[Fault] = []
    for text in texts:
        try:
            source = _source(text)
            if any(each.name == source.name for each in found):
                raise ValueError(f"the name {source.name} is there twice")
            found.append(source)
        except ValueError as error:
            faults.append(Fault("torrent.ip_filter", f"{text[:80]!r}: {error}"))
    if faults:
        raise Invalid("these lists of addresses can't be used", faults)
    return tuple(found)


def _source(text: str) -> ListSource:
    name, equals, origin = text.partition("=")
    if not equals:
        raise ValueError("NAME=FILE or NAME=URL")
    if "://" in origin:
        if not re.fullmatch(r"https?://[!-~]+", origin, re.IGNORECASE):
            raise ValueError("a URL begins with https:// and has no blanks")
    else:
        steps(origin)
    return ListSource(str(ListName(name)), origin)
