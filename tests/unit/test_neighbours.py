"""What routers print of their networks: read strictly, and whatever strangers put in, nothing comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.policy.device import IpAddress, MacAddress
from tidegate.policy.lan import InterfaceAddress, Lan
from tidegate.policy.neighbours import MOST_ADDRESSES, Neighbourhood, hostname, read_neighbourhood

ADDRESSES = """\
3: br-lan: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc htb state UP group default qlen 1000
    link/ether 02:00:5e:10:00:01 brd ff:ff:ff:ff:ff:ff
    inet 192.168.1.1/24 scope global br-lan
       valid_lft forever preferred_lft forever
    inet6 2001:db8:1::1/64 scope global
       valid_lft forever preferred_lft forever
    inet6 fdaa::1/64 scope global
       valid_lft forever preferred_lft forever
    inet6 fe80::5eff:fe10:1/64 scope link
       valid_lft forever preferred_lft forever
"""
# As iproute2 6.1 prints it, without a blank before "probes".
AGED = """\
192.168.1.11 lladdr 02:00:5e:10:00:0b ref 1 used 0/0/0probes 1 REACHABLE
192.168.1.12 lladdr 8c:85:90:12:34:56  used 286/267/226probes 1 STALE
192.168.1.13  used 5/4/3probes 6 FAILED
2001:db8:1::b lladdr 02:00:5e:10:00:0b  used 31/12/2probes 1 STALE
fe80::5eff:fe10:b lladdr 02:00:5e:10:00:0b router used 31/40/2probes 1 STALE
2001:db8:1::1 lladdr 02:00:5e:10:00:01  used 1/1/1probes 1 REACHABLE
10.9.9.9 lladdr 02:00:5e:10:00:0b  used 1/1/1probes 1 REACHABLE
"""
# As busybox 1.35 does, asked for one device: its ages are always 0.
PLAIN = """\
192.168.1.11 lladdr 02:00:5e:10:00:0b ref 1 used 0/0/0 probes 4 REACHABLE
192.168.1.12 dev br-lan lladdr 8c:85:90:12:34:56 used 0/0/0 probes 1 STALE
"""
LAPTOP, PHONE, CAMERA = map(MacAddress, ("02:00:5e:10:00:0b", "8c:85:90:12:34:56", "b8:27:eb:00:00:01"))


def read(neighbours: str = "", leases: str = "", *, aged: bool = True) -> Neighbourhood:
    return read_neighbourhood(ADDRESSES, neighbours, leases, aged=aged)


def test_a_device_has_all_its_addresses_and_the_youngest_of_its_ages() -> None:
    found = read(AGED)
    assert set(found.devices) == {LAPTOP, PHONE}  # the router itself is none, nor has anybody an address of another network
    laptop = found.devices[LAPTOP]
    assert laptop.ip == ("192.168.1.11", "2001:db8:1::b", "fe80::5eff:fe10:b")
    assert (laptop.age, found.devices[PHONE].age, found.unread) == (0, 267, 0)


def test_a_table_without_ages_tells_only_of_who_answers_right_now() -> None:
    found = read(PLAIN, aged=False)
    assert [found.devices[mac].age for mac in (LAPTOP, PHONE)] == [0, None]
    assert found.devices[PHONE].ip == ("192.168.1.12",)


def test_the_routers_own_network_is_read() -> None:
    lan = read().lan
    assert lan.mac == "02:00:5e:10:00:01"
    assert lan.addresses == ("192.168.1.1/24", "2001:db8:1::1/64", "fdaa::1/64", "fe80::5eff:fe10:1/64")


@pytest.mark.parametrize(
    ("leases", "name"),
    [
        ("1763850000 8c:85:90:12:34:56 192.168.1.12 Adas-iPhone 01:8c:85:90:12:34:56", "Adas-iPhone"),
        ("0 8c:85:90:12:34:56 192.168.1.12 * *", None),
        ("# br-lan 8c8590123456 ipv4 Adas-iPhone 1763850000 c0a8010c 32 192.168.1.12/32", "Adas-iPhone"),
        ("# br-lan 8c:85:90:12:34:56 ipv4 broken\\x20Ada's one -1 c0a8010c 32 192.168.1.12/32", "Ada?s one"),
        ("# br-lan 8c8590123456 ipv4 - 1763850000 c0a8010c 32", None),
        ("# br-lan 8c:85:90:12:34:56 ipv4 - 0 c0a8010c 32 192.168.1.12/32", None),
        # A name that means to be the rest of the line: the line is read from its end.
        (
            "# br-lan 8c8590123456 ipv4 x 9 c0a80163 32 192.168.1.99/32 1763850000 c0a8010c 32",
            "x 9 c0a80163 32 192.168.1.99?32",
        ),
    ],
)
def test_a_lease_gives_a_device_its_address_and_name(leases: str, name: str | None) -> None:
    found = read(leases=f" {leases}\n")
    assert [(each.mac, each.ip, each.hostname, each.age) for each in found.devices.values()] == [
        (PHONE, ("192.168.1.12",), name, None)
    ]
    assert found.unread == 0


@pytest.mark.parametrize(
    "lease",
    [
        "1763850000 12345 2001:db8:1::b Adas-laptop 00:01:00:01:2c:5e:6f:70:02:00:5e:10:00:0b",
        "# br-lan 000100012c5e6f7002005e10000b 1a2b Adas-laptop 1763850000 b 128 2001:db8:1::b/128 fdaa::b/128",
    ],
)
def test_an_ipv6_lease_lends_its_name_to_whoever_has_its_address(lease: str) -> None:
    assert read(AGED, lease).devices[LAPTOP].hostname == "Adas-laptop"
    assert not read(leases=lease).devices


def test_a_mac_without_its_leading_zeros_is_read_as_the_whole_one() -> None:
    assert set(read(leases="# br-lan 2:0:5e:10:0:b ipv4 - 0 c0a8010b 32 192.168.1.11/32").devices) == {LAPTOP}


def test_where_a_lease_and_the_neighbour_table_disagree_the_table_is_right() -> None:
    found = read(AGED, "1763850000 b8:27:eb:00:00:01 192.168.1.12 cam *")
    assert found.devices[PHONE].ip == ("192.168.1.12",)
    assert found.devices[CAMERA].ip == ()
    assert found.holders()[IpAddress("192.168.1.12")] == PHONE


def test_what_is_no_lease_is_counted_and_left_out() -> None:
    lines = ["192.168.1.5\tname.lan\tname", "duid 00:01", "", "1 ff:ff:ff:ff:ff:ff 192.168.1.9 x *", "# junk", "7 junk"]
    found = read(leases="\n".join(lines))
    assert (dict(found.devices), found.unread) == ({}, 3)


def test_a_device_that_claims_thousands_of_addresses_keeps_a_few() -> None:
    lines = "".join(f"2001:db8:1::{n:x} lladdr {LAPTOP}  used 1/1/1probes 1 STALE\n" for n in range(0x100, 0x1100))
    assert len(read(lines).devices[LAPTOP].ip) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Adas-iPhone", "Adas-iPhone"),
        ("kitchen radio_2.lan", "kitchen radio_2.lan"),
        ("<script>alert(1)</script>", "script?alert?1???script?"),
        ('"; flush ruleset #', "flush ruleset ?"),
        ("\x1b[31mred\x07", "31mred?"),
        ("=HYPERLINK(1)", "HYPERLINK?1?"),
        ("\u202egnp.exe", "gnp.exe"),
        ("x" * 253, "x" * 63),
        ("*", None),
        ("-", None),
        ("???", None),
        ("", None),
    ],
)
def test_a_name_is_cut_down_to_what_can_do_no_harm(said: str, kept: str | None) -> None:
    assert hostname(said) == kept


@given(st.text(max_size=400))
def test_no_name_is_harmful_or_long(said: str) -> None:
    kept = hostname(said)
    assert kept is None or (
        kept[0].isalnum() and len(kept) <= 63 and kept.isascii() and not set(kept) & set("<>\"'`$;&|\\/=\x1b")
    )


@given(st.text("0123456789abcdef:. lr\n#/-dust", max_size=300), st.text("0123456789abcdef:. lr\n#/-ipv", max_size=300))
def test_whatever_a_router_prints_is_read_or_left_out(neighbours: str, leases: str) -> None:
    for device in read(neighbours, leases).devices.values():
        assert MacAddress(device.mac)
        assert all(read().lan.objection(address) is None for address in device.ip)


HOME = Lan(MacAddress("02:00:5e:10:00:01"), tuple(map(InterfaceAddress, ("192.168.1.1/24", "2001:db8:1::1/64", "fdaa::1/64"))))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.168.1.20", None),
        ("192.168.1.1", "the router's own address"),
        ("2001:db8:1::1", "the router's own address"),
        ("192.168.1.0", "the network's own address"),
        ("192.168.1.255", "the network's own address"),
        ("192.168.2.20", "not in the router's network (192.168.1.0/24)"),
        ("169.254.3.4", "not in the router's network"),
        ("2001:db8:1::20", None),
        ("2001:db8:2::20", "not in the router's network (2001:db8:1::/64)"),
        ("fe80::1234", None),
        ("fd00:1:2::3", None),  # of another router of the house
    ],
)
def test_an_address_belongs_to_the_network_or_is_objected_to(address: str, why: str | None) -> None:
    said = HOME.objection(IpAddress(address))
    assert (said is None) if why is None else (said is not None and why in said)


def test_a_network_without_a_prefix_of_its_provider_judges_no_global_address() -> None:
    bare = Lan(None, (InterfaceAddress("192.168.1.1/24"), InterfaceAddress("fdaa::1/64"), InterfaceAddress("fe80::1/64")))
    assert bare.objection(IpAddress("2001:db8:7::1")) is None
    assert bare.objection(IpAddress("10.0.0.1"))


@pytest.mark.parametrize(
    "address",
    [
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:192.168.1.9",
        "ff02::1",
        "64:ff9b::1",
    ],
)
def test_an_address_that_no_device_has_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="can't be a device's address"):
        IpAddress(address)
