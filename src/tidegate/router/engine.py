"""One router's operations: observe, plan, apply, verify, roll back. This is where policy meets a router.

One exchange per change, and one to confirm it: the engine keeps the last answer that was verified, plans against it, and the
agent refuses if the router's generation is another by now; then the engine asks once and plans anew. What the agent reads
back after the change comes in the same answer and is held against what should be there; where it is not, the change is taken
back. Where it is, the router is asked over a new connection to let it stand; a change after which nobody can ask that, the
router takes back itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple, NoReturn

from tidegate.errors import Conflict, Refused, TimedOut, Unavailable
from tidegate.policy.compiler import ID_DIGITS, GroupPolicyCompiler, RouterCommandBundle, checksum
from tidegate.policy.desired import Resources
from tidegate.policy.plan import Remark, drift, plan, remarks, texts
from tidegate.policy.router import Capabilities, Interfaces
from tidegate.policy.state import ControllerId, GroupState, RouterName, StateDocument
from tidegate.router.inspection import ASK_FOR_OFFLOAD, Inspection, offload_remarks, read_closely
from tidegate.router.shell import Result, Shell
from tidegate.router.statefile import Answer, Observation, Reverted, legible, read_answer, read_document, read_observation

WINDOW = 30  # seconds that a router waits for a change to be confirmed
RETURN = 5.0  # seconds after that within which it answers again, and runs what it ran before
AGENT = "/usr/lib/tidegate/agent"
_SOURCE = files("tidegate.router").joinpath("agent.sh").read_text()
VERSION = sha256(_SOURCE.encode()).hexdigest()[:16]
AGENT_TEXT = _SOURCE.replace("@VERSION@", VERSION).encode()
_INSTALL = (
    'umask 022; d={folder}; mkdir -p $d && cat >$d/agent.new && s=$(sha256sum <$d/agent.new) && [ "${{s%% *}}" = {sum} ] '
    "&& sync $d/agent.new && mv $d/agent.new $d/agent"
)


@dataclass(frozen=True, slots=True)
class Stages:
    """How long each stage of a change took, in milliseconds."""

    observe: float = 0.0
    plan: float = 0.0
    apply: float = 0.0
    verify: float = 0.0
    confirm: float = 0.0


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that stands, verified. `words` is empty where the router held to it already and nothing was sent."""

    generation: int
    words: tuple[str, ...]
    stages: Stages
    remarks: tuple[Remark, ...] = ()


class Made(NamedTuple):
    """A router after a change, and when (perf_counter) it had answered, was verified, and confirmed."""

    after: Observation
    answered: float
    verified: float
    confirmed: float


class _Stale(Exception):
    """The router is at another generation than the one that we planned for, or not as we remember it."""


