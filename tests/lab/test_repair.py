"""Drift: every kind is found and said place by place, and mending touches those places alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tidegate.errors import Refused
from tidegate.events import InfrastructureRepaired, RouterChangeFailed
from tidegate.lab import Lab, measure
from tidegate.policy.device import Label
from tidegate.policy.group import AccessControlPolicy, GroupId, GroupSyncRequest

pytestmark = pytest.mark.anyio

STATE = "/etc/tidegate/state.json"


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    """Two capped groups and one that is cut off, all in place."""
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        await found.sync(1, found.device("child"), down=20)
        await found.sync(2, found.device("parent"), found.addresses("nas"), down=30)
        closed = AccessControlPolicy(block_all_internet=True)
        await found.groups.sync_group(HOME, GroupId(3), GroupSyncRequest(Label("closed"), access_control_policy=closed))
        yield found
        await found.routers.remove(HOME)


MENDABLE = {
    "a removed element": (
        "nft delete element inet tidegate mac_mark '{ 02:00:5e:10:00:0b }'",
        (1, "nft map mac_mark: .* is missing"),
    ),
    "an added element": (
        "nft add element inet tidegate ip_mark '{ 10.9.9.9 : 102 }'",
        (2, "nft map ip_mark: 10.9.9.9 should not be there"),
    ),
    "a lifted block": ("nft delete element inet tidegate blocked '{ 103 }'", (3, "nft set blocked: 103 is missing")),
    "a changed class": (
        "tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit",
        (1, "tc wan class 1:101: lets 9 Mbit/s"),
    ),
    "a missing class": ("tc class del dev br-lan classid 1:101", (1, "tc br-lan class 1:101: is missing")),
    "a foreign class": (
        "tc class add dev wan parent 1: classid 1:777 htb rate 9mbit",
        (677, "tc wan class 1:777: should not be there"),
    ),
    "a flushed table": ("nft flush table inet tidegate", (None, "nft table inet tidegate: its rules were changed")),
    "a deleted table": ("nft delete table inet tidegate", (None, "nft table inet tidegate: is missing")),
    "a changed rule": (
        "nft insert rule inet tidegate forward accept",
        (None, "nft table inet tidegate: its rules were changed"),
    ),
    "a lost root queue": ("tc qdisc del dev wan root", (None, "tc wan: our root queue is missing")),
    "a removed document": (f"rm {STATE}", (None, "the state document is missing")),
    "an edited document": (f"sed -i s/20000/90000/ {STATE}", (None, "the state document does not fit its checksum")),
    "a document cut short": (f"sed -i '$d' {STATE}", (None, "the state document does not fit its checksum")),
}


@pytest.mark.parametrize("kind", MENDABLE)
async def test_drift_is_found_said_and_mended(home: Controller, kind: str) -> None:
    child = home.lab.clients["child"].mac
    damage, (group, place) = MENDABLE[kind]
    before = in_any_order(home)
    done = home.lab.router.run(damage.replace("02:00:5e:10:00:0b", child))
    assert done.returncode == 0, done.stderr
    found = await home.infrastructure.verify(HOME)
    assert not found.verified
    assert [drift for drift in found.drift if drift.group == group and re.match(place, drift.place)], found.drift
    mended = await home.infrastructure.repair(HOME)
    assert mended.changed
    assert (await home.infrastructure.verify(HOME)).drift == ()
    assert in_any_order(home) == before
    event = [event for event in await home.events() if isinstance(event, InfrastructureRepaired)][-1]
    assert set(event.mended) == {drift.place for drift in found.drift}
    told = await home.events()
    assert (await home.infrastructure.repair(HOME)).changed == ()
    assert await home.events() == told


def in_any_order(home: Controller) -> list[str]:
    """Our rules, elements and classes, and the groups of the document."""
    lan, wan = home.lab.router.lan, home.lab.router.wan
    shown = home.lab.router.run(
        f"nft -s list table inet tidegate; tc qdisc show; tc class show dev {lan}; tc class show dev {wan}; tail -n +5 {STATE}"
    )
    assert shown.returncode == 0, shown.stderr
    return sorted(re.split(r"[\s,]+", shown.stdout))


async def test_mending_touches_no_other_class_element_or_queue(home: Controller) -> None:
    """The kernel numbers what is made anew and begins its counters at nothing; those of everything else go on."""
    router, child = home.lab.router, home.lab.clients["child"]
    measure.throughput(home.lab.clients["parent"], home.lab.internet, seconds=0.3)

    def untouched() -> str:
        handles = router.run("nft -a list table inet tidegate | grep -E 'chain|map|set|handle'").stdout
        foreign = router.run("nft -s list table inet fw; tc qdisc show dev lan0; cat /etc/dropbear/authorized_keys").stdout
        return handles + foreign + router.run("tc qdisc show").stdout

    def sent() -> list[int]:
        """Of group 2's classes."""
        shown = router.run("tc -s class show dev br-lan classid 1:102; tc -s class show dev wan classid 1:102").stdout
        return [int(size) for size in re.findall(r"Sent (\d+) bytes", shown)]

    before, counted = untouched(), sent()
    assert min(counted) > 1000
    router.run(
        f"nft delete element inet tidegate mac_mark '{{ {child.mac} }}'; "
        "tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit"
    )
    assert (await home.infrastructure.repair(HOME)).changed == (
        "group 1: upload limit 20 Mbit/s, was 9 Mbit/s",
        f"{child.mac} joins group 1",
    )
    assert sorted(untouched().split()) == sorted(before.split())
    assert all(now >= then for then, now in zip(counted, sent(), strict=True))


