"""The agent on a real kernel, under both shells that routers have: all of a change or nothing of it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.edge import HOME, KERNEL, US, Edge, EdgeShell, an_edge, last_answer
from tidegate.errors import Conflict, Refused, Unavailable
from tidegate.policy import nftables, tc
from tidegate.policy.compiler import checksum
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.state import BURST_KBIT, BURST_SECONDS, ControllerId, GroupState, Limit, RouterName, from_text, to_text
from tidegate.router.agent import VERSION
from tidegate.router.engine import RouterOperationsEngine
from tidegate.router.shell import Dialogue
from tidegate.router.statefile import Answer

pytestmark = pytest.mark.anyio

CHILD = GroupState(GroupId(1), (DeviceRef(MacAddress("02:00:5e:10:00:0b"), (IpAddress("2001:db8::b"),)),), Limit(20_000, 5_000))
SLOWER = replace(CHILD, limit=Limit(2_000, 5_000))
GUESTS = GroupState(GroupId(0), (), Limit(50_000, 50_000))


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        yield found


@pytest.fixture
def one_edge(tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, ["dash"]) as found:
        yield found


@pytest.fixture
async def engine(edge: Edge) -> RouterOperationsEngine:
    """Of a router that has the base set-up and one group."""
    found = edge.engine()
    await found.create_group_infrastructure()
    await found.synchronise([CHILD])
    return found


def send(edge: Edge, generation: int, bundle: bytes, sum: str | None = None) -> Answer:
    """A bundle to the agent as any controller could send it."""
    command = [*edge.enter, *edge.sh, edge.agent, VERSION, "apply", str(generation), sum or checksum(bundle)]
    command += [str(len(bundle)), "5", *HOME]
    done = subprocess.run(command, input=bundle, capture_output=True, timeout=30, env=edge.environment)
    return last_answer(done.stdout)


def ask(edge: Edge, *words: str) -> Answer:
    """What the agent answers to anything else."""
    command = [*edge.enter, *edge.sh, edge.agent, VERSION, *words]
    return last_answer(subprocess.run(command, capture_output=True, timeout=30, env=edge.environment).stdout)


def parts(**texts: str) -> bytes:
    named = {"for": f"{US} home"} | texts
    return "".join(f"--- {name.replace('_', '-')}\n{text}\n" for name, text in named.items()).encode()


async def test_a_change_is_applied_read_back_and_written_down(edge: Edge, engine: RouterOperationsEngine) -> None:
    assert "02:00:5e:10:00:0b : 0x00000065" in edge.run("nft list map inet tidegate mac_mark")
    assert "class htb 1:101 root leaf 101: prio 0 rate 20Mbit ceil 20Mbit" in edge.run("tc class show dev br-lan")
    assert "rate 5Mbit ceil 5Mbit" in edge.run("tc class show dev wan")
    document = from_text((edge.root / "etc/tidegate/state.json").read_text())
    assert (document.generation, document.controller, document.groups) == (2, US, (CHILD,))


async def test_only_a_change_that_could_cut_the_lan_off_asks_around_there(edge: Edge) -> None:
    engine = edge.engine()
    assert (await engine.create_group_infrastructure()).lan == (
        "nobody on the LAN answered before the change (0 asked), so nobody was asked after it"
    )
    assert (await engine.synchronise([CHILD])).lan == ""


async def test_what_holds_already_is_not_sent_again(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = engine.answers
    assert (await engine.synchronise([CHILD])).words == ()
    assert engine.answers == before


async def test_the_probe_finds_what_a_queue_can_be_and_leaves_nothing(edge: Edge) -> None:
    before = edge.picture()
    found = await edge.engine().probe()
    assert found.htb
    assert found.leaf in ("fq_codel", "bfifo")
    assert found.nft.startswith("nftables")
    assert "iproute2" in found.tc
    assert edge.picture() == before


async def test_the_document_is_proved_by_the_routers_own_tools(edge: Edge, engine: RouterOperationsEngine) -> None:
    state = edge.root / "etc/tidegate/state.json"
    told = state.read_text().split('"checksum": "')[1][:64]
    assert edge.run(f"tail -n +2 {state} | sha256sum").split()[0] == told


async def test_a_bundle_with_a_wrong_checksum_does_nothing(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.picture()
    bundle = parts(tc_put="qdisc del dev wan root", nft="flush ruleset", state="{}")
    assert send(edge, 2, bundle, "0" * 64).word == "incomplete"
    assert edge.picture() == before


async def test_a_bundle_that_is_cut_anywhere_does_nothing(edge: Edge, engine: RouterOperationsEngine) -> None:
    before = edge.picture()
    bundle = parts(tc_put="qdisc del dev wan root", nft="delete table inet tidegate", state="{}")
    for length in range(0, len(bundle), 7):
        assert send(edge, 2, bundle[:length], checksum(bundle)).word == "incomplete"
    assert edge.picture() == before


@pytest.mark.parametrize("generation", [0, 1, 3])
async def test_a_bundle_for_another_generation_is_refused_with_the_present_one(
    edge: Edge, engine: RouterOperationsEngine, generation: int
) -> None:
    before = edge.picture()
    answer = send(edge, generation, parts(nft="delete table inet tidegate", state="{}"))
    assert answer.words == ("stale", "2", US)
    assert edge.picture() == before


FAULTS = {
    "tc-put": {"tc_put": "class replace dev wan parent 1: classid 1:101 htb rate 1mbit ceil 1mbit\nclass nonsense"},
    "nft": {
        "tc_put": "class replace dev wan parent 1: classid 1:101 htb rate 1mbit ceil 1mbit",
        "nft": "add element inet tidegate cls { 105 : 1:105 }\ndelete element inet tidegate cls { 999 }",
    },
    "tc-remove": {
        "tc_put": "class replace dev wan parent 1: classid 1:101 htb rate 1mbit ceil 1mbit",
        "nft": "add element inet tidegate cls { 105 : 1:105 }",
        "tc_remove": "class del dev wan classid 1:777",
    },
}


@pytest.mark.parametrize("stage", FAULTS)
async def test_a_change_that_fails_at_any_stage_is_undone(edge: Edge, engine: RouterOperationsEngine, stage: str) -> None:
    before = edge.picture()
    undo = {
        "undo_tc_put": "class replace dev wan parent 1: classid 1:101 htb rate 5000kbit ceil 5000kbit",
        "undo_nft": "delete element inet tidegate cls { 105 }",
    }
    answer = send(edge, 2, parts(**FAULTS[stage], **undo, state="{}"))
    assert answer.words == ("refused", stage)
    assert answer.sections["error"][0]
    assert edge.picture() == before


async def test_a_document_that_can_not_be_written_undoes_the_change(edge: Edge, engine: RouterOperationsEngine) -> None:
    state = edge.root / "etc/tidegate/state.json"
    edge.run("cd $TIDEGATE_ROOT/etc/tidegate && rmdir pending && touch pending")  # where the agent wants a folder
    kernel = edge.run(KERNEL)
    document = state.read_text()
    with pytest.raises(Refused) as refused:
        await engine.synchronise([SLOWER, GUESTS])
    assert refused.value.facts["stage"] == "state"
    assert refused.value.facts["restored"] is True
    assert state.read_text() == document
    assert edge.run(KERNEL) == kernel


async def test_a_change_that_does_not_read_back_as_asked_is_taken_back(edge: Edge, engine: RouterOperationsEngine) -> None:
    """A tc that does another thing than it is told, and reports success."""
    tools = edge.root / "var/run/tidegate/tools"
    found = dict(line.split("=") for line in tools.read_text().splitlines())
    liar = edge.root / "tc"
    liar.write_text(f'#!/bin/sh\n[ ! -f "$2" ] || sed -i s/2000kbit/3000kbit/g "$2"\nexec {found["TC"]} "$@"\n')
    liar.chmod(0o755)
    tools.write_text(tools.read_text().replace(f"TC={found['TC']}", f"TC={liar}"))
    kernel = edge.run(KERNEL)
    with pytest.raises(Refused, match="lets 3 Mbit/s through instead of 2 Mbit/s") as refused:
        await engine.synchronise([SLOWER, GUESTS])
    assert refused.value.facts["restored"] is True
    assert edge.run(KERNEL) == kernel
    assert from_text((edge.root / "etc/tidegate/state.json").read_text()).groups == (CHILD,)
    assert (await engine.synchronise([CHILD])).words == ()


async def test_a_change_that_can_not_be_read_back_is_taken_back(edge: Edge, engine: RouterOperationsEngine) -> None:
    """A tc that prints, once after a change, what nobody can read."""
    tools = edge.root / "var/run/tidegate/tools"
    found = dict(line.split("=") for line in tools.read_text().splitlines())
    garbles, changed = edge.root / "tc", edge.root / "changed"
    garbles.write_text(
        f"""#!/bin/sh
