"""Who made a device, by its MAC address: the IEEE's list of large blocks (MA-L), as the package aiooui carries it. It is read
from the disk, 0.8 MB that the kernel shares; nobody is asked over a network, so nobody learns which devices are here."""

from __future__ import annotations

import aiooui

from tidegate.policy.device import MacAddress

SHARED_BLOCKS = "IEEE Registration Authority"  # a block that was given on in small parts, which the list does not tell apart


async def load() -> None:
    """Read the list in, the first time; before that nothing can be looked up."""
    await aiooui.async_load()


def vendor(mac: MacAddress) -> str | None:
    """The maker's name as the IEEE has it. None for an address that the device made up itself, and for an unknown block."""
    found = None if mac.random else aiooui.get_vendor(mac)
    return None if found == SHARED_BLOCKS else found
