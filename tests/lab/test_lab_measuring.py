"""Measurements in the lab say what gets through."""

from collections.abc import Callable
from typing import Literal

import pytest

from tests.lab.probes import eventually, shaped
from tidegate.lab import Lab, NoMeasurement, flow, throughput

STOP = "{ type filter hook forward priority -5; policy drop; }"


def enough(measure: Callable[[], float]) -> float:
    """What is measured at 20 Mbit/s, again where it is too little: a busy machine gives less than the queue lets through."""
    found, tries = 0.0, 0
    while found < 20 * 0.955 * 0.9 and tries < 8:
        found, tries = measure(), tries + 1
    return found


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_throughput_is_what_a_shaper_lets_through(
    lab: Lab, family: Literal[4, 6], protocol: Literal["tcp", "udp"], direction: Literal["down", "up"]
) -> None:
    with shaped(lab, lab.router.lan if direction == "down" else lab.router.wan, 20):
        offered = 40 if protocol == "udp" else None
        measured = enough(
            lambda: throughput(
                lab.clients["child"],
                lab.internet,
                family=family,
                protocol=protocol,
                direction=direction,
                rate_mbps=offered,
                seconds=1.5,
                skip=0.5,
            )
        )
    assert measured == pytest.approx(20 * 0.955, rel=0.1)


def test_many_streams_are_measured_as_one(lab: Lab) -> None:
    with shaped(lab, lab.router.lan, 20):
        measured = enough(lambda: throughput(lab.clients["child"], lab.internet, streams=4, seconds=1.5, skip=0.5))
    assert measured == pytest.approx(20 * 0.955, rel=0.1)


def test_measurements_run_side_by_side(lab: Lab) -> None:
    child, guest = lab.clients["child"], lab.clients["guest"]
    with shaped(lab, lab.router.lan, 40), flow(child, lab.internet) as one, flow(guest, lab.internet) as other:
        eventually(lambda: one.rate(last=1) > 1 and other.rate(last=1) > 1)
        eventually(lambda: one.rate(last=2) + other.rate(last=2) == pytest.approx(40 * 0.955, rel=0.1))


def test_a_running_flow_is_seen_to_change(lab: Lab) -> None:
    with shaped(lab, lab.router.lan, 20) as shape, flow(lab.clients["child"], lab.internet) as running:
        eventually(lambda: running.rate(last=0.5) == pytest.approx(19.1, rel=0.1))
        shape(5)
        eventually(lambda: running.rate(last=0.5) == pytest.approx(4.8, rel=0.1))
        shape(40)
        eventually(lambda: running.rate(last=0.5) == pytest.approx(38.2, rel=0.1))
        assert running.is_running


def test_a_flow_that_is_stopped_is_seen_to_stand_still(lab: Lab) -> None:
    with flow(lab.clients["child"], lab.internet, direction="up", rate_mbps=10) as running:
        lab.router.run(f"nft add table inet stop; nft add chain inet stop f '{STOP}'")
        eventually(lambda: running.rate(last=0.5) == 0)
        lab.router.run("nft delete table inet stop")


def test_what_does_not_answer_is_not_measured_as_nothing(lab: Lab) -> None:
    lab.router.run(f"nft add table inet stop; nft add chain inet stop f '{STOP}'")
    with pytest.raises(NoMeasurement):
        throughput(lab.clients["child"], lab.internet, seconds=1)
    lab.router.run("nft delete table inet stop")
