"""A close look at a router: also where its document is damaged, and at what of others would undo our work.

An everyday answer whose document does not fit its checksum is not believed at all (`statefile.read_observation`). Somebody
who verifies or repairs wants to know the rest all the same, so here the document is set aside and said to be damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.errors import Refused
from tidegate.policy.plan import Remark
from tidegate.policy.router import Interfaces
from tidegate.policy.state import Damaged, Newer, StateDocument
from tidegate.router.statefile import Answer, Observation, document_in, left_to_its_own, observation

_SECOND_LINE = re.compile(r'(?:"schema": [0-9]{1,9}, )?"generation": ([0-9]{1,15}), "controller": "([0-9a-f]{16})",', re.ASCII)


@dataclass(frozen=True, slots=True)
class Inspection:
    """`damaged`: the generation and controller that a damaged document claims, as the agent reads them; None: it is sound."""

    seen: Observation
    remarks: tuple[Remark, ...]
    damaged: tuple[int, str] | None = None

    @property
    def left(self) -> tuple[str, ...]:
        """Places that are not ours to mend."""
        return tuple(remark.text for remark in self.remarks if remark.text.startswith(_NOT_OURS))


_NOT_OURS = ("flow offload", "nft flowtable")


def read_closely(
    answer: Answer, interfaces: Interfaces, known: StateDocument | None = None
) -> tuple[Observation, str, tuple[int, str] | None]:
    """What the agent observed, and of a damaged document what is wrong with it and what it claims.

    Raises Refused as `read_observation` does for everything else, and for a document whose claims can't be read; Conflict for
    a document that a later Tidegate wrote.
    """
    text, _ = answer.sections.get("state", ("", 0))
    try:
        document = document_in(answer, known)
    except Damaged as damage:
        claims = _SECOND_LINE.match(text.partition("\n")[2])
        if not claims:
            raise Refused(f"{damage}, nor can its generation be read: remove /etc/tidegate/state.json by hand") from None
        return observation(answer, interfaces, None), str(damage), (int(claims[1]), claims[2])
    except Newer as newer:
        raise left_to_its_own(newer) from None
    return observation(answer, interfaces, document), "", None


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