async def test_a_root_queue_of_somebody_else_is_found_refused_and_left_alone(home: Controller) -> None:
    home.lab.router.run("tc qdisc del dev wan root; tc qdisc add dev wan root handle 8001: bfifo")
    places = [drift.place for drift in (await home.infrastructure.verify(HOME)).drift]
    assert "tc wan: carries a root queue of somebody else, bfifo 8001:" in places
    with pytest.raises(Refused, match="tc qdisc del dev wan root"):
        await home.infrastructure.repair(HOME)
    assert isinstance((await home.events())[-1], RouterChangeFailed)
    assert "bfifo 8001:" in home.lab.router.run("tc qdisc show dev wan").stdout
    home.lab.router.run("tc qdisc del dev wan root")
    assert (await home.infrastructure.repair(HOME)).changed
    assert (await home.infrastructure.verify(HOME)).verified


async def test_flow_offload_is_found_and_left_to_its_owner(home: Controller) -> None:
    """The lab's router has no uci of its own; here is one that says what OpenWrt's says."""
    home.lab.router.run(
        "printf '#!/bin/sh\\ncase $3 in *flow_offloading) echo 1;; *) exit 1;; esac\\n' >/sbin/uci; chmod +x /sbin/uci"
    )
    try:
        (drift,) = (await home.infrastructure.verify(HOME)).drift
        assert drift.place.startswith("flow offload is on (firewall.@defaults[0].flow_offloading)")
        left = await home.infrastructure.repair(HOME)
        assert (left.changed, left.left) == ((), (drift.place,))
    finally:
        home.lab.router.run("rm /sbin/uci")
    assert (await home.infrastructure.verify(HOME)).verified


async def test_a_document_that_another_hand_put_there_is_not_believed(home: Controller) -> None:
    ours = home.lab.router.run(f"cat {STATE}").stdout
    home.lab.router.run(f'sed -i \'s/"controller": "[0-9a-f]*"/"controller": "00000000000000bb"/\' {STATE}')
    (drift,) = (await home.infrastructure.verify(HOME)).drift
    assert re.search("does not fit its checksum; the copy current is used, of generation 4; lost: nothing", drift.place)
    assert (await home.infrastructure.repair(HOME)).changed
    assert "00000000000000bb" not in home.lab.router.run(f"cat {STATE}").stdout
    home.lab.router.run(f"cat >{STATE} <<'END'\n{ours}END")  # whole, and older than what was confirmed last
    (drift,) = (await home.infrastructure.verify(HOME)).drift
    assert "is not the one that was confirmed last: it is of generation 4; the copy current is used" in drift.place
    assert (await home.infrastructure.repair(HOME)).changed
    assert (await home.infrastructure.verify(HOME)).verified


OTHERS = """
nft -s list table inet theirs; nft -s list table inet fw; tc qdisc show dev lan0; cat /etc/crontabs/root | grep -v tidegate
find /etc /root /usr/lib -xdev -type f ! -path '*tidegate*' ! -path /etc/crontabs/root | sort | xargs sha256sum
"""


async def test_mending_everything_leaves_what_others_have_as_it_was_to_the_byte(home: Controller) -> None:
    router = home.lab.router
    theirs = "table inet theirs { set names { type ipv4_addr; elements = { 192.0.2.7 } }; chain forward { counter; }; }"
    router.run("cat >/tmp/theirs; nft -f /tmp/theirs; tc qdisc add dev lan0 root handle 9: bfifo limit 9999", input=theirs)
    router.run("echo '17 3 * * * /bin/backup' >>/etc/crontabs/root; echo 'config theirs' >/etc/config-theirs")
    before = router.run(OTHERS).stdout
    assert all(word in before for word in ("192.0.2.7", "bfifo 9:", "/bin/backup", "/etc/config-theirs"))
    try:
        router.run(f"nft flush table inet tidegate; tc qdisc del dev wan root; sed -i s/20000/90000/ {STATE}")
        assert not (await home.infrastructure.verify(HOME)).verified
        assert (await home.infrastructure.repair(HOME)).changed
        assert (await home.infrastructure.verify(HOME)).verified
        assert router.run(OTHERS).stdout == before
    finally:
        router.run("nft delete table inet theirs; tc qdisc del dev lan0 root; rm /etc/config-theirs")
        router.run("sed -i /backup/d /etc/crontabs/root")


async def test_what_was_altered_is_put_right_by_the_router_itself_and_the_controller_tells_of_it(home: Controller) -> None:
    router = home.lab.router
    element = "nft delete element inet tidegate mac_mark '{ 02:00:5e:10:00:0b }'"
    before = home.picture()
    router.run(f"{element}; tc class replace dev wan parent 1: classid 1:101 htb rate 9mbit ceil 9mbit")
    assert home.picture() != before
    router.run("/bin/sh -c \"$(sed -n 's/^[* ]*\\(.*tidegate.*\\)/\\1/p' /etc/crontabs/root)\"")  # what the minute runs
    status = await home.infrastructure.get_status(HOME)
    assert (status.health, status.drift) == ("reachable", ())
    assert home.picture() == before
    told = [event for event in await home.events() if isinstance(event, InfrastructureRepaired)][-1]
    assert told.mended == (
        "the router found that its queues were altered, and put that right by itself",
        "the router found that its rules were altered, and put that right by itself",
    )
    await home.infrastructure.get_status(HOME)
    assert [event for event in await home.events() if isinstance(event, InfrastructureRepaired)][-1] == told
