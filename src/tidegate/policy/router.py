"""What a router is: its interfaces and what it can do, as its agent's probe found it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from tidegate.policy.dialect import Dialect
from tidegate.policy.iptables import Iptables
from tidegate.policy.nftables import NFTABLES, POLICED
from tidegate.policy.text import Text


class InterfaceName(Text):
    """A network interface on the router."""

    PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
    EXPECTS = "an interface name such as br-lan"


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Where a router's devices are and where its line is. What leaves at `lan` is download, what leaves at `wan` upload."""

    lan: InterfaceName
    wan: InterfaceName

    @classmethod
    def of(cls, lan: str, wan: str) -> Self:
        return cls(InterfaceName(lan), InterfaceName(wan))

    def __iter__(self) -> Iterator[InterfaceName]:
        return iter((self.lan, self.wan))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Found at enrolment. `leaf` is the queue inside a capped class: fq_codel, cake, or bfifo where neither is there; empty
    where there are no classes (`htb`).

    `dialect`: what rules are written in, "nftables" or "iptables". `mac_sets`: whether ipset has sets of MAC addresses.
    `limitations`: what works less well there than elsewhere and what does instead, a sentence each.
    """

    agent: str
    kernel: str
    nft: str
    tc: str
    htb: bool
    leaf: str
    conntrack: bool
    shell: str
    dialect: str = "nftables"
    iptables: str = ""
    mac_sets: bool = False
    limitations: tuple[str, ...] = ()

    @property
    def rules(self) -> Dialect:
        """How its rules are written and read."""
        if self.dialect == "iptables":
            return Iptables(self.mac_sets)
        return NFTABLES if self.htb else POLICED
