"""The state documents on one router's flash: the one that stands, its copies, and a damaged one put right."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from tidegate.errors import Conflict, Refused
from tidegate.policy.recovery import FILES, Copy, Damage, judge
from tidegate.policy.state import StateDocument, to_text
from tidegate.router.link import AgentLink
from tidegate.router.shell import OUTPUT_LIMIT
from tidegate.router.statefile import Observation, judged, read_copies


class StateDocuments:
    """`mended`: a damage that was put right, and nobody was told of yet."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link
        self.mended: Damage | None = None

    async def copies(self) -> tuple[tuple[Copy, ...], str]:
        """All of them, newest first, and the checksum of state.json as it is."""
        return read_copies(await self._link.ask("copies", limit=len(FILES) * OUTPUT_LIMIT))

    async def standing(self) -> tuple[StateDocument | None, Damage | None]:
        """The one that stands or can be believed in its place, and what is wrong; nothing else of the router is asked for."""
        document, damage = judged(await self._link.ask("status"), None)
        return (document, None) if damage is None else await self._instead(damage)

    async def believed(self, seen: Observation) -> Observation:
        """The same with the document that can be believed, where there is doubt in the one that stands."""
        if seen.damage is None:
            return seen
        document, damage = await self._instead(seen.damage)
        return replace(seen, document=document, damage=damage)

    async def _instead(self, doubt: Damage) -> tuple[StateDocument | None, Damage | None]:
        copies, _ = await self.copies()
        damage = judge(doubt.why, copies)
        if damage is None:  # nothing was wrong, on a closer look
            return copies[0].document, None
        return (damage.used.document if damage.used else None), damage

    async def mend(self, seen: Observation) -> None:
        """Put the document that is believed in the place of the damaged one; nothing where none is damaged.

        The bundle beside it stays as it is: a change has to follow. Raises Conflict, Refused.
        """
        if not seen.damage or not seen.document:
            return
        _, was = await self.copies()
        text = to_text(seen.document).encode()
        answer = await self._link.ask("mend", was, sha256(text).hexdigest(), stdin=text)
        if answer.word in ("busy", "pending", "stale"):
            raise Conflict("another change is being made on this router right now; try again")
        if answer.word != "ok":
            raise Refused(f"the state document can't be put right: the router answered {' '.join(answer.words)[:200]!r}")
        self.mended = self.mended or seen.damage
