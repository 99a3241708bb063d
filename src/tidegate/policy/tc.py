"""Traffic classes: what `tc` is told and what it prints back.

One HTB per device with `default 1`: class 1:1 is unrestricted, each capped group has a class of its own below the root, and
packets find it by their priority (skb->priority equal to a class id), so there is no tc filter. Minors are handed over as
text: tc reads them as hexadecimal, see `GroupId.class_minor`.

iproute2 6.1 prints classes as text even when asked for JSON, and rates rounded down to what it can show in four digits and
more: below 1 Gbit/s every whole kbit is shown, from there on whole Mbit. A class above 1 Gbit/s is therefore asked for in
whole Mbit, and what is read back can be compared exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

UNRESTRICTED_KBIT = 32_000_000  # measured: a default class of 10 Gbit/s costs a fast router more than one of 32
_MINOR = re.compile(r"[0-9a-f]{1,4}", re.ASCII)
_RATE = re.compile(r"(\d+)([KMGT]?)bit", re.ASCII)
_SIZE = re.compile(r"(\d+)([KMG]?)b", re.ASCII)
LARGEST_KIB = 999_999  # a size is shown in six digits, and as 1.04767e+06Kb beyond
_DEFAULT_BURST_KIB = 4  # what tc chooses by itself is about one packet; what we ask for is at least this


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """`leaf` is the queue inside: its kind and, of a bfifo, its length in KiB. `burst_kib` None: tc's own choice."""

    kbit: int
    leaf: str
    leaf_kib: int | None = None
    burst_kib: int | None = None


def traffic_class(kbit: int, leaf: str, burst_kib: int | None = None) -> TrafficClass:
    """A class of that rate. A bfifo holds about 100 ms at the rate, at least 32 KiB (measured: 41-45 ms of ping at 5 Mbit/s
    instead of 106-119 with the default queue)."""
    if kbit >= 1_000_000:
        kbit -= kbit % 1000
    leaf_kib = min(max(32, kbit * 125 // 10 // 1024), LARGEST_KIB) if leaf == "bfifo" else None
    return TrafficClass(kbit, leaf, leaf_kib, burst_kib and min(burst_kib, LARGEST_KIB))


def add_root(device: str) -> list[str]:
    """Batch lines that put our root on a device that has none of its own."""
    rate = f"rate {UNRESTRICTED_KBIT}kbit ceil {UNRESTRICTED_KBIT}kbit"
    return [
        f"qdisc add dev {device} root handle 1: htb default 1",
        f"class replace dev {device} parent 1: classid 1:1 htb {rate} quantum 60000",
    ]


def remove_root(device: str) -> str:
    return f"qdisc del dev {device} root handle 1:"


def put_class(device: str, minor: str, wanted: TrafficClass, seen: TrafficClass | None = None) -> list[str]:
    """Batch lines that make the class, or change it under running traffic; the queue inside is touched only if it differs."""
    # The quantum only silences the kernel's warnings: classes below the root do not share with each other.
    quantum = max(1514, min(60_000, wanted.kbit * 125 // 10))
    burst = f" burst {wanted.burst_kib}k cburst {wanted.burst_kib}k" if wanted.burst_kib else ""
    lines = [
        f"class replace dev {device} parent 1: classid 1:{minor} htb "
        f"rate {wanted.kbit}kbit ceil {wanted.kbit}kbit{burst} quantum {quantum}"
    ]
    if seen is None or (seen.leaf, seen.leaf_kib) != (wanted.leaf, wanted.leaf_kib):
        if seen is not None and seen.leaf and seen.leaf != wanted.leaf:
            lines.append(f"qdisc del dev {device} parent 1:{minor}")
        limit = f" limit {wanted.leaf_kib}k" if wanted.leaf_kib else ""
        lines.append(f"qdisc replace dev {device} parent 1:{minor} handle {minor}: {wanted.leaf}{limit}")
    return lines


def remove_class(device: str, minor: str) -> str:
    return f"class del dev {device} classid 1:{minor}"


# ── reading back


class Unreadable(ValueError):
    """tc printed something that is not a qdisc or class as we know them."""


@dataclass(slots=True)
class DeviceQueues:
    """What stands on one device. `root` is its root queue in tc's words, as "cake 8001:"; `ours` whether that is our HTB."""

    root: str = ""
    ours: bool = False
    classes: dict[str, TrafficClass] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    @property
    def foreign(self) -> bool:
        """Somebody put this root here: what the kernel attaches by itself has the handle 0:."""
        return not self.ours and self.root != "" and not self.root.endswith(" 0:")


def read_device(text: str) -> DeviceQueues:
    """`tc qdisc show dev D` followed by `tc [-s] class show dev D`. Raises Unreadable."""
    found = DeviceQueues()
    leaves: dict[str, tuple[str, int | None]] = {}
    rates: dict[str, tuple[int, int | None]] = {}
    htb_default = current = line = ""
    try:
        for line in text.splitlines():
            words = line.split()
            if line.startswith("qdisc "):
                if words[3] == "root":
                    found.root = f"{words[1]} {words[2]}"
                    htb_default = words[words.index("default") + 1] if words[1] == "htb" else ""
                elif words[3] == "parent" and words[4].startswith("1:"):
                    limit = _kib(words[words.index("limit") + 1]) if words[1] == "bfifo" else None
                    leaves[words[4].partition(":")[2]] = (words[1], limit)
            elif line.startswith("class htb 1:"):
                current = words[2].partition(":")[2]
                if not _MINOR.fullmatch(current):
                    raise Unreadable(f"tc names a class {words[2]!r}")
                rates[current] = (_kbit(words[words.index("rate") + 1]), _burst(words[words.index("burst") + 1]))
            elif line.startswith("class "):
                current = ""  # a class of another kind of queue: the flows of fq_codel, say
            elif words[:1] == ["Sent"] and current:
                found.sent[current] = int(words[1])
    except (IndexError, ValueError) as error:
        raise Unreadable(f"tc printed {line[:120]!r}: {str(error)[:120]}") from None
    unrestricted = rates.pop("1", None)
    found.ours = (
        found.root == "htb 1:" and htb_default == "0x1" and unrestricted is not None and unrestricted[0] == UNRESTRICTED_KBIT
    )
    for minor, (kbit, burst) in rates.items():
        leaf, limit = leaves.get(minor, ("", None))
        found.classes[minor] = TrafficClass(kbit, leaf, limit, burst)
    return found


def _kbit(text: str) -> int:
    """`20Mbit` is 20,000. What is below one kbit is of no group of ours and reads as 0."""
    match = _RATE.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no rate")
    return int(match[1]) * {"": 1, "K": 1000, "M": 10**6, "G": 10**9, "T": 10**12}[match[2]] // 1000


def _kib(text: str) -> int:
    """The nearest KiB: the kernel keeps a burst as time, and what comes back of 4096 bytes may be 4095."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text[:40]!r} is no size")
    return (int(match[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[match[2]] + 512) // 1024


def _burst(text: str) -> int | None:
    size = _kib(text)
    return size if size >= _DEFAULT_BURST_KIB else None
