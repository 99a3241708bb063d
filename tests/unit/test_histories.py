"""Whatever a router's groups go through: the small change and the full one end in the same state, and each can be undone.

The router here is a model that takes the very text of a bundle and is as strict as nft and tc are;
`tests/integration/test_histories.py` does the same with the two themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories import HISTORIES, groups, parts
from tidegate.policy import nftables
from tidegate.policy.compiler import GroupPolicyCompiler
from tidegate.policy.desired import Place, Resources
from tidegate.policy.element import Element
from tidegate.policy.nftables import MAPS
from tidegate.policy.router import Interfaces
from tidegate.policy.state import ControllerId, GroupState, RouterName, StateDocument
from tidegate.policy.tc import UNRESTRICTED_KBIT, TrafficClass

HOME = Interfaces.of("br-lan", "wan")
EMPTY = StateDocument(0, ControllerId("0" * 16), RouterName("home"), HOME)
COMPILER = GroupPolicyCompiler("bfifo")
CLASS = re.compile(
    r"class replace dev (\S+) parent 1: classid 1:(\w+) htb rate (\d+)kbit ceil \3kbit(?: burst (\d+)k cburst \4k)? quantum \d+"
)
LEAF = re.compile(r"qdisc replace dev (\S+) parent 1:(\w+) handle \2: (\w+)(?: limit (\d+)k)?")
ELEMENTS = re.compile(r"(add|delete) element inet tidegate (\w+) \{ (.*) \}")


@dataclass
class Model:
    """A router's kernel, as far as a bundle can touch it."""

    table: bool = False
    elements: dict[tuple[str, str], str] = field(default_factory=dict)
    classes: dict[str, dict[str, TrafficClass]] = field(default_factory=dict)

    def nft(self, lines: list[str]) -> None:
        made = nftables.create_table(HOME.lan)
        if lines[: len(made)] == made:
            self.table, self.elements, lines = True, {}, lines[len(made) :]
        elif lines == nftables.delete_table():
            assert self.table
            self.table, self.elements, lines = False, {}, []
        for line in lines:
            found = ELEMENTS.fullmatch(line)
            assert found, line
            assert self.table
            for text in found[3].split(", "):
                key, _, value = text.partition(" : ")
                if found[1] == "delete":
                    del self.elements[found[2], key]
                else:
                    assert bool(value) == (found[2] in MAPS)
                    assert self.elements.setdefault((found[2], key), value) == value, f"{key} is there with another value"
        # A class that is not there limits nothing, silently: no packet may ever be sent to one.
        for (name, _), value in self.elements.items():
            assert name != "cls" or all(value.removeprefix("1:") in self.classes[device] for device in HOME)

    def tc(self, lines: Iterable[str]) -> None:
        for line in lines:
            words = line.split()
            device = words[words.index("dev") + 1]
            if line == f"qdisc add dev {device} root handle 1: htb default 1":
                assert device not in self.classes
                self.classes[device] = {}
            elif line == f"qdisc del dev {device} root handle 1:":
                del self.classes[device]
            elif found := CLASS.fullmatch(line):
                before = self.classes[device].get(found[2], TrafficClass(0, ""))
                burst = int(found[4]) if found[4] else None
                self.classes[device][found[2]] = replace(before, kbit=int(found[3]), burst_kib=burst)
            elif found := LEAF.fullmatch(line):
                before = self.classes[device][found[2]]
                assert before.leaf in ("", found[3]), "a queue of another kind is in the way"
                leaf_kib = int(found[4]) if found[4] else None
                self.classes[device][found[2]] = replace(before, leaf=found[3], leaf_kib=leaf_kib)
            elif words[:2] == ["class", "del"]:
                del self.classes[device][words[-1].removeprefix("1:")]
            else:
                raise AssertionError(line)

    def run(self, text: dict[str, list[str]], which: str = "") -> None:
        """A bundle's change, or with `undo-` the way back, in the agent's order."""
        self.tc(text[f"{which}tc-put"])
        self.nft(text[f"{which}nft"])
        self.tc(text[f"{which}tc-remove"])

    def resources(self) -> Resources:
        elements = frozenset(Element(name, key, value) for (name, key), value in self.elements.items())
        unrestricted = [minors["1"].kbit for minors in self.classes.values()]
        assert unrestricted == [UNRESTRICTED_KBIT] * len(unrestricted)
        places = {Place(d, minor): c for d, minors in self.classes.items() for minor, c in minors.items() if minor != "1"}
        rules = nftables.base_rules(HOME.lan) if self.table else ()
        return Resources(rules, elements, frozenset(self.classes), places)


def full(text: dict[str, list[str]]) -> Resources:
    """What a router comes up with after a restart."""
    made = Model()
    for name, lines in text.items():
        if name.startswith("all-tc-"):
            made.tc(lines)
    made.nft(text["all-nft"])
    return made.resources()


@settings(max_examples=HISTORIES, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=7))
def test_the_small_change_and_the_full_one_end_in_the_same_state(history: list[tuple[GroupState, ...]]) -> None:
    router, document = Model(), EMPTY
    for wanted in history:
        before = router.resources()
        bundle = COMPILER.compile_sync_request(wanted, document, before)
        assert bool(bundle.words) == (bool(bundle.change) or bundle.document.groups != document.groups)
        text = parts(bundle)
        router.run(text)
        assert router.resources() == bundle.after == COMPILER.resources(bundle.document) == full(text)
        back = deepcopy(router)
        back.run(text, "undo-")
        assert back.resources() == before
        document = bundle.document
        again = COMPILER.compile_sync_request(wanted, document, router.resources())
        assert not again.change
        assert not again.words


@settings(max_examples=HISTORIES, deadline=None)
@given(groups(), groups(), st.data())
def test_from_wherever_a_router_drifted_it_is_brought_to_the_same_state(
    then: tuple[GroupState, ...], now: tuple[GroupState, ...], data: st.DataObject
) -> None:
    router = Model()
    router.run(parts(COMPILER.compile_sync_request(then, EMPTY, Resources())))
    for key in data.draw(st.sets(st.sampled_from(sorted(router.elements)))) if router.elements else ():
        del router.elements[key]
    places = sorted(place for place in router.resources().classes)
    for place in data.draw(st.sets(st.sampled_from(places))) if places else ():
        del router.classes[place.device][place.minor]
        router.elements.pop(("cls", place.minor), None)
    drifted = router.resources()
    bundle = COMPILER.compile_sync_request(now, EMPTY, drifted)
    text = parts(bundle)
    router.run(text)
    assert router.resources() == bundle.after == full(text)
    router.run(text, "undo-")
    assert router.resources() == drifted
