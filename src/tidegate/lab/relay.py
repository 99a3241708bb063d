"""A program of the lab's: takes connections on a socket it was given, and dials each on to an address of its network.

Called as `relay.py FD ADDRESS PORT`. The socket listens on the host; this process runs in the lab's network, and a
socket belongs to the network it was made in. Two threads a connection, nothing held back: what arrives is sent on
at once, an end is passed on as an end, and a broken connection as a broken one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_DIAL_TIME = 4.0
"""Seconds: two repeated SYNs. A router that boots answers the first, and one that is off never says that it is."""


def _pump(source: socket.socket, sink: socket.socket) -> None:
    block = memoryview(bytearray(1 << 18))
    try:
        while size := source.recv_into(block):
            sink.sendall(block[:size])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RDWR)


def _carry(near: socket.socket, address: str, port: int) -> None:
    with near:
        try:
            far = socket.create_connection((address, port), timeout=_DIAL_TIME)
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        with far:
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()


def main() -> None:
    """Serve until killed."""
    descriptor, address, port = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as listening:
        while True:
            near, _ = listening.accept()
            threading.Thread(target=_carry, args=(near, address, int(port)), daemon=True).start()


if __name__ == "__main__":
    main()
