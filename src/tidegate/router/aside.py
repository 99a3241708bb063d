"""What would hold everybody else up is worked out beside the event loop.

A router of 1,000 groups has 31,000 map elements: to plan, render or read them takes a tenth of a second, and no other router,
request or follower is to wait for that. Of a household's router it takes less than a thread costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

FEW = 40
"""Groups that are worked out at once where they are asked for: 2 ms or so."""
FEW_BYTES = FEW << 10
"""The same as text that a router printed or is sent."""


async def aside(size: int, few: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The work's value. It is done in a thread where its size is above `few`, so it must not touch what the loop's tasks do."""
    if size <= few:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
