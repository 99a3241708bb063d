"""When routers are looked at, and what their health is made of."""

from __future__ import annotations

from tidegate.daemon.health import Health
from tidegate.daemon.watch import SOON, Rota


def latest(_: float, to: float) -> float:
    return to


def earliest(frm: float, _: float) -> float:
    return frm


def times(rota: Rota, states: dict[str, str], until: int) -> dict[str, list[int]]:
    """At which of so many seconds each router is looked at, while they fare so."""
    found: dict[str, list[int]] = {name: [] for name in states}
    for second in range(until):
        for name in rota.due(states, second):
            rota.looked(name, second)
            found[name].append(second)
    return found


def test_each_router_is_looked_at_within_a_minute_and_then_at_the_pace_that_is_set() -> None:
    found = times(Rota(300, latest), {"home": "reachable", "school": "unknown"}, 1500)
    assert found == {"home": [45, 405, 765, 1125, 1485], "school": [45, 405, 765, 1125, 1485]}
    assert times(Rota(300, earliest), {"home": "reachable"}, 500) == {"home": [0, 240, 480]}


def test_one_that_comes_back_or_is_not_well_is_looked_at_within_a_minute() -> None:
    rota = Rota(3600, latest)
    assert times(rota, {"home": "unreachable"}, 200)["home"] == [45, 99, 153]
    rota = Rota(3600, latest)
    assert times(rota, {"home": "degraded"}, 100)["home"] == [45, 99]
    assert times(rota, {"home": "reachable"}, 46)["home"] == [45]


def test_a_quick_pace_is_kept_for_those_that_are_not_well_too() -> None:
    assert times(Rota(10, latest), {"home": "unreachable"}, 40)["home"] == [10, 22, 34]


def test_a_router_that_is_gone_is_forgotten_and_new_when_it_is_added_again() -> None:
    rota = Rota(300, latest)
    assert times(rota, {"home": "reachable"}, 46)["home"] == [45]
    assert rota.due({}, 50) == []
    assert rota.due({"home": "reachable"}, 51) == []
    assert rota.due({"home": "reachable"}, 51 + SOON) == ["home"]


def test_health_tells_why_and_since_when_and_what_is_news() -> None:
    health = Health()
    assert (health.state, health.why) == ("unknown", "")
    health.contact("reachable")
    began = health.since
    assert (health.state, health.why) == ("reachable", "")
    places = tuple(f"place {number}" for number in range(7))
    assert health.looked(places)
    assert not health.looked(places)
    assert health.state == "degraded"
    assert health.why == "place 0; place 1; place 2; place 3; place 4; and 2 more"
    degraded = health.since
    assert degraded > began
    health.contact("reachable")
    assert (health.state, health.since) == ("degraded", degraded)
    health.contact("unreachable", "no answer")
    assert (health.state, health.why) == ("unreachable", "no answer")
    health.contact("reachable")
    assert health.state == "degraded"  # nobody looked meanwhile
    assert health.looked(())
    assert (health.state, health.why) == ("reachable", "")
