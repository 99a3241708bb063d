"""Large work leaves the event loop to others, small work costs no thread."""

import threading

import pytest

from tidegate.router.aside import FEW, aside

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("size", "beside"), [(1, False), (FEW, False), (FEW + 1, True), (9_899, True)])
async def test_only_what_is_large_is_worked_out_beside_the_loop(size: int, beside: bool) -> None:
    thread = await aside(size, FEW, threading.get_ident)
    assert (thread != threading.get_ident()) is beside


@pytest.mark.parametrize("size", [1, FEW + 1])
async def test_a_failure_of_the_work_is_the_callers(size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(size, FEW, lambda: 1 // 0)
