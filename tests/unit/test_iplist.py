"""Reading lists of addresses as strangers publish them."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from tidegate.torrent.iplist import AddressList, LineFault, ListReader
from tidegate.torrent.unpack import NotAList


def read(data: bytes, size: int = 1 << 16) -> AddressList:
    reader = ListReader()
    told = "-".join(text for at in range(0, len(data), size) if (text := reader.feed(data[at : at + size])))
    last, found = reader.end()
    # What the engine is told while the list comes in is what the list holds in the end.
    ends = [ip_address(each) for each in "-".join(filter(None, (told, last))).split("-") if each]
    for version, ranges in ((4, found.v4), (6, found.v6)):
        pairs = [(int(a), int(b)) for a, b in zip(ends[::2], ends[1::2], strict=True) if a.version == version]
        assert sum(1 for _ in pairs) >= len(ranges)
        assert {int(end) for end in ranges.firsts} <= {min(pair) for pair in pairs}
        assert all(ranges.find(a) == ranges.find(b) is not None for a, b in pairs)
    return found


def blocked(data: bytes) -> list[str]:
    found = read(data)
    both = [*zip(found.v4.firsts, found.v4.lasts, strict=True), *zip(found.v6.firsts, found.v6.lasts, strict=True)]
    versions = [4] * len(found.v4) + [6] * len(found.v6)
    return [
        "-".join(str(ip_address(end.to_bytes(4 if version == 4 else 16, "big"))) for end in pair)
        for version, pair in zip(versions, both, strict=True)
    ]


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("Some name:1.2.3.0-1.2.3.255", "1.2.3.0-1.2.3.255"),
        ("Name: with 5.5.5.5-6.6.6.6: colons - and more:1.2.3.0-1.2.3.9", "1.2.3.0-1.2.3.9"),
        ("Bad:1.2.3.4-1.2.3.5", "1.2.3.4-1.2.3.5"),  # a name of hex digits is no address
        (":1.2.3.4 - 1.2.3.5", "1.2.3.4-1.2.3.5"),
        ("Six:2001:db8::-2001:db8::ff", "2001:db8::-2001:db8::ff"),
        ("001.002.003.000 - 001.002.003.255 , 000 , Name", "1.2.3.0-1.2.3.255"),
        ("1.2.3.0 - 1.2.3.255 , 127 , Name:9.9.9.9-9.9.9.10", "1.2.3.0-1.2.3.255"),
        ("1.2.3.0-1.2.3.255,100,", "1.2.3.0-1.2.3.255"),
        ("2001:db8:: - 2001:db8::1 , 100 , Name", "2001:db8::-2001:db8::1"),
        ("1.2.3.0/24", "1.2.3.0-1.2.3.255"),
        ("1.2.3.77/24 ; SBL123", "1.2.3.0-1.2.3.255"),
        ("2001:db8::/126", "2001:db8::-2001:db8::3"),
        ("1.2.3.4 # why", "1.2.3.4-1.2.3.4"),
        ("2001:DB8::1", "2001:db8::1-2001:db8::1"),
        ("  1.2.3.4 - 1.2.3.9 // why", "1.2.3.4-1.2.3.9"),
        ("1.2.3.9-1.2.3.4", "1.2.3.4-1.2.3.9"),  # in the wrong order
        ("Name:1.2.3.9-1.2.3.4", "1.2.3.4-1.2.3.9"),
        ("::ffff:1.2.3.4", "1.2.3.4-1.2.3.4"),
        ("010.000.000.008", "10.0.0.8-10.0.0.8"),  # decimal, not octal
        ("0.0.0.0/0", "0.0.0.0-255.255.255.255"),
    ],
)
def test_every_form_of_line_is_read_for_what_it_is(line: str, means: str) -> None:
    assert blocked(line.encode()) == [means]
    assert blocked(line.encode() + b"\r\n") == [means]
    assert blocked(b"\xef\xbb\xbf" + line.encode() + b"\n") == [means]


@pytest.mark.parametrize(
    "line",
    ["", "   ", "# 1.2.3.4", "; 1.2.3.4", "// name:1.2.3.4-1.2.3.5", "#x:1.2.3.4-1.2.3.5", "1.2.3.0 - 1.2.3.9 , 128 , allowed"],
)
def test_a_comment_or_what_emule_allows_blocks_nothing_and_is_no_fault(line: str) -> None:
    assert read(f"9.9.9.9\n{line}\n".encode()).skipped == 0
    assert blocked(f"9.9.9.9\n{line}\n".encode()) == ["9.9.9.9-9.9.9.9"]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "1.2.3",
        "1.2.3.256",
        "1.2.3.4/33",
        "2001:db8::/129",
        "1.2.3.4 - 2001:db8::1",
        "name:1.2.3.4-",
        "name:-1.2.3.4",
        "a-b:c",
        "1.2.3.4\x001",
        "fe80::1%eth0",
        "1.2.3.4 - 1.2.3.5 , high , name",
        "x" * 2_000 + ":1.2.3.4-1.2.3.5",
        "٣.2.3.4",
    ],
)
def test_a_line_that_is_nothing_is_skipped_and_counted_with_its_number(line: str) -> None:
    found = read(f"9.9.9.9\n\n{line}\n8.8.8.8".encode())
    assert (found.ranges, found.lines, found.skipped, found.faults[0].line) == (2, 4, 1, 3)
    assert line[:5] not in found.faults[0].why or not line.isascii(), "nothing of the list is repeated"


def test_of_many_faults_the_first_five_are_told_and_all_are_counted() -> None:
    found = read(b"1.2.3.4\n" + b"bad\n" * 20)
    assert (found.skipped, [fault.line for fault in found.faults]) == (20, [2, 3, 4, 5, 6])
    assert found.faults[0] == LineFault(2, "no address, network or range")


def test_where_the_pieces_are_cut_makes_no_difference() -> None:
    rng = random.Random(3)
    lines = []
    for number in range(3_000):
        first = rng.randrange(1 << 24, 223 << 24)
        a, b = ip_address(first), ip_address(first + rng.randrange(600))
        lines.append(
            rng.choice([f"Name {number}:{a}-{b}", f"{a} - {b} , 100 , x", f"{a}-{b}", f"{a}", "# no", f"2001:db8::{number:x}"])
        )
    data = "\n".join(lines).encode()
    whole = read(data)
    for size in (1, 7, 100, 4_096):
        cut = read(data, size)
        assert (cut.v4.to_bytes(), cut.v6.to_bytes(), cut.lines) == (whole.v4.to_bytes(), whole.v6.to_bytes(), whole.lines)


def test_a_block_of_one_form_means_the_same_as_its_lines_one_by_one() -> None:
    """Whole blocks are read at once where they have one form; a comment in front makes the same lines go one by one."""
    rng = random.Random(5)
    forms = [
        "Name:{}-{}",
        "3 - 4:{}-{}",
        "{} - {} , 000 , name: x",
        "{}-{}",
        "{} - {} , 127",
        "1.1.1.1 - 2.2.2.2 , 0 , x:{}-{}",
    ]
    for form in forms:
        for padded in (False, True):
            ends = [".".join(f"{rng.randrange(256):0{3 if padded else 1}}" for _ in range(4)) for _ in range(200)]
            data = "\n".join(form.format(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True)).encode()
            assert read(data).v4.to_bytes() == read(b"# slowly\n" + data).v4.to_bytes()
            alone = "\r\n".join(ends).encode()
            assert read(alone).v4.to_bytes() == read(b"# slowly\n" + alone).v4.to_bytes()


def test_a_list_of_too_many_lines_is_refused_before_it_is_held_in_memory() -> None:
    reader = ListReader(line_limit=100)
    reader.feed(b"1.2.3.4\n" * 100)
    with pytest.raises(NotAList, match="more than 100 lines"):
        reader.feed(b"1.2.3.4\n")


def test_what_has_no_address_at_all_is_no_list() -> None:
    with pytest.raises(NotAList, match="none of its 2 lines"):
        read(b"<html>\n<body>")
    assert read(b"# empty, and says so\n").ranges == 0


def test_a_line_without_an_end_takes_no_memory() -> None:
    reader = ListReader()
    for _ in range(50):
        assert reader.feed(b"1.2.3.4 " * 8_192) == ""
    reader.feed(b"\n1.2.3.4\n")
    _, found = reader.end()
    assert (found.ranges, found.faults) == (1, (LineFault(1, "longer than 1,024 bytes"),))


def test_mutated_lists_crash_nothing() -> None:
    rng = random.Random(11)
    seed = (
        b"Name:1.2.3.0-1.2.3.255\n001.002.003.000 - 001.002.003.255 , 000 , Name\r\n1.2.3.0/24\n2001:db8::/32\n::1\n# c\n" * 4
    )
    for _ in range(1_000):
        data = bytearray(seed)
        for _ in range(rng.randrange(1, 30)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(20)]
                case _:
                    data[at:at] = rng.choice([b"\0", b"-", b":", b"/", b",", b"\n", b"255", b"\xff", b"999999999999"])
        try:
            read(bytes(data), rng.randrange(1, 400))
        except NotAList:
            assert b"1" not in data
