"""What strangers put into .torrent files and magnet links, and what becomes of it (SEC-22, SEC-23, SEC-24)."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import Invalid, TooLarge
from tidegate.torrent import bencode, magnet, metainfo

KIB = 1024
PIECE = 16 * KIB


def ben(value: Any) -> bytes:
    """The value as bencode, with the keys of a dictionary in the order given."""
    match value:
        case int():
            return b"i%de" % value
        case str():
            return ben(value.encode())
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l" + b"".join(map(ben, value)) + b"e"
        case dict():
            return b"d" + b"".join(ben(key) + ben(inner) for key, inner in value.items()) + b"e"
    raise TypeError(value)


def single(**changes: Any) -> dict[str, Any]:
    """The info of a v1 torrent of one file, three pieces long."""
    return {"length": 3 * PIECE - 1, "name": "tide.bin", "piece length": PIECE, "pieces": b"h" * 60} | changes


def many(*files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The info of a v1 torrent of these files, each 1 KiB long where it does not say otherwise."""
    sized = [{"length": KIB, **file} for file in files]
    pieces = b"h" * 20 * -(-sum(file["length"] for file in sized if isinstance(file["length"], int)) // PIECE)
    return {"files": sized, "name": "album", "piece length": PIECE, "pieces": pieces} | changes


def tree(**files: Any) -> dict[str, Any]:
    """The info of a v2 torrent of these files."""
    return {"file tree": files, "meta version": 2, "name": "album", "piece length": PIECE}


def leaf(length: int = KIB, **more: Any) -> dict[str, Any]:
    return {"": {"length": length, "pieces root": b"r" * 32} | more}


def torrent(info: dict[str, Any], **beside: Any) -> bytes:
    return ben({"announce": "http://tracker.example/announce"} | beside | {"info": info})


def faults(data: bytes) -> dict[str, str]:
    """The faults that the file is refused for: place -> why."""
    with pytest.raises(Invalid) as refused:
        metainfo.read(data)
    return {fault.at: fault.why for fault in refused.value.faults}


# ── what is good


def test_a_file_says_its_hash_name_and_sizes() -> None:
    found = metainfo.read(torrent(single(private=1)))
    assert found.v1 == hashlib.sha1(ben(single(private=1))).hexdigest()
    assert (found.v2, found.name, found.total_size, found.pieces, found.private) == (None, "tide.bin", 3 * PIECE - 1, 3, True)


def test_files_lie_below_the_torrents_own_folder() -> None:
    found = metainfo.read(torrent(many({"path": ["disc 1", "01.flac"]}, {"path": ["cover.jpg"]})))
    assert [file.path for file in found.files] == [("album", "disc 1", "01.flac"), ("album", "cover.jpg")]


def test_a_second_version_is_read_from_its_tree() -> None:
    info = tree(**{"a.txt": leaf(), "sub": {"b.txt": leaf(3 * PIECE)}})
    found = metainfo.read(torrent(info))
    assert found.v1 is None
    assert found.info_hash == found.v2 == hashlib.sha256(ben(info)).hexdigest()
    assert ([file.path for file in found.files], found.pieces) == ([("album", "a.txt"), ("album", "sub", "b.txt")], 1 + 3)


def test_a_hybrid_has_both_hashes_and_pads_its_files() -> None:
    padding = {"attr": "p", "length": PIECE - KIB, "path": [".pad", "15360"]}
    files = [{"length": KIB, "path": ["a"]}, padding, {"length": KIB, "path": ["b"]}]
    info = {"file tree": {"a": leaf(), "b": leaf()}, "files": files, "meta version": 2, "name": "album"}
    found = metainfo.read(torrent(info | {"piece length": PIECE, "pieces": b"h" * 40}))
    assert found.v1
    assert found.v2
    assert (found.info_hash, found.total_size, found.pieces) == (found.v1, 2 * KIB, 2)


def test_padding_files_may_share_their_place() -> None:
    padding = {"attr": "p", "length": KIB, "path": [".pad", "1024"]}
    assert metainfo.read(torrent(many({"path": ["a"]}, padding, {"path": ["b"]}, padding))).total_size == 2 * KIB


def test_keys_out_of_order_are_let_pass() -> None:
    assert metainfo.read(torrent(dict(reversed(single().items())))).name == "tide.bin"


# ── what is not


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the end comes too early"),
        (b"d", "the end comes too early"),
        (b"<html>", "neither value nor end"),
        (b"d4:infode", "the end comes too early"),
        (b"i1e4:spam", "6 bytes after the end"),
        (b"i01e", "not an integer"),
        (b"i-0e", "not an integer"),
        (b"i9223372036854775808e", "not an integer"),
        (b"i" + b"9" * 5000 + b"e", "not an integer"),
        (b"5:spam", "a string longer than the file"),
        (b"05:spam", "neither value nor end"),
        (b"-1:", "neither value nor end"),
        (b"99999999999999999999:", "neither value nor end"),
        (b"di1ei2ee", "a key must be a string"),
        (b"dlei2ee", "a key must be a string"),
        (b"d1:ae", "an end where a value belongs"),
        (b"e", "an end where a value belongs"),
        (b"d1:ai1e1:ai2ee", "comes twice"),
        (b"l" * 33 + b"e" * 33, "nested deeper than 32"),
        (b"l" * 100_000, "nested deeper than 32"),
        (b"d1:a" * 100_000, "nested deeper than 32"),
    ],
)
def test_what_is_not_bencode_is_refused_with_its_place(data: bytes, why: str) -> None:
    assert why in faults(data)["body"]


