"""The story that `tidegate demo` tells, with every figure measured on the spot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import tidegate
from tidegate.api import Tidegate
from tidegate.api.routers import Fingerprint, HostName, RouterAddRequest, RouterId
from tidegate.console.seeding import Seeder, seeding
from tidegate.events import Entry, Resync, TorrentCompleted
from tidegate.lab import Client, Lab, flow, throughput
from tidegate.policy.device import DeviceRef, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps

HOME = RouterId("home")
GUESTS, KIDS, PARENTS, NAS = GroupId(0), GroupId(1), GroupId(2), GroupId(3)

# Of 1,514 bytes of a full TCP packet on the wire 1,448 are payload (Ethernet 14, IPv4 20, TCP 32): a cap counts the wire.
PAYLOAD = 1448 / 1514
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was asked, what was measured, and whether that holds."""

    what: str
    asked: str
    measured: str
    held: bool


class Story:
    """Tells itself on a console, over HTTP with the daemon's own client, and keeps the lines."""

    def __init__(self, lab: Lab, url: str, key: str, home: Path, console: Console) -> None:
        self._lab = lab
        self._url = url
        self._key = key
        self._home = home
        self._console = console
        self._lines: list[Line] = []
        self._entries: list[Entry] = []
        self._gaps = 0

    async def tell(self) -> bool:
        """The whole story; true only if every line held."""
        began = time.monotonic()
        async with tidegate.connect(self._url, key=self._key) as daemon, self._following(daemon):
            await self._enrol(daemon)
            await self._caps(daemon)
            await self._live_change(daemon)
            await self._torrent(daemon)
            await self._deletion(daemon)
            await self._telling(daemon)
        self._console.print(self._table(time.monotonic() - began))
        return all(line.held for line in self._lines)

    # ── chapters

    async def _enrol(self, daemon: Tidegate) -> None:
        router = self._lab.router
        port = self._lab.forward(router.address, 22)
        shown = await daemon.routers.scan_host_key(HostName("127.0.0.1"), port)
        self._say(f"The router shows the host key {shown.fingerprint}.")
        began = time.monotonic()
        added = await daemon.routers.add(
            HOME,
            RouterAddRequest(HostName("127.0.0.1"), Fingerprint(router.host_key), port, password=router.password),
        )
        took = time.monotonic() - began
        same = shown.fingerprint == router.host_key
        can = added.capabilities
        self._add("router enrolled", "its own host key", f"{'the same' if same else 'another'}, {took:.2f} s", same)
        self._say(f"Enrolled. It runs Linux {can.kernel if can else '?'} and takes orders from its agent only.")

    async def _caps(self, daemon: Tidegate) -> None:
        before = await self._speeds("child", "guest", seconds=1.0)
        self._say(
            f"Nobody is limited yet: the child downloads at {before['child']:,.0f} Mbit/s, a guest at {before['guest']:,.0f}."
        )
        await self._sync(daemon, KIDS, "Kids", "child", 20)
        await self._sync(daemon, GUESTS, "Guests", None, 5)
        took = await self._sync(daemon, PARENTS, "Parents", "parent", None)
        self._say(f"Kids get 20 Mbit/s, guests 5, parents all; the last change took {took:.0f} ms, read back and verified.")
        capped = await self._speeds("child", "guest", seconds=3.0)
        await self._holds("child's download", 20, capped["child"], lambda: self._speed("child"))
        await self._holds("guest's download", 5, capped["guest"], lambda: self._speed("guest"))
        free = await self._speed("parent", seconds=1.0)
        self._add("parent's download", "free", f"{free:,.0f} Mbit/s", free > 200)

    async def _live_change(self, daemon: Tidegate) -> None:
        manager = flow(self._lab.clients["child"], self._lab.internet)
        running = await asyncio.to_thread(manager.__enter__)

        async def a_second_later() -> float:
            await asyncio.sleep(1.0)
            return running.rate(1.0)

        try:
            before = await a_second_later()
            await self._sync(daemon, KIDS, "Kids", "child", 50)
            await asyncio.sleep(1.0)
            soon = running.rate(0.3) / PAYLOAD
            self._say(f"A download of the child's goes from {before:.1f} to {soon:.1f} Mbit/s while it runs.")
            self._add("change under a running download", "within 1 s", f"{soon:.1f} Mbit/s by then", soon > (20 + 50) / 2)
            await self._holds("child's running download", 50, await a_second_later(), a_second_later)
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    async def _torrent(self, daemon: Tidegate) -> None:
        limit = 40
        await self._sync(daemon, NAS, "NAS", "nas", limit)
        async with seeding(self._lab, self._home / "seeder", mib=24) as seeder:
            self._say(
                f"The NAS's group gets {limit} Mbit/s. A torrent of 24 MiB is seeded in the internet; the NAS adds its file."
            )
            added = await daemon.torrent.upload(seeder.torrent)
            rate = await self._download(daemon, added.info_hash, seeder)
        status = (await daemon.torrent.list()).torrents[0]
        wire = rate / PAYLOAD
        self._add("torrent at its group's rate", f"{limit} Mbit/s", f"{wire:.1f} Mbit/s", abs(wire - limit) <= 0.1 * limit)
        whole = status.progress == 1.0
        self._add("torrent complete", "every piece", f"{status.pieces_completed} of {status.pieces_total}", whole)

    async def _download(self, daemon: Tidegate, info_hash: str, seeder: Seeder) -> float:
        """Mbit/s of the torrent's payload while it was under way, from what the engine says that it downloaded."""
        counted: list[tuple[float, int]] = []
        changes = (await daemon.torrent.list()).revision
        deadline = time.monotonic() + 60
        while not any(isinstance(e.event, TorrentCompleted) and e.event.info_hash == info_hash for e in self._entries):
            if time.monotonic() > deadline:
                return 0.0
            told = await daemon.torrent.list(since=changes, wait_seconds=0.5)
            changes = told.revision
            # The engine counts once a second, so only the moments at which its count has grown tell a rate.
            grown = [row.downloaded for row in told.torrents if row.info_hash == info_hash]
            if grown and (not counted or grown[0] > counted[-1][1]):
                counted.append((time.monotonic(), grown[0]))
        # Between a tenth and nine tenths: neither the greeting nor the end.
        middle = [(at, has) for at, has in counted if 0.1 * seeder.size < has < 0.9 * seeder.size]
        if len(middle) < 2:
            return 0.0
        (began, first), (ended, last) = middle[0], middle[-1]
        return (last - first) * 8 / 1e6 / (ended - began)

    async def _deletion(self, daemon: Tidegate) -> None:
        await daemon.groups.delete_group(HOME, KIDS)
        as_should_be = (await daemon.infrastructure.get_status(HOME)).verified
        listing = await asyncio.to_thread(
            self._lab.router.run, "nft list ruleset; tc class show dev br-lan; tc class show dev wan"
        )
        mac = self._lab.clients["child"].mac
        trace = [word for word in (mac, f"1:{KIDS.class_minor} ") if word in listing.stdout]
        self._add("group deleted", "no trace of it", ", ".join(trace) or "none", not trace and as_should_be)
        now = await self._speed("child")
        await self._holds("child, now a guest", 5, now, lambda: self._speed("child"))

    async def _telling(self, daemon: Tidegate) -> None:
        verdict = await daemon.audit.verify()
        await asyncio.sleep(0.2)
        kinds = {entry.type for entry in self._entries}
        numbers = [entry.number for entry in self._entries]
        whole = numbers == list(range(1, verdict.head + 1)) and not self._gaps
        told = {"router_added", "group_synced", "torrent_added", "torrent_completed", "group_deleted"} <= kinds
        self._add("events", "all, in order, sealed", f"{len(numbers)} of {verdict.head}", whole and told and verdict.intact)

    # ── how it is told

    async def _sync(self, daemon: Tidegate, group: GroupId, name: str, client: str | None, mbps: float | None) -> float:
        """Ask for a group's wish; milliseconds that it took."""
        devices = (self._device(self._lab.clients[client]),) if client else ()
        policy = BandwidthPolicy(Mbps(mbps)) if mbps else None
        done = await daemon.groups.sync_group(HOME, group, GroupSyncRequest(Label(name), devices, policy))
        return done.durations.total

    @staticmethod
    def _device(client: Client) -> DeviceRef:
        return DeviceRef(MacAddress(client.mac), name=Label(client.name))

    async def _speed(self, client: str, seconds: float = 3.0) -> float:
        return (await self._speeds(client, seconds=seconds))[client]

    async def _speeds(self, *clients: str, seconds: float) -> dict[str, float]:
        """Mbit/s of several clients' downloads at the same time."""

        def measure(name: str) -> float:
            return throughput(self._lab.clients[name], self._lab.internet, seconds=seconds, skip=0.3)

        rates = await asyncio.gather(*(asyncio.to_thread(measure, name) for name in clients))
        return dict(zip(clients, rates, strict=True))

    @asynccontextmanager
    async def _following(self, daemon: Tidegate) -> AsyncIterator[None]:
        """Everything that happens, from the first event on, over the WebSocket."""

        async def follow() -> None:
            async for notice in daemon.events.follow(since=0):
                if isinstance(notice, Entry):
                    self._entries.append(notice)
                elif isinstance(notice, Resync):
                    self._gaps += 1

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _holds(self, what: str, asked: float, measured: float, again: Callable[[], Awaitable[float]]) -> None:
        """A cap holds if what crosses the wire is within the tolerance of it. Too much is too much; too little is measured
        again, as a busy machine gives less than the router would let through."""
        for _ in range(3):
            if measured / PAYLOAD >= asked * (1 - TOLERANCE):
                break
            measured = await again()
        wire = measured / PAYLOAD
        self._add(what, f"{asked:g} Mbit/s", f"{wire:.1f} Mbit/s", abs(wire - asked) <= asked * TOLERANCE)

    def _add(self, what: str, asked: str, measured: str, held: bool) -> None:
        line = Line(what, asked, measured, held)
        self._lines.append(line)
        mark = Text("✓ ", style="green") if held else Text("✗ ", style="red")
        self._console.print(mark + Text(f"{what}: {measured} (asked: {asked})"))

    def _say(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def _table(self, took: float) -> Table:
        table = Table(
            title=f"\nWhat was asked and what was measured, in {took:.0f} s", title_justify="left", title_style="bold"
        )
        verdict: Callable[[bool], Text] = lambda held: Text("held", style="green") if held else Text("broken", style="bold red")  # noqa: E731
        for title in ("", "asked", "measured", "verdict"):
            table.add_column(title)
        for line in self._lines:
            table.add_row(line.what, line.asked, line.measured, verdict(line.held))
        return table
