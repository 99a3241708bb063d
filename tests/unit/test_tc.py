"""What tc prints, read back. The text is iproute2's 6.1.0, as a router printed it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.policy import tc
from tidegate.policy.tc import TrafficClass, Unreadable, put_class, read_device, traffic_class

OURS = """\
qdisc htb 1: root refcnt 2 r2q 10 default 0x1 direct_packets_stat 0 direct_qlen 1000
qdisc bfifo 101: parent 1:101 limit 244Kb
qdisc bfifo 102: parent 1:102 limit 32Kb
qdisc fq_codel 105: parent 1:105 limit 10240p flows 1024 quantum 1514 target 5ms interval 100ms memory_limit 32Mb ecn
class htb 1:101 root leaf 101: prio 0 rate 20Mbit ceil 20Mbit burst 1600b cburst 1600b
 Sent 4711 bytes 12 pkt (dropped 0, overlimits 0 requeues 0)
 backlog 0b 0p requeues 0
 lended: 0 borrowed: 0 giants: 0
 tokens: 10000 ctokens: 10000

class htb 1:1 root prio 0 rate 32Gbit ceil 32Gbit burst 0b cburst 0b
 Sent 164 bytes 2 pkt (dropped 0, overlimits 0 requeues 0)
class htb 1:102 root leaf 102: prio 0 rate 64Kbit ceil 64Kbit burst 1600b cburst 1600b
class htb 1:105 root leaf 105: prio 0 rate 12345Kbit ceil 12345Kbit burst 50Kb cburst 50Kb
class fq_codel 105:1a4 parent 105:
 Sent 99 bytes 1 pkt (dropped 0, overlimits 0 requeues 0)
"""


def test_our_classes_are_read_with_their_queues_and_bytes() -> None:
    found = read_device(OURS)
    assert found.ours
    assert not found.foreign
    assert found.classes == {
        "101": TrafficClass(20_000, "bfifo", 244),
        "102": TrafficClass(64, "bfifo", 32),
        "105": TrafficClass(12_345, "fq_codel", None, 50),
    }
    assert found.sent == {"101": 4711, "1": 164}


@pytest.mark.parametrize(
    "root",
    [
        "qdisc noqueue 0: root refcnt 2",
        "qdisc mq 0: root\nqdisc fq_codel 0: parent :1 limit 10240p flows 1024",
        "qdisc pfifo_fast 0: root refcnt 2 bands 3 priomap 1 2 2 2",
        "",
    ],
)
def test_what_the_kernel_attaches_by_itself_is_nobodys(root: str) -> None:
    found = read_device(root)
    assert not found.ours
    assert not found.foreign


@pytest.mark.parametrize(
    "root",
    [
        "qdisc cake 8001: root refcnt 2 bandwidth 50Mbit diffserv3",
        "qdisc htb 1: root refcnt 2 r2q 10 default 0x30\nclass htb 1:1 root prio 0 rate 32Gbit ceil 32Gbit burst 0b",
        "qdisc htb 1: root refcnt 2 r2q 10 default 0x1\nclass htb 1:1 root prio 0 rate 50Mbit ceil 50Mbit burst 1600b",
        "qdisc htb 8: root refcnt 2 r2q 10 default 0x1 direct_packets_stat 0",
    ],
)
def test_the_root_queue_of_somebody_else_is_told_from_ours(root: str) -> None:
    found = read_device(root)
    assert not found.ours
    assert found.foreign


@pytest.mark.parametrize(
    "text",
    ["qdisc htb", "class htb 1:101 root", "class htb 1:zz root rate 1Mbit burst 1b", "class htb 1:9 root rate fast burst 1b"],
)
def test_what_tc_never_prints_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        read_device(text)


@given(st.text(alphabet="qdisc las htb10:root\n prMKbit", max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    with suppress(Unreadable):
        read_device(text)


def test_rates_are_asked_for_as_tc_will_show_them() -> None:
    assert traffic_class(12_345, "fq_codel").kbit == 12_345
    assert traffic_class(1_234_567, "fq_codel").kbit == 1_234_000


def test_a_plain_queue_holds_a_tenth_of_a_second_and_at_least_32_kib() -> None:
    assert traffic_class(20_000, "bfifo").leaf_kib == 244
    assert traffic_class(64, "bfifo").leaf_kib == 32
    assert traffic_class(64, "fq_codel").leaf_kib is None


def test_a_changed_rate_leaves_the_queue_inside_alone() -> None:
    before, after = traffic_class(20_000, "fq_codel"), traffic_class(5_000, "fq_codel")
    assert put_class("wan", "101", after, before) == [
        "class replace dev wan parent 1: classid 1:101 htb rate 5000kbit ceil 5000kbit quantum 60000"
    ]


def test_a_queue_of_another_kind_is_taken_out_first() -> None:
    lines = put_class("wan", "101", TrafficClass(5_000, "bfifo", 61), TrafficClass(5_000, "fq_codel"))
    assert lines[1:] == ["qdisc del dev wan parent 1:101", "qdisc replace dev wan parent 1:101 handle 101: bfifo limit 61k"]


def test_the_unrestricted_class_is_never_taken_for_a_groups() -> None:
    assert "1" not in read_device(OURS).classes
    assert f"rate {tc.UNRESTRICTED_KBIT}kbit" in tc.add_root("wan")[1]
