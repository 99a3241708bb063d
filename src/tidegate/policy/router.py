"""What a router is: its interfaces and what it can do, as its agent's probe found it."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.policy.text import Text


class InterfaceName(Text):
    """A network interface on the router."""

    PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
    EXPECTS = "an interface name such as br-lan"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Found once at enrolment. `leaf` is the queue inside a capped class: fq_codel, cake, or bfifo where neither is there."""

    agent: str
    kernel: str
    nft: str
    tc: str
    htb: bool
    leaf: str
    conntrack: bool
    shell: str
