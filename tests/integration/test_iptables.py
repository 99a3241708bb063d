"""The dialect of iptables and ipset on a real kernel: read back as written, undone from every step, others left alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.edge import Edge, an_edge
from tests.integration.test_agent import GROUPS, some_devices
from tidegate.errors import Refused, Unavailable
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.iptables import Iptables
from tidegate.policy.state import GroupState, Limit
from tidegate.router.engine import RouterOperationsEngine

pytestmark = pytest.mark.anyio

CHILD = DeviceRef(MacAddress("02:00:5e:10:00:0b"))
GUEST = DeviceRef(None, (IpAddress("192.168.1.12"), IpAddress("2001:db8::12")))
OLD = [GroupState(GroupId(1), (CHILD,), Limit(20_000, 5_000)), GroupState(GroupId(2), (GUEST,), block=True)]
NEW = [
    GroupState(GroupId(2), (CHILD,), Limit(30_000, 5_000)),
    GroupState(GroupId(3), (GUEST,), Limit(2_000, 2_000), block=True),
]
OTHERS = """
*filter
:FORWARD DROP [0:0]
:theirs - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -j theirs
-A theirs -i br-lan -m comment --comment "not -j TIDEGATE_FORWARD, and \\"quoted\\"" -j ACCEPT
COMMIT
*mangle
-A PREROUTING -p tcp -j MARK --set-xmark 0x0/0x1
COMMIT
"""

# What a router's tool does at the N-th time: `end` says how it ends.
FAULTY = """#!/bin/sh
case "$*" in *restore* | *batch* | *noflush*) ;; *) exec {real} "$@" ;; esac
read -r count <{at}
echo $((count - 1)) >{at}
[ "$count" = 1 ] && {{ {end}; exit 1; }}
exec {real} "$@"
"""
ENDS = {
    "fails": "true",
    "is killed with its agent": "kill -9 $PPID",
    "kills its agent when it is done": '{real} "$@"; kill -9 $PPID',
    "outlives its agent": 'kill -9 $PPID; sleep 0.4; {real} "$@"',
}
QUEUES = "tc qdisc show; tc class show dev wan; tc class show dev br-lan"


def without_nft(edge: Edge, variant: str, folder: Path | None = None) -> Edge:
    """The edge's agent finds no nft, and of everything else what is in `folder`, if one is given."""
    tools = {"TC": "tc", "IP4": f"iptables-{variant}", "IP6": f"ip6tables-{variant}", "IPSET": "ipset"}
    lines = [f"{name}={folder or '/usr/sbin'}/{tool}" for name, tool in tools.items()]
    (edge.root / "var/run/tidegate").mkdir(exist_ok=True)
    (edge.root / "var/run/tidegate/tools").write_text("\n".join([*lines, "NFT=", "DIALECT=iptables", "PATIENTLY='-w 5'\n"]))
    return edge


