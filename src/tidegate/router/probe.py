"""What a router can do, from its agent's probe: what is missing, what that costs, and what does instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tidegate.errors import Refused
from tidegate.policy.router import Capabilities
from tidegate.router.statefile import Answer

_NFT = "nft (package nftables; on OpenWrt nftables-json)"
_IPTABLES = (
    "iptables, ip6tables and ipset with skbinfo (packages iptables and ipset; on OpenWrt iptables, ip6tables, ipset, "
    "kmod-ipt-ipset and kmod-ipt-conntrack-extra)"
)
_TC = "tc (package iproute2; on OpenWrt tc-full)"
_HTB = "HTB (sch_htb; on OpenWrt kmod-sched-core)"


def read_probe(answer: Answer) -> Capabilities:
    """Raises Refused, naming what to install, where the router can't carry us at all."""
    text, _ = answer.sections.get("probe", ("", 0))
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    nft, iptables = found.get("nft", ""), found.get("iptables", "")
    able = Capabilities(
        agent=answer.version,
        kernel=found.get("kernel", "")[:80],
        nft=nft[:80],
        tc=found.get("tc", "")[:80],
        htb=found.get("htb") == "yes",
        leaf=found.get("leaf", "")[:20],
        conntrack=bool(found.get("conntrack")),
        shell=found.get("shell", "")[:80],
        dialect="iptables" if iptables else "nftables",
        iptables=iptables[:80],
        mac_sets=found.get("mac_sets") == "yes",
        limitations=tuple(_limitations(found)),
    )
    usable = found.get("iptables_usable") == "yes" if iptables else bool(nft)
    there = {f"{_NFT}, or {_IPTABLES}": usable, _TC: bool(able.tc), _HTB: able.htb or not iptables}
    if missing := [what for what, is_there in there.items() if not is_there]:
        raise Refused(f"the router lacks {'; '.join(missing)}: install them and try again", missing=missing)
    return able


def _limitations(found: Mapping[str, str]) -> Iterator[str]:
    """What works less well there than elsewhere, a sentence each."""
    if found.get("iptables"):
        yield (
            "There is no nft: limits and blocks are iptables chains, and each limited or closed group makes every packet "
            "cost a little more."
        )
        if found.get("mac_sets") != "yes":
            yield (
                "The kernel has no ipset of MAC addresses (hash:mac): each device known by its MAC makes every packet cost a "
                "little more."
            )
    if found.get("htb") != "yes":
        yield (
            f"There is no {_HTB}: what is over a limit is dropped instead of queued, so limits hold less exactly (UDP was seen "
            "a third above), and groups have no bursts and no counters. Install it, then say `routers probe`."
        )
    elif found.get("leaf") == "bfifo":
        yield "There is no fq_codel: a plain queue of about 100 ms keeps the latency within limited groups usable, not low."
    if not found.get("conntrack"):
        yield "There is no conntrack tool: connections can't be listed or ended one by one; limits and blocks don't need it."
