"""What docs/operations.md and docs/troubleshooting.md tell people to do, done to a real router."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab.managed import HOME, a_controller
from tidegate.api.routers import Fingerprint, HostName
from tidegate.errors import Conflict, Refused
from tidegate.events import StateDocumentMended
from tidegate.lab import Lab
from tidegate.policy.group import GroupId

pytestmark = pytest.mark.anyio

KIDS = GroupId(1)


async def test_a_restored_journal_names_every_difference_and_rules_after_the_next_sync(lab: Lab, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    async with a_controller(lab, tmp_path) as now:
        await now.enrol()
        await now.sync(1, now.device("child"), down=20)
        with closing(sqlite3.connect(tmp_path / "journal.db")) as live, closing(sqlite3.connect(kept / "journal.db")) as copy:
            live.backup(copy)
        shutil.copy2(tmp_path / "journal.key", kept)
        shutil.copytree(tmp_path / "router-keys", kept / "router-keys")
        await now.sync(1, now.device("child"), down=30)
    async with a_controller(lab, kept) as restored:
        told = await restored.infrastructure.get_status(HOME)
        assert not told.verified
        assert f"tc {lab.router.lan} class 1:101: lets 30 Mbit/s through instead of 20 Mbit/s" in told.drift
        await restored.sync(2, restored.device("nas"), down=5)
        assert "rate 20Mbit" in lab.router.run(f"tc class show dev {lab.router.lan}").stdout
        assert (await restored.infrastructure.get_status(HOME)).verified
        await restored.routers.remove(HOME)


async def test_a_router_that_lost_our_log_in_line_is_given_it_again(lab: Lab, tmp_path: Path) -> None:
    async with a_controller(lab, tmp_path) as daemon:
        await daemon.enrol()
        lab.router.run("rm -f /root/.ssh/authorized_keys /etc/dropbear/authorized_keys")
        lab.router.reboot()
        with pytest.raises(Refused, match="refuses to let root in"):
            await daemon.infrastructure.get_status(HOME)
        line = (await daemon.routers.create_key(HOME)).line
        lab.router.run("umask 077; mkdir -p /root/.ssh; cat >>/root/.ssh/authorized_keys", input=f"{line}\n")
        assert (await daemon.infrastructure.get_status(HOME)).health == "reachable"
        await daemon.routers.remove(HOME)


async def test_a_damaged_state_document_is_degraded_until_the_next_change_or_repair(lab: Lab, tmp_path: Path) -> None:
    async with a_controller(lab, tmp_path) as daemon:
        await daemon.enrol()
        await daemon.sync(1, daemon.device("child"), down=20)
        lab.router.run("sed -i s/20000/90000/ /etc/tidegate/state.json")
        status = await daemon.infrastructure.get_status(HOME)
        assert (status.health, status.verified, status.groups_active) == ("degraded", False, 1)
        assert status.drift == (
            "the state document does not fit its checksum; the copy current is used, of generation 2; lost: nothing",
        )
        found = await daemon.infrastructure.verify(HOME)
        assert (found.document, found.generation) == ("degraded", 2)
        assert "rate 20Mbit" in lab.router.run(f"tc class show dev {lab.router.lan}").stdout
        assert (await daemon.infrastructure.repair(HOME)).generation == 3
        assert (await daemon.infrastructure.get_status(HOME)).health == "reachable"
        told = [event for event in await daemon.events() if isinstance(event, StateDocumentMended)]
        why = "the state document does not fit its checksum"
        assert told == [StateDocumentMended("home", "state.json", why, "current", 2, "nothing")]
        lab.router.run(": >/etc/tidegate/state.json; for f in current earlier.1 earlier.2; do : >/etc/tidegate/$f; done")
        with pytest.raises(Refused, match="tidegate infrastructure repair"):
            await daemon.sync(1, daemon.device("child"), down=5)
        assert "rate 20Mbit" in lab.router.run(f"tc class show dev {lab.router.lan}").stdout
        assert (await daemon.infrastructure.repair(HOME)).generation == 4
        assert (await daemon.groups.get_group_status(HOME, KIDS)).verified
        await daemon.routers.remove(HOME)


async def test_a_router_with_a_new_host_key_is_forgotten_and_added_again_with_its_groups(tmp_path: Path) -> None:
    with Lab(clients=("child",)) as lab:
        async with a_controller(lab, tmp_path) as daemon:
            await daemon.enrol()
            await daemon.sync(1, daemon.device("child"), down=20)
            key = "/etc/dropbear/dropbear_ed25519_host_key"
            lab.router.run(f"rm {key} && dropbearkey -t ed25519 -f {key}")
            lab.router.reboot()
            with pytest.raises(Conflict, match="another host key"):
                await daemon.infrastructure.get_status(HOME)
            with pytest.raises(Conflict, match="another host key"):
                await daemon.routers.remove(HOME)
            shown: Fingerprint = (await daemon.routers.scan_host_key(HostName("127.0.0.1"), daemon.port)).fingerprint
            assert (await daemon.routers.status(HOME)).health == "untrusted"
            await daemon.routers.remove(HOME, forget=True)
            await daemon.routers.add(HOME, daemon.request(host_key=shown))
            status = await daemon.groups.get_group_status(HOME, KIDS)
            assert status.verified
            assert status.name == "Group 1"
            assert [str(device.mac) for device in status.devices] == [lab.clients["child"].mac]
