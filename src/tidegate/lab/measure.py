"""What gets through: iperf3 between two machines of the lab, counted where the bytes arrive.

All rates are Mbit/s (10^6 bit) of payload. Every measurement has an iperf3 server of its own, so any number may run
at once. "down" is from the second machine to the first, as a client and the internet would say.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tidegate.lab.box import Process
from tidegate.lab.host import Host
from tidegate.lab.router import listens
from tidegate.lab.support import LabError

Direction = Literal["down", "up"]
Protocol = Literal["tcp", "udp"]

_PORTS: Final = itertools.cycle(range(20000, 30000))
_START_TIME: Final = 10.0
_LONGEST: Final = 3600
"""Seconds after which a flow ends by itself. (iperf3 reads whole seconds only, and 0 as for ever.)"""
_WATCHING: Final = ("--interval", "0.1", "--format", "k", "--forceflush")
_UDP_PAYLOAD: Final = 1200
"""Bytes; below every MTU with any header on it."""


class NoMeasurement(LabError):
    """Nothing could be measured; the message is iperf3's."""


def throughput(
    client: Host,
    internet: Host,
    *,
    direction: Direction = "down",
    protocol: Protocol = "tcp",
    family: Literal[4, 6] = 4,
    seconds: float = 2.0,
    streams: int = 1,
    rate_mbps: float | None = None,
    skip: float = 0.0,
) -> float:
    """Mbit/s that arrive, over `seconds`, after `skip` seconds that do not count.

    `rate_mbps` is what the sender offers over all streams; UDP needs it. Raises `NoMeasurement` if nobody answers.
    """
    with flow(
        client,
        internet,
        direction=direction,
        protocol=protocol,
        family=family,
        streams=streams,
        rate_mbps=rate_mbps,
    ) as running:
        until = time.monotonic() + skip + seconds + _START_TIME
        while running.elapsed < skip + seconds:
            if not running.is_running or time.monotonic() > until:
                raise NoMeasurement(f"it ended after {running.elapsed:.1f} s: {running.said}")
            time.sleep(0.02)
        return running.mean(skip, skip + seconds)


@dataclass(frozen=True, slots=True)
class _Sample:
    seen: float  # on the monotonic clock
    end: float  # in seconds since it began to flow
    seconds: float
    mbit: float


class Flow:
    """A flow that runs while it is watched."""

    def __init__(self, receiver: Process, streams: int) -> None:
        self._receiver = receiver
        self._streams = streams
        self._samples: list[_Sample] = []
        self.said = ""
        """iperf3's last words that were no sample: why it ended, if it did."""
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def rate(self, last: float = 0.5) -> float:
        """Mbit/s that arrived in the last `last` seconds, in steps of 0.1 s; 0 if nothing did."""
        since = time.monotonic() - last
        return self._rate(lambda sample: sample.seen > since)

    def mean(self, begin: float, end: float) -> float:
        """Mbit/s that arrived between two moments, in seconds since it began to flow."""
        return self._rate(lambda sample: begin - 0.05 < sample.end - sample.seconds and sample.end < end + 0.05)

    @property
    def elapsed(self) -> float:
        """Seconds since it began to flow, as far as it has been seen."""
        with self._lock:
            return self._samples[-1].end if self._samples else 0.0

    @property
    def total(self) -> float:
        """Mbit that arrived so far."""
        with self._lock:
            return sum(sample.mbit for sample in self._samples)

    @property
    def is_running(self) -> bool:
        """Whether it still runs: a broken connection ends it."""
        return self._receiver.poll() is None

    def join(self) -> None:
        """Wait for the last sample, once the receiver has ended: its output must not be closed under the reader."""
        self._reader.join(_START_TIME)

    def _rate(self, counts: Callable[[_Sample], bool]) -> float:
        with self._lock:
            window = [sample for sample in self._samples if counts(sample)]
        seconds = sum(sample.seconds for sample in window)
        return sum(sample.mbit for sample in window) / seconds if seconds else 0.0

    def _read(self) -> None:
        assert self._receiver.stdout is not None
        for line in self._receiver.stdout:
            sample = _sample(line, self._streams)
            with self._lock:
                if sample is None:
                    self.said = line.strip()
                else:
                    self._samples.append(sample)


