"""A lab whose router is enrolled: the services as the daemon puts them together, without HTTP between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate.api.groups import GroupSyncResponse
from tidegate.api.routers import Fingerprint, HostName, Router, RouterAddRequest, RouterId
from tidegate.daemon.app import MIGRATIONS
from tidegate.daemon.devices import DevicesService
from tidegate.daemon.enrolled import EnrolledRouters
from tidegate.daemon.groups import GroupAPIService
from tidegate.daemon.infrastructure import InfrastructureService
from tidegate.daemon.journal import Journal
from tidegate.daemon.routerkeys import RouterKeys
from tidegate.daemon.routers import RoutersService
from tidegate.daemon.state import StateService
from tidegate.events import Event
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, IpAddress, Label, MacAddress
from tidegate.policy.group import BandwidthPolicy, GroupId, GroupSyncRequest, Mbps
from tidegate.policy.router import InterfaceName
from tidegate.router.fleet import Fleet

HOME = RouterId("home")

SHOW_RULES = """
if [ -x /usr/sbin/nft ]; then
  /usr/sbin/nft -s list ruleset
else
  for tables in iptables ip6tables; do
    $tables-save | sed 's/ *[[][0-9:]*[]]$//; /^#/d'
  done
  ipset save | sed 's/ bucketsize.*//' | sort
fi"""
"""All rules of a router, without what changes by itself."""
SHOW_OURS = f"""
if [ -x /usr/sbin/nft ]; then
  /usr/sbin/nft -s list table inet tidegate
else
  {{ {SHOW_RULES}
  }} | grep -i tidegate
fi"""


@dataclass
class Controller:
    """A daemon's policy half and the lab that it looks after."""

    lab: Lab
    port: int
    journal: Journal
    fleet: Fleet
    keys: RouterKeys
    enrolled: EnrolledRouters
    routers: RoutersService
    groups: GroupAPIService
    infrastructure: InfrastructureService
    devices: DevicesService
    state: StateService

    def request(self, **changes: object) -> RouterAddRequest:
        """What an administrator types in to enrol the lab's router, but for `changes`."""
        router = self.lab.router
        asked = {
            "host": HostName("127.0.0.1"),
            "host_key": Fingerprint(router.host_key),
            "port": self.port,
            "password": router.password,
            "lan": InterfaceName(router.lan),
            "wan": InterfaceName(router.wan),
        }
        return RouterAddRequest(**(asked | changes))  # type: ignore[arg-type]

    async def enrol(self) -> Router:
        return await self.routers.add(HOME, self.request())

    async def sync(
        self,
        group: int,
        *devices: DeviceRef,
        down: float | None = None,
        up: float | None = None,
        burst: float | None = None,
        active: bool = True,
        force: bool = False,
    ) -> GroupSyncResponse:
        policy = BandwidthPolicy(Mbps(down), up and Mbps(up), burst and Mbps(burst)) if down else None  # type: ignore[arg-type]
        wish = GroupSyncRequest(Label(f"the {group}"), devices, policy, active, force)
        return await self.groups.sync_group(HOME, GroupId(group), wish)

    def device(self, name: str) -> DeviceRef:
        """A client by its MAC alone."""
        return DeviceRef(MacAddress(self.lab.clients[name].mac))

    def addresses(self, name: str) -> DeviceRef:
        """A client whose MAC nobody knows."""
        client = self.lab.clients[name]
        return DeviceRef(None, (IpAddress(client.ipv4), IpAddress(client.ipv6)))

    async def events(self) -> list[Event]:
        return [entry.event for entry in await self.journal.entries(0, 1000)]

    def picture(self) -> str:
        """All rules and queues of the router, and every file that is on its flash."""
        files = "find /etc /usr/lib /root -xdev -type f | sort | xargs sha256sum"
        lan, wan = self.lab.router.lan, self.lab.router.wan
        done = self.lab.router.run(f"{SHOW_RULES}; tc qdisc show; tc class show dev {lan}; tc class show dev {wan}; {files}")
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def a_controller(lab: Lab, state_dir: Path, *, confirm_seconds: int = 5) -> AsyncIterator[Controller]:
    # A minute comes where a test runs it: the router would put right by itself what a test altered for others to find.
    lab.router.run("kill -STOP $(pidof crond)")
    port = lab.forward(lab.router.address, 22)
    journal = await Journal.open(state_dir / "journal.db", MIGRATIONS)
    fleet, keys = Fleet(), RouterKeys(state_dir / "router-keys")
    enrolled = EnrolledRouters(journal, fleet, keys, confirm_seconds=confirm_seconds)
    try:
        yield Controller(
            lab,
            port,
            journal,
            fleet,
            keys,
            enrolled,
            RoutersService(enrolled),
            GroupAPIService(enrolled),
            InfrastructureService(enrolled),
            DevicesService(enrolled),
            StateService(enrolled),
        )
    finally:
        await fleet.close()
        await journal.close()