def test_32_levels_are_read() -> None:
    assert bencode.read(b"l" * 32 + b"e" * 32).value


def test_more_than_two_million_values_are_refused() -> None:
    with pytest.raises(bencode.NotBencode, match="2,000,000 values"):
        bencode.read(b"l" + b"0:" * 2_000_001 + b"e")


def test_more_than_four_mebibytes_are_refused() -> None:
    with pytest.raises(TooLarge):
        metainfo.read(b"l" + b"0:" * (2 << 20) + b"e")


@pytest.mark.parametrize("data", [b"i1e", b"de", ben({"info": []}), ben({"info": "x"})])
def test_a_file_without_an_info_dictionary_is_refused(data: bytes) -> None:
    assert list(faults(data)) == ["body/info"]


OUTSIDE = ["", ".", "..", "/etc/passwd", "a/b", "a\\b", "..\\x"]
DEVICES = ["CON", "nul.txt", "com1", "Aux .txt", "LPT¹"]
DECEIVING = ["a\0b", "a\nb", "a\x7fb", "a\u2028b", "photo\u202egpj.exe", "a\u2066b", b"\xff\xfe", "x" * 256]


@pytest.mark.parametrize("part", [*OUTSIDE, *DEVICES, *DECEIVING])
def test_a_name_that_leaves_its_folder_or_deceives_is_refused_wherever_it_stands(part: str | bytes) -> None:
    assert list(faults(torrent(single(name=part)))) == ["body/info/name"]
    assert list(faults(torrent(many({"path": ["good"]}, {"path": [part]})))) == ["body/info/files/1/path"]
    assert list(faults(torrent(many({"path": ["sub", part, "x"]})))) == ["body/info/files/0/path"]
    key = part if isinstance(part, bytes) else part.encode()
    if key:
        places = faults(torrent({**tree(), "file tree": {b"sub": {key: leaf()}}}))
        assert [at.startswith("body/info/file tree/sub/") for at in places] == [True]


