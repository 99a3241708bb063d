"""What a user sees of the torrent half: the same in-process and over HTTP, with the real process behind it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import tidegate
from tidegate.api import Tidegate
from tidegate.api.security import Address, BlacklistAddRequest, IPFilterLoadRequest, ListName, Network, WhitelistAddRequest
from tidegate.api.torrent import AddTorrentRequest, Folder, InfoHash, Magnet
from tidegate.daemon.app import running
from tidegate.errors import Invalid, NotFound, Refused
from tidegate.settings import load

pytestmark = pytest.mark.anyio


def torrent(name: str) -> tuple[bytes, InfoHash]:
    """A one-piece .torrent of five bytes, and its hash."""
    pieces = hashlib.sha1(b"hello").digest()
    info = b"d6:lengthi5e4:name%d:%s12:piece lengthi16384e6:pieces20:%se" % (len(name), name.encode(), pieces)
    return b"d4:info" + info + b"e", InfoHash(hashlib.sha1(info).hexdigest())


@pytest.fixture(params=["in-process", "http"])
async def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tidegate]:
    quiet = dict.fromkeys(("torrent.dht", "torrent.lsd", "torrent.upnp", "torrent.natpmp", "torrent.utp"), False)
    flags = {"state_dir": tmp_path / "state", "listen": "127.0.0.1:0", "log_level": "error", **quiet}
    flags |= {"torrent.listen": "127.0.0.1:0", "torrent.ip_filter": "own=own.txt"}
    async with running(load(environment={}, flags=flags)[0]) as host:
        if request.param == "in-process":
            yield host.services
        else:
            async with tidegate.connect(host.url, key=host.first_key) as remote:
                yield remote


async def test_a_torrent_is_added_once_listed_paused_resumed_and_removed(daemon: Tidegate) -> None:
    data, info_hash = torrent("hello")
    added = await daemon.torrent.upload(data, folder=Folder("a/b"))
    assert (added.info_hash, added.name, added.duplicate) == (info_hash, "hello", False)
    assert (await daemon.torrent.upload(data)).duplicate
    first = await daemon.torrent.list()
    assert [(row.info_hash, row.total_size, row.pieces_total) for row in first.torrents] == [(info_hash, 5, 1)]
    assert first.torrents[0].output_dir.endswith("a/b")
    assert (await daemon.torrent.pause(info_hash)).status == "paused"
    changed = await daemon.torrent.list(since=first.revision)
    assert [row.status for row in changed.torrents] == ["paused"]
    assert (await daemon.torrent.resume(InfoHash(info_hash.upper()))).status != "paused"
    assert (await daemon.torrent.get_peers(info_hash)).count == 0
    assert (await daemon.session.get_global_stats()).num_torrents == 1
    assert (await daemon.torrent.remove(info_hash)).name == "hello"
    assert (await daemon.torrent.list(since=first.revision)).removed == (info_hash,)
    assert (await daemon.torrent.list()).total == 0


async def test_a_magnet_link_waits_for_its_metadata(daemon: Tidegate) -> None:
    added = await daemon.torrent.add(AddTorrentRequest(Magnet(f"magnet:?xt=urn:btih:{'ab' * 20}&dn=Film")))
    assert (added.info_hash, added.duplicate) == ("ab" * 20, False)
    assert (await daemon.torrent.status(InfoHash("ab" * 20))).status == "fetching_metadata"


async def test_what_is_no_torrent_is_refused_with_its_place_and_a_stranger_is_not_found(daemon: Tidegate) -> None:
    data, _ = torrent("../evil")
    for bad in (data, b"", b"d", b"x" * 100, data + b"e"):
        with pytest.raises(Invalid) as caught:
            await daemon.torrent.upload(bad)
        assert caught.value.faults[0].at.startswith("body")
    with pytest.raises(Invalid):
        await daemon.torrent.add(AddTorrentRequest(Magnet("magnet:?xt=urn:btih:nothing")))
    stranger = InfoHash("cd" * 20)
    for call in (
        daemon.torrent.status(stranger),
        daemon.torrent.pause(stranger),
        daemon.torrent.resume(stranger),
        daemon.torrent.remove(stranger),
        daemon.torrent.get_peers(stranger),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await daemon.torrent.list()).total == 0


async def test_networks_are_banned_let_in_and_explained(daemon: Tidegate) -> None:
    security = daemon.security
    for text, canonical in (
        ("203.0.113.7/32", "203.0.113.7"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
    ):
        added = await security.add_to_blacklist(BlacklistAddRequest(Network(text)))
        assert (added.ip, added.hits) == (canonical, 0)
    white = await security.add_to_whitelist(WhitelistAddRequest(Network("10.1.0.0/16")))
    assert (await security.get_whitelist()).entries == (white,)
    listed = await security.get_blacklist()
    assert (listed.ips, listed.count) == (("203.0.113.7", "10.0.0.0/8", "2001:db8::/32"), 3)
    for ip, blocked, by in (
        ("10.2.3.4", True, "blacklist"),
        ("10.1.3.4", False, "whitelist"),
        ("::ffff:10.1.3.4", False, "whitelist"),
        ("2001:db8::1", True, "blacklist"),
        ("192.0.2.1", False, None),
        ("fe80::1", False, None),
    ):
        verdict = await security.test_address(Address(ip))
        assert (verdict.blocked, verdict.by) == (blocked, by)
    for network in (Network("10.0.0.0/8"), Network("2001:db8::/32")):
        assert (await security.remove_from_blacklist(network)).ip == network
        with pytest.raises(NotFound):
            await security.remove_from_blacklist(network)
    assert (await security.get_ip_filter_stats()).total_rules == 2


async def test_a_list_that_is_not_there_is_refused_and_a_name_that_is_not_is_invalid(daemon: Tidegate) -> None:
    with pytest.raises(Refused, match="own was not loaded: there is no file"):
        await daemon.security.load_ip_filter()
    with pytest.raises(Invalid):
        await daemon.security.load_ip_filter(IPFilterLoadRequest((ListName("other"),)))
    stats = await daemon.security.get_ip_filter_stats()
    assert (stats.enabled, stats.stats.sources[0].name, stats.stats.sources[0].rules) == (False, "own", 0)
    assert stats.stats.sources[0].last_error
