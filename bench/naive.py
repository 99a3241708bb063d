"""The naive way to cap a group, and a real one: one remote command per rule, as the tools before Tidegate worked.

For each device a rule per direction and address family, for each group a chain per direction and a class per interface;
every change flushes the group's chains and puts the rules in again, one SSH command after the other over one kept
connection. A group of 10 devices takes 44 commands. Nothing is read back, nothing is undone, nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import asyncssh

from bench.household import Device, Wish
from bench.processes import BenchError
from tidegate.lab import Lab

TABLE = "inet naive"


class NaiveRouter:
    """A lab's router, driven so."""

    def __init__(self, lab: Lab, connection: asyncssh.SSHClientConnection) -> None:
        self._lab = lab
        self._connection = connection

    def prepare(self, wishes: Sequence[Wish]) -> None:
        """The base and these groups, in one go and untimed."""
        lines = [f"nft add table {TABLE}"]
        lines.append(f"nft 'add chain {TABLE} forward {{ type filter hook forward priority -5; policy accept; }}'")
        for device in (self._lab.router.lan, self._lab.router.wan):
            lines.append(f"tc qdisc add dev {device} root handle 1: htb default 1")
            lines.append(f"tc class add dev {device} parent 1: classid 1:1 htb rate 32gbit ceil 32gbit quantum 60000")
        for wish in wishes:
            lines += self._create(wish)
        self._script(lines)

    def forget(self, wish: Wish) -> None:
        """Take a group away, in one go and untimed."""
        lines = []
        for chain in (f"down{wish.group}", f"up{wish.group}"):
            lines.append(f"handle=$(nft -a list chain {TABLE} forward | sed -n 's/.*jump {chain} # handle //p')")
            lines.append(f"nft delete rule {TABLE} forward handle $handle")
            lines.append(f"nft delete chain {TABLE} {chain}")
        for device in (self._lab.router.lan, self._lab.router.wan):
            lines.append(f"tc class del dev {device} classid {wish.traffic_class}")
        self._script(lines)

    async def create(self, wish: Wish) -> None:
        """A new group."""
        await self._each(self._create(wish))

    async def change(self, wish: Wish) -> None:
        """A group with another limit and other devices."""
        await self._each(self._change(wish))

    async def limit(self, wish: Wish) -> None:
        """A group with another limit and the same devices."""
        await self._each(self._classes(wish))

    async def add_device(self, wish: Wish, device: Device) -> None:
        await self._each(_rules(wish, device))

    async def remove_device(self, wish: Wish, device: Device) -> None:
        """Rules are deleted by their handles, which have to be asked for."""
        for chain in (f"down{wish.group}", f"up{wish.group}"):
            listing = await self._execute(f"nft -a list chain {TABLE} {chain}")
            for line in listing.splitlines():
                if set(line.split()) & {device.ipv4, device.ipv6}:
                    await self._execute(f"nft delete rule {TABLE} {chain} handle {line.split()[-1]}")

    def _create(self, wish: Wish) -> list[str]:
        chains = (f"down{wish.group}", f"up{wish.group}")
        lines = [f"nft add chain {TABLE} {chain}" for chain in chains]
        lines += [f"nft add rule {TABLE} forward jump {chain}" for chain in chains]
        return [*lines, *self._classes(wish), *(line for device in wish.devices for line in _rules(wish, device))]

    def _change(self, wish: Wish) -> list[str]:
        lines = [f"nft flush chain {TABLE} {chain}" for chain in (f"down{wish.group}", f"up{wish.group}")]
        return [*lines, *self._classes(wish), *(line for device in wish.devices for line in _rules(wish, device))]

    def _classes(self, wish: Wish) -> list[str]:
        rate = f"rate {wish.mbps}mbit ceil {wish.mbps}mbit"
        return [
            f"tc class replace dev {device} parent 1: classid {wish.traffic_class} htb {rate}"
            for device in (self._lab.router.lan, self._lab.router.wan)
        ]

    def _script(self, lines: Sequence[str]) -> None:
        done = self._lab.router.run("set -e\n" + "\n".join(lines))
        if done.returncode:
            raise BenchError(f"the naive router refuses: {done.stderr}")

    async def show(self, file: str, expected: str) -> None:
        """Read a file that has this text."""
        if await self._execute(f"cat {file}") != expected:
            raise BenchError(f"{file} reads otherwise than it was written")

    async def _each(self, commands: Iterable[str]) -> None:
        for command in commands:
            await self._execute(command)

    async def _execute(self, command: str) -> str:
        done = await self._connection.run(command)
        if done.returncode:
            raise BenchError(f"the naive router refuses `{command}`: {done.stderr!r}")
        return str(done.stdout)


def _rules(wish: Wish, device: Device) -> Iterator[str]:
    put = f"meta priority set {wish.traffic_class}"
    yield f"nft add rule {TABLE} down{wish.group} ip daddr {device.ipv4} {put}"
    yield f"nft add rule {TABLE} down{wish.group} ip6 daddr {device.ipv6} {put}"
    yield f"nft add rule {TABLE} up{wish.group} ip saddr {device.ipv4} {put}"
    yield f"nft add rule {TABLE} up{wish.group} ip6 saddr {device.ipv6} {put}"
