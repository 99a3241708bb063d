"""Addresses and networks as they are given to the security commands."""

from __future__ import annotations

import pytest

from tidegate.api.security import Address, Network, Reason, Seconds


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4/32", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_has_one_name(given: str, canonical: str) -> None:
    assert Network(given) == canonical
    assert Network(canonical) == canonical


@pytest.mark.parametrize(
    "given",
    ["", "x", "1.2.3", "1.2.3.4/33", "01.2.3.4", "fe80::1%eth0", "fe80::%eth0/64", "1.2.3.4-1.2.3.5", "１.2.3.4"],
)
def test_what_is_no_network_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="an address or a network"):
        Network(given)


def test_bits_beyond_the_prefix_are_refused_with_what_was_meant_perhaps() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8"):
        Network("10.1.2.3/8")


def test_an_address_is_one_address() -> None:
    assert Address("::ffff:1.2.3.4") == "1.2.3.4"
    for bad in ("10.0.0.0/8", "fe80::1%eth0", "", "1.2.3.4 "):
        with pytest.raises(ValueError, match="address"):
            Address(bad)


def test_reasons_and_times_have_bounds() -> None:
    for text in ("", "x" * 201, "a\nb", "\x1b[31m"):
        with pytest.raises(ValueError, match="reason"):
            Reason(text)
    for number in (0, -1, 315_360_001, True):
        with pytest.raises(ValueError, match="seconds"):
            Seconds(number)
