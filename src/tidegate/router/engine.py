"""One router's operations: observe, plan, apply, verify, roll back. This is where policy meets a router.

The engine keeps the last answer that was verified, plans against it, and the agent refuses if the router's generation is
another by now; then the engine asks once and plans anew. How a change is sent, verified and confirmed is in `commit.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter

from tidegate.errors import Conflict, Refused
from tidegate.policy.compiler import GroupPolicyCompiler, RouterCommandBundle
from tidegate.policy.desired import Resources
from tidegate.policy.dialect import Dialect
from tidegate.policy.neighbours import Neighbourhood
from tidegate.policy.nftables import NFTABLES
from tidegate.policy.plan import Remark, drift, plan, remarks, texts
from tidegate.policy.router import Capabilities, Interfaces
from tidegate.policy.state import ControllerId, GroupState, RouterName, Stamp, StateDocument
from tidegate.router.agent import PATH
from tidegate.router.aside import FEW, FEW_BYTES, aside
from tidegate.router.commit import ConfirmedCommit, Made, Stale, TakenBack
from tidegate.router.documents import StateDocuments
from tidegate.router.inspection import Inspection, offload_remarks
from tidegate.router.link import AgentLink
from tidegate.router.neighbours import look_around
from tidegate.router.probe import read_probe
from tidegate.router.shell import Shell
from tidegate.router.statefile import Observation, PutRight, read_observation, read_rules

WINDOW = 30  # seconds that a router waits for a change to be confirmed


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
    """A change that stands, verified. `words` is empty where the router held to it already and nothing was sent.
    `taken_from`: the controller that had taken the router up before, "" where that was this one or nobody.
    `lan`: who on the LAN answered before and after a change that could cut it off; empty for any other."""

    generation: int
    words: tuple[str, ...]
    stages: Stages
    remarks: tuple[Remark, ...] = ()
    taken_from: str = ""
    lan: str = ""


Announce = Callable[[str, Applied], Awaitable[None]]
"""Told the id of a change and what it should come to, before anything is sent; where that raises, nothing is."""


class RouterOperationsEngine:
    """Talks to the agent of one router. Not for use by two tasks at once: `fleet.py` has the router's lock."""

    def __init__(
        self,
        shell: Shell,
        router: RouterName,
        controller: ControllerId,
        interfaces: Interfaces,
        leaf: str,
        agent: str = PATH,
        window: int = WINDOW,
        stamp: Callable[[], Awaitable[Stamp]] | None = None,
        dialect: Dialect = NFTABLES,
    ) -> None:
        """`stamp` is asked at each change for what its document notes beside its content."""
        self._link = AgentLink(shell, agent)
        self.documents = StateDocuments(self._link)
        self._router = router
        self._controller = controller
        self._interfaces = interfaces
        self._compiler = GroupPolicyCompiler(leaf, dialect)
        self._stamp = stamp
        self._commit = ConfirmedCommit(self._link, interfaces, window, self._look)
        self._last: Observation | None = None  # good for as long as the line stands that it was heard on
        self.reverted: TakenBack | None = None  # told by the router, and not yet by us
        self.put_right: PutRight | None = None  # the same

    @property
    def answers(self) -> int:
        """How often the router has answered."""
        return self._link.answers

    @property
    def login(self) -> str:
        """What our key may do there, as the router said last: ask the "agent" and nothing else, all that "root" may, or ""."""
        return self._link.login

    # ── asking

    async def probe(self) -> Capabilities:
        """What the router can do. Raises Refused with what is missing where it can't carry us at all."""
        able = read_probe(await self._link.ask("probe"))
        self._compiler = GroupPolicyCompiler(able.leaf, able.rules)
        return able

    async def observe(self) -> Observation:
        """Ask the router: its state document, our table, the queues of its devices, with counters."""
        answer = await self._link.ask("observe", *self._interfaces)
        known = self._last.document if self._last else None
        read = await aside(len(answer), FEW_BYTES, read_observation, answer, self._interfaces, known)
        seen = await self.documents.believed(read)
        self._last = None if seen.damage else seen
        ours = self._document(seen)
        if seen.reverted and ours.controller == self._controller:
            holds = not plan(seen.resources, self._compiler.resources(ours)) if seen.document else not seen.resources.rules
            self.reverted = TakenBack(seen.reverted, seen.generation, holds)
        if ours.controller == self._controller:
            self.put_right = seen.put_right
        return seen

    async def _look(self) -> tuple[Observation, TakenBack | None]:
        return await self.observe(), self.reverted

    async def look_around(self) -> Neighbourhood:
        """Who is on the router's network. Raises as `neighbours.look_around` does."""
        return await look_around(self._link, str(self._interfaces.lan))

    async def former_rules(self, *, remove: bool) -> tuple[str, ...]:
        """What the service before Tidegate left on the router, each thing in words; taken off it with `remove`."""
        answer = await self._link.ask("former", "remove" if remove else "look")
        text, _ = answer.sections.get("former", ("", 0))
        return tuple(line[:60] for line in text.splitlines()[:1000] if line)

    # ── changes

    async def synchronise(
        self, groups: Sequence[GroupState], *, force: bool = False, announce: Announce | None = None
    ) -> Applied:
        """Make the router have exactly these groups, verified by reading back.

        Nothing is sent where it held to them when it last answered, on a line that still stands, unless `force` asks it
        first. Raises Refused (the old state is back in place), Conflict (another controller took the router up, or a change
        waits there to be confirmed), Unavailable or TimedOut.
        """
        if force or not self._link.stands:
            self._last = None
        observing = 0.0
        for last_try in (False, True):
            asked = perf_counter()
            seen = self._last or await self.observe()
            observing += perf_counter() - asked
            self._must_be_ours(seen)
            await self.documents.mend(seen)
            planning = perf_counter()
            bundle = await self._compiled(groups, seen)
            if seen.damage:
                bundle = replace(bundle, words=(*bundle.words, f"the state document is put right: {seen.damage}"))
            elif seen.unsound:
                bundle = replace(bundle, words=(*bundle.words, "the router's copy of what was confirmed is written anew"))
            elif not bundle.change and not bundle.words and seen.document:
                return Applied(seen.generation, (), Stages(_ms(observing), _ms(perf_counter() - planning)))
            planned = perf_counter()
            try:
                made = await self.apply_command_bundle(bundle, announce)
            except Stale as error:
                if last_try:
                    raise Conflict(f"the router changes under our hands: {error}") from None
                continue
            stages = Stages(_ms(observing), _ms(planned - planning), *_laps(*made.moments))
            return Applied(made.after.generation, bundle.words, stages, bundle.remarks, lan=made.lan)
        raise AssertionError("the second try returns or raises")

    async def apply_command_bundle(self, bundle: RouterCommandBundle, announce: Announce | None = None) -> Made:
        """Send the bundle, verify what the router then holds, and have it confirmed."""

        async def announced(change: str) -> None:
            if announce:
                await announce(change, Applied(bundle.document.generation, bundle.words, Stages(), bundle.remarks))

        if self._stamp:
            bundle = replace(bundle, document=replace(bundle.document, stamp=await self._stamp()))
        before, self._last = self._last, None  # whatever happens now, what we knew may be over
        made = await self._commit.make(bundle, before, announced)
        self._last = made.after
        return made

    async def how_it_ended(self, change: str, generation: int, groups: Sequence[GroupState]) -> bool:
        """Whether a change that was announced, and whose end nobody saw, stands: then the router has these groups, at this
        generation. Where it still waits to be confirmed, nobody has read back what came of it, and it is taken back now.

        Raises Refused where the router's answer can't be understood, Unavailable or TimedOut.
        """
        seen = await self.observe()
        if seen.pending and seen.pending.id == change:
            self._last = seen = await self._commit.withdraw(change)
        found = seen.document
        return (
            found is not None
            and (found.controller, found.generation) == (self._controller, generation)
            and set(found.groups) == set(groups)
        )

    async def hear_of_revert(self) -> None:
        """That a change was taken back is written down here; the router need not keep it in mind."""
        self.reverted = None
        await self._link.ask("heard")

    async def hear_of_mending(self, found: PutRight) -> None:
        """That the router put something right is written down here."""
        self.put_right = None
        await self._link.ask("heard", str(found.when))

    async def create_group_infrastructure(self) -> Applied:
        """Put the base set-up in place and make this controller the router's; its groups stay as its document has them."""
        seen = await self.observe()
        self._must_be_legible(seen)
        self._refuse_foreign(seen)
        await self.documents.mend(seen)
        before = self._document(seen)
        ours = replace(before, controller=self._controller, router=self._router, interfaces=self._interfaces)
        bundle = replace(self._compiler.compile_sync_request(ours.groups, ours, seen.resources), before=before)
        if seen.document == ours and not bundle.change and not seen.damage:
            return Applied(seen.generation, (), Stages())
        try:
            made = await self.apply_command_bundle(bundle)
        except Stale as error:
            raise Conflict(f"another controller is changing this router: {error}") from None
        theirs = "" if before.controller == self._controller else str(before.controller)
        return Applied(made.after.generation, bundle.words, Stages(), lan=made.lan, taken_from=theirs)

    async def verify_router_state(self, groups: Sequence[GroupState]) -> tuple[Observation, tuple[Remark, ...]]:
        """The router as it answers now, and every place where it is not as these groups ask."""
        seen = await self.observe()
        return seen, await aside(len(groups), FEW, self._remarks, seen, groups)

    def _remarks(self, seen: Observation, groups: Sequence[GroupState]) -> tuple[Remark, ...]:
        document = self._document(seen)
        wanted = replace(document, groups=tuple(groups))
        # A router that was torn down, and is asked for nothing, holds to that: the base set-up comes with the next group.
        torn_down = seen.document is not None and not groups and seen.resources.empty
        found = [] if torn_down else list(drift(plan(seen.resources, self._compiler.resources(wanted))))
        if seen.damage:
            found.append(Remark(None, str(seen.damage)))
        elif seen.document is None:
            found.append(Remark(None, "the state document is missing"))
        elif (document.controller, document.router) != (self._controller, self._router):
            found.append(Remark(None, f"controller {document.controller} has taken this router up, as {document.router}"))
        elif set(document.groups) != set(groups):
            found.append(Remark(None, "the state document has other groups than this controller"))
        if seen.unsound:
            found.append(Remark(None, "the router's copy of what was confirmed was altered, so it can't put itself right"))
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
        return await self._compiled(groups, seen)

    async def _compiled(self, groups: Sequence[GroupState], seen: Observation) -> RouterCommandBundle:
        compiling = self._compiler.compile_sync_request
        return await aside(len(groups), FEW, compiling, groups, self._document(seen), seen.resources)

    async def inspect(self, groups: Sequence[GroupState]) -> Inspection:
        """As `verify_router_state`, and also what of others makes packets pass us by."""
        seen, drifted = await self.verify_router_state(groups)
        flows, _ = (await self._link.ask("flows")).sections.get("flows", ("", 0))
        return Inspection(seen, drifted + tuple(offload_remarks(flows)))

    async def repair(
        self, found: Inspection, groups: Sequence[GroupState], generation: int = 1, announce: Announce | None = None
    ) -> Applied:
        """Mend what `inspect` found just now, and nothing else.

        Where the state document can't be used, nor a copy of it, it is written anew: these groups, and a generation above
        `generation`, the newest that the caller knows of. Raises Conflict where it names another controller.
        """
        damage = found.seen.damage
        if damage and not found.seen.document:
            if damage.claimant not in ("", self._controller):
                said = f"{damage}; it names controller {damage.claimant}, which may know more: repair it from there"
                raise Conflict(said, controller=damage.claimant)
            # Whatever could be refused is refused first, and whoever is cut off after this leaves a document that is true.
            self._refuse_foreign(found.seen)
            wished = tuple(sorted(groups, key=lambda group: group.id))
            anew = StateDocument(max(1, generation), self._controller, self._router, self._interfaces, wished)
            await self.documents.mend(replace(found.seen, document=anew))
            # None of its copies was good, so what it would come up with after a restart is written anew as well.
            self._last = replace(await self.observe(), unsound=True)
        return await self.synchronise(groups, announce=announce)

    async def remove_base(self, announce: Announce | None = None) -> Applied:
        """Take all groups, rules and queues of ours off the router; the agent, its document and our log-in key stay."""
        seen = await self.observe()
        self._must_be_ours(seen)
        await self.documents.mend(seen)
        document = self._document(seen)
        after = replace(document, generation=document.generation + 1, groups=())
        change = plan(seen.resources, Resources())
        said = remarks(change, self._interfaces.lan)
        if not change and not document.groups and not seen.damage:
            return Applied(seen.generation, (), Stages())
        return await self._put(RouterCommandBundle(document, after, change, texts(said), said), announce)

    async def _put(self, bundle: RouterCommandBundle, announce: Announce | None) -> Applied:
        try:
            made = await self.apply_command_bundle(bundle, announce)
        except Stale as error:
            raise Conflict(f"the router changes under our hands: {error}") from None
        stages = Stages(0.0, 0.0, *_laps(*made.moments))
        return Applied(made.after.generation, bundle.words, stages, bundle.remarks, lan=made.lan)

    async def cleanup_group_infrastructure(self, key: str) -> None:
        """Take every trace of us off the router: rules, queues, files, and the log-in key whose base64 text is `key` (""
        for none)."""
        seen = await self.observe()
        self._last = None
        if (document := seen.document) and (document.controller, document.router) != (self._controller, self._router):
            await self._link.ask("forget", key or "-")  # somebody else takes care of it now, or we do under another id
            return
        ours = sorted(seen.resources.roots)
        answer = await self._link.ask("teardown", key or "-", *ours)
        if answer.word != "ok":
            raise Refused(f"the router's agent answered {' '.join(answer.words)[:200]!r}")
        if left := read_rules(answer)[1]:
            raise Refused(f"the rules could not be taken off the router: {left[0][:200]}")

    async def forget_login(self, key: str) -> None:
        """Take the log-in key off the router ("" for none of ours), and the agent where no state document needs it."""
        await self._link.ask("forget", key or "-")

    # ── inside

    def _document(self, seen: Observation) -> StateDocument:
        return seen.document or StateDocument(0, self._controller, self._router, self._interfaces)

    def _must_be_legible(self, seen: Observation) -> None:
        if seen.damage and not seen.document:
            raise Refused(
                f"{seen.damage}. Nothing was changed, and what runs stays as it is. `tidegate infrastructure repair` "
                "writes it anew from this controller's groups; to take the router up with none, remove /etc/tidegate from it",
                files={copy.file: copy.why for copy in seen.damage.found},
            )

    def _must_be_ours(self, seen: Observation) -> None:
        self._must_be_legible(seen)
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


def _laps(*moments: float) -> list[float]:
    """Milliseconds from each moment to the next."""
    return [_ms(end - begin) for begin, end in pairwise(moments)]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
