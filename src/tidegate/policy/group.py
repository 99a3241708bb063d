"""Groups and their policies, in the operator's words; and the one place that maps a group to its mark and class."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from tidegate.policy.device import DeviceRef, Label


class GroupId(int):
    """A group's number on a router, 0 to 9899. Group 0 is the guests: every device that is in no other group."""

    SCHEMA: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 0, "maximum": 9899}

    def __new__(cls, value: int | str) -> Self:
        if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
            raise ValueError("a group is a number from 0 to 9899")
        if isinstance(value, bool) or not 0 <= int(value) <= 9899:
            raise ValueError("a group is a number from 0 to 9899")
        return super().__new__(cls, value)

    @property
    def mark(self) -> int:
        """The connection mark of the group's traffic: 100 + N."""
        return 100 + self

    @property
    def class_minor(self) -> str:
        """The minor of the group's traffic class, as tc and nft read it.

        Both read the digits as hexadecimal. The decimal digits of 100 + N are handed over as they stand, so the class of
        group 10 is `1:110` everywhere (minor 0x110), unique up to group 9899 (`1:9999`, the last that tc takes).
        """
        return str(self.mark)

    def to_wire(self) -> int:
        return int(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        return cls(value)


GUESTS = GroupId(0)


class Mbps(float):
    """A rate in Mbit/s (1,000,000 bits a second), from 0.064 to 100,000."""

    SCHEMA: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 0.064, "maximum": 100_000, "description": "Mbit/s"}

    def __new__(cls, value: float | str) -> Self:
        rate = float(value)
        if not (math.isfinite(rate) and 0.064 <= rate <= 100_000):
            raise ValueError("a rate is a number from 0.064 to 100000 Mbit/s")
        return super().__new__(cls, rate)

    @property
    def kbit(self) -> int:
        """In kbit/s, as routers are told."""
        return round(self * 1000)

    def to_wire(self) -> float:
        return float(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        return cls(value)


@dataclass(frozen=True, slots=True)
class BandwidthPolicy:
    """What the group as a whole may use of the line. `upload_mbps` is the same as `limit_mbps` unless it is given."""

    limit_mbps: Mbps
    upload_mbps: Mbps | None = None
    burst_mbps: Mbps | None = None
    active: bool = True

    @property
    def upload(self) -> Mbps:
        return self.limit_mbps if self.upload_mbps is None else self.upload_mbps


@dataclass(frozen=True, slots=True)
class AccessControlPolicy:
    """What the group may reach. `block_all_internet` cuts it off from everything beyond the LAN, running connections too;
    the router itself (its DNS, DHCP and page) and the machines of the LAN stay reachable."""

    block_all_internet: bool = False
    active: bool = True


@dataclass(frozen=True, slots=True)
class GroupSyncRequest:
    """The upper layer's wish for one group. No bandwidth policy means no limit; an inactive group restricts nothing.

    `confirm_mass_change`: yes, more than half of the devices of a group of ten or more shall leave it or be replaced.
    `expected_generation`: only if the router is still at the generation that the asker knows, so that two who manage the same
    router can't undo each other's work unseen.
    """

    name: Label
    devices: tuple[DeviceRef, ...] = ()
    bandwidth_policy: BandwidthPolicy | None = None
    active: bool = True
    force_sync: bool = False
    access_control_policy: AccessControlPolicy | None = None
    confirm_mass_change: bool = False
    expected_generation: int | None = None

    @property
    def blocks(self) -> bool:
        """Whether its policies, as long as the group is active, cut it off from the internet."""
        access = self.access_control_policy
        return access is not None and access.active and access.block_all_internet
