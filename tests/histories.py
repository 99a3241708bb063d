"""Random histories of a router's groups, and a bundle taken apart as the agent takes it apart."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from tidegate.policy.compiler import RouterCommandBundle
from tidegate.policy.device import DeviceRef, IpAddress, MacAddress
from tidegate.policy.group import GUESTS, GroupId
from tidegate.policy.state import GroupState, Limit

HISTORIES = int(os.environ.get("TIDEGATE_HISTORIES", "50"))  # how many a property is held against

NUMBERS = (1, 2, 10, 799, 800, 9_899)  # 800 is class 1:900; 9,899 is the last that tc can name
DEVICES = tuple(
    DeviceRef(
        MacAddress(f"02:00:00:00:00:{n:02x}") if n % 3 else None,
        (IpAddress(f"192.168.1.{n + 10}"), IpAddress(f"2001:db8::{n + 10:x}"))[: 1 + n % 2] if n % 4 != 1 else (),
    )
    for n in range(9)
)
RATES = (64, 5_000, 20_000, 999_999, 1_000_000, 2_500_000, 100_000_000)


@st.composite
def groups(draw: st.DrawFn) -> tuple[GroupState, ...]:
    """Some groups, each device in one of them at most."""
    numbers = draw(st.lists(st.sampled_from(NUMBERS), unique=True, max_size=4))
    owner = draw(st.lists(st.sampled_from([None, *numbers]), min_size=len(DEVICES), max_size=len(DEVICES)))
    return tuple(
        GroupState(
            GroupId(number),
            tuple(device for device, of in zip(DEVICES, owner, strict=True) if of == number),
            draw(st.none() | limits()),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for number in sorted({GUESTS, *numbers})
    )


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    down, up = draw(st.sampled_from(RATES)), draw(st.sampled_from(RATES))
    # What a burst comes back as is exact where a KiB is more than the kernel's microsecond at the limit's rate.
    return Limit(down, up, draw(st.none() | st.sampled_from([8, 64, 256])) if 5_000 <= down <= 999_999 else None)


def parts(bundle: RouterCommandBundle) -> dict[str, list[str]]:
    """Its parts by name, line by line."""
    found: dict[str, list[str]] = {}
    for line in bundle.to_bytes().decode().splitlines():
        if line.startswith("--- "):
            found[line[4:]] = []
        else:
            found[list(found)[-1]].append(line)
    return found
