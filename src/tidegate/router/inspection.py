"""A close look at a router: also at what of others would undo our work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.policy.plan import Remark
from tidegate.router.statefile import Observation


@dataclass(frozen=True, slots=True)
class Inspection:
    """A router, and every place where it is not as it should be."""

    seen: Observation
    remarks: tuple[Remark, ...]

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(remark.text for remark in self.remarks)

    @property
    def bare(self) -> bool:
        """Whether nothing of ours stands on the router, as its document says."""
        document = self.seen.document
        return document is not None and not document.groups and not self.seen.resources.rules and not self.seen.resources.roots

    @property
    def left(self) -> tuple[str, ...]:
        """Places that are not ours to mend."""
        return tuple(remark.text for remark in self.remarks if remark.text.startswith(_NOT_OURS))


_NOT_OURS = ("flow offload", "nft flowtable")


def offload_remarks(flows: str) -> Iterable[Remark]:
    """Where packets would pass by our rules, from what the agent's verb `flows` prints: those of a flow in a flowtable pass
    by every hook after ingress (kernel nf_flowtable.rst), so no class holds for them and no block."""
    family_and_table = ""
    for line in flows.splitlines():
        words = line.split()
        if words[:1] == ["table"] and len(words) >= 3:
            family_and_table = f"{words[1]} {words[2]}"
        elif words[:1] == ["flowtable"] and len(words) >= 2:
            yield Remark(
                None,
                f"nft flowtable {words[1][:40]} of table {family_and_table[:60]}: connections in it pass by limits and blocks; "
                "turn flow offloading off",
            )
        elif words[:1] == ["uci"] and len(words) == 2:
            option = f"firewall.@defaults[0].{words[1][:30]}"
            how = f"`uci set {option}=0`, `uci commit firewall`, `service firewall restart`"
            said = f"flow offload is on ({option}): connections pass by limits and blocks; turn it off with {how}"
            yield Remark(None, said)
