"""State documents as people handle them: shown, kept elsewhere, taken in, gone back to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tidegate.api.state import StateRestoreRequest
from tidegate.contract.codec import encode
from tidegate.errors import Conflict, Invalid, NotFound
from tidegate.events import GroupDeleted, GroupSynced, StateImported, StateRestored
from tidegate.lab import Lab
from tidegate.policy.group import GroupId
from tidegate.policy.state import from_text

pytestmark = pytest.mark.anyio

STATE = "/etc/tidegate/state.json"


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        yield found
        await found.routers.remove(HOME)


async def held(home: Controller) -> list[tuple[int, str, int, float | None]]:
    assert (await home.infrastructure.verify(HOME)).verified
    listed = (await home.groups.list_groups(HOME)).groups
    return [(group.group, group.name, group.devices, group.download_mbps) for group in listed]


async def test_a_document_is_exported_as_it_stands_and_notes_when_and_at_what_audit_entry_it_was_written(
    home: Controller,
) -> None:
    before = home.journal.head
    await home.sync(1, home.device("child"), down=20)
    found = await home.state.export(HOME)
    assert found.document == home.lab.router.run(f"cat {STATE}").stdout
    assert found.checksum == home.lab.router.run(f"tail -n +2 {STATE} | sha256sum").stdout.split()[0]
    assert (found.generation, found.health, found.why) == (2, "sound", "")
    document = from_text(found.document)
    assert document.stamp.audit
    assert document.stamp.audit.number == before
    assert found.written == document.stamp.written is not None
    _, chain = await home.journal.trail(0, 10)
    assert document.stamp.audit.hash != chain.head.hash.hex(), "the change's own entry came after"


async def test_an_exported_document_is_taken_in_again_with_the_names_that_no_router_knows(home: Controller) -> None:
    await home.sync(0, down=50)
    await home.sync(1, home.device("child"), down=20, up=5, burst=35)
    kept = await home.state.export(HOME)
    before = await held(home)
    await home.groups.delete_group(HOME, GroupId(1))
    await home.sync(0, down=10)
    await home.sync(2, home.device("child"))
    since = home.journal.head
    shown = await home.state.import_(HOME, kept.document.encode(), dry_run=True)
    assert [(group.group, group.was) for group in shown.groups] == [(0, "changed"), (1, "new"), (2, "removed")]
    assert (shown.applied, home.journal.head) == (False, since)
    assert await home.state.import_(HOME, encode(kept), dry_run=True) == shown, "as `state export --json` prints it"
    done = await home.state.import_(HOME, kept.document.encode())
    assert (done.applied, done.changes) == (True, shown.changes)
    assert done.generation == shown.generation + 1
    assert await held(home) == [(0, "the 0", 0, 50.0), (1, "Group 1", 1, 20.0)]
    assert [group[2:] for group in await held(home)] == [group[2:] for group in before]
    told = [entry.event for entry in await home.journal.entries(since, 10)]
    assert [type(event) for event in told] == [GroupSynced, GroupSynced, GroupDeleted, StateImported]
    again = await home.state.import_(HOME, kept.document.encode())
    assert (again.changes, again.generation, len(await home.events())) == ((), done.generation, since + 4)


async def test_a_file_that_is_no_sound_document_is_refused_with_its_faults_and_changes_nothing(home: Controller) -> None:
    await home.sync(1, home.device("child"), down=20)
    text = (await home.state.export(HOME)).document
    before = home.picture()
    for hostile in (text.replace("20000", "90000"), text[:-9], "", "{}", '{"active_mode": "none"}', "\x00"):
        with pytest.raises(Invalid) as invalid:
            await home.state.import_(HOME, hostile.encode())
        assert invalid.value.faults
        assert all(fault.at.startswith("body") for fault in invalid.value.faults)
    with pytest.raises(Invalid):
        await home.state.import_(HOME, b"\xff\xfe")
    assert home.picture() == before


async def test_an_earlier_document_is_gone_back_to_as_a_new_generation(home: Controller) -> None:
    await home.sync(1, home.device("child"), down=20)
    await home.sync(1, home.device("child"), down=7)
    await home.groups.delete_group(HOME, GroupId(1))
    found = (await home.state.backups(HOME)).backups
    assert [(copy.file, copy.good, copy.generation, copy.devices) for copy in found] == [
        ("state.json", True, 4, 0),
        ("current", True, 4, 0),
        ("earlier.1", True, 3, 1),
        ("earlier.2", True, 2, 1),
    ]
    assert all(copy.written for copy in found)
    done = await home.state.restore(HOME, StateRestoreRequest(2))
    assert (done.generation, done.applied) == (5, True)
    assert await held(home) == [(0, "Guests", 0, None), (1, "Group 1", 1, 20.0)]
    assert (await home.events())[-1] == StateRestored("home", 5, 2, done.changes)
    with pytest.raises(NotFound, match="of generation 2 is on the router; there is 3, 4, 5"):
        await home.state.restore(HOME, StateRestoreRequest(2))


async def test_a_damaged_copy_is_listed_with_the_reason_and_not_gone_back_to(home: Controller) -> None:
    await home.sync(1, home.device("child"), down=20)
    home.lab.router.run("sed -i s/generation/degeneration/ /etc/tidegate/earlier.1")
    damaged = (await home.state.backups(HOME)).backups[2]
    assert (damaged.file, damaged.good, damaged.generation) == ("earlier.1", False, None)
    assert damaged.why == "the copy earlier.1 of the state document does not fit its checksum"
    with pytest.raises(NotFound):
        await home.state.restore(HOME, StateRestoreRequest(1))
    home.lab.router.run(f"rm {STATE}")
    exported = await home.state.export(HOME)
    assert (exported.health, exported.generation) == ("degraded", 2)
    assert "the state document is missing; the copy current is used" in exported.why
    await home.infrastructure.repair(HOME)


async def test_a_state_file_of_the_former_service_becomes_groups(home: Controller) -> None:
    child, parent = home.lab.clients["child"], home.lab.clients["parent"]
    rates = {"whitelist_full": "1000mbit", "whitelist_limited": "20mbit", "blacklist_limited": "5mbit"}
    former = {"active_mode": "whitelist", "rates": rates, "devices": {"whitelist": [parent.mac], "blacklist": [child.ipv4]}}
    shown = await home.state.import_(HOME, json.dumps(former).encode(), dry_run=True)
    assert shown.source == "the former service's state file, mode whitelist"
    assert shown.notes == ("the blacklist was not in force: its 1 devices are in Group 0, unless the other list has them",)
    done = await home.state.import_(HOME, json.dumps(former).encode())
    assert await held(home) == [(0, "Guests", 0, 20.0), (1, "Whitelist", 1, None)]
    former["active_mode"] = "blacklist"
    assert (await home.state.import_(HOME, json.dumps(former).encode())).generation == done.generation + 1
    assert await held(home) == [(0, "Guests", 0, None), (1, "Blacklist", 1, 5.0)]


async def test_a_router_of_another_controller_takes_nothing_in(home: Controller, lab: Lab, tmp_path: Path) -> None:
    await home.sync(1, home.device("child"), down=20)
    kept = await home.state.export(HOME)
    (tmp_path / "other").mkdir()
    async with a_controller(lab, tmp_path / "other") as other:
        await other.enrol()
        with pytest.raises(Conflict, match="has taken this router up"):
            await home.state.import_(HOME, kept.document.encode())
        with pytest.raises(Conflict, match="has taken this router up"):
            await home.state.restore(HOME, StateRestoreRequest(1))
        await other.routers.remove(HOME)
