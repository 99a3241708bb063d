"""Confirmed commit: a bundle is sent, what the router then holds is verified, and only then is it told to let it stand.

All of that is one exchange. Once the rules are changed, and while the router reads back what it holds, a new connection is
made to see that whoever comes anew is still let in and answered. What was read back is held against what should be there;
where it is not, the change is taken back. Where it is, and the door is open, the agent is told over the line of the change,
which it went on listening to, that it stands. Where that line is dead, or the door shut, that is tried over new connections
until the change's time is over; and a change after which nobody gets through, the router takes back itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple, NoReturn

from tidegate.errors import Conflict, Refused, TimedOut, Unavailable
from tidegate.policy.compiler import ID_DIGITS, RouterCommandBundle, checksum
from tidegate.policy.plan import drift, plan
from tidegate.policy.router import Interfaces
from tidegate.router.aside import FEW, aside
from tidegate.router.link import AgentLink, Exchange
from tidegate.router.statefile import Answer, Observation, Reverted, read_document, read_lan, read_observation

RETURN = 5.0  # seconds after the window within which a router answers again, and runs what it ran before


class TakenBack(NamedTuple):
    """A change that the router took back by itself, the generation that stands, and whether the router holds to it."""

    change: Reverted
    generation: int
    verified: bool


class Made(NamedTuple):
    """A router after a change; what was found out about its LAN; and when (perf_counter) the change was sent, was answered,
    verified and confirmed."""

    after: Observation
    lan: str
    sent: float
    answered: float
    verified: float
    confirmed: float

    @property
    def moments(self) -> tuple[float, ...]:
        return self[2:]


@dataclass(slots=True)
class _Course:
    """How a change went: what the router answered, and when; what it held then, where that could be read; what of that is
    wrong; when that was known; and whether the change was confirmed over the line that it was sent over."""

    answer: Answer
    answered: float
    after: Observation | None = None
    wrong: tuple[str, ...] = ()
    verified: float = 0.0
    stands: bool = False


class Stale(Exception):
    """The router is at another generation than the one that we planned for, or not as we remember it."""


class ConfirmedCommit:
    """The changes of one router. `observe` asks it how it is, and whether it took a change back that nobody heard of."""

    def __init__(
        self,
        link: AgentLink,
        interfaces: Interfaces,
        window: int,
        observe: Callable[[], Awaitable[tuple[Observation, TakenBack | None]]],
    ) -> None:
        self._link = link
        self._interfaces = interfaces
        self._window = window
        self._observe = observe
        self._unconfirmed = ""  # the id of a change of ours that may wait there

    async def make(
        self, bundle: RouterCommandBundle, before: Observation | None, announce: Callable[[str], Awaitable[None]]
    ) -> Made:
        """Send the bundle, verify what the router then holds, and have it confirmed. `before`: as we think the router is.
        `announce` is told the change's id before anything is sent.

        Raises Stale, Conflict, Refused (the old state is back in place), Unavailable or TimedOut.
        """
        data, whole = await aside(len(bundle.document.groups), FEW, _packed, bundle)
        change = whole[:ID_DIGITS]
        await announce(change)
        sent = perf_counter()
        left_over, self._unconfirmed = self._unconfirmed, change
        arguments = [str(bundle.generation), whole, str(len(data)), str(self._window), *self._interfaces]
        try:
            async with self._link.talk("apply", *arguments, stdin=data) as talk:
                course = await self._converse(talk, bundle, change)
        except (Unavailable, TimedOut) as error:
            return await self._ask_how_it_ended(bundle, change, sent, error)
        answer, after = course.answer, course.after
        if answer.word == "stale":
            raise Stale(f"it is at generation {' of controller '.join(answer.words[1:])}")
        if answer.word == "elsewhere":
            where = " ".join(answer.words[1:])[:40]
            raise Conflict(f"what answers there is router {where}, not {bundle.before.router}: nothing was changed on it")
        if answer.word == "busy":
            raise Conflict("another change is being made on this router right now; try again")
        if answer.word == "pending" and len(answer.words) == 3:
            waiting, seconds = answer.words[1], answer.words[2]
            if waiting == left_over:  # a caller of ours went away between the change and its confirmation
                await self._link.ask("revert", waiting, *self._interfaces)
                raise Stale(f"the change {waiting} was taken back")
            raise Conflict(
                f"the change {waiting} waits on this router to be confirmed, for {seconds} s more; try again then",
                pending=waiting,
            )
        if answer.word == "incomplete":
            raise Unavailable("the change did not arrive whole; nothing was done")
        if answer.word == "broken":
            raise Unavailable("the router's agent was killed in the middle of the change, which was taken back")
        if after is None and answer.word == "ok":
            # What it runs now can't be verified, so it must not stay.
            await self._take_back(bundle, change, course.wrong)
        if after is None:
            raise Refused(f"the router's agent answered {' '.join((*answer.words, *course.wrong))[:300]!r}")
        if answer.word == "refused":
            _must_be_as_before(bundle, before, after, answer)
        if course.wrong:
            await self._take_back(bundle, change, course.wrong)
        if not course.stands:
            return await self._confirm(bundle, change, after, sent, course.answered)
        return self._made(bundle, after, sent, course.answered, course.verified, read_lan(answer))

    async def _converse(self, talk: Exchange, bundle: RouterCommandBundle, change: str) -> _Course:
        """Hear what became of the change. As soon as it is made, and while the router reads back what it holds, somebody
        knocks at its door; once both are well, it is told over the line that still stands to let the change stand."""
        groups, knocking = len(bundle.document.groups), None
        try:
            answer = await talk.answer()
            if answer.word == "changed":
                knocking = asyncio.create_task(self._knock())
                answer = await talk.answer()
            course = _Course(answer, perf_counter())
            try:
                # The document is still the old one, and may be the damage that this mends.
                if answer.sections:
                    course.after = await aside(groups, FEW, read_observation, answer, self._interfaces, bundle.before)
            except Refused as unreadable:
                course.wrong = (unreadable.detail,)
                return course
            if course.after is None or answer.word != "ok":
                return course
            course.wrong = tuple(remark.text for remark in drift(plan(course.after.resources, bundle.after)))
            course.verified = perf_counter()
            if not course.wrong and knocking and await knocking:
                outcome = await talk.say("confirm", change)
                course.stands = outcome.words == ("stands", str(bundle.document.generation))
            return course
        finally:
            if knocking:
                knocking.cancel()

    async def _knock(self) -> bool:
        try:
            await self._link.knock()
        except Unavailable:
            return False
        return True

    def _made(
        self, bundle: RouterCommandBundle, after: Observation, sent: float, answered: float, verified: float, lan: str = ""
    ) -> Made:
        self._unconfirmed = ""
        after = replace(after, document=bundle.document, pending=None, unsound=False, damage=None)
        return Made(after, lan, sent, answered, verified, perf_counter())

    async def withdraw(self, change: str) -> Observation:
        """Have a change of ours that waits, and of which nobody knows what came, taken back; the router as it is then."""
        answer = await self._link.ask("revert", change, *self._interfaces)
        after = read_observation(answer, self._interfaces)
        if answer.word != "ok":
            raise Refused(
                f"the change {change} waits on the router and could not be taken back: {' '.join(answer.words)[:200]}"
            )
        await self._link.ask("heard")  # whoever asked for this tells of it
        return replace(after, reverted=None)

    async def _ask_how_it_ended(
        self, bundle: RouterCommandBundle, change: str, sent: float, error: Unavailable | TimedOut
    ) -> Made:
        """The line was cut while the agent worked, and it works on: ask it, over a new line, which of the two it is."""
        try:
            after, taken = await self._observe()
        except (Unavailable, TimedOut):
            raise error from None
        answered = perf_counter()
        as_asked = not plan(after.resources, bundle.after)
        if as_asked and after.pending and after.pending.id == change:
            return await self._confirm(bundle, change, after, sent, answered)
        if as_asked and after.document == bundle.document:
            return self._made(bundle, after, sent, answered, answered)
        if taken and taken.change.id == change:
            raise _reverted(change, error, after, taken)
        raise error

    async def _confirm(
        self, bundle: RouterCommandBundle, change: str, after: Observation, sent: float, answered: float
    ) -> Made:
        """Reach the router anew, and have the change stand. Until its time is over this is tried again and again; then the
        router has taken it back. Raises Refused where that is so, Unavailable where it can't be asked."""
        verified = perf_counter()
        until = verified + self._window
        answer = None
        while answer is None:
            try:
                await self._link.renew()
                answer = await self._link.ask("confirm", change)
            except (Unavailable, TimedOut) as error:
                if perf_counter() > until:
                    await self._must_have_reverted(change, error)
                await asyncio.sleep(min(0.5, self._window / 10))
        document = await aside(len(bundle.document.groups), FEW, read_document, answer, bundle.document)
        if document != bundle.document:
            await self._must_have_reverted(change, Unavailable(f"the router's agent answered {' '.join(answer.words)[:200]!r}"))
        return self._made(bundle, after, sent, answered, verified)

    async def _must_have_reverted(self, change: str, error: Unavailable | TimedOut) -> NoReturn:
        """Nobody could confirm the change in time. Raises Refused once the router says that it took it back."""
        until = perf_counter() + RETURN
        seen = None
        taken: TakenBack | None = None
        while seen is None:
            try:
                await self._link.renew()
                seen, taken = await self._observe()
            except (Unavailable, TimedOut):
                if perf_counter() > until:
                    raise Unavailable(
                        f"after the change {change} the router could not be reached to confirm it, and can't yet; "
                        f"it takes the change back by itself ({error.detail})",
                        pending=change,
                    ) from None
                await asyncio.sleep(0.2)
        raise _reverted(change, error, seen, taken)

    async def _take_back(self, bundle: RouterCommandBundle, change: str, wrong: Sequence[str]) -> NoReturn:
        """What was read back is not what was asked for, or can't be read: go back to what was before, then raise Refused."""
        answer = await self._link.ask("revert", change, *self._interfaces)
        restored = False
        if answer.word == "ok":
            with suppress(Refused):
                restored = not plan(read_observation(answer, self._interfaces).resources, bundle.change.seen)
            await self._link.ask("heard")  # our answer tells of it
        why = f"after the change the router does not hold to it: {'; '.join(wrong)}"
        raise Refused(why, restored=restored, drift=list(wrong))


