"""Routers that lack something: it is found by the probe and said, what does instead holds with packets, or nothing is begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from tests.lab.managed import HOME, SHOW_RULES, Controller, a_controller
from tests.lab.probes import connects
from tests.lab.test_blocking import FAMILIES
from tests.lab.test_groups import holds
from tidegate.api.groups import GroupsSyncRequest, GroupWish
from tidegate.errors import Refused
from tidegate.lab import Lab, measure
from tidegate.lab.rom import Lack
from tidegate.policy.device import Label
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

pytestmark = pytest.mark.anyio

Lacking = Callable[..., AbstractAsyncContextManager[Controller]]
TCP, UDP = 0.15, 0.33  # how far off a policer may be; 2 to 5 % and 1 to 27 % were seen


@pytest.fixture
def lacking(tmp_path: Path) -> Lacking:
    """A controller and a router that lacks these, not enrolled yet."""

    @asynccontextmanager
    async def make(*lacks: Lack) -> AsyncIterator[Controller]:
        with Lab(clients=("child", "guest"), lacks=lacks) as lab:
            async with a_controller(lab, tmp_path) as found:
                yield found

    return make


async def test_without_htb_a_group_is_held_roughly_by_dropping_and_it_is_said(lacking: Lacking) -> None:
    async with lacking("htb") as home:
        enrolled = await home.enrol()
        assert enrolled.capabilities
        assert not enrolled.capabilities.htb
        assert enrolled.capabilities.limitations[0].startswith("There is no HTB (sch_htb; on OpenWrt kmod-sched-core)")
        done = await home.sync(1, home.device("child"), down=40, up=20)
        assert done.applied[:2] == ("group 1: download limit 40 Mbit/s", "group 1: upload limit 20 Mbit/s")
        limits: dict[Literal["down", "up"], int] = {"down": 40, "up": 20}
        for direction, family in product(limits, FAMILIES):
            limit = limits[direction]
            found = await holds(home, limit * (1 - TCP), "child", direction=direction, family=family)
            assert found == pytest.approx(limit, rel=TCP)
        udp = {"protocol": "udp", "rate_mbps": 80}
        assert await holds(home, 40 * (1 - UDP), "child", **udp) == pytest.approx(40, rel=UDP)
        changed = await home.sync(1, home.device("child"), down=10, up=20)
        assert changed.applied == ("group 1: download limit 10 Mbit/s, was 40 Mbit/s",)
        assert await holds(home, 10 * (1 - UDP), "child", **udp) == pytest.approx(10, rel=UDP)
        assert measure.throughput(home.lab.clients["guest"], home.lab.internet, seconds=0.5) > 200


async def test_without_htb_drift_is_mended_and_a_restart_brings_all_back(lacking: Lacking) -> None:
    async with lacking("htb") as home:
        await home.enrol()
        await home.sync(1, home.device("child"), down=40)
        closed = AccessControlPolicy(block_all_internet=True)
        wish = GroupSyncRequest(Label("x"), (home.device("guest"),), BandwidthPolicy(Mbps(9)), access_control_policy=closed)
        await home.groups.sync_group(HOME, GroupId(2), wish)
        before = home.lab.router.run(SHOW_RULES).stdout
        assert (await home.infrastructure.get_status(HOME)).base
        home.lab.router.run("nft delete element inet tidegate police_up '{ 101 }'")
        places = [drift.place for drift in (await home.infrastructure.verify(HOME)).drift]
        # The limit, that nobody is held to any more, is none of the table's; the other is what is missing.
        assert places == ["nft table inet tidegate: its rules were changed", "nft map police_up: 101 is missing"]
        await home.infrastructure.repair(HOME)
        assert (await home.infrastructure.verify(HOME)).verified
        assert sorted(home.lab.router.run(SHOW_RULES).stdout.split()) == sorted(before.split())
        await home.fleet.close()
        await asyncio.to_thread(home.lab.router.reboot)
        assert sorted(home.lab.router.run(SHOW_RULES).stdout.split()) == sorted(before.split())
        home.lab.router.run("/usr/sbin/nft delete table inet tidegate; /bin/sh /usr/lib/tidegate/agent - tick")
        assert sorted(home.lab.router.run(SHOW_RULES).stdout.split()) == sorted(before.split())
        assert not connects(home.lab.clients["guest"], home.lab.internet.ipv6, 80)
        deleted = await home.groups.delete_group(HOME, GroupId(1))
        assert "group 1: download limit 40 Mbit/s is lifted" in deleted.removed


async def test_what_was_installed_since_is_used_after_a_probe(lacking: Lacking) -> None:
    async with lacking("htb") as home:
        await home.enrol()
        await home.sync(1, home.device("child"), down=40)
        home.lab.router.run("rm /sbin/tc && mv /sbin/tc-whole /sbin/tc")
        able = (await home.routers.probe(HOME)).capabilities
        assert able
        assert able.htb
        assert not any("HTB" in sentence for sentence in able.limitations)
        assert not (await home.infrastructure.verify(HOME)).verified
        await home.infrastructure.repair(HOME)
        assert (await home.infrastructure.verify(HOME)).verified
        assert "rate 40Mbit" in home.lab.router.run("tc class show dev br-lan").stdout
        assert "police" not in home.lab.router.run(SHOW_RULES).stdout


async def test_a_router_with_neither_nft_nor_ipset_is_refused_with_what_to_install_and_left_as_it_was(lacking: Lacking) -> None:
    async with lacking("nft", "ipset") as home:
        show = f"{SHOW_RULES} 2>/dev/null; tc qdisc show; find /etc /usr/lib /root -xdev -type f"
        before = home.lab.router.run(show).stdout
        with pytest.raises(Refused) as refused:
            await home.enrol()
        for package in ("nftables", "nftables-json", "packages iptables and ipset", "kmod-ipt-ipset"):
            assert package in refused.value.detail
        assert home.lab.router.run(show).stdout == before
        assert (await home.routers.list()).total == 0


async def test_without_nft_and_htb_a_router_is_refused(lacking: Lacking) -> None:
    async with lacking("nft", "htb") as home:
        with pytest.raises(Refused, match=r"lacks HTB .*kmod-sched-core.*: install them and try again"):
            await home.enrol()


async def test_a_router_without_a_conntrack_tool_or_nft_says_so_and_works(lacking: Lacking) -> None:
    async with lacking("nft", "conntrack") as home:
        enrolled = await home.enrol()
        assert enrolled.capabilities
        said = " ".join(enrolled.capabilities.limitations)
        for sentence in ("There is no nft", "There is no conntrack tool", "The kernel has no ipset of MAC addresses"):
            assert sentence in said
        status = await home.infrastructure.get_status(HOME)
        assert status.capabilities == enrolled.capabilities
        assert enrolled.capabilities.dialect == "iptables"
        assert (await home.sync(1, home.device("child"), down=5)).verified


async def test_an_nft_without_json_counts_as_none_and_both_kinds_of_rules_hold_side_by_side(lacking: Lacking) -> None:
    """Its own firewall is one of nft, whose "established, accept" does not let through what iptables refuses."""
    async with lacking("nft's json") as home:
        enrolled = await home.enrol()
        assert enrolled.capabilities
        assert enrolled.capabilities.dialect == "iptables"
        await home.sync(1, home.device("child"), down=20)
        assert await holds(home, 20 * (1 - TCP), "child", family=6) == pytest.approx(20, rel=TCP)
        closed = AccessControlPolicy(block_all_internet=True)
        wish = GroupWish(Label("x"), (home.device("guest"),), access_control_policy=closed, group=GroupId(2))
        plan = await home.groups.plan(HOME, GroupsSyncRequest((wish,)))
        assert plan.dialect == "iptables"
        assert "# ip6-filter" in plan.rules.splitlines()
        assert "-A TIDEGATE_GROUP_2 -p tcp -j REJECT --reject-with tcp-reset" in plan.rules.splitlines()
        with measure.flow(home.lab.clients["guest"], home.lab.internet, rate_mbps=5) as flow:
            await home.groups.sync_all_groups(HOME, GroupsSyncRequest((wish,)))
            await asyncio.sleep(1)
            before = flow.total
            await asyncio.sleep(0.5)
            assert flow.total == before
        assert not connects(home.lab.clients["guest"], home.lab.internet.ipv4, 80)
        assert (await home.infrastructure.verify(HOME)).verified