case "$*" in
*"-batch -"*) if [ -e {changed} ]; then rm {changed}; echo "class htb 1:101 root rate much"; exit; fi ;;
*) [ ! -s "$2" ] || touch {changed} ;;
esac
exec {found["TC"]} "$@"
"""
    )
    garbles.chmod(0o755)
    tools.write_text(tools.read_text().replace(f"TC={found['TC']}", f"TC={garbles}"))
    kernel = edge.run(KERNEL)
    with pytest.raises(Refused, match="tc printed"):
        await engine.synchronise([SLOWER, GUESTS])
    assert not changed.exists()
    assert edge.run(KERNEL) == kernel


class LosesItsLine(EdgeShell):
    """Whatever the agent answers to a change, nobody hears it; the change itself arrives or not."""

    arrives = True

    @asynccontextmanager
    async def talk(self, command: Sequence[str], stdin: bytes = b"", **limits: Any) -> AsyncIterator[Dialogue]:
        async def read(size: int) -> bytes:
            raise Unavailable("the line was cut")

        if self.arrives:
            await self.run(command, stdin, **limits)
        yield Dialogue(read, lambda data: None, 1, 1)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_lost_answer_is_asked_for_and_the_truth_is_told(
    edge: Edge, engine: RouterOperationsEngine, arrives: bool
) -> None:
    shell = LosesItsLine(edge)
    shell.arrives = arrives
    cut = RouterOperationsEngine(shell, RouterName("home"), US, HOME, "bfifo", edge.agent)
    before = edge.picture()
    if arrives:
        assert (await cut.synchronise([SLOWER])).generation == 3
        assert "rate 2Mbit" in edge.run("tc class show dev br-lan")
    else:
        with pytest.raises(Unavailable):
            await cut.synchronise([SLOWER])
        assert edge.picture() == before


async def test_a_base_set_up_that_fails_leaves_nothing(edge: Edge) -> None:
    before = edge.run("nft list ruleset; tc qdisc show")
    (edge.root / "etc/tidegate").parent.mkdir()
    (edge.root / "etc/tidegate").write_text("a file stands where the folder should be")
    with pytest.raises(Refused):
        await edge.engine().create_group_infrastructure()
    assert edge.run("nft list ruleset; tc qdisc show") == before


async def test_a_router_that_forgot_everything_but_its_document_is_mended_by_the_next_change(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    """What a reboot leaves: no rules, no queues. The engine still remembers them and finds out."""
    edge.run("nft delete table inet tidegate; tc qdisc del dev br-lan root; tc qdisc del dev wan root")
    applied = await engine.synchronise([SLOWER])
    assert "the base rules are put in place" in applied.words
    seen, remarks = await engine.verify_router_state([SLOWER])
    assert remarks == ()
    assert seen.document is not None
    assert seen.document.groups == (SLOWER,)


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ("nft flush chain inet tidegate forward", "nft table inet tidegate: its rules were changed"),
        ("nft add rule inet tidegate forward accept", "nft table inet tidegate: its rules were changed"),
        ("nft delete table inet tidegate", "nft table inet tidegate: is missing"),
        ("nft delete element inet tidegate mac_mark '{ 02:00:5e:10:00:0b }'", "nft map mac_mark: 02:00:5e:10:00:0b is missing"),
        ("nft add element inet tidegate blocked '{ 101 }'", "nft set blocked: 101 should not be there"),
        ("nft delete element inet tidegate blocked '{ 105 }'", "nft set blocked: 105 is missing"),
        ("nft flush chain inet tidegate refuse", "nft table inet tidegate: its rules were changed"),
        ("nft flush table inet tidegate", "nft table inet tidegate: its rules were changed"),
        ("nft delete element inet tidegate cls '{ 101 }'", "nft map cls: 101 is missing"),
        ("nft add element inet tidegate ip_mark '{ 10.9.9.9 : 107 }'", "nft map ip_mark: 10.9.9.9 should not be there"),
        (
            "tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit",
            "tc wan class 1:101: lets 9 Mbit/s through instead of 5 Mbit/s",
        ),
        ("tc qdisc replace dev wan parent 1:101 handle 101: bfifo limit 1k", "tc wan class 1:101: has another queue or burst"),
        ("tc qdisc del dev wan root", "tc wan: our root queue is missing"),
        ("rm $TIDEGATE_ROOT/etc/tidegate/state.json", "the state document is missing"),
    ],
)
async def test_drift_is_named_and_a_forced_sync_mends_it(
    edge: Edge, engine: RouterOperationsEngine, damage: str, place: str
) -> None:
    groups = [CHILD, GroupState(GroupId(5), block=True)]
    await engine.synchronise(groups)
    edge.run(damage)
    _, remarks = await engine.verify_router_state(groups)
    assert any(remark.text.startswith(place) for remark in remarks)
    assert (await engine.synchronise(groups, force=True)).words
    assert (await engine.verify_router_state(groups))[1] == ()


async def test_rules_and_queues_of_others_stay_as_they_are(edge: Edge) -> None:
    edge.run(
        "nft add table inet fw4 && nft add chain inet fw4 forward '{ type filter hook forward priority 0; policy drop; }' "
        "&& nft add rule inet fw4 forward ct state established accept && tc qdisc add dev lo root handle 7: bfifo"
    )
    before = edge.picture()
    engine = edge.engine()
    await engine.create_group_infrastructure()
    for groups in ([CHILD], [CHILD, GUESTS], [SLOWER], []):
        await engine.synchronise(groups)
    others = "table inet fw4" + edge.run("nft -s list ruleset").split("table inet fw4")[1].split("table inet")[0]
    assert others in before
    await engine.cleanup_group_infrastructure("")
    agent = f"{edge.agent}\n{Path(edge.agent).read_text()}" if Path(edge.agent).exists() else ""
    assert agent == ""
    edge.install()
    assert edge.picture() == before


async def test_a_root_queue_of_somebody_else_is_refused_and_left_alone(edge: Edge) -> None:
    edge.run("tc qdisc add dev wan root handle 8001: bfifo")
    before = edge.picture()
    with pytest.raises(Refused, match=r"wan carries a root queue of somebody else \(bfifo 8001:\)"):
        await edge.engine().create_group_infrastructure()
    assert edge.picture() == before


async def test_what_was_meant_for_another_router_is_refused_and_changes_nothing(
    edge: Edge, engine: RouterOperationsEngine, tmp_path: Path
) -> None:
    """REL-16: of the same controller, at the same generation, with the checksum right."""
    bundle = await engine.prepare([SLOWER])
    before = edge.picture()
    for theirs in (
        replace(bundle.before, router=RouterName("school")),
        replace(bundle.before, controller=ControllerId("b" * 16)),
    ):
        answer = send(edge, bundle.generation, replace(bundle, before=theirs).to_bytes())
        assert answer.words == ("elsewhere", "home")
        with pytest.raises(Conflict, match=f"is router home, not {theirs.router}: nothing was changed"):
            await engine.apply_command_bundle(replace(bundle, before=theirs))
    assert edge.picture() == before
    assert (await engine.synchronise([SLOWER])).words
    with_another = edge.engine(router="school")
    with pytest.raises(Conflict, match="already enrolled here, as home"):
        await with_another.synchronise([CHILD])
    await with_another.create_group_infrastructure()  # enrolled anew, under another name: that is an act of its own
    assert (await with_another.synchronise([CHILD])).words


async def test_of_two_controllers_the_second_is_refused(edge: Edge, engine: RouterOperationsEngine) -> None:
    other = edge.engine(ControllerId("00000000000000bb"))
    with pytest.raises(Conflict, match=US):
        await other.synchronise([SLOWER])
    await other.create_group_infrastructure()  # it takes the router up, as `routers.add` does
    with pytest.raises(Conflict, match="00000000000000bb"):
        await engine.synchronise([SLOWER])


async def test_changes_that_come_at_once_stand_in_line_and_one_goes_in(edge: Edge, engine: RouterOperationsEngine) -> None:
    bundle = parts(tc_put="class replace dev wan parent 1: classid 1:101 htb rate 1mbit ceil 1mbit", state=_state(edge, 3))
    answers = await asyncio.gather(*(asyncio.to_thread(send, edge, 2, bundle) for _ in range(8)))
    assert sorted(answer.word for answer in answers) == ["ok"] + ["pending"] * 7
    change = checksum(bundle)[:16]
    assert {answer.words[1] for answer in answers if answer.word == "pending"} == {change}
    assert ask(edge, "confirm", change).word == "ok"
    assert send(edge, 2, bundle).words == ("stale", "3", US)


async def test_the_lock_of_a_killed_agent_is_taken_over(edge: Edge, engine: RouterOperationsEngine) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for owner in (f"1 999999999999 {boot}", f"4194303 1 {boot}", "1 1 another-boot"):
        (edge.root / "var/run/tidegate/lock").symlink_to(owner)
        await engine.synchronise([SLOWER, GUESTS], force=True)
        await engine.synchronise([CHILD])
    assert not (edge.root / "var/run/tidegate/lock").is_symlink()


async def test_a_change_that_lost_its_caller_runs_to_its_end(edge: Edge, engine: RouterOperationsEngine) -> None:
    """SIGHUP and a closed channel are what a cut line looks like to the agent."""
    bundle = parts(tc_put="class replace dev wan parent 1: classid 1:101 htb rate 1mbit ceil 1mbit", state=_state(edge, 3))
    command = [*edge.enter, *edge.sh, edge.agent, VERSION, "apply", "2", checksum(bundle), str(len(bundle)), "5", *HOME]
    agent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=edge.environment
    )
    assert agent.stdin
    assert agent.stdout
    assert agent.stderr
    agent.stdin.write(bundle)
    agent.stdin.flush()
    agent.stdout.close()
    agent.stderr.close()
    work = edge.root / "var/run/tidegate"
    while not list(work.glob("work.*/bundle")):
        await asyncio.sleep(0.005)
    agent.send_signal(signal.SIGHUP)
    agent.stdin.close()
    await asyncio.to_thread(agent.wait, 20)
    assert "rate 1Mbit" in edge.run("tc class show dev wan")
    assert ask(edge, "confirm", checksum(bundle)[:16]).word == "ok"
    assert from_text((edge.root / "etc/tidegate/state.json").read_text()).generation == 3
    assert not list(work.glob("work.*"))


GROUPS = st.lists(
    st.builds(
        GroupState,
        st.sampled_from([GroupId(n) for n in (0, 1, 2, 10, 899, 9899)]),
        st.just(()),
        st.one_of(
            st.none(),
            st.builds(Limit, st.integers(64, 3_000_000), st.sampled_from([64, 1_000_000, 32_000_000])),
            st.builds(Limit, st.integers(64, 1_000_000), st.just(64), st.sampled_from([4, 640])),
        ),
        st.booleans(),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda group: group.id,
)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(GROUPS, st.integers(0, 2**32)), min_size=1, max_size=5))
def test_any_history_ends_where_a_fresh_start_would(one_edge: Edge, history: list[tuple[list[GroupState], int]]) -> None:
    """Small changes one after another, each verified, and the same state at once on a router that has nothing."""

    async def live() -> None:
        engine, fresh = one_edge.engine(), one_edge.engine()
        groups: list[GroupState] = []
        for asked, seed in history:
            groups = [replace(group, devices=some_devices(asked, group.id, seed)) for group in asked]
            await engine.synchronise(groups)
            assert (await engine.verify_router_state(groups))[1] == ()
        before = one_edge.run(PICTURE)
        one_edge.run("nft delete table inet tidegate; tc qdisc del dev br-lan root; tc qdisc del dev wan root")
        await fresh.synchronise(groups, force=True)
        assert sorted(one_edge.run(PICTURE).split()) == sorted(before.split())

    asyncio.run(live())


def test_every_class_that_can_be_asked_for_reads_back_as_it_was_asked_for(one_edge: Edge) -> None:
    """Rates over six orders of magnitude, with and without a burst: whatever tc rounds, we round before it."""
    dice, wanted, lines = Random(7), {}, list[str]()
    for minor in map(str, range(100, 1100)):
        kbit = int(64 * (100_000_000 / 64) ** dice.random())
        most = kbit * 125 * BURST_SECONDS // 1024
        burst = dice.choice([None, 4, dice.randint(4, max(4, most))]) if kbit <= BURST_KBIT else None
        wanted[minor] = tc.traffic_class(kbit, "bfifo", burst)
        lines += tc.put_class("wan", minor, wanted[minor])
    batch = one_edge.root / "batch"
    batch.write_text("\n".join([*tc.add_root("wan"), *lines, ""]))
    one_edge.run(f"tc -batch {batch}")
    assert tc.read_device(one_edge.run("tc qdisc show dev wan; tc class show dev wan")).classes == wanted


PICTURE = (
    "nft -j list table inet tidegate | tr -d '[]{},' | sed 's/\"handle\": [0-9]*//g'; "
    "tc class show dev wan; tc class show dev br-lan"
)


def some_devices(groups: list[GroupState], group: GroupId, seed: int) -> tuple[DeviceRef, ...]:
    """Which of eight devices are in this group, if each belongs to one of the groups at random."""
    if not group:
        return ()
    homes = Random(seed).choices([g.id for g in groups], k=8)
    return tuple(
        DeviceRef(MacAddress(f"02:00:00:00:00:{n:02x}"), (IpAddress(f"192.168.1.{n}"), IpAddress(f"2001:db8::{n:x}")))
        for n, home in enumerate(homes, 1)
        if home == group
    )


def _state(edge: Edge, generation: int) -> str:
    document = from_text((edge.root / "etc/tidegate/state.json").read_text())
    return to_text(replace(document, generation=generation)).rstrip("\n")


@pytest.mark.parametrize("asked", [["nosuch", "probe"], ["", ""], [VERSION[:-1], "observe", "wan"]])
async def test_an_agent_of_another_version_says_so_and_does_nothing(edge: Edge, asked: list[str]) -> None:
    before = edge.picture()
    done = subprocess.run([*edge.enter, *edge.sh, edge.agent, *asked], capture_output=True, timeout=30, env=edge.environment)
    assert last_answer(done.stdout).word == "version"
    assert edge.picture() == before


async def test_a_table_that_stood_by_while_ours_was_made_anew_is_gone_afterwards(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    edge.run("nft add set inet tidegate of_somebody_else '{ type mark; }'")
    found = await engine.inspect([CHILD])
    assert found.places
    assert (await engine.repair(found, [CHILD])).words
    assert edge.run("nft list tables") == "table inet tidegate\n"


async def test_one_that_was_left_standing_by_goes_with_whoever_comes_next(edge: Edge, engine: RouterOperationsEngine) -> None:
    edge.run("nft add table inet tidegate_standby; : >$TIDEGATE_ROOT/var/run/tidegate/standby")
    await engine.synchronise([SLOWER])
    assert edge.run("nft list tables") == "table inet tidegate\n"


def test_what_stands_by_differs_from_our_table_in_what_its_text_has() -> None:
    """The agent makes it of the same text, by these lines of it."""
    text = nftables.create_table("br-lan")
    for line in ("table inet tidegate {", "meta mark set 100", "type filter hook prerouting priority -150; policy accept;"):
        assert text.count(line) == 1
    assert text.count("type filter hook forward priority -5; policy accept;") == 1


FULL = """
mkdir -p "$1" && mount -t tmpfs -o size=8k none "$1" && cat >"$1/$2" || exit 1
shift 2
"$@" && cat "$0"
"""


@pytest.mark.parametrize(("folder", "file"), [(".ssh", "authorized_keys"), ("etc/crontabs", "root")])
def test_a_full_flash_costs_others_neither_their_keys_nor_their_crontab(edge: Edge, folder: str, file: str) -> None:
    edge.install()
    ours = f"* * * * * /bin/sh {edge.agent} - tick\n" if file == "root" else "ssh-ed25519 AAAAOURS tidegate\n"
    theirs = "".join(f"# {number:02} {'x' * 120}\n" for number in range(60))
    place = edge.root / folder
    command = [*edge.enter, "unshare", "-m", "sh", "-c", FULL, str(place / file), str(place), file]
    command += [*edge.sh, edge.agent, VERSION, "forget", "-" if file == "root" else "AAAAOURS"]
    done = subprocess.run(command, input=(ours + theirs).encode(), capture_output=True, timeout=30, env=edge.environment)
    assert done.stdout.decode().endswith(ours + theirs), done
    if file == "authorized_keys":
        assert last_answer(done.stdout.partition(ours.encode())[0]).word == "refused", "our key is still there"
