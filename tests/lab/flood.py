"""Datagrams from a client to the internet at a steady rate, counted where they leave and where they arrive."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.lab import Lab
from tidegate.lab.host import Host

FAMILIES = ("ipv4", "ipv6")

# Numbered datagrams at a steady rate to both families until stdin closes; then it says how many it sent.
SEND = """
import select, socket, sys, time
gap, port, *hosts = float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
to = [(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM), (host, port)) for host in hosts]
sent, began = 0, time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0]:
    for near, far in to:
        try:
            near.sendto(b"%d" % sent, far)
            sent += 1
        except OSError:
            pass  # the router's refusal, told by ICMP
    time.sleep(max(0, began + sent / len(to) * gap - time.monotonic()) if sent else gap)
print(sent)
"""


class Sender:
    def __init__(self) -> None:
        self.sent = 0


@contextmanager
def sending(lab: Lab, client: Host, port: int, a_second: int) -> Iterator[Sender]:
    """Datagrams from this client to the internet while the block runs; afterwards `sent` says how many."""
    found = Sender()
    argv = [sys.executable, "-I", "-S", "-c", SEND, str(2 / a_second), str(port), lab.internet.ipv4, lab.internet.ipv6]
    with client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            found.sent = int(process.communicate(timeout=20)[0])


@contextmanager
def counting(lab: Lab, *ports: int) -> Iterator[None]:
    """The internet counts what reaches it on these UDP ports, whether anybody listens or not."""
    chains = [
        f"chain {family}_{port} {{ type filter hook input priority 0; meta nfproto {family} udp dport {port} counter drop; }}"
        for port in ports
        for family in FAMILIES
    ]
    done = lab.internet.run(["nft", "-f", "-"], input="\n".join(["table inet seen {", *chains, "}"]))
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        lab.internet.run(["nft", "delete", "table", "inet", "seen"])


def arrived(lab: Lab, port: int) -> Counter[str]:
    """How many datagrams did so far, by family."""
    found = Counter[str]()
    for family in FAMILIES:
        words = lab.internet.run(["nft", "list", "chain", "inet", "seen", f"{family}_{port}"]).stdout.split()
        found[family] = int(words[words.index("packets") + 1])
    return found
