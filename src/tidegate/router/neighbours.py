"""What the agent says of a router's network, as values."""

from __future__ import annotations

from tidegate.errors import Refused
from tidegate.policy.neighbours import Neighbourhood, read_neighbourhood
from tidegate.router.aside import FEW_BYTES, aside
from tidegate.router.link import AgentLink


async def look_around(link: AgentLink, lan: str) -> Neighbourhood:
    """Ask who is on the network behind that interface: one exchange, nothing changes. Raises Refused where the interface is
    not there; otherwise as `AgentLink.ask` does."""
    answer = await link.ask("neighbours", lan)
    addresses, status = answer.sections.get("addresses", ("", -1))
    if status != 0:
        said = (addresses.strip().splitlines() or ["it says nothing"])[-1]
        raise Refused(f"the router can't show {lan}: {said[:200]}", device=lan)
    aged = "neighbours aged" in answer.sections
    neighbours, _ = answer.sections.get("neighbours aged" if aged else "neighbours", ("", 0))
    leases, _ = answer.sections.get("leases", ("", 0))
    size = len(neighbours) + len(leases)
    return await aside(size, FEW_BYTES, read_neighbourhood, addresses, neighbours, leases, aged=aged)
