"""A program of the lab's: takes connections on a socket it was given, and dials each on to an address of its network.

Called as `relay.py FD ADDRESS PORT DELAY`. The socket listens on the host; this process runs in the lab's network, and a
socket belongs to the network it was made in. Two threads a connection: what arrives is sent on after DELAY seconds (0: at
once), an end is passed on as an end, and a broken connection as a broken one.

With a delay this is a long line, both ways, for each byte and for setting up a connection: the far host sees it three
delays after it was asked for (SYN, its answer, ACK), so that who comes anew is greeted after two round trips. Not shown so:
segments that are lost, and windows of TCP that are too small for such a line.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_DIAL_TIME = 4.0
"""Seconds: two repeated SYNs. A router that boots answers the first, and one that is off never says that it is."""


def _blocks(source: socket.socket) -> Iterator[memoryview]:
    """What arrives, as it does; each is good until the next is asked for."""
    block = memoryview(bytearray(1 << 18))
    while size := source.recv_into(block):
        yield block[:size]


def _delayed(source: socket.socket, delay: float) -> Iterator[bytes]:
    """What arrives, each part so many seconds after it did, as is the end and the breaking off."""
    under_way: SimpleQueue[tuple[float, bytes | OSError | None]] = SimpleQueue()

    def take_in() -> None:
        end = None
        try:
            for block in _blocks(source):
                under_way.put((time.monotonic() + delay, bytes(block)))
        except OSError as error:
            end = error
        under_way.put((time.monotonic() + delay, end))

    threading.Thread(target=take_in, daemon=True).start()
    while True:
        due, what = under_way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if isinstance(what, OSError):
            raise what
        if what is None:
            return
        yield what


def _pump(source: socket.socket, sink: socket.socket, delay: float) -> None:
    try:
        for block in _delayed(source, delay) if delay else _blocks(source):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RDWR)


def _carry(near: socket.socket, address: str, port: int, delay: float) -> None:
    with near:
        time.sleep(3 * delay)
        try:
            far = socket.create_connection((address, port), timeout=_DIAL_TIME)
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        with far:
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(far, near, delay), daemon=True)
            back.start()
            _pump(near, far, delay)
            back.join()


def main() -> None:
    """Serve until killed."""
    descriptor, address, port, delay = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as listening:
        while True:
            near, _ = listening.accept()
            threading.Thread(target=_carry, args=(near, address, int(port), float(delay)), daemon=True).start()


if __name__ == "__main__":
    main()