@pytest.fixture(params=["dash legacy", "busybox ash legacy", "dash nft"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    *sh, variant = request.param.split()
    with an_edge(tmp_path, sh) as found:
        yield without_nft(found, variant)


@pytest.fixture
def one_edge(tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, ["dash"]) as found:
        yield without_nft(found, "legacy")


def engine_of(edge: Edge) -> RouterOperationsEngine:
    found = edge.engine()
    return RouterOperationsEngine(
        edge.shell(), found._router, found._controller, found._interfaces, "bfifo", edge.agent, 5, dialect=Iptables()
    )


def tables(edge: Edge) -> str:
    """Which iptables its agent uses: "legacy" or "nft"."""
    (found,) = re.findall("IP4=.*iptables-(\\w+)", (edge.root / "var/run/tidegate/tools").read_text())
    return str(found)


def shown(edge: Edge, variant: str) -> str:
    """Every rule, set and class, without counters."""
    tools = (f"{tool}-{variant}-save" for tool in ("iptables", "ip6tables"))
    saves = "; ".join(f"{tool} -t {table}" for tool in tools for table in ("filter", "mangle"))
    text = edge.run(f"{saves}; ipset save | sed 's/ hashsize.*//' | sort; {QUEUES}")
    return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in text.splitlines() if not line.startswith("#"))


async def test_a_change_is_read_back_as_it_was_asked_for_and_taken_away_without_a_trace(edge: Edge) -> None:
    variant = tables(edge)
    edge.run(f"iptables-{variant}-restore <<'END'\n{OTHERS}END\nip6tables-{variant} -A FORWARD -j ACCEPT")
    before = shown(edge, variant)
    engine = engine_of(edge)
    await engine.create_group_infrastructure()
    for groups in (OLD, NEW, [], OLD):
        await engine.synchronise(groups)
        assert (await engine.verify_router_state(groups))[1] == ()
    after = shown(edge, variant)
    assert "-A FORWARD -j TIDEGATE_FORWARD\n-A FORWARD -m conntrack" in after  # before anybody's "established, accept"
    ours = re.compile(r":TIDEGATE_|-A TIDEGATE_|-A [A-Z]+ .*-j TIDEGATE_[A-Z]+$|(create|add) tidegate_")
    rules = [text.partition("qdisc")[0].splitlines() for text in (before, after)]
    assert [line for line in rules[1] if not ours.match(line)] == rules[0]
    await engine.cleanup_group_infrastructure("")
    assert shown(edge, variant) == before
    assert not (edge.root / "etc/tidegate").exists()


async def test_chains_of_groups_come_and_go_with_the_need_for_them(one_edge: Edge) -> None:
    engine = engine_of(one_edge)
    await engine.create_group_infrastructure()

    def chains() -> list[str]:
        saved = one_edge.run("iptables-legacy-save -t filter; iptables-legacy-save -t mangle")
        return re.findall("^:(TIDEGATE_GROUP_\\d+)", saved, re.MULTILINE)

    free = replace(OLD[0], limit=None)
    for groups, there in (([free], []), (OLD, ["TIDEGATE_GROUP_2", "TIDEGATE_GROUP_1"]), ([free], []), ([], [])):
        await engine.synchronise(groups)
        assert chains() == there


@pytest.mark.parametrize("end", ENDS)
async def test_whichever_step_of_a_change_fails_the_old_state_is_back(tmp_path: Path, end: str) -> None:
    """Every restore of a set, a table and the queues, each in its turn, under an agent that does or does not live on."""
    with an_edge(tmp_path / "router", ["dash"]) as edge:
        engine = engine_of(without_nft(edge, "legacy"))
        await engine.create_group_infrastructure()
        await engine.synchronise(OLD)
        before, at, folder = shown(edge, "legacy"), tmp_path / "at", tmp_path / "tools"
        folder.mkdir()
        for tool in ("iptables-legacy", "ip6tables-legacy"):
            for verb in ("", "-save"):
                (folder / f"{tool}{verb}").symlink_to(f"/usr/sbin/{tool}{verb}")
        for tool in ("iptables-legacy-restore", "ip6tables-legacy-restore", "ipset", "tc"):
            how = ENDS[end].format(real=f"/usr/sbin/{tool}")
            (folder / tool).write_text(FAULTY.format(real=f"/usr/sbin/{tool}", at=at, end=how))
            (folder / tool).chmod(0o755)
        without_nft(edge, "legacy", folder)
        steps = 0
        for step in range(1, 40):
            at.write_text(f"{step}\n")
            try:
                await engine.synchronise(NEW, force=True)
            except (Refused, Unavailable):
                steps += 1
                at.write_text("0\n")
                seen, drift = await engine.verify_router_state(OLD)
                assert (shown(edge, "legacy"), drift, seen.pending) == (before, (), None), step
            else:
                at.write_text("0\n")
                break
        assert steps >= 11  # two batches of tc, one of sets, four tables twice
        assert (await engine.verify_router_state(NEW))[1] == ()


DRIFTS = {
    "ipset del tidegate_ip4 192.168.1.12": (2, "ipset set tidegate_ip4: 192.168.1.12 is missing"),
    "ipset add tidegate_ip6 2001:db8::99 skbmark 0x65": (1, "ipset set tidegate_ip6: 2001:db8::99 should not be there"),
    "ipset -exist add tidegate_ip4 192.168.1.12 skbmark 0x65": (2, "ipset set tidegate_ip4: 192.168.1.12 has another value"),
    "ipset add tidegate_ip4 192.168.1.77": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -F TIDEGATE_GROUP_1": (1, "iptables mangle chain TIDEGATE_GROUP_1 has another value"),
    "ip6tables -F TIDEGATE_GROUP_2": (2, "iptables filter chain TIDEGATE_GROUP_2 has another value"),
    "ip6tables -I TIDEGATE_GROUP_2 -j RETURN": (2, "iptables filter chain TIDEGATE_GROUP_2 has another value"),
    "iptables -D TIDEGATE_FORWARD 2": (2, "iptables filter chain TIDEGATE_GROUP_2 has another value"),
    "iptables -I FORWARD -j ACCEPT": (None, "iptables chains of ours: its rules were changed"),
    "ip6tables -D FORWARD -j TIDEGATE_FORWARD": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -F PREROUTING": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -A PREROUTING -i br-lan -j TIDEGATE_LAN": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -I TIDEGATE_LAN -j RETURN": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -F TIDEGATE_MAC": (None, "iptables chains of ours: its rules were changed"),
    "iptables -t mangle -F TIDEGATE_MAC; ip6tables -t mangle -F TIDEGATE_MAC": (
        1,
        "iptables chain TIDEGATE_MAC: 02:00:5e:10:00:0b is missing",
    ),
    "iptables -N TIDEGATE_GROUP_44": (44, "iptables filter chain TIDEGATE_GROUP_44 should not be there"),
    "for t in filter mangle; do for i in iptables ip6tables; do $i -t $t -F; $i -t $t -X; done; done; ipset destroy": (
        None,
        "iptables chains of ours: is missing",
    ),
}


@pytest.mark.parametrize("damage", DRIFTS)
async def test_drift_is_named_place_by_place_and_mended(one_edge: Edge, damage: str) -> None:
    engine = engine_of(one_edge)
    await engine.create_group_infrastructure()
    await engine.synchronise(OLD)
    foreign = "iptables-legacy -I FORWARD -j ACCEPT"
    before = shown(one_edge, "legacy")
    one_edge.run(re.sub(r"\b(ip6?tables)\b", r"\1-legacy", damage))
    found = [(remark.group, remark.text) for remark in (await engine.verify_router_state(OLD))[1]]
    assert DRIFTS[damage] in found
    await engine.repair(await engine.inspect(OLD), OLD)
    assert (await engine.verify_router_state(OLD))[1] == ()
    if re.sub(r"\b(ip6?tables)\b", r"\1-legacy", damage) == foreign:
        one_edge.run("iptables-legacy -D FORWARD -j ACCEPT")  # theirs to keep, after ours
    assert sorted(shown(one_edge, "legacy").split()) == sorted(before.split())


async def test_every_minute_puts_back_what_a_firewall_flushed(one_edge: Edge) -> None:
    engine = engine_of(one_edge)
    await engine.create_group_infrastructure()
    await engine.synchronise(OLD)
    before = shown(one_edge, "legacy")
    one_edge.run("iptables-legacy -F FORWARD; ip6tables-legacy -t mangle -F; tc qdisc del dev wan root")
    one_edge.run(f"{' '.join(one_edge.sh)} {one_edge.agent} - tick")
    assert sorted(shown(one_edge, "legacy").split()) == sorted(before.split())


@pytest.mark.parametrize("damage", DRIFTS)
async def test_every_minute_puts_right_what_was_altered(one_edge: Edge, damage: str) -> None:
    engine = engine_of(one_edge)
    await engine.create_group_infrastructure()
    await engine.synchronise(OLD)
    one_edge.run(re.sub(r"\b(ip6?tables)\b", r"\1-legacy", damage))
    one_edge.run(f"{' '.join(one_edge.sh)} {one_edge.agent} - tick")
    assert (await engine.verify_router_state(OLD))[1] == ()
    assert engine.put_right
    assert engine.put_right.what == ("rules",)


async def test_what_was_confirmed_in_one_dialect_stays_in_it_though_nft_is_installed_later(one_edge: Edge) -> None:
    """Here nft is there all the time, and what its kernel's tables are written with by the name of iptables."""
    engine = engine_of(without_nft(one_edge, "nft"))
    await engine.create_group_infrastructure()
    await engine.synchronise(OLD)
    (one_edge.root / "var/run/tidegate/tools").unlink()  # as after a restart
    assert (await engine.verify_router_state(OLD))[1] == ()
    assert "DIALECT=iptables" in (one_edge.root / "var/run/tidegate/tools").read_text()


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(GROUPS, st.integers(0, 2**32)), min_size=1, max_size=4))
def test_any_history_ends_where_a_fresh_start_would(one_edge: Edge, history: list[tuple[list[GroupState], int]]) -> None:
    """Small changes one after another, each verified, and the same state put in place of everything at once."""

    async def live() -> None:
        engine = engine_of(one_edge)
        groups: list[GroupState] = []
        for asked, seed in history:
            groups = [replace(group, devices=some_devices(asked, group.id, seed)) for group in asked]
            await engine.synchronise(groups)
            assert (await engine.verify_router_state(groups))[1] == ()
        before = shown(one_edge, "legacy")
        one_edge.run(
            "iptables-legacy -t mangle -A TIDEGATE_LAN -j RETURN; tc qdisc del dev br-lan root; tc qdisc del dev wan root"
        )
        await engine.synchronise(groups, force=True)
        assert sorted(shown(one_edge, "legacy").split()) == sorted(before.split())

    asyncio.run(live())
