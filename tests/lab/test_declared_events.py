"""Every command that changes something tells of it by the events that its declaration names."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from tidegate.api import Tidegate
from tidegate.contract import areas, commands
from tidegate.contract.executor import Executor
from tidegate.daemon.app import running
from tidegate.events import type_name
from tidegate.lab import Lab
from tidegate.settings import load

pytestmark = pytest.mark.anyio

WRITES = {command.name: command for contract, _ in areas(Tidegate) for command in commands(contract) if command.changes}

INFO = b"d6:lengthi5e4:name5:hello12:piece lengthi16384e6:pieces20:" + hashlib.sha1(b"hello").digest() + b"e"
TORRENT = b"d4:info" + INFO + b"e"
HASH = hashlib.sha1(INFO).hexdigest()


async def test_each_changing_command_emits_what_it_declares(lab: Lab, tmp_path: Path) -> None:
    quiet = dict.fromkeys(("torrent.dht", "torrent.lsd", "torrent.upnp", "torrent.natpmp", "torrent.utp"), False)
    flags = {"state_dir": tmp_path / "state", "listen": "127.0.0.1:0", "log_level": "error", "watch_seconds": 0, **quiet}
    flags |= {"torrent.listen": "127.0.0.1:0", "torrent.ip_filter": "own=own.txt"}
    (tmp_path / "state/lists").mkdir(mode=0o700, parents=True)
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state/lists/own.txt").write_text("203.0.113.7")
    async with running(load(environment={}, flags=flags)[0]) as daemon:
        executor = Executor(areas(daemon.services))
        done: set[str] = set()

        async def emits(name: str, **arguments: Any) -> Any:
            head = daemon.journal.head
            answer = await executor.execute(name, **arguments)
            told: set[str] = set()
            declared = {type_name(kind) for kind in WRITES[name].emits}
            for _ in range(250):  # what the torrent process tells is taken over a moment later
                told = {entry.type for entry in await daemon.journal.entries(head, 100)}
                if declared <= told:
                    break
                await asyncio.sleep(0.02)
            assert declared <= told, f"{name} declares {declared} and told {told}"
            done.add(name)
            return answer

        router: dict[str, Any] = {"host": "127.0.0.1", "port": lab.forward(lab.router.address, 22)}
        router |= {"host_key": lab.router.host_key, "password": lab.router.password}
        group = {"name": "Kids", "devices": [{"mac": lab.clients["child"].mac}], "bandwidth_policy": {"limit_mbps": 20}}
        await emits("routers.create_key", router_id="home")
        await emits("routers.add", router_id="home", request=router)
        await emits("routers.trust", router_id="home", host_key=lab.router.host_key)
        await emits("routers.seal", router_id="home", request={})
        await emits("groups.sync_group", router_id="home", group_id=1, request=group)
        block = {"access_control_policy": {"block_all_internet": True}}
        await emits("groups.update_group_policy", router_id="home", group_id=1, policies=block)
        guest = {"add": [{"mac": lab.clients["guest"].mac}]}
        await emits("groups.update_group_devices", router_id="home", group_id=1, update=guest)
        await emits("groups.sync_all_groups", router_id="home", request={"groups": [{**group, "group": 1}]})
        await emits("devices.discover", router_id="home")
        await emits("devices.rename", router_id="home", mac=lab.clients["child"].mac, request={"name": "Ada's"})
        lab.router.run("nft delete table inet tidegate")
        await emits("infrastructure.repair", router_id="home")
        await emits("routers.probe", router_id="home")
        await emits("routers.hold", router_id="home", request={"why": "the roll-out stops here"})
        await emits("routers.release", router_id="home")
        await emits("infrastructure.teardown", router_id="home")
        await emits("infrastructure.setup", router_id="home")
        await executor.execute("groups.sync_group", router_id="home", group_id=1, request=group)
        kept = await executor.execute("state.export", router_id="home")
        await executor.execute("groups.delete_group", router_id="home", group_id=1)
        await executor.execute("groups.sync_group", router_id="home", group_id=2, request={"name": "Guests' guests"})
        await emits("state.import", router_id="home", document=kept.document.encode())
        await executor.execute("groups.delete_group", router_id="home", group_id=1)
        await executor.execute("groups.sync_group", router_id="home", group_id=2, request={"name": "Guests' guests"})
        await emits("state.restore", router_id="home", request={"generation": kept.generation + 3})
        await emits("groups.delete_group", router_id="home", group_id=1)
        await emits("routers.remove", router_id="home")
        key = await emits("keys.create", request={"name": "Ada"})
        await emits("keys.revoke", key_id=key.id)
        await emits("torrent.upload", torrent=TORRENT)
        await emits("torrent.pause", info_hash=HASH)
        await emits("torrent.resume", info_hash=HASH)
        await emits("torrent.remove", info_hash=HASH)
        ban = {"ip": "203.0.113.0/24", "reason": "scan"}
        await emits("security.add_to_blacklist", request=ban)
        await emits("security.remove_from_blacklist", ip=ban["ip"])
        await emits("security.add_to_whitelist", request=ban)
        await emits("security.remove_from_whitelist", ip=ban["ip"])
        await emits("security.load_ip_filter")
        await emits("torrent.add", request={"magnet": f"magnet:?xt=urn:btih:{'ab' * 20}"})
        assert done == WRITES.keys(), "a new command: let it show here that it tells what it declares"
