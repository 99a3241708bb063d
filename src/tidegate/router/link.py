"""The agent of one router: asked over a shell, put there where it is missing or of another version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

from tidegate.errors import Refused, Unavailable
from tidegate.router.agent import TEXT, VERSION
from tidegate.router.aside import FEW_BYTES, aside
from tidegate.router.shell import OUTPUT_LIMIT, Dialogue, Result, Shell
from tidegate.router.statefile import Answer, legible, read_answer

_OURS = b"tidegate-agent "
_END = b"\n--- end\n"
_INSTALL = (
    'umask 022; d={folder}; mkdir -p $d && cat >$d/agent.new && s=$(sha256sum <$d/agent.new) && [ "${{s%% *}}" = {sum} ] '
    "&& sync $d/agent.new && mv $d/agent.new $d/agent"
)


class AgentLink:
    """One exchange at a time; `path` is where the agent is on the router."""

    def __init__(self, shell: Shell, path: str) -> None:
        self._shell = shell
        self._path = path
        self._heard_on: object | None = None
        self.answers = 0  # how often the router has answered
        self.login = ""  # what we may ask for there: the "agent" alone, what "root" may, or nothing said yet

    @property
    def stands(self) -> bool:
        """Whether the line that the last answer came over stands: after a restart the router may be another than it said."""
        return self._shell.line is not None and self._shell.line is self._heard_on

    async def ask(self, verb: str, *arguments: str, stdin: bytes = b"", limit: int = OUTPUT_LIMIT) -> Answer:
        """One exchange, whose answer has at most `limit` bytes. A router that has another version of the agent, a broken one
        or none is given ours first.

        Raises Refused where what answers is no agent of ours; otherwise as `Shell.run` does.
        """
        command = ["/bin/sh", self._path, VERSION, verb, *arguments]
        result = await self._shell.run(command, stdin, limit=limit)
        if not result.out.partition(b"\n")[0].strip() or _of_another_version(result.out):
            await self.install()
            result = await self._shell.run(command, stdin, limit=limit)
        if not result.out.startswith(_OURS):
            raise Refused(f"the router's agent does not answer: {_text(result)}")
        return await self._heard(result.out)

    @asynccontextmanager
    async def talk(self, verb: str, *arguments: str, stdin: bytes) -> AsyncIterator[Exchange]:
        """An exchange in which the agent answers more than once, and listens in between. Raises as `ask` does."""
        command = ["/bin/sh", self._path, VERSION, verb, *arguments]
        async with self._shell.talk(command, stdin) as dialogue:
            first = await dialogue.hear(b"\n")
            if first.strip() and not _of_another_version(first):
                yield Exchange(dialogue, first, self._heard)
                return
        await self.install()
        async with self._shell.talk(command, stdin) as dialogue:
            yield Exchange(dialogue, await dialogue.hear(b"\n"), self._heard)

    async def _heard(self, out: bytes) -> Answer:
        answer = await aside(len(out), FEW_BYTES, read_answer, out)
        if answer.word == "denied":
            raise Refused("the router's agent does not take what was asked of it")
        self.answers += 1
        self._heard_on = self._shell.line
        if (login := answer.sections.get("login", ("", 0))[0]) in ("agent", "root"):
            self.login = login
        return answer

    async def install(self) -> None:
        """Put this version of the agent in place, whole or not at all: through the one that is there, else past it."""
        digest = sha256(TEXT).hexdigest()
        result = await self._shell.run(["/bin/sh", self._path, "-", "install", digest], TEXT)
        if result.out.startswith(_OURS) and read_answer(result.out).word == "ok":
            return
        script = _INSTALL.format(folder=self._path.rpartition("/")[0], sum=digest)
        result = await self._shell.run(["/bin/sh", "-c", script], TEXT)
        if result.status != 0 or result.out:
            raise Refused(f"the agent can't be put onto the router: {_text(result)}")

    async def renew(self) -> None:
        """Go over a new connection from here on; see `Shell.renew`."""
        await self._shell.renew()

    async def knock(self) -> None:
        """Whether a new connection would be let in; see `Shell.knock`."""
        await self._shell.knock()


class Exchange:
    """What the agent says while it does as it was told. `first`: the line that was heard already."""

    def __init__(self, dialogue: Dialogue, first: bytes, heard: Callable[[bytes], Awaitable[Answer]]) -> None:
        self._dialogue = dialogue
        self._first = first
        self._heard = heard

    async def answer(self) -> Answer:
        """Its next answer. Raises Unavailable where it breaks off, Refused where it is none of our agent's."""
        text, self._first = self._first or await self._dialogue.hear(b"\n"), b""
        if not text:
            raise Unavailable("the router's agent broke off")
        if not text.startswith(_OURS):
            raise Refused(f"the router's agent does not answer: {legible(text).strip()[:200]}")
        if text.split()[2:3] in ([b"ok"], [b"refused"]):
            text += await self._dialogue.hear(_END)
            if not text.endswith(_END):
                raise Unavailable("the router's agent broke off in mid-answer")
        return await self._heard(text)

    async def say(self, *words: str) -> Answer:
        """One more thing that it is to do, and what it answers."""
        self._dialogue.say(" ".join(words).encode() + b"\n")
        return await self.answer()


def _of_another_version(out: bytes) -> bool:
    return out.startswith(_OURS) and out[:200].split(maxsplit=3)[2:3] == [b"version"]


def _text(result: Result) -> str:
    return legible(result.err or result.out).strip()[:200] or f"status {result.status}"
