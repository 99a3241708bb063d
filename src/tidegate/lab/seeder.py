"""A torrent and somebody who has it: `python -m tidegate.lab.seeder --listen 127.0.0.1:6999 --size 64 --dir /tmp/seed`.

The content is made from the name and the size alone, so two seeders of the same have the same torrent. The first line on
standard output is JSON: `magnet` (with the seeder's address in it), `torrent` (a .torrent file's path), `info_hash`, `listen`,
`size` (bytes). The .torrent names a tracker, which the seeder is too. Ends when its standard input does.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import random
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import libtorrent as lt

CHUNK = 1 << 20


def content(path: Path, size: int) -> None:
    """Write `size` bytes that look random and are the same every time."""
    source = random.Random(f"{path.name}:{size}")  # noqa: S311 - to be the same again is what it is for
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(source.randbytes(min(CHUNK, size - start)))


def metainfo(path: Path, tracker: str) -> bytes:
    """A hybrid .torrent of one file."""
    made = lt.create_torrent(lt.list_files(str(path)), 256 * 1024)
    made.add_tracker(tracker)
    made.set_creation_date(0)
    lt.set_piece_hashes(made, str(path.parent))
    return lt.bencode(made.generate())


def settings(listen: str, rate: int) -> dict[str, Any]:
    """A session that talks to nobody who does not ask it."""
    return {
        "listen_interfaces": listen,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "close_redundant_connections": False,
        "alert_mask": 0,
        "upload_rate_limit": rate * 1024,
    }


class _Tracker(BaseHTTPRequestHandler):
    """Answers every announce with the one peer there is (BEP 23)."""

    peer: bytes
    key: bytes

    def do_GET(self) -> None:
        answer = b"d8:intervali60e%d:%s%d:%se" % (len(self.key), self.key, len(self.peer), self.peer)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Announces are no news."""


def tracker(host: str, port: int) -> ThreadingHTTPServer:
    """A tracker on a free port of `host` that knows the peer at `host:port`."""
    address = ipaddress.ip_address(host)
    key = b"peers6" if address.version == 6 else b"peers"
    handler = type("Tracker", (_Tracker,), {"peer": address.packed + struct.pack("!H", port), "key": key})
    server = ThreadingHTTPServer((host, 0), handler) if address.version == 4 else _Six((host, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Six(ThreadingHTTPServer):
    address_family = 10  # AF_INET6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    options.add_argument("--listen", default="127.0.0.1:0", help="address:port that peers reach it at")
    options.add_argument("--size", type=float, default=16, help="MiB")
    options.add_argument("--name", default="tide.bin", help="the torrent's one file")
    options.add_argument("--rate", type=int, default=0, help="KiB/s that it uploads at most; 0: as fast as it goes")
    options.add_argument("--dir", type=Path, required=True, help="where the content and the .torrent file are put")
    chosen = options.parse_args()
    chosen.dir.mkdir(parents=True, exist_ok=True)
    path = chosen.dir / chosen.name
    content(path, int(chosen.size * 1024 * 1024))

    session: Any = lt.session(cast(Any, settings(chosen.listen, chosen.rate)))
    if chosen.rate:  # libtorrent exempts local peers, and all peers of a lab are local
        everybody = lt.ip_filter()
        everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)  # noqa: S104 - a range
        everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1 << lt.session.global_peer_class_id)
        session.set_peer_class_filter(everybody)
    host = chosen.listen.rpartition(":")[0].strip("[]")
    port = session.listen_port()
    server = tracker(host, port)
    shown = f"[{host}]" if ":" in host else host
    data = metainfo(path, f"http://{shown}:{server.server_address[1]}/announce")
    torrent = chosen.dir / f"{chosen.name}.torrent"
    torrent.write_bytes(data)
    parameters = lt.load_torrent_buffer(data)
    parameters.trackers = []
    parameters.name = chosen.name
    parameters.save_path = str(chosen.dir.absolute())
    parameters.flags = lt.torrent_flags.seed_mode | lt.torrent_flags.update_subscribe
    handle = session.add_torrent(parameters)
    while not handle.status().is_seeding:
        time.sleep(0.01)
    facts = {
        "magnet": f"{lt.make_magnet_uri(parameters)}&x.pe={shown}:{port}",
        "torrent": str(torrent),
        "info_hash": str(handle.info_hashes().v1),
        "listen": f"{shown}:{port}",
        "size": path.stat().st_size,
    }
    print(json.dumps(facts), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
