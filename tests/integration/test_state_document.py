"""The state document on a real router's flash: of another version, damaged, or not this router's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.integration.edge import Edge, an_edge
from tidegate.errors import Conflict
from tidegate.policy.device import DeviceRef, MacAddress
from tidegate.policy.group import GroupId
from tidegate.policy.state import GroupState, Limit, from_text
from tidegate.router.engine import RouterOperationsEngine

pytestmark = pytest.mark.anyio

CHILD = GroupState(GroupId(1), (DeviceRef(MacAddress("02:00:5e:10:00:0b")),), Limit(20_000, 5_000))
SLOWER = replace(CHILD, limit=Limit(2_000, 5_000))
RECORDED = Path(__file__).parents[1] / "data" / "state"


@pytest.fixture(params=["dash", "busybox ash"])
def edge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    with an_edge(tmp_path, request.param.split()) as found:
        yield found


@pytest.fixture
async def engine(edge: Edge) -> RouterOperationsEngine:
    """Of a router that has the base set-up and one group."""
    found = edge.engine()
    await found.create_group_infrastructure()
    await found.synchronise([CHILD])
    return found


def state(edge: Edge) -> Path:
    return edge.root / "etc/tidegate/state.json"


def seal(path: Path, body: str) -> None:
    """Write a document with this body and the checksum that fits it."""
    path.write_text(f'{{"checksum": "{sha256(body.encode()).hexdigest()}",\n{body}')


async def mend(engine: RouterOperationsEngine) -> None:
    await engine.repair(await engine.inspect([CHILD]), [CHILD])


async def test_a_document_of_a_later_tidegate_is_left_alone(edge: Edge, engine: RouterOperationsEngine) -> None:
    seal(state(edge), state(edge).read_text().partition("\n")[2].replace('"schema": 2', '"schema": 3, "quotas": []'))
    before = edge.picture()
    for change in (engine.synchronise([SLOWER], force=True), mend(engine), engine.create_group_infrastructure()):
        with pytest.raises(Conflict, match=r"of schema 3, of a later Tidegate.*upgrade this one"):
            await change
    assert edge.picture() == before


async def test_a_document_of_an_older_tidegate_is_taken_forward_by_the_next_change(
    edge: Edge, engine: RouterOperationsEngine
) -> None:
    old = RECORDED.joinpath("1.json").read_text().replace("0123456789abcdef", "00000000000000aa")
    body = old.partition("\n")[2]
    state(edge).write_text(f'{{"schema": 1, "checksum": "{sha256(body.encode()).hexdigest()}",\n{body}')
    assert (await engine.synchronise([SLOWER], force=True)).generation == 8
    after = state(edge).read_text()
    assert '"schema": 2' in after
    assert from_text(after).groups == (SLOWER,)
