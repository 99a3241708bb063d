"""The same as `tests/unit/test_histories.py`, with nft and tc themselves in a router's kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.histories import HISTORIES, groups, parts
from tests.integration.edge import HOME, US, Edge, an_edge
from tidegate.policy import nftables, tc
from tidegate.policy.compiler import GroupPolicyCompiler
from tidegate.policy.desired import Place, Resources
from tidegate.policy.element import Element
from tidegate.policy.state import GroupState, RouterName, StateDocument

COMPILER = GroupPolicyCompiler("bfifo")
BARE = "; ".join(["nft flush ruleset", *(f"tc qdisc del dev {device} root 2>/dev/null" for device in HOME), "true"])


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with an_edge(tmp_path_factory.mktemp("edge"), ("sh",)) as found:
        yield found


def run(edge: Edge, text: dict[str, list[str]], which: str = "") -> Resources:
    """A bundle's change, or with `undo-` the way back, in the agent's order; and what stands then."""
    steps = [("tc -batch -", f"{which}tc-put"), ("nft -f -", f"{which}nft"), ("tc -batch -", f"{which}tc-remove")]
    lines = [f"{program} <<'END'\n" + "\n".join(text[part]) + "\nEND\n" for program, part in steps if text[part]]
    return seen(edge, "set -e\n" + "".join(lines))


def seen(edge: Edge, before: str = "") -> Resources:
    """What nft and tc print once the shell lines `before` have run."""
    shown = "".join(f"echo -- {d}; tc qdisc show dev {d}; tc class show dev {d}\n" for d in HOME)
    printed = edge.run(f"{before}nft -j list ruleset\n{shown}")
    rules, _, queues = printed.partition("\n-- ")
    entries = [entry for entry in json.loads(rules)["nftables"] if "metainfo" not in entry]
    there, elements = nftables.read_table(rules) if entries else ((), frozenset[Element]())
    found = {device: tc.read_device(text) for device, _, text in (part.partition("\n") for part in queues.split("-- "))}
    roots = frozenset(device for device, queue in found.items() if queue.ours)
    classes = {Place(device, minor): c for device in roots for minor, c in found[device].classes.items()}
    return Resources(there, elements, roots, classes)


@settings(max_examples=max(3, HISTORIES // 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(groups(), min_size=1, max_size=4))
def test_the_small_change_and_the_full_one_end_in_the_same_kernel(edge: Edge, history: list[tuple[GroupState, ...]]) -> None:
    before = seen(edge, f"{BARE}\n")
    assert before == Resources()
    text: dict[str, list[str]] = {}
    document = StateDocument(0, US, RouterName("home"), HOME)
    for wanted in history:
        bundle = COMPILER.compile_sync_request(wanted, document, before)
        text = parts(bundle)
        assert run(edge, text) == bundle.after
        assert run(edge, text, "undo-") == before
        assert run(edge, text) == bundle.after
        again = COMPILER.compile_sync_request(wanted, bundle.document, seen(edge))
        assert not again.change
        assert not again.words
        document, before = bundle.document, bundle.after
    # What the router comes up with after a restart.
    whole = {"tc-put": [], "nft": text["all-nft"], "tc-remove": []}
    whole["tc-put"] = [line for name, lines in text.items() if name.startswith("all-tc-") for line in lines]
    seen(edge, f"{BARE}\n")
    assert run(edge, whole) == before
