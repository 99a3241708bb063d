"""What is altered by hand on a router the router itself puts right within its minute, under both shells that routers have."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.edge import HOME, KERNEL, Edge, an_edge
from tests.integration.test_confirm import CHILD, OFFICE, SLOWER, a_bundle, ask, restart, send
from tidegate.router.engine import RouterOperationsEngine

pytestmark = pytest.mark.anyio

CAP = "tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit"
GONE = "nft delete element inet tidegate mac_mark '{ 02:00:5e:10:00:0b }'"
DOCUMENT = "$TIDEGATE_ROOT/etc/tidegate/state.json"
BUNDLE = "$TIDEGATE_ROOT/etc/tidegate/current"

ALTERED = {
    "an element that is gone": (GONE, "rules"),
    "an element that moved": (f"{GONE}; nft add element inet tidegate mac_mark '{{ 02:00:5e:10:00:0b : 102 }}'", "rules"),
    "an element of others": ("nft add element inet tidegate ip_mark '{ 10.9.9.9 : 107 }'", "rules"),
    "a line of others": ("nft insert rule inet tidegate forward accept", "rules"),
    "a chain of others": ("nft add chain inet tidegate theirs", "rules"),
    "a flushed chain": ("nft flush chain inet tidegate refuse", "rules"),
    "a flushed ruleset": ("nft flush ruleset", "rules"),
    "a changed class": (CAP, "queues"),
    "a class that is gone": ("tc class del dev br-lan classid 1:101", "queues"),
    "a class of others": ("tc class add dev wan parent 1: classid 1:777 htb rate 9mbit", "queues"),
    "another leaf": ("tc qdisc replace dev wan parent 1:101 handle 101: bfifo limit 1k", "queues"),
    "a root that is gone": ("tc qdisc del dev wan root", "queues"),
    "an edited document": (f"sed -i s/20000/90000/ {DOCUMENT}", "document"),
    "an empty document": (f": >{DOCUMENT}", "document"),
    "a document that is gone": (f"rm {DOCUMENT}", "document"),
    "rules and queues": (f"{GONE}; {CAP}", "queues rules"),
}


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        yield found


@pytest.fixture
async def engine(edge: Edge) -> RouterOperationsEngine:
    found = edge.engine()
    await found.create_group_infrastructure()
    await found.synchronise([CHILD])
    noted(edge)
    return found


def noted(edge: Edge) -> None:
    """Wait until the agent has noted what its last change came to, which it does after it has answered."""
    until = time.monotonic() + 10
    while not (edge.root / "var/run/tidegate/print").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


def tick(edge: Edge) -> None:
    """What cron runs every minute."""
    subprocess.run([*edge.enter, *edge.sh, edge.agent, "-", "tick"], timeout=30, env=edge.environment, check=True)


def whole(edge: Edge) -> tuple[list[str], str]:
    """Rules, queues and document; the kernel lists queues in another order once one was away."""
    return sorted(edge.run(KERNEL).splitlines()), (edge.root / "etc/tidegate/state.json").read_text()


def mended(edge: Edge) -> str:
    found = edge.root / "etc/tidegate/mended"
    return found.read_text().strip().split(" ", 1)[1] if found.exists() else ""


@pytest.mark.parametrize("kind", ALTERED)
async def test_what_is_altered_is_put_right_by_the_next_minute_and_told_once(
    edge: Edge, engine: RouterOperationsEngine, kind: str
) -> None:
    damage, what = ALTERED[kind]
    before = whole(edge)
    edge.run(damage)
    tick(edge)
    assert whole(edge) == before
    assert mended(edge) == what
    assert (await engine.verify_router_state([CHILD]))[1] == ()
    told = engine.put_right
    assert told
    assert " ".join(told.what) == what
    await engine.hear_of_mending(told)
    tick(edge)
    assert mended(edge) == ""


async def test_a_minute_in_which_nothing_was_altered_changes_nothing(edge: Edge, engine: RouterOperationsEngine) -> None:
    await engine.synchronise([SLOWER, OFFICE])
    noted(edge)
    before = edge.picture(), edge.run("nft -a list ruleset")
    tick(edge)
    assert (edge.picture(), edge.run("nft -a list ruleset")) == before
    assert mended(edge) == ""


async def test_traffic_and_a_change_that_was_taken_back_are_no_drift(edge: Edge, engine: RouterOperationsEngine) -> None:
    change, answer = send(edge, await a_bundle(engine, SLOWER, OFFICE), 60)
    assert answer.word == "ok"
    edge.run("ip addr add 192.0.2.1/24 dev wan; ip link set isp up; ping -c 1 -W 1 192.0.2.2 >/dev/null || true")
    noted(edge)
    assert ask(edge, "revert", change, *HOME).word == "ok"
    tick(edge)  # notes what stands
    tick(edge)
    assert mended(edge) == ""
    edge.run(CAP)
    tick(edge)
    assert "rate 5Mbit" in edge.run("tc class show dev wan classid 1:101")
    assert mended(edge) == "queues"


async def test_a_change_that_waits_is_left_alone_however_it_was_altered(edge: Edge, engine: RouterOperationsEngine) -> None:
    send(edge, await a_bundle(engine, SLOWER), 60)
    noted(edge)
    edge.run(CAP)
    before = edge.run(KERNEL)
    tick(edge)
    assert edge.run(KERNEL) == before
    assert mended(edge) == ""


@pytest.mark.parametrize("damage", [f"sed -i 's/: 101 }}/: 100 }}/' {BUNDLE}", f": >{BUNDLE}", f"sed -i '20,$d' {BUNDLE}"])
@pytest.mark.parametrize("after", ["the change", "a restart"])
async def test_by_a_damaged_bundle_nothing_is_put_right_and_the_controller_is_told(
    edge: Edge, engine: RouterOperationsEngine, damage: str, after: str
) -> None:
    if after == "a restart":
        (edge.root / "var/run/tidegate/print").write_text("")  # memory is empty
    edge.run(f"{damage}; {CAP}")
    running = edge.run(KERNEL)
    tick(edge)
    tick(edge)
    assert edge.run(KERNEL) == running
    assert mended(edge) == ""
    _, remarks = await engine.verify_router_state([CHILD])
    assert any(remark.text.startswith("the router's copy of what was confirmed was altered") for remark in remarks)
    applied = await engine.synchronise([CHILD])
    assert "the router's copy of what was confirmed is written anew" in applied.words
    noted(edge)
    assert (await engine.verify_router_state([CHILD]))[1] == ()
    edge.run(CAP)
    tick(edge)
    assert mended(edge) == "queues"


async def test_drift_is_put_right_after_a_restart_too(edge: Edge, engine: RouterOperationsEngine) -> None:
    restart(edge)
    tick(edge)  # everything is back
    tick(edge)  # and noted
    before = whole(edge)
    edge.run(GONE)
    tick(edge)
    assert whole(edge) == before
    assert mended(edge) == "rules"


@pytest.mark.parametrize("damage", [f": >{BUNDLE}", f"sed -i '/^--- all-/,$d' {BUNDLE}", f"rm {BUNDLE}"])
async def test_a_start_with_a_damaged_bundle_goes_by_the_one_before_and_the_controller_mends_it(
    edge: Edge, engine: RouterOperationsEngine, damage: str
) -> None:
    await engine.synchronise([SLOWER])
    noted(edge)
    restart(edge)
    edge.run(damage)
    subprocess.run([*edge.enter, *edge.sh, edge.agent, "-", "boot"], timeout=30, env=edge.environment, check=True)
    assert "02:00:5e:10:00:0b" in edge.run("nft list map inet tidegate mac_mark")
    assert "rate 20Mbit" in edge.run("tc class show dev br-lan"), "what was confirmed before"
    tick(edge)
    assert (await engine.verify_router_state([SLOWER]))[1] != ()
    await engine.synchronise([SLOWER])
    assert (await engine.verify_router_state([SLOWER]))[1] == ()
    after = whole(edge)
    restart(edge)
    tick(edge)
    assert whole(edge) == after
