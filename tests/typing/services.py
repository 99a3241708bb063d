"""Services and events that a strict checker must reject: each line marked `# reject` is one that it must."""

from collections.abc import AsyncIterator
from typing import assert_never

from tidegate.api.events import Events
from tidegate.api.groups import GroupList
from tidegate.api.keys import Key, KeyList, Keys
from tidegate.api.session import Session
from tidegate.events import DaemonStarted, DaemonStopped, Entry, Event, KeyCreated, KeyRevoked, Notice


class Forgetful(Keys):
    async def list(self) -> KeyList:
        return KeyList((), 0)


class Drifted(Keys):
    async def list(self) -> GroupList:  # reject
        raise AssertionError

    async def revoke(self, key_id: int) -> Key:  # reject
        raise AssertionError


class NotAStream(Events):
    async def follow(  # reject
        self, since: int | None = None, types: str | None = None, router: str | None = None, info_hash: str | None = None
    ) -> Notice:
        raise AssertionError


class Stream(Events):
    async def follow(
        self, since: int | None = None, types: str | None = None, router: str | None = None, info_hash: str | None = None
    ) -> AsyncIterator[Notice]:
        yield Notice()


def wire() -> None:
    Forgetful()  # reject
    session: Session = Stream()  # reject
    print(session)


def tell(entry: Entry) -> str:
    print(entry.event.key_id)  # reject
    match entry.event:
        case KeyCreated(name=name) | KeyRevoked(name=name):
            return name
        case DaemonStarted(version=version):
            return version
        case DaemonStopped():
            return ""
        case rest:
            assert_never(rest)  # reject


def number(event: Event) -> int:
    return event  # reject
