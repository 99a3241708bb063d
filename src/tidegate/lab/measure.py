"""What gets through: iperf3 between two machines of the lab, counted where the bytes arrive.

All rates are Mbit/s (10^6 bit) of payload. Every measurement has an iperf3 server of its own, so any number may run
at once. "down" is from the second machine to the first, as a client and the internet would say.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tidegate.lab.box import Process
from tidegate.lab.host import Host
from tidegate.lab.router import listens
from tidegate.lab.support import LabError

Direction = Literal["down", "up"]
Protocol = Literal["tcp", "udp"]

_PORTS: Final = itertools.cycle(range(20000, 30000))
_START_TIME: Final = 10.0
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
    offer = _Offer(direction, protocol, family, streams, rate_mbps)
    reporting = ["--json", "--interval", "0.1"]
    with _server(internet, offer, *reporting, read=direction == "up") as (server, port):
        argv = _client_argv(internet, offer, port, [*reporting, "--time", f"{seconds + skip:g}"])
        try:
            done = client.run(argv, timeout=seconds + skip + 30)
        except subprocess.TimeoutExpired as late:
            raise NoMeasurement(f"iperf3 had not ended after {late.timeout:g} s") from late
        report = _report(done.stdout)
        if direction == "up":
            out, _ = server.communicate(timeout=_START_TIME)
            report = _report(out)
    return _mean(report, skip)


class Flow:
    """A flow that runs while it is watched."""

    def __init__(self, receiver: Process) -> None:
        self._receiver = receiver
        self._samples: list[tuple[float, float, float]] = []  # (when it ended, its seconds, its Mbit)
        self.said = ""
        """iperf3's last words that were no sample: why it ended, if it did."""
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def rate(self, last: float = 0.5) -> float:
        """Mbit/s that arrived in the last `last` seconds, in steps of 0.1 s; 0 if nothing did."""
        since = time.monotonic() - last
        with self._lock:
            window = [(took, mbit) for ended, took, mbit in self._samples if ended > since]
        seconds = sum(took for took, _ in window)
        return sum(mbit for _, mbit in window) / seconds if seconds else 0.0

    @property
    def total(self) -> float:
        """Mbit that arrived so far."""
        with self._lock:
            return sum(mbit for _, _, mbit in self._samples)

    @property
    def is_running(self) -> bool:
        """Whether it still runs: a broken connection ends it."""
        return self._receiver.poll() is None

    def join(self) -> None:
        """Wait for the last sample, once the receiver has ended: its output must not be closed under the reader."""
        self._reader.join(_START_TIME)

    def _read(self) -> None:
        assert self._receiver.stdout is not None
        for line in self._receiver.stdout:
            sample = _interval(line)
            with self._lock:
                if sample is None:
                    self.said = line.strip()
                else:
                    self._samples.append((time.monotonic(), *sample))


@contextmanager
def flow(
    client: Host,
    internet: Host,
    *,
    direction: Direction = "down",
    protocol: Protocol = "tcp",
    family: Literal[4, 6] = 4,
    rate_mbps: float | None = None,
    seconds: float = 600.0,
) -> Iterator[Flow]:
    """A flow of one stream to be watched while something is done to it; it ends with the block.

    It begins at once, but its first samples take a few tenths of a second. Raises `NoMeasurement` if nothing flows.
    """
    offer = _Offer(direction, protocol, family, 1, rate_mbps)
    watching = ["--interval", "0.1", "--format", "k", "--forceflush"]
    with _server(internet, offer, *watching, read=direction == "up") as (server, port):
        argv = _client_argv(internet, offer, port, [*watching, "--time", f"{seconds:g}"])
        with client.popen(argv, text=True, **_output(direction == "down")) as asking:
            running = Flow(asking if direction == "down" else server)
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
def _server(host: Host, offer: _Offer, *options: str, read: bool) -> Iterator[tuple[Process, int]]:
    port = next(_PORTS)
    # Bound to the address it is asked at, or its UDP would answer from another of the internet's.
    argv = [*_iperf3(offer), "--server", "--one-off", "--port", str(port), "--bind", _address(host, offer), *options]
    with host.popen(argv, text=True, **_output(read)) as server:
        try:
            _wait_until_it_listens(server, port)
            yield server, port
        finally:
            server.kill()


def _output(read: bool) -> dict[str, int]:
    """Where a program's output goes: into a pipe only if somebody reads it, for a full one would stop the flow."""
    return {"stdout": subprocess.PIPE if read else subprocess.DEVNULL, "stderr": subprocess.STDOUT}


def _client_argv(internet: Host, offer: _Offer, port: int, options: list[str]) -> list[str]:
    argv = [*_iperf3(offer), "--client", _address(internet, offer), "--port", str(port), "--connect-timeout", "5000"]
    argv += [*options, "--parallel", str(offer.streams)]
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


def _report(out: str) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(out)
    except json.JSONDecodeError:
        raise NoMeasurement(f"iperf3 said {out.strip()[-200:]!r}") from None
    if "error" in report:
        raise NoMeasurement(str(report["error"]))
    return report


def _mean(report: dict[str, Any], skip: float) -> float:
    """The receiver's own intervals: summed, because iperf3's summaries name the sender's rate in some directions."""
    counted = [interval["sum"] for interval in report["intervals"] if interval["sum"]["start"] > skip - 0.05]
    seconds = sum(float(interval["seconds"]) for interval in counted)
    if not seconds:
        raise NoMeasurement("iperf3 reported no interval")
    return sum(float(interval["bytes"]) for interval in counted) * 8 / seconds / 1e6


_INTERVAL: Final = re.compile(r"^\[ *\d+\] +([\d.]+)-([\d.]+) +sec .*? ([\d.]+) Kbits/sec")


def _interval(line: str) -> tuple[float, float] | None:
    """(seconds, Mbit) of an interval's line; None for every other line and for the final sums."""
    match = _INTERVAL.match(line)
    if match is None:
        return None
    begin, end, kbps = map(float, match.groups())
    took = end - begin
    return (took, kbps * took / 1000) if 0 < took < 1 else None
