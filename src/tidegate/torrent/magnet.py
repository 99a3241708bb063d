"""Magnet links (BEP 9), checked and written anew, so that the engine reads only what was understood here (SEC-24)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from tidegate.errors import Fault, Invalid
from tidegate.torrent.filename import shown

LENGTH_LIMIT: Final = 8 * 1024
TRACKER_LIMIT: Final = 100
PEER_LIMIT: Final = 100
PLACE: Final = "body/magnet"

_V1 = re.compile(r"urn:btih:([0-9a-fA-F]{40})", re.ASCII)
_V1_BASE32 = re.compile(r"urn:btih:([A-Za-z2-7]{32})", re.ASCII)
_V2 = re.compile(r"urn:btmh:1220([0-9a-fA-F]{64})", re.ASCII)  # multihash: sha2-256, 32 bytes


@dataclass(frozen=True, slots=True)
class Magnet:
    """A checked magnet link; `v1` has 40 hex digits, `v2` 64, and one of them is there. `peers` are host:port."""

    v1: str | None
    v2: str | None
    name: str
    trackers: tuple[str, ...]
    web_seeds: tuple[str, ...]
    peers: tuple[str, ...]

    @property
    def info_hash(self) -> str:
        """The hash that the torrent goes by: v1 where there is one."""
        found = self.v1 or self.v2
        assert found is not None
        return found

    @property
    def link(self) -> str:
        """The link in canonical form, with nothing in it that was not understood."""
        topics = [f"xt=urn:btih:{self.v1}"] if self.v1 else []
        topics += [f"xt=urn:btmh:1220{self.v2}"] if self.v2 else []
        fields = [("dn", self.name)] if self.name else []
        fields += [("tr", url) for url in self.trackers] + [("ws", url) for url in self.web_seeds]
        fields += [("x.pe", peer) for peer in self.peers]
        return "magnet:?" + "&".join(topics + [f"{key}={quote(value, safe=':[]')}" for key, value in fields])


def read(text: str) -> Magnet:
    """The link's meaning. Raises Invalid with every fault, at "body/magnet"."""
    faults: list[str] = []
    if len(text) > LENGTH_LIMIT:
        raise _invalid([f"a magnet link is limited to {LENGTH_LIMIT} characters"])
    if not text.startswith("magnet:?"):
        raise _invalid(["a magnet link begins with magnet:?"])
    try:
        # Some programs number repeated fields: xt.1, tr.2.
        fields = [(re.sub(r"\.\d+$", "", key), value) for key, value in parse_qsl(text[8:], errors="strict")]
    except ValueError:
        raise _invalid(["the link's text must be UTF-8"]) from None
    topics = [value for key, value in fields if key == "xt"]
    v1 = _only("v1", {hash_ for topic in topics if (hash_ := _v1(topic))}, faults)
    v2 = _only("v2", {found[1].lower() for topic in topics if (found := _V2.fullmatch(topic))}, faults)
    if not (v1 or v2 or faults):
        faults.append("no info hash: xt must be urn:btih: with 40 hex or 32 base32 digits, or urn:btmh:1220 with 64 hex digits")
    trackers = _urls("tracker", [value for key, value in fields if key == "tr"], {"http", "https", "udp"}, faults)
    web_seeds = _urls("web seed", [value for key, value in fields if key == "ws"], {"http", "https"}, faults)
    peers = tuple(value for key, value in fields if key == "x.pe")
    if len(peers) > PEER_LIMIT:
        faults.append(f"at most {PEER_LIMIT} peers")
    elif not all(_is_endpoint(peer) for peer in peers):
        faults.append("x.pe must be an address and a port")
    if faults:
        raise _invalid(faults)
    name = next((value for key, value in fields if key == "dn"), "")
    return Magnet(v1, v2, shown(name), trackers, web_seeds, peers)


def _invalid(whys: Sequence[str]) -> Invalid:
    return Invalid("this magnet link can't be used", [Fault(PLACE, why) for why in whys])


def _v1(topic: str) -> str | None:
    if found := _V1.fullmatch(topic):
        return found[1].lower()
    if found := _V1_BASE32.fullmatch(topic):
        try:
            return base64.b32decode(found[1].upper()).hex()
        except binascii.Error:
            return None
    return None


def _only(version: str, hashes: set[str], faults: list[str]) -> str | None:
    if len(hashes) > 1:
        faults.append(f"two different {version} hashes in one link")
    return hashes.pop() if hashes else None


def _urls(what: str, urls: Sequence[str], schemes: set[str], faults: list[str]) -> tuple[str, ...]:
    """The URLs whose scheme the engine speaks; others (such as WebTorrent's wss) are left out, as all clients do."""
    if len(urls) > TRACKER_LIMIT:
        faults.append(f"at most {TRACKER_LIMIT} {what}s")
        return ()
    kept = []
    for url in dict.fromkeys(urls):
        try:
            split = urlsplit(url)
            known = split.scheme in schemes and bool(split.hostname) and split.port != 0
        except ValueError:
            faults.append(f"a {what}'s URL can't be read: {shown(url, 80)}")
            continue
        if not url.isprintable() or " " in url:
            faults.append(f"a {what}'s URL has characters that no URL has")
        elif known:
            kept.append(url)
    return tuple(kept)


def _is_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return port.isascii() and port.isdigit() and 0 < int(port) < 65536
