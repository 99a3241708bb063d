"""Guessing keys gets slow; nobody else is bothered."""

from __future__ import annotations

import pytest

from tidegate.daemon.lockout import FAILURES, TABLE_LIMIT, Lockout
from tidegate.errors import TooMany


def locked_out(lockout: Lockout, address: str, now: float) -> int:
    with pytest.raises(TooMany) as caught:
        lockout.failed(address, now)
    wait = caught.value.facts["retry_after"]
    assert isinstance(wait, int)
    return wait


def fail(lockout: Lockout, address: str, now: float, times: int = FAILURES) -> None:
    for _ in range(times):
        lockout.failed(address, now)


def test_five_wrong_keys_in_a_minute_are_forgiven_and_the_sixth_is_not() -> None:
    lockout = Lockout()
    fail(lockout, "192.0.2.1", 0.0)
    assert locked_out(lockout, "192.0.2.1", 1.0) == 15 * 60


def test_wrong_keys_far_apart_are_forgiven_for_ever() -> None:
    lockout = Lockout()
    for now in range(0, 10_000, 13):
        lockout.failed("192.0.2.1", float(now))


def test_the_wait_counts_down_and_attempts_meanwhile_do_not_lengthen_it() -> None:
    lockout = Lockout()
    fail(lockout, "192.0.2.1", 0.0)
    locked_out(lockout, "192.0.2.1", 0.0)
    assert locked_out(lockout, "192.0.2.1", 899.5) == 1
    lockout.failed("192.0.2.1", 900.0)


def test_each_further_lockout_is_twice_as_long_up_to_a_day() -> None:
    lockout, now, waits = Lockout(), 0.0, []
    for _ in range(9):
        fail(lockout, "192.0.2.1", now)
        waits.append(locked_out(lockout, "192.0.2.1", now))
        now += waits[-1]
    assert waits == [900, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 86400]


def test_a_day_of_quiet_makes_the_first_wait_short_again() -> None:
    lockout = Lockout()
    fail(lockout, "192.0.2.1", 0.0)
    quiet = locked_out(lockout, "192.0.2.1", 0.0) + 86400.0
    fail(lockout, "192.0.2.1", quiet)
    assert locked_out(lockout, "192.0.2.1", quiet) == 900


def test_an_address_does_not_answer_for_its_neighbour_but_an_ipv6_prefix_is_one_client() -> None:
    lockout = Lockout()
    fail(lockout, "192.0.2.1", 0.0)
    lockout.failed("192.0.2.2", 0.0)
    for host in range(FAILURES):
        lockout.failed(f"2001:db8:0:1::{host:x}", 0.0)
    locked_out(lockout, "2001:db8:0:1:ffff::9", 0.0)
    lockout.failed("2001:db8:0:2::1", 0.0)


def test_an_ipv4_address_is_itself_however_it_is_written() -> None:
    lockout = Lockout()
    fail(lockout, "::ffff:192.0.2.1", 0.0)
    locked_out(lockout, "192.0.2.1", 0.0)


def test_a_hundred_thousand_addresses_take_a_bounded_table_and_the_longest_silent_go_first() -> None:
    lockout = Lockout()
    fail(lockout, "192.0.2.1", 0.0)
    for number in range(100_000):
        lockout.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
        if number % 1000 == 0 and number < 50_000:
            locked_out(lockout, "192.0.2.1", 0.0)  # kept, because it goes on
    assert len(lockout) == TABLE_LIMIT


@pytest.mark.parametrize("address", ["", "unix:", "a" * 100_000, "::1%eth0", "999.1.1.1", "\n"])
def test_what_is_no_address_is_counted_all_the_same(address: str) -> None:
    lockout = Lockout()
    fail(lockout, address, 0.0)
    locked_out(lockout, address, 0.0)
