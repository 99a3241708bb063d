"""Hostile texts sent to a real router through the services: nothing of them arrives there, and nothing of others changes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.hostile import CANARY, Place, places, texts
from tests.lab.managed import HOME, Controller, a_controller
from tidegate.api.groups import Groups
from tidegate.api.infrastructure import Infrastructure
from tidegate.api.routers import RouterId, RouterSealRequest
from tidegate.contract.executor import Executor
from tidegate.errors import Refused, TidegateError
from tidegate.lab import Lab
from tidegate.policy.device import DeviceRef, Label
from tidegate.policy.group import GroupId, GroupSyncRequest

pytestmark = pytest.mark.anyio

EACH = int(os.environ.get("TIDEGATE_HOSTILE_TEXTS", "12"))  # for each place
OTHERS = """
nft 'add table inet of_others; add chain inet of_others c { type filter hook forward priority 5; }
  add rule inet of_others c ip daddr 203.0.113.77 counter drop comment "left alone"'
ip link add dummy7 type bridge && tc qdisc add dev dummy7 root handle 7: bfifo limit 20k
printf '17 3 * * 0 true # of others\\n' >/etc/crontabs/root
printf 'of others' >/etc/of-others; mkdir -p /root/.ssh; printf 'ssh-ed25519 AAAA of-others\\n' >/root/.ssh/authorized_keys
"""
LOOK = """
nft list table inet of_others; nft list table inet fw; tc qdisc show dev dummy7; tc qdisc show dev lo; ip link show dev dummy7
grep -v /usr/lib/tidegate /etc/crontabs/root; cat /etc/of-others; grep -v tidegate /root/.ssh/authorized_keys
find / -xdev -type f ! -path '*/tidegate*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/tmp/*' ! -path '*/authorized_keys' \
  ! -path /etc/crontabs/root | sort | xargs sha256sum
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A router of its own, on which others have put this and that."""
    with Lab(clients=("child",)) as running:
        assert running.router.run(OTHERS).returncode == 0
        yield running


@pytest.fixture
async def site(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    async with a_controller(lab, tmp_path) as found:
        yield found


def of_others(site: Controller) -> str:
    """Everything on the router that is not ours."""
    return site.lab.router.run(LOOK).stdout


def everything(site: Controller) -> bytes:
    """All that was written on the router since it left the factory, what is in its memory's files, its rules and queues."""
    router = site.lab.router
    said = router.run(
        "nft list ruleset; tc qdisc show; tc -d class show dev br-lan; ps; cat /proc/[0-9]*/cmdline"
    ).stdout.encode()
    files = [path for root in (router.flash, router.files / "tmp") for path in root.rglob("*") if path.is_file()]
    return said + b"".join(str(path).encode() + path.read_bytes() for path in files if not path.is_symlink())


def led_to_the_router() -> list[Place]:
    """The places of commands that ask the enrolled router; where to look for another one is not for a test to make up."""
    return [place for place in places() if place.command.area in ("groups", "infrastructure")]


async def test_hostile_texts_leave_nothing_on_a_router_and_touch_nothing_of_others(site: Controller) -> None:
    await site.enrol()
    await site.sync(7, down=20)
    before = of_others(site)
    assert "203.0.113.77" in before
    executor = Executor([(Groups, site.groups), (Infrastructure, site.infrastructure)])
    random, hostile = Random(28), texts(10_000)
    ended: Counter[str] = Counter()
    for place in led_to_the_router():
        canaries = [text for text in hostile if CANARY in text and "\n" not in text]
        for text in (*random.sample(hostile, EACH - 2), *random.sample(canaries, 2)):
            try:
                await executor.execute(place.command.name, **place.arguments(text))
                ended["done"] += 1
            except TidegateError as error:
                ended[type(error).__name__] += 1
    assert ended["done"] > 10
    assert ended["Invalid"] > 100
    words = GroupSyncRequest(Label(CANARY), (DeviceRef(site.device("child").mac, (), Label(CANARY)),))
    assert (await site.groups.sync_group(HOME, GroupId(7), words)).verified
    found = everything(site)
    assert site.lab.clients["child"].mac.encode() in found
    assert CANARY.encode() not in found
    assert b"canary" not in found
    assert of_others(site) == before


async def test_hostile_words_at_the_log_in_are_refused_and_never_run(site: Controller) -> None:
    await site.enrol()
    for text in ("\0", "\n", "\u202e", "\ufffe", "x" * 4_000, "$(touch /tmp/canary)", "", "\u0660"):
        for command in (
            site.routers.add(RouterId("other"), site.request(password=text)),
            site.routers.seal(HOME, RouterSealRequest(text)),
        ):
            with pytest.raises(Refused):
                await command
    assert b"canary" not in everything(site)


async def test_foreign_rules_queues_crontabs_and_files_are_the_same_after_a_whole_life(site: Controller) -> None:
    """Enrolled, changed twenty times, repaired, torn down, removed: to the byte."""
    before, untouched = of_others(site), site.picture()
    await site.enrol()
    for number in range(20):
        assert (await site.sync(1 + number % 3, *([site.device("child")] if number % 3 == 0 else []), down=5 + number)).verified
        assert of_others(site) == before
    site.lab.router.run("nft delete table inet tidegate; tc qdisc del dev wan root")
    assert (await site.infrastructure.repair(HOME)).changed
    assert of_others(site) == before
    await site.infrastructure.teardown(HOME)
    assert of_others(site) == before
    await site.routers.remove(HOME)
    assert of_others(site) == before
    assert site.picture() == untouched
