"""Changes that have to be confirmed, over a real dropbear: locked out, cut off, without power; and what comes up after it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.lab.managed import HOME, SHOW_OURS, SHOW_RULES, Controller, a_controller
from tidegate.errors import Refused, TidegateError
from tidegate.events import GroupChangeReverted, GroupSyncFailed
from tidegate.lab import Lab
from tidegate.lab.support import busybox

pytestmark = pytest.mark.anyio

WINDOW = 3
OURS = ("table inet tidegate {", "table inet tidegate_boot {", "-A FORWARD -j TIDEGATE_FORWARD", "-A FORWARD -j TIDEGATE-BOOT")
LOCK_OUT = """
if [ -x /usr/sbin/nft ]; then
  nft insert rule inet fw input tcp dport 22 ct state new drop
else
  iptables -I INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP
fi"""
LET_IN = """
if [ -x /usr/sbin/nft ]; then
  nft delete rule inet fw input handle $(nft -a list chain inet fw input | sed -n 's/.*dport 22.*handle //p')
else
  iptables -D INPUT 1
fi"""
FLUSH = """
if [ -x /usr/sbin/nft ]; then
  nft flush ruleset
else
  iptables -F FORWARD && ip6tables -t mangle -F && iptables -F TIDEGATE_FORWARD && iptables -X TIDEGATE_FORWARD
fi"""


@pytest.fixture(params=["dash", "ash", "ash without nft"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    shell, *lacks = request.param.split(" without ")
    with Lab(clients=("child", "guest"), shell=shell, lacks=lacks) as running:
        yield running


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    """A router with one group, the child at 20 Mbit/s."""
    async with a_controller(lab, tmp_path, confirm_seconds=WINDOW) as found:
        await found.enrol()
        await found.sync(1, found.device("child"), down=20)
        yield found


def kernel(home: Controller) -> str:
    lan, wan = home.lab.router.lan, home.lab.router.wan
    line = f"{SHOW_OURS}; for d in {lan} {wan}; do /sbin/tc class show dev $d; done"
    return home.lab.router.run(f"{line}; cat /etc/tidegate/state.json").stdout


async def until(home: Controller, picture: str, seconds: float) -> float:
    """How long it took until the router was like that. Fails the test after so many seconds."""
    began = time.monotonic()
    while (now := await asyncio.to_thread(kernel, home)) != picture:
        assert time.monotonic() < began + seconds, now
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def reaches_the_internet(home: Controller, client: str) -> bool:
    ping = [busybox(), "ping", "-c", "1", "-W", "1", home.lab.internet.ipv4]
    return home.lab.clients[client].run(ping).returncode == 0


async def test_a_change_that_locks_us_out_heals_itself_and_is_told(home: Controller) -> None:
    """The kept line goes on working, so the change gets in; over a new one nobody gets through to confirm it."""
    before = kernel(home)
    home.lab.router.run(LOCK_OUT)
    change = asyncio.create_task(home.sync(1, home.device("child"), down=5))
    while kernel(home) == before:
        await asyncio.sleep(0.02)
    await until(home, before, WINDOW + 2)
    home.lab.router.run(LET_IN)
    with pytest.raises(Refused, match="took it back by itself: generation 2 stands, reverted, verified"):
        await change
    told = [event for event in await home.events() if isinstance(event, GroupSyncFailed | GroupChangeReverted)]
    assert [type(event) for event in told] == [GroupSyncFailed, GroupChangeReverted]
    reverted = told[1]
    assert isinstance(reverted, GroupChangeReverted)
    assert (reverted.router, reverted.generation, reverted.verified) == (HOME, 2, True)
    assert kernel(home) == before
    assert (await home.sync(1, home.device("child"), down=5)).generation == 3
    assert len([event for event in await home.events() if isinstance(event, GroupChangeReverted)]) == 1


async def test_a_restart_in_the_window_brings_the_old_state_and_after_it_the_new_one(home: Controller) -> None:
    before = kernel(home)
    home.lab.router.run(LOCK_OUT)
    change = asyncio.create_task(home.sync(1, home.device("child"), down=5))
    while kernel(home) == before:
        await asyncio.sleep(0.02)
    await asyncio.to_thread(home.lab.router.reboot)
    await until(home, before, 5)
    with pytest.raises(TidegateError):
        await change
    await home.sync(1, home.device("child"), down=7)
    assert [e.generation for e in await home.events() if isinstance(e, GroupChangeReverted)] == [2]
    after = kernel(home)
    assert after != before
    await home.fleet.close()  # no controller is left
    await asyncio.to_thread(home.lab.router.reboot)
    await until(home, after, 5)


async def test_a_start_is_closed_for_limited_groups_until_their_limits_are_in(home: Controller) -> None:
    router = home.lab.router
    slow = "n=0; until /sbin/tc qdisc add dev wan root handle 7: bfifo || [ $n = 3000 ]; do n=$((n + 1)); done"
    router.run("cat >/etc/rc.d/S17slow", input=f"#!/bin/sh\n({slow}) >/dev/null 2>&1 &\n")
    look = f"#!/bin/sh\nPATH=/usr/sbin:$PATH\n{{ {SHOW_RULES}\n}} >/tmp/rules\n"
    router.run("cat >/etc/rc.d/S19look; chmod +x /etc/rc.d/S17slow /etc/rc.d/S19look", input=look)
    await home.fleet.close()
    await asyncio.to_thread(router.reboot)
    # The network was there for a moment only, and the rules were before it; the queue of another stands for a slow interface.
    assert {ours for ours in OURS if ours in router.run("cat /tmp/rules").stdout} in (set(OURS[:2]), set(OURS[2:]))
    assert reaches_the_internet(home, "guest")
    assert not reaches_the_internet(home, "child")
    router.run("/sbin/tc qdisc del dev wan root handle 7:")
    router.run("/bin/sh /usr/lib/tidegate/agent - tick")
    assert reaches_the_internet(home, "child")
    assert not re.search("tidegate_boot|TIDEGATE-BOOT", router.run(SHOW_RULES).stdout)
    router.run("rm /etc/rc.d/S17slow /etc/rc.d/S19look")


async def test_a_line_that_is_cut_at_any_moment_leaves_the_old_state_or_the_new_one(home: Controller) -> None:
    """Ours and nobody else's: the server's child processes are killed while a change is on its way."""
    dice = Random(5)
    cut = "for p in $(pidof dropbear); do [ $(cut -d' ' -f4 /proc/$p/stat) = 1 ] || kill -9 $p; done"
    rates = (5, 20)
    await home.sync(1, home.device("child"), down=5)
    for number in range(15):
        rate = rates[(number + 1) % 2]
        change = asyncio.create_task(home.sync(1, home.device("child"), down=rate))
        await asyncio.sleep(dice.uniform(0, 0.12))
        await asyncio.to_thread(home.lab.router.run, cut)
        with suppress(TidegateError):
            await change
        classes = home.lab.router.run("/sbin/tc class show dev br-lan").stdout
        assert any(f"rate {each}Mbit" in classes for each in rates)
        assert (await home.sync(1, home.device("child"), down=rate, force=True)).verified
        assert f"rate {rate}Mbit" in home.lab.router.run("/sbin/tc class show dev br-lan").stdout


def greet(home: Controller) -> None:
    """The router's kernel hears of the clients."""
    for client in home.lab.clients.values():
        assert client.run([busybox(), "ping", "-c", "1", "-W", "2", home.lab.router.address]).returncode == 0


