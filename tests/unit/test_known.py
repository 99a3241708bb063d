"""What is remembered of devices: who is new, who moved, what is worth a write, and who is forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tidegate.policy import known
from tidegate.policy.device import IpAddress, Label, MacAddress
from tidegate.policy.known import KnownDevice, news
from tidegate.policy.lan import Lan
from tidegate.policy.neighbours import Neighbourhood, Sighting

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PHONE, STRANGER = MacAddress("8c:85:90:12:34:56"), MacAddress("da:a1:19:00:00:01")
V4, OTHER4, V6 = map(IpAddress, ("192.168.1.20", "192.168.1.21", "2001:db8:1::20"))


def here(*sightings: Sighting) -> Neighbourhood:
    return Neighbourhood(Lan(None, ()), {each.mac: each for each in sightings})


def met(mac: MacAddress = PHONE, ago: timedelta = timedelta(hours=1), name: str | None = None) -> KnownDevice:
    return KnownDevice(mac, (V4,), "phone", Label(name) if name else None, NOW - ago, NOW - ago)


def test_who_was_never_met_is_new_also_where_people_named_it_before() -> None:
    sighting = Sighting(PHONE, (V4, V6), "phone", 20)
    fresh = news({}, here(sighting), NOW, ())
    (device,) = fresh.new
    assert (device.first_seen, device.last_seen, device.ip) == (NOW, NOW - timedelta(seconds=20), (V4, V6))
    named = KnownDevice(PHONE, (), None, Label("Ada's"), None, None)
    (device,) = news({PHONE: named}, here(sighting), NOW, ()).new
    assert (device.name, device.first_seen) == ("Ada's", NOW)


def test_another_ipv4_address_is_a_move_and_another_ipv6_address_only_noted() -> None:
    moved = news({PHONE: met()}, here(Sighting(PHONE, (OTHER4,), None, 0)), NOW, ())
    assert [(before.ip, after.ip) for before, after in moved.moved] == [((V4,), (OTHER4,))]
    private = news({PHONE: met()}, here(Sighting(PHONE, (V4, V6), None, 0)), NOW, ())
    assert private.moved == ()
    assert private.written[0].ip == (V4, V6)


def test_a_device_that_is_as_it_was_costs_no_write_within_the_minute() -> None:
    before = met(ago=timedelta(seconds=50))
    same = Sighting(PHONE, (V4,), "phone", 0)
    assert news({PHONE: before}, here(same), NOW, ()).written == ()
    (later,) = news({PHONE: before}, here(same), NOW + timedelta(seconds=30), ()).written
    assert later.last_seen == NOW + timedelta(seconds=30)
    assert news({PHONE: before}, here(replace(same, age=None)), NOW + timedelta(days=1), ()).written == ()


def test_what_is_not_said_this_time_is_kept_from_last_time() -> None:
    (kept,) = news({PHONE: met()}, here(Sighting(PHONE, (), None, 0)), NOW, ()).written
    assert (kept.ip, kept.hostname) == ((V4,), "phone")


def test_a_made_up_address_that_nobody_cares_for_is_forgotten_after_a_month() -> None:
    old = timedelta(days=31)
    assert news({STRANGER: met(STRANGER, old)}, here(), NOW, ()).forgotten == (STRANGER,)
    assert news({STRANGER: met(STRANGER, old)}, here(), NOW, {STRANGER}).forgotten == ()
    assert news({STRANGER: met(STRANGER, old, "Ada's")}, here(), NOW, ()).forgotten == ()
    assert news({PHONE: met(PHONE, old)}, here(), NOW, ()).forgotten == ()


def test_there_is_an_end_to_how_many_strangers_are_remembered() -> None:
    count = known.MOST_KNOWN + 5
    macs = [MacAddress(f"00:11:22:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}") for n in range(count)]
    crowd = {mac: met(mac, timedelta(seconds=number)) for number, mac in enumerate(macs)}
    assert set(news(crowd, here(), NOW, {macs[-1]}).forgotten) == set(macs[-6:-1])