def _packed(bundle: RouterCommandBundle) -> tuple[bytes, str]:
    data = bundle.to_bytes()
    return data, checksum(data)


def _reverted(change: str, error: Unavailable | TimedOut, seen: Observation, taken: TakenBack | None) -> Refused:
    verified = bool(taken and taken.change.id == change and taken.verified)
    return Refused(
        f"the change {change} could not be confirmed: {error.detail}. The router took it back by itself: "
        f"generation {seen.generation} stands, {'reverted, verified' if verified else 'see its drift'}",
        reverted=change,
        verified=verified,
        generation=seen.generation,
    )


def _must_be_as_before(bundle: RouterCommandBundle, before: Observation | None, after: Observation, answer: Answer) -> NoReturn:
    """The agent refused and took its change back. Raises Refused, or Stale where the router was not as we thought."""
    stage = answer.words[1] if len(answer.words) > 1 else "it"
    text, _ = answer.sections.get("error", ("", 0))
    why = (text.strip().splitlines() or ["no reason given"])[0][:200]
    left = drift(plan(after.resources, bundle.change.seen))
    if left and before is not None and after.generation == bundle.generation:
        raise Stale(f"{stage}: {why}")
    raise Refused(
        f"the router refused the change at {stage}: {why}",
        stage=stage,
        restored=not left,
        drift=[remark.text for remark in left],
    )