async def test_a_change_that_cuts_the_lan_off_is_taken_back(home: Controller) -> None:
    """With our root queue comes, by somebody's script, a rule that keeps the LAN's machines from the router."""
    router = home.lab.router
    greet(home)
    before = kernel(home)
    tc = router.run(". /var/run/tidegate/tools; echo $TC").stdout.strip()
    cut = """for kind in icmp icmpv6; do
  if [ -x /usr/sbin/nft ]; then nft insert rule inet fw input iifname br-lan $kind type echo-reply drop
  elif [ $kind = icmp ]; then iptables -I INPUT -i br-lan -p icmp --icmp-type echo-reply -j DROP
  else ip6tables -I INPUT -i br-lan -p icmpv6 --icmpv6-type echo-reply -j DROP; fi
done"""
    liar = f"""#!/bin/sh
PATH=/usr/sbin:/sbin:$PATH
{tc} "$@" || exit
case $1 in -batch) ! grep -qs 'qdisc add dev br-lan root' $2 || {{ {cut}; }} ;; esac
"""
    router.run("cat >/tmp/liar; chmod +x /tmp/liar; sed -i 's#^TC=.*#TC=/tmp/liar#' /var/run/tidegate/tools", input=liar)
    router.run(f"{tc} qdisc del dev br-lan root")
    with pytest.raises(Refused, match=r"at lan: none of the LAN's machines that answered before answers any more: \S+"):
        await home.infrastructure.setup(HOME)
    shown = router.run(f"{tc} qdisc show dev br-lan root").stdout
    assert "htb" not in shown
    router.run(f"sed -i 's#^TC=.*#TC={tc}#' /var/run/tidegate/tools")
    handles = "nft -a list chain inet fw input | sed -n 's/.*echo-reply drop.*handle //p'"
    router.run(
        f"if [ -x /usr/sbin/nft ]; then for h in $({handles}); do nft delete rule inet fw input handle $h; done; "
        "else iptables -D INPUT 1; ip6tables -D INPUT 1; fi"
    )
    assert (await home.infrastructure.setup(HOME)).lan.endswith(
        "machines on the LAN that answered before the change answer after it"
    )
    assert kernel(home).partition('{"checksum"')[0] == before.partition('{"checksum"')[0]


async def test_cron_and_the_boot_hook_are_in_place(home: Controller) -> None:
    assert home.lab.router.run("cat /etc/crontabs/root").stdout == "* * * * * /bin/sh /usr/lib/tidegate/agent - tick\n"
    assert home.lab.router.run("readlink /etc/rc.d/S18tidegate; test -x /etc/init.d/tidegate").returncode == 0
    before = kernel(home)
    home.lab.router.run(f"{FLUSH}; /sbin/tc qdisc del dev wan root")
    home.lab.router.run("/bin/sh -c \"$(sed 's/^[* ]*//' /etc/crontabs/root)\"")  # what the minute runs
    assert kernel(home) == before