@pytest.mark.parametrize(
    ("info", "place"),
    [
        (single(length=-1), "length"),
        (single(length="1"), "length"),
        (single(length=1 << 60), "length"),
        (single(**{"piece length": 0}), "piece length"),
        (single(**{"piece length": -PIECE}), "piece length"),
        (single(**{"piece length": 8 * KIB}), "piece length"),
        (single(**{"piece length": 32 << 20}), "piece length"),
        (single(**{"piece length": 3 * PIECE}), "piece length"),
        (single(**{"piece length": "big"}), "piece length"),
        (single(pieces=b"h" * 59), "pieces"),
        (single(pieces=b"h" * 40), "pieces"),
        (single(pieces=b"h" * 80), "pieces"),
        (single(pieces=5), "pieces"),
        (single(length=0, pieces=b""), "pieces"),
        (single(attr="l"), "attr"),
        (single(attr=7), "attr"),
        (single(**{"symlink path": ["etc"]}), "attr"),
        (single(**{"name.utf-8": "other"}), "name.utf-8"),
        (many(), "files"),
        (many({"path": ["a"]}, length=1), "length"),
        (many({"path": ["a"], "length": -1}), "files/0/length"),
        (many({"path": []}), "files/0/path"),
        (many({"path": "a"}), "files/0/path"),
        (many({"path": ["a", 1]}), "files/0/path"),
        (many({}), "files/0/path"),
        (many({"path": ["a"], "path.utf-8": [".."]}), "files/0/path.utf-8"),
        (many({"path": ["a"], "attr": "xl"}), "files/0/attr"),
        (many({"path": ["link"], "attr": "l", "symlink path": ["..", "etc"]}), "files/0/attr"),
        (many({"path": ["x" * 200] * 21}), "files/0/path"),
        (many({"path": ["a"]}, {"path": ["a"]}), "files/1/path"),
        (many({"path": ["Straße"]}, {"path": ["STRASSE"]}), "files/1/path"),
        (many({"path": ["caf\u00e9"]}, {"path": ["cafe\u0301"]}), "files/1/path"),
        (many({"path": ["a", "b"]}, {"path": ["A"]}), "files/1/path"),
        (tree(), "file tree"),
        (tree(a=1), "file tree/a"),
        (tree(a={}), "file tree/a"),
        (tree(a={"": {"length": 1}}), "file tree/a/pieces root"),
        (tree(a=leaf(-1)), "file tree/a/length"),
        (tree(a=leaf() | {"b": leaf()}), "file tree/a"),
        (tree(a=leaf(attr="l")), "file tree/a/attr"),
        (tree(a=leaf()) | {"meta version": 3}, "meta version"),
        (tree(a=leaf()) | {"length": KIB, "name": "a"}, "pieces"),
        (tree(a=leaf(5 * KIB)) | single(length=KIB, pieces=b"h" * 20, name="a"), "file tree"),
    ],
)
def test_an_info_that_contradicts_itself_is_refused_with_its_place(info: dict[str, Any], place: str) -> None:
    assert list(faults(torrent(info))) == [f"body/info/{place}"]


def test_every_fault_is_named_at_once() -> None:
    info = many({"path": [".."]}, {"path": ["a"], "length": -1}, **{"piece length": 5, "pieces": b"", "name": "/"})
    assert list(faults(torrent(info)))[:4] == [
        "body/info/piece length",
        "body/info/name",
        "body/info/files/0/path",
        "body/info/files/1/length",
    ]


def test_a_hostile_file_is_not_answered_with_a_million_faults() -> None:
    assert len(faults(torrent(many(*[{"path": [".."]}] * 5_000)))) == metainfo.FAULT_LIMIT


def test_hashes_of_a_layer_must_fit_their_file() -> None:
    info = tree(a=leaf(3 * PIECE))
    assert metainfo.read(torrent(info, **{"piece layers": {b"r" * 32: b"l" * 96}})).total_size == 3 * PIECE
    assert list(faults(torrent(info, **{"piece layers": {b"r" * 32: b"l" * 64}}))) == ["body/piece layers"]


GOOD = torrent(many({"path": ["disc 1", "01.flac"]}, {"path": ["cover.jpg"], "length": 40 * KIB}))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=4)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_and_never_a_surprise(damage: list[tuple[int, bytes]]) -> None:
    data = GOOD
    for at, put in damage:
        data = data[:at] + put + data[at + 1 :]
    with suppress(Invalid):
        files = metainfo.read(data).files
        assert all(".." not in file.path and not any("/" in part for part in file.path) for file in files)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_no_path_of_any_text_leads_out_of_its_folder(path: list[str]) -> None:
    try:
        data = torrent(many({"path": path}))
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        return
    try:
        (file,) = metainfo.read(data).files
    except Invalid:
        return
    assert "/".join(file.path).split("/") == ["album", *path]
    assert not {"", ".", ".."} & set(path)


