"""A held router takes no changes, from whichever command; everything else goes on as if nobody held it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tidegate.api import Tidegate
from tidegate.api.routers import Reason, RouterHoldRequest
from tidegate.contract import areas, commands
from tidegate.contract.acting import Acting, act
from tidegate.contract.executor import Executor
from tidegate.errors import Conflict, NotFound
from tidegate.events import RouterHeld, RouterProbed, RouterReleased
from tidegate.lab import Lab
from tidegate.policy.group import GroupId

pytestmark = pytest.mark.anyio

WHY = RouterHoldRequest(Reason("the roll-out stops here until Monday"))
# They change what this daemon knows of a router, or who may change it: not what the router is to do.
NO_CHANGE_OF_A_ROUTER = {"create_key", "add", "hold", "release", "probe", "discover", "rename", "trust", "seal"}

GROUP = {"name": "Kids", "devices": [{"mac": "02:00:5e:10:00:77"}]}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "groups.sync_group": {"group_id": 2, "request": GROUP},
    "groups.update_group_policy": {"group_id": 1, "policies": {}},
    "groups.update_group_devices": {"group_id": 1, "update": {"add": GROUP["devices"]}},
    "groups.sync_all_groups": {"request": {"groups": [{**GROUP, "group": 2}]}},
    "groups.delete_group": {"group_id": 1},
    "infrastructure.setup": {},
    "infrastructure.teardown": {},
    "infrastructure.repair": {},
    "routers.remove": {},
    "state.restore": {"request": {"generation": 1}},
}


@pytest.fixture
async def home(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        await found.enrol()
        await found.sync(1, found.device("child"), down=20)
        yield found
        if (await found.routers.status(HOME)).held:
            await found.routers.release(HOME)
        await found.routers.remove(HOME)


async def test_no_command_changes_a_held_router_and_each_says_who_holds_it(home: Controller) -> None:
    changing = {
        command.name
        for contract, _ in areas(Tidegate)
        for command in commands(contract)
        if command.changes and "router_id" in command.path_parameters and command.method not in NO_CHANGE_OF_A_ROUTER
    }
    assert changing == ARGUMENTS.keys() | {"state.import"}, (
        "a new command that changes a router: let it show here that a hold stops it"
    )
    act(Acting("key:ada"))
    kept = await home.state.export(HOME)
    await home.routers.hold(HOME, WHY)
    arguments_of = ARGUMENTS | {"state.import": {"document": kept.document.encode()}}
    before, listed = home.picture(), await home.groups.list_groups(HOME)
    executor = Executor([(contract, getattr(home, name, None)) for contract, name in SERVED])
    for name, arguments in arguments_of.items():
        with pytest.raises(Conflict) as refused:
            await executor.execute(name, router_id=str(HOME), **arguments)
        assert (refused.value.facts["held_by"], refused.value.facts["why"]) == ("key:ada", str(WHY.why)), name
        assert "key:ada" in refused.value.detail
        assert WHY.why in refused.value.detail
    assert home.picture() == before
    assert await home.groups.list_groups(HOME) == listed


SERVED = [
    (contract, contract.__name__.lower())
    for contract, _ in areas(Tidegate)
    if {command.name for command in commands(contract)} & ARGUMENTS.keys()
]


async def test_reading_goes_on_and_so_does_what_runs_on_the_router(home: Controller) -> None:
    await home.routers.hold(HOME, WHY)
    assert (await home.groups.get_group_status(HOME, GroupId(1))).verified
    assert (await home.infrastructure.verify(HOME)).verified
    assert (await home.routers.probe(HOME)).held
    home.lab.router.run("nft delete table inet tidegate; /bin/sh /usr/lib/tidegate/agent - tick")
    assert (await home.infrastructure.verify(HOME)).drift == ()


async def test_a_hold_outlives_the_daemon_and_ends_with_a_release(lab: Lab, tmp_path: Path) -> None:
    async with a_controller(lab, tmp_path) as first:
        await first.enrol()
        act(Acting("local:0"))
        held = (await first.routers.hold(HOME, WHY)).held
        assert held
        assert (held.by, held.why) == ("local:0", WHY.why)
    async with a_controller(lab, tmp_path) as second:
        assert [router.held for router in (await second.routers.list()).routers] == [held]
        with pytest.raises(Conflict):
            await second.sync(1, second.device("child"), down=20)
        again = RouterHoldRequest(Reason("and longer"))
        assert (await second.routers.hold(HOME, again)).held != held
        assert (await second.routers.release(HOME)).held is None
        with pytest.raises(Conflict):
            await second.routers.release(HOME)
        assert (await second.sync(1, second.device("child"), down=20)).verified
        told = [event for event in await second.events() if isinstance(event, RouterHeld | RouterReleased)]
        assert told == [RouterHeld("home", WHY.why), RouterHeld("home", again.why), RouterReleased("home", again.why)]
        await second.routers.remove(HOME)
        with pytest.raises(NotFound):
            await second.routers.hold(HOME, WHY)


async def test_a_probe_finds_what_the_router_has_learnt(home: Controller) -> None:
    leaf = (await home.routers.status(HOME)).capabilities
    assert leaf
    await home.journal.commit(
        lambda db: db.execute("UPDATE routers SET capabilities = replace(capabilities, ?, 'pfifo')", (leaf.leaf,)),
    )
    assert (await home.routers.probe(HOME)).capabilities == leaf
    assert (await home.events())[-1] == RouterProbed("home", (f"leaf: {leaf.leaf}, was pfifo",))