@contextmanager
def flow(
    client: Host,
    internet: Host,
    *,
    direction: Direction = "down",
    protocol: Protocol = "tcp",
    family: Literal[4, 6] = 4,
    streams: int = 1,
    rate_mbps: float | None = None,
) -> Iterator[Flow]:
    """A flow to be watched while something is done to it; it ends with the block.

    It begins at once, but its first samples take a few tenths of a second. Raises `NoMeasurement` if nothing flows.
    """
    offer = _Offer(direction, protocol, family, streams, rate_mbps)
    with _server(internet, offer, read=direction == "up") as (server, port):
        argv = _client_argv(internet, offer, port)
        with client.popen(argv, text=True, **_output(direction == "down")) as asking:
            running = Flow(asking if direction == "down" else server, streams)
            try:
                _wait_for_first_sample(running)
                yield running
            finally:
                asking.kill()
                server.kill()
                running.join()


@dataclass(frozen=True, slots=True)
class _Offer:
    direction: Direction
    protocol: Protocol
    family: Literal[4, 6]
    streams: int
    rate_mbps: float | None

    def __post_init__(self) -> None:
        if self.protocol == "udp" and self.rate_mbps is None:
            raise ValueError("a UDP measurement needs rate_mbps, the rate that is offered")


@contextmanager
def _server(host: Host, offer: _Offer, *, read: bool) -> Iterator[tuple[Process, int]]:
    port = next(_PORTS)
    # Bound to the address it is asked at, or its UDP would answer from another of the internet's.
    argv = [*_iperf3(offer), "--server", "--one-off", "--port", str(port), "--bind", _address(host, offer), *_WATCHING]
    with host.popen(argv, text=True, **_output(read)) as server:
        try:
            _wait_until_it_listens(server, port)
            yield server, port
        finally:
            server.kill()


def _output(read: bool) -> dict[str, int]:
    """Where a program's output goes: into a pipe only if somebody reads it, for a full one would stop the flow."""
    return {"stdout": subprocess.PIPE if read else subprocess.DEVNULL, "stderr": subprocess.STDOUT}


def _client_argv(internet: Host, offer: _Offer, port: int) -> list[str]:
    argv = [*_iperf3(offer), "--client", _address(internet, offer), "--port", str(port), "--connect-timeout", "5000"]
    argv += [*_WATCHING, "--time", str(_LONGEST), "--parallel", str(offer.streams)]
    if offer.direction == "down":
        argv.append("--reverse")
    if offer.protocol == "udp":
        argv += ["--udp", "--length", str(_UDP_PAYLOAD), "--window", str(_largest_buffer())]
    if offer.rate_mbps is not None:
        argv += ["--bitrate", f"{offer.rate_mbps / offer.streams:g}M"]
    return argv


def _iperf3(offer: _Offer) -> list[str]:
    """What receives UDP has to be awake in time: what its socket cannot hold is lost, and counted as never arrived."""
    return ["nice", "-n", "-10", "iperf3"] if offer.protocol == "udp" and os.geteuid() == 0 else ["iperf3"]


def _largest_buffer() -> int:
    """Bytes that a socket may ask for."""
    return min(int(Path("/proc/sys/net/core", name).read_text()) for name in ("rmem_max", "wmem_max"))


def _address(host: Host, offer: _Offer) -> str:
    return host.ipv4 if offer.family == 4 else host.ipv6


def _wait_until_it_listens(server: Process, port: int) -> None:
    until = time.monotonic() + _START_TIME
    inner = None
    while inner is None or not listens(inner, "tcp", port):
        if server.poll() is not None or time.monotonic() > until:
            raise NoMeasurement(f"the iperf3 server did not start on port {port}")
        inner = inner or server.inner_pid()
        time.sleep(0.002)


def _wait_for_first_sample(running: Flow) -> None:
    until = time.monotonic() + _START_TIME
    while not running.total:
        if not running.is_running or time.monotonic() > until:
            raise NoMeasurement(f"nothing flows: {running.said}")
        time.sleep(0.01)


# The line of an interval: of the only stream, or of all of them together.
_INTERVAL: Final = re.compile(r"^\[( *\d+|SUM)\] +([\d.]+)-([\d.]+) +sec .*? ([\d.]+) Kbits/sec")


def _sample(line: str, streams: int) -> _Sample | None:
    """None for every line that is not an interval, the final summary's too."""
    match = _INTERVAL.match(line)
    if match is None or (match[1] == "SUM") != (streams > 1) or line.rstrip().endswith(("sender", "receiver")):
        return None
    begin, end, kbps = map(float, match.groups()[1:])
    return _Sample(time.monotonic(), end, end - begin, kbps * (end - begin) / 1000)