# ── magnet links

V1 = "0123456789abcdef0123456789abcdef01234567"
V2 = V1 + "89abcdef0123456789abcdef"


def refused(link: str) -> list[str]:
    with pytest.raises(Invalid) as error:
        magnet.read(link)
    assert {fault.at for fault in error.value.faults} == {"body/magnet"}
    return [fault.why for fault in error.value.faults]


def test_a_link_says_its_hash_name_trackers_and_peers() -> None:
    found = magnet.read(
        f"magnet:?xt=urn:btih:{V1.upper()}&xt=urn:btmh:1220{V2}&dn=Tide+table&tr=udp%3A%2F%2Ft.example%3A80&x.pe=127.0.0.1:6881"
    )
    assert (found.v1, found.v2, found.name) == (V1, V2, "Tide table")
    assert (found.trackers, found.peers) == (("udp://t.example:80",), ("127.0.0.1:6881",))


def test_a_base32_hash_is_the_same_hash() -> None:
    assert magnet.read("magnet:?xt=urn:btih:AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH").v1 == V1


def test_the_link_written_anew_says_the_same() -> None:
    first = magnet.read(f"magnet:?tr=http://a.example/x%3Fy%3D1%26z&x.pe=[::1]:5&xt.1=urn:btih:{V1}&dn=a%26b&so=0-5&junk=%00")
    assert magnet.read(first.link) == first
    assert "junk" not in first.link


@pytest.mark.parametrize(
    "link",
    [
        "http://example.com",
        "magnet:?",
        "magnet:?dn=x",
        f"magnet:?xt=urn:btih:{V1[:-1]}",
        f"magnet:?xt=urn:btih:{V1}0",
        f"magnet:?xt=urn:btih:{V1[:-1]}g",
        "magnet:?xt=urn:btih:" + "1" * 32,
        f"magnet:?xt=urn:btmh:1220{V1}",
        f"magnet:?xt=urn:btmh:1114{V1}",
        f"magnet:?xt=urn:sha1:{V1}",
        f"magnet:?xt=urn:btih:{V1}&xt=urn:btih:{V1[::-1]}",
        f"magnet:?xt=urn:btih:{V1}&dn=" + "x" * 8192,
        f"magnet:?xt=urn:btih:{V1}" + "".join(f"&tr=udp://t{n}.example:1" for n in range(101)),
        f"magnet:?xt=urn:btih:{V1}&tr=http://[::1",
        f"magnet:?xt=urn:btih:{V1}&tr=http://a%0d%0aHost:x/",
        f"magnet:?xt=urn:btih:{V1}&x.pe=router:80",
        f"magnet:?xt=urn:btih:{V1}&x.pe=127.0.0.1:0",
        f"magnet:?xt=urn:btih:{V1}&dn=%ff",
    ],
)
def test_a_bad_link_is_refused_with_its_place(link: str) -> None:
    assert refused(link)


def test_what_the_engine_does_not_speak_is_left_out() -> None:
    found = magnet.read(
        f"magnet:?xt=urn:btih:{V1}&tr=wss://t.example&tr=file:///etc/passwd&ws=ftp://x.example&ws=http://x.example"
    )
    assert (found.trackers, found.web_seeds) == ((), ("http://x.example",))


def test_a_links_name_is_shown_harmlessly() -> None:
    assert magnet.read(f"magnet:?xt=urn:btih:{V1}&dn=a%1b[31m%E2%80%AEb%0a" + "x" * 500).name == "a[31mb" + "x" * 194


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_link_or_refused(text: str) -> None:
    for link in (text, "magnet:?" + text, f"magnet:?xt=urn:btih:{V1}&" + text):
        with suppress(Invalid):
            found = magnet.read(link)
            assert magnet.read(found.link) == found
