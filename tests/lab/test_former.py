"""A router that the service before Tidegate (NetPilot) looked after: its rules go, its lists come along, nothing else moves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tidegate.errors import Refused
from tidegate.events import FormerServiceCleared, StateImported
from tidegate.lab import Lab

pytestmark = pytest.mark.anyio

FILE = "/etc/config/netpilot_state.json"
# As services/mode_activation_service.py of that project made them, but for the filters, which not every kernel here has.
ACTIVATE = """
for interface in $(ls /sys/class/net/ | grep -v lo$); do
    tc qdisc add dev $interface root handle 1: htb default 1
    tc class add dev $interface parent 1: classid 1:1 htb rate 1000mbit
    tc class add dev $interface parent 1: classid 1:10 htb rate 50mbit
    tc filter add dev $interface parent 1: protocol ip prio 1 handle 1 fw flowid 1:1
    tc filter add dev $interface parent 1: protocol ip prio 2 handle 98 fw flowid 1:10
done 2>/dev/null
iptables -t mangle -N NETPILOT_WHITELIST
iptables -t mangle -N NETPILOT_BLACKLIST
iptables -t mangle -A NETPILOT_WHITELIST -m mac --mac-source {mac} -j MARK --set-mark 1
iptables -t mangle -A NETPILOT_WHITELIST -m mac --mac-source {mac} -j RETURN
iptables -t mangle -A NETPILOT_WHITELIST -j MARK --set-mark 98
iptables -t mangle -A FORWARD -j NETPILOT_WHITELIST
iptables -t mangle -A FORWARD -j NETPILOT_WHITELIST
iptables -t mangle -A POSTROUTING -j NETPILOT_BLACKLIST
nft add table inet netpilot
"""
OTHERS = """
iptables -t mangle -N NETPILOT_WHITELISTED
iptables -t mangle -A NETPILOT_WHITELISTED -j MARK --set-mark 7
iptables -t mangle -A FORWARD -j NETPILOT_WHITELISTED
nft add table inet netpilots
ip link add dummy0 type bridge
tc qdisc add dev dummy0 root handle 1: htb default 1
tc class add dev dummy0 parent 1: classid 1:1 htb rate 1000mbit
tc class add dev dummy0 parent 1: classid 1:10 htb rate 50mbit
tc class add dev dummy0 parent 1: classid 1:20 htb rate 50mbit
"""
PICTURE = (
    "iptables-save -t mangle | sed '/^#/d; s/ \\[.*//'; nft -s list ruleset; "
    "tc qdisc show; tc class show dev dummy0; find /etc -type f"
)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Controller]:
    """A controller and a router of the former service, with things of others that look alike; not enrolled yet."""
    with Lab(clients=("child", "parent")) as lab:
        lab.router.run(OTHERS)
        async with a_controller(lab, tmp_path) as found:
            yield found


def activate(site: Controller) -> str:
    mac = site.lab.clients["parent"].mac
    rates = {"whitelist_full": "1000mbit", "whitelist_limited": "20mbit", "blacklist_limited": "50mbit"}
    former = {"active_mode": "whitelist", "rates": rates, "devices": {"whitelist": [mac], "blacklist": []}}
    text = json.dumps(former)
    site.lab.router.run(f"mkdir -p /etc/config && cat >{FILE}", input=text)
    assert site.lab.router.run(ACTIVATE.format(mac=mac)).returncode == 0
    return text


def picture(site: Controller) -> str:
    return site.lab.router.run(PICTURE).stdout


async def test_a_router_of_the_former_service_is_cleared_and_its_lists_are_taken_in(site: Controller) -> None:
    before = picture(site)
    text = activate(site)
    in_use = picture(site)
    with pytest.raises(Refused, match=r"mangle chain NETPILOT_WHITELIST, .*queues of br-lan.*clear_former") as refused:
        await site.enrol()
    assert set(refused.value.facts["found"]) == {  # type: ignore[call-overload]
        "mangle chain NETPILOT_WHITELIST",
        "mangle chain NETPILOT_BLACKLIST",
        "nft table inet netpilot",
        *(f"queues of {device}" for device in ("br-lan", "lan0", "lan1", "lan2", "wan")),
    }
    assert picture(site) == in_use
    await site.routers.add(HOME, site.request(clear_former=True))
    cleared = [event for event in await site.events() if isinstance(event, FormerServiceCleared)]
    assert [set(event.removed) for event in cleared] == [set(refused.value.facts["found"])]  # type: ignore[call-overload]
    await site.state.import_(HOME, text.encode())
    assert (await site.infrastructure.verify(HOME)).verified
    listed = (await site.groups.list_groups(HOME)).groups
    assert [(group.name, group.devices, group.download_mbps) for group in listed] == [
        ("Guests", 0, 20.0),
        ("Whitelist", 1, None),
    ]
    await site.routers.remove(HOME)
    # All that is left of it is its state file, which is the operator's.
    assert sorted(picture(site).splitlines()) == sorted([*before.splitlines(), FILE])


async def test_what_came_back_while_tidegate_was_there_goes_with_an_import(site: Controller) -> None:
    await site.enrol()
    before = picture(site)
    mac = site.lab.clients["parent"].mac
    for line in ("iptables -t mangle -N NETPILOT_BLACKLIST", "iptables -t mangle -A FORWARD -j NETPILOT_BLACKLIST"):
        assert site.lab.router.run(line).returncode == 0
    site.lab.router.run(f"mkdir -p /etc/config && echo x >{FILE}")
    text = json.dumps({"active_mode": "blacklist", "devices": {"whitelist": [], "blacklist": [mac]}})
    shown = await site.state.import_(HOME, text.encode(), dry_run=True)
    assert "of the former service: mangle chain NETPILOT_BLACKLIST taken away" in shown.changes
    assert "NETPILOT_BLACKLIST" in picture(site)
    done = await site.state.import_(HOME, text.encode())
    assert done.changes == shown.changes
    assert [type(event) for event in (await site.events())[-2:]] == [StateImported, FormerServiceCleared]
    kept = [line for line in picture(site).splitlines() if "tidegate" not in line]
    assert [line for line in kept if "NETPILOT" in line] == [line for line in before.splitlines() if "NETPILOT" in line]
    await site.routers.remove(HOME)