class RouterOperationsEngine:
    """Talks to the agent of one router. Not for use by two tasks at once: `fleet.py` has the router's lock."""

    def __init__(
        self,
        shell: Shell,
        router: RouterName,
        controller: ControllerId,
        interfaces: Interfaces,
        leaf: str,
        agent: str = AGENT,
        window: int = WINDOW,
    ) -> None:
        self._shell = shell
        self._router = router
        self._controller = controller
        self._interfaces = interfaces
        self._compiler = GroupPolicyCompiler(leaf)
        self._agent = agent
        self._window = window
        self._unconfirmed = ""  # the id of a change of ours that may wait there
        self._last: Observation | None = None  # good for as long as the line stands that it was heard on
        self._heard_on: object | None = None
        self.reverted: tuple[Reverted, int, bool] | None = (
            None  # what was taken back, what stands now, and whether it holds to it
        )
        self.answers = 0  # how often the router has answered

    # ── the agent

    async def probe(self) -> Capabilities:
        """What the router can do. Raises Refused with what is missing where it can't carry us at all."""
        answer = await self._ask("probe")
        text, _ = answer.sections.get("probe", ("", 0))
        found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        able = Capabilities(
            agent=answer.version,
            kernel=found.get("kernel", "")[:80],
            nft=found.get("nft", "")[:80],
            tc=found.get("tc", "")[:80],
            htb=found.get("htb") == "yes",
            leaf=found.get("leaf", "")[:20],
            conntrack=bool(found.get("conntrack")),
            shell=found.get("shell", "")[:80],
        )
        missing = [what for what, there in (("nft", able.nft), ("tc", able.tc), ("HTB (sch_htb)", able.htb)) if not there]
        if missing:
            raise Refused(f"the router lacks {', '.join(missing)}: install them and try again", missing=missing)
        self._compiler = GroupPolicyCompiler(able.leaf)
        return able

    async def install_agent(self) -> None:
        """Put this version of the agent in place, whole or not at all."""
        script = _INSTALL.format(folder=self._agent.rpartition("/")[0], sum=sha256(AGENT_TEXT).hexdigest())
        result = await self._shell.run(["/bin/sh", "-c", script], AGENT_TEXT)
        if result.status != 0:
            raise Refused(f"the agent can't be put onto the router: {_text(result)}")

    async def observe(self) -> Observation:
        """Ask the router: its state document, our table, the queues of its devices, with counters."""
        answer = await self._ask("observe", *self._interfaces)
        self._last = seen = read_observation(answer, self._interfaces)
        ours = self._document(seen)
        if seen.reverted and ours.controller == self._controller:
            holds = not plan(seen.resources, self._compiler.resources(ours)) if seen.document else not seen.resources.rules
            self.reverted = (seen.reverted, seen.generation, holds)
        return seen

    # ── changes

    async def synchronise(self, groups: Sequence[GroupState], *, force: bool = False) -> Applied:
        """Make the router have exactly these groups, verified by reading back.

        Nothing is sent where it held to them when it last answered, on a line that still stands, unless `force` asks it
        first. Raises Refused (the old state is back in place), Conflict (another controller took the router up, or a change
        waits there to be confirmed), Unavailable or TimedOut.
        """
        if force or self._shell.line is None or self._shell.line is not self._heard_on:
            self._last = None
        observing = 0.0
        for last_try in (False, True):
            asked = perf_counter()
            seen = self._last or await self.observe()
            observing += perf_counter() - asked
            self._must_be_ours(seen)
            planning = perf_counter()
            bundle = self._compiler.compile_sync_request(groups, self._document(seen), seen.resources)
            if not bundle.change and not bundle.words and seen.document:
                return Applied(seen.generation, (), Stages(_ms(observing), _ms(perf_counter() - planning)))
            applying = perf_counter()
            try:
                made = await self.apply_command_bundle(bundle)
            except _Stale as error:
                if last_try:
                    raise Refused(f"the router changes under our hands: {error}") from None
                continue
            stages = Stages(_ms(observing), _ms(applying - planning), *_laps(applying, *made[1:]))
            return Applied(made.after.generation, bundle.words, stages, bundle.remarks)
        raise AssertionError("the second try returns or raises")

    async def apply_command_bundle(self, bundle: RouterCommandBundle) -> Made:
        """Send the bundle, verify what the router then holds, and have it confirmed."""
        data = bundle.to_bytes()
        change = checksum(data)[:ID_DIGITS]
        before, self._last = self._last, None  # whatever happens now, what we knew may be over
        left_over, self._unconfirmed = self._unconfirmed, change
        arguments = [str(bundle.generation), checksum(data), str(self._window), *self._interfaces]
        try:
            answer = await self._ask("apply", *arguments, stdin=data)
        except (Unavailable, TimedOut) as error:
            return await self._ask_how_it_ended(bundle, change, error)
        answered = perf_counter()
        if answer.word == "stale":
            raise _Stale(f"it is at generation {' of controller '.join(answer.words[1:])}")
        if answer.word == "busy":
            raise Conflict("another change is being made on this router right now; try again")
        if answer.word == "pending" and len(answer.words) == 3:
            waiting, seconds = answer.words[1], answer.words[2]
            if waiting == left_over:  # a caller of ours went away between the change and its confirmation
                await self._ask("revert", waiting, *self._interfaces)
                raise _Stale(f"the change {waiting} was taken back")
            raise Conflict(
                f"the change {waiting} waits on this router to be confirmed, for {seconds} s more; try again then",
                pending=waiting,
            )
        if answer.word == "incomplete":
            raise Unavailable("the change did not arrive whole; nothing was done")
        if answer.word == "broken":
            raise Unavailable("the router's agent was killed in the middle of the change, which was taken back")
        try:
            # The document is still the old one, and may be the damage that this mends; `_confirm` sees the new one.
            after, _, _ = read_closely(answer, self._interfaces)
        except Refused as unreadable:
            # What it runs now can't be verified, so it must not stay.
            if answer.word == "ok":
                await self._take_back(bundle, change, [unreadable.detail])
            raise
        if answer.word == "refused":
            self._last = after
            await self._must_be_as_before(bundle, before, after, answer)
        if answer.word != "ok":
            raise Refused(f"the router's agent answered {' '.join(answer.words)[:200]!r}")
        if wrong := plan(after.resources, bundle.after):
            await self._take_back(bundle, change, [remark.text for remark in drift(wrong)])
        return await self._confirm(bundle, change, after, answered)

    async def hear_of_revert(self) -> None:
        """That a change was taken back is written down here; the router need not keep it in mind."""
        self.reverted = None
        await self._ask("heard")

    async def create_group_infrastructure(self) -> Applied:
        """Put the base set-up in place and make this controller the router's; its groups stay as its document has them."""
        seen = await self.observe()
        self._refuse_foreign(seen)
        before = self._document(seen)
        ours = replace(before, controller=self._controller, router=self._router, interfaces=self._interfaces)
        bundle = self._compiler.compile_sync_request(ours.groups, ours, seen.resources)
        if seen.document == ours and not bundle.change:
            return Applied(seen.generation, (), Stages())
        try:
            made = await self.apply_command_bundle(bundle)
        except _Stale as error:
            raise Conflict(f"another controller is changing this router: {error}") from None
        return Applied(made.after.generation, bundle.words, Stages())

    async def verify_router_state(self, groups: Sequence[GroupState]) -> tuple[Observation, tuple[Remark, ...]]:
        """The router as it answers now, and every place where it is not as these groups ask."""
        seen = await self.observe()
        return seen, self._remarks(seen, groups)

    def _remarks(self, seen: Observation, groups: Sequence[GroupState], damage: str = "") -> tuple[Remark, ...]:
        document = self._document(seen)
        wanted = replace(document, groups=tuple(groups))
        found = list(drift(plan(seen.resources, self._compiler.resources(wanted))))
        if damage:
            found.append(Remark(None, damage))
        elif seen.document is None:
            found.append(Remark(None, "the state document is missing"))
        elif (document.controller, document.router) != (self._controller, self._router):
            found.append(Remark(None, f"controller {document.controller} has taken this router up, as {document.router}"))
        elif set(document.groups) != set(groups):
            found.append(Remark(None, "the state document has other groups than this controller"))
        if seen.pending:
            what = f"the change {seen.pending.id} waits to be confirmed, for {seen.pending.seconds} s more"
            found.append(Remark(None, what))
        found += [
            Remark(None, f"tc {device}: carries a root queue of somebody else, {root}") for device, root in seen.foreign.items()
        ]
        return tuple(found)

    async def prepare(self, groups: Sequence[GroupState]) -> RouterCommandBundle:
        """What `synchronise` would send to the router as it answers now. Raises what that raises before it sends anything."""
        seen = await self.observe()
        self._must_be_ours(seen)
        return self._compiler.compile_sync_request(groups, self._document(seen), seen.resources)

    async def inspect(self, groups: Sequence[GroupState]) -> Inspection:
        """As `verify_router_state`, and also where the document is damaged, and what of others makes packets pass us by."""
        answer = await self._ask("observe", *self._interfaces)
        seen, damage, damaged = read_closely(answer, self._interfaces)
        self._last = None if damaged or seen.pending else seen
        drifted = self._remarks(seen, groups, damage)
        offload = await self._shell.run(["/bin/sh", "-c", ASK_FOR_OFFLOAD])
        return Inspection(seen, drifted + tuple(offload_remarks(offload)), damaged)

    async def repair(self, groups: Sequence[GroupState]) -> tuple[Applied, Inspection]:
        """Mend what `inspect` finds, and nothing else. Also what was found before."""
        found = await self.inspect(groups)
        if not found.damaged:
            return await self.synchronise(groups), found
        generation, controller = found.damaged
        if controller != self._controller:
            raise Conflict(f"the router's state document is damaged, and of controller {controller}", controller=controller)
        self._refuse_foreign(found.seen)
        document = StateDocument(generation, self._controller, self._router, self._interfaces)
        return await self._put(self._compiler.compile_sync_request(groups, document, found.seen.resources)), found

    async def remove_base(self) -> Applied:
        """Take all groups, rules and queues of ours off the router; the agent, its document and our log-in key stay."""
        seen = await self.observe()
        self._must_be_ours(seen)
        document = self._document(seen)
        after = replace(document, generation=document.generation + 1, groups=())
        change = plan(seen.resources, Resources())
        said = remarks(change, self._interfaces.lan)
        if not change and not document.groups:
            return Applied(seen.generation, (), Stages())
        return await self._put(RouterCommandBundle(document, after, change, texts(said), said))

    async def _put(self, bundle: RouterCommandBundle) -> Applied:
        try:
            made = await self.apply_command_bundle(bundle)
        except _Stale as error:
            raise Conflict(f"the router changes under our hands: {error}") from None
        return Applied(made.after.generation, bundle.words, Stages(), bundle.remarks)

    async def cleanup_group_infrastructure(self, key: str) -> None:
        """Take every trace of us off the router: rules, queues, files, and the log-in key whose base64 text is `key`."""
        seen = await self.observe()
        self._last = None
        if (document := seen.document) and (document.controller, document.router) != (self._controller, self._router):
            await self._ask("forget", key)  # somebody else takes care of it now, or we do under another id
            return
        ours = sorted(seen.resources.roots)
        answer = await self._ask("teardown", key, *ours)
        if answer.word != "ok":
            raise Refused(f"the router's agent answered {' '.join(answer.words)[:200]!r}")
        text, status = answer.sections.get("nft", ("", -1))
        if status == 0:
            raise Refused(f"the rules could not be taken off the router: {text[:200]}")

    async def forget_login(self, key: str) -> None:
        """Take the log-in key off the router ("" for none of ours), and the agent where no state document needs it."""
        await self._ask("forget", key)

    # ── inside

    async def _ask(self, verb: str, *arguments: str, stdin: bytes = b"") -> Answer:
        """One exchange with the agent; a router that has another version of it, a broken one or none is given ours first."""
        command = ["/bin/sh", self._agent, VERSION, verb, *arguments]
        result = await self._shell.run(command, stdin)
        there = result.out.startswith(b"tidegate-agent ")
        if (there and read_answer(result.out).word == "version") or not result.out:
            await self.install_agent()
            result = await self._shell.run(command, stdin)
        if not result.out.startswith(b"tidegate-agent "):
            raise Refused(f"the router's agent does not answer: {_text(result)}")
        self.answers += 1
        self._heard_on = self._shell.line
        return read_answer(result.out)

    def _document(self, seen: Observation) -> StateDocument:
        return seen.document or StateDocument(0, self._controller, self._router, self._interfaces)

    def _must_be_ours(self, seen: Observation) -> None:
        if (document := seen.document) and document.controller != self._controller:
            raise Conflict(
                f"controller {document.controller} has taken this router up; remove and add it here to take it back",
                controller=str(document.controller),
                generation=document.generation,
            )
        if seen.document and seen.document.router != self._router:
            raise Conflict(f"this router is already enrolled here, as {seen.document.router}", router=str(seen.document.router))
        self._refuse_foreign(seen)

    def _refuse_foreign(self, seen: Observation) -> None:
        for device, root in seen.foreign.items():
            raise Refused(
                f"{device} carries a root queue of somebody else ({root}), which is left alone: "
                f"turn off what made it (SQM, say), or remove it with `tc qdisc del dev {device} root`",
                device=str(device),
                root=root,
            )

    async def _ask_how_it_ended(self, bundle: RouterCommandBundle, change: str, error: Unavailable | TimedOut) -> Made:
        """The line was cut while the agent worked, and it works on: ask it, over a new line, which of the two it is."""
        try:
            after = await self.observe()
        except (Unavailable, TimedOut):
            raise error from None
        answered = perf_counter()
        as_asked = not plan(after.resources, bundle.after)
        if as_asked and after.pending and after.pending.id == change:
            return await self._confirm(bundle, change, after, answered)
        if as_asked and after.document == bundle.document:
            return Made(after, answered, answered, perf_counter())
        raise error

    async def _confirm(self, bundle: RouterCommandBundle, change: str, after: Observation, answered: float) -> Made:
        """Reach the router anew, and have the change stand. Until its time is over this is tried again and again; then the
        router has taken it back. Raises Refused where that is so, Unavailable where it can't be asked."""
        verified = perf_counter()
        until = verified + self._window
        answer = None
        while answer is None:
            try:
                await self._shell.renew()
                answer = await self._ask("confirm", change)
            except (Unavailable, TimedOut) as error:
                if perf_counter() > until:
                    await self._must_have_reverted(change, error)
                await asyncio.sleep(min(0.5, self._window / 10))
        document = read_document(answer)
        if document != bundle.document:
            await self._must_have_reverted(change, Unavailable(f"the router's agent answered {' '.join(answer.words)[:200]!r}"))
        self._unconfirmed = ""
        self._last = replace(after, document=document, pending=None)
        return Made(self._last, answered, verified, perf_counter())

    async def _must_have_reverted(self, change: str, error: Unavailable | TimedOut) -> NoReturn:
        """Nobody could confirm the change in time. Raises Refused once the router says that it took it back."""
        until = perf_counter() + RETURN
        seen = None
        while seen is None:
            try:
                await self._shell.renew()
                seen = await self.observe()
            except (Unavailable, TimedOut):
                if perf_counter() > until:
                    raise Unavailable(
                        f"after the change {change} the router could not be reached to confirm it, and can't yet; "
                        f"it takes the change back by itself ({error.detail})",
                        pending=change,
                    ) from None
                await asyncio.sleep(0.2)
        verified = bool(self.reverted and self.reverted[0].id == change and self.reverted[2])
        raise Refused(
            f"the change {change} could not be confirmed: {error.detail}. The router took it back by itself: "
            f"generation {seen.generation} stands, {'reverted, verified' if verified else 'see its drift'}",
            reverted=change,
            verified=verified,
            generation=seen.generation,
        )

    async def _must_be_as_before(
        self, bundle: RouterCommandBundle, before: Observation | None, after: Observation, answer: Answer
    ) -> None:
        """The agent refused and took its change back. Raises Refused, or _Stale where the router was not as we thought."""
        stage = answer.words[1] if len(answer.words) > 1 else "it"
        text, _ = answer.sections.get("error", ("", 0))
        why = (text.strip().splitlines() or ["no reason given"])[0][:200]
        left = drift(plan(after.resources, bundle.change.seen))
        if left and before is not None and after.generation == bundle.generation:
            raise _Stale(f"{stage}: {why}")
        raise Refused(
            f"the router refused the change at {stage}: {why}",
            stage=stage,
            restored=not left,
            drift=[remark.text for remark in left],
        )

    async def _take_back(self, bundle: RouterCommandBundle, change: str, wrong: Sequence[str]) -> NoReturn:
        """What was read back is not what was asked for, or can't be read: go back to what was before, then raise Refused."""
        answer = await self._ask("revert", change, *self._interfaces)
        restored = False
        if answer.word == "ok":
            with suppress(Refused):
                self._last = read_observation(answer, self._interfaces)
                restored = not plan(self._last.resources, bundle.change.seen)
            await self._ask("heard")  # our answer tells of it
        why = f"after the change the router does not hold to it: {'; '.join(wrong)}"
        raise Refused(why, restored=restored, drift=list(wrong))


def _text(result: Result) -> str:
    return legible(result.err or result.out).strip()[:200] or f"status {result.status}"


def _laps(*moments: float) -> list[float]:
    """Milliseconds from each moment to the next."""
    return [_ms(end - begin) for begin, end in pairwise(moments)]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
