"""Enrolling a router and losing it: a real dropbear, its real keys, and a line that breaks."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.openssh import PORT, log_ins, start_sshd, stop_sshd
from tidegate.api.routers import Fingerprint, HostName, RouterId
from tidegate.errors import Conflict, Invalid, NotFound, Refused, TimedOut, Unavailable
from tidegate.events import (
    GroupSynced,
    GroupSyncFailed,
    RouterAdded,
    RouterKeyCreated,
    RouterReachable,
    RouterRemoved,
    RouterTrusted,
    RouterUnreachable,
    RouterUntrusted,
)
from tidegate.lab import Lab
from tidegate.policy.group import GroupId
from tidegate.policy.router import InterfaceName
from tidegate.router.agent import PATH, VERSION
from tidegate.router.ssh import Endpoint, SshShell

pytestmark = pytest.mark.anyio

OTHER_KEY = Fingerprint("SHA256:" + "A" * 43)


BOTH_SHELLS = pytest.mark.parametrize("lab", ["dash", "busybox"], indirect=True)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A new router for each test: what is enrolled here is taken apart."""
    with Lab(clients=("child",), shell=getattr(request, "param", "dash")) as running:
        yield running


@pytest.fixture
async def site(lab: Lab, tmp_path: Path) -> AsyncIterator[Controller]:
    """A controller that has not enrolled the lab's router yet."""
    async with a_controller(lab, tmp_path) as found:
        yield found


@pytest.fixture
async def shell(site: Controller) -> AsyncIterator[SshShell]:
    """Logged in by password, as root."""
    router = site.lab.router
    found = SshShell(Endpoint("127.0.0.1", site.port, "root", router.host_key), None, router.password)
    yield found
    await found.close()


async def lead(site: Controller, port: int) -> None:
    """From now on, the router's address leads to this port: the network changed, the daemon knows of nothing."""
    router = site.fleet.get(HOME)
    assert router
    assert isinstance(router.shell, SshShell)
    await router.shell.close()
    router.shell._endpoint = replace(router.shell._endpoint, port=port)


@contextmanager
def nobody_there() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@BOTH_SHELLS
async def test_a_router_is_enrolled_probed_and_set_up(site: Controller) -> None:
    shown = await site.routers.scan_host_key(HostName("127.0.0.1"), site.port)
    assert (shown.algorithm, shown.fingerprint) == ("ssh-ed25519", site.lab.router.host_key)
    router = await site.enrol()
    assert (router.health, router.generation) == ("reachable", 1)
    assert router.capabilities
    assert router.capabilities.htb
    assert (await site.routers.list()).routers == (await site.routers.status(HOME),)
    status = await site.infrastructure.get_status(HOME)
    assert (status.base, status.verified, status.drift) == (True, True, ())
    assert (status.classes_in_use, status.classes_free, status.next_mark) == ((), 9900, 101)
    assert [type(event) for event in await site.events()] == [RouterKeyCreated, RouterAdded]


@BOTH_SHELLS
async def test_a_removed_router_keeps_no_trace(site: Controller, tmp_path: Path) -> None:
    before = site.picture()
    await site.enrol()
    await site.sync(1, site.device("child"), down=20)
    assert site.picture() != before
    await site.routers.remove(HOME)
    assert site.picture() == before
    assert not list((tmp_path / "router-keys").iterdir())
    with pytest.raises(NotFound):
        await site.sync(1, site.device("child"), down=20)
    with pytest.raises(NotFound):
        await site.groups.list_groups(HOME)
    assert isinstance((await site.events())[-1], RouterRemoved)
    await site.enrol()
    assert [group.group for group in (await site.groups.list_groups(HOME)).groups] == [0]


async def test_the_private_key_is_for_the_daemons_user_alone(site: Controller, tmp_path: Path) -> None:
    first, second = await site.routers.create_key(HOME), await site.routers.create_key(RouterId("office"))
    assert first.line.split(",no-X11-forwarding ")[1].startswith("ssh-ed25519 ")
    assert first.line != second.line
    assert await site.routers.create_key(HOME) == first
    folder = tmp_path / "router-keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


async def test_a_key_that_others_can_read_is_not_used(site: Controller, tmp_path: Path) -> None:
    await site.routers.create_key(HOME)
    (tmp_path / "router-keys/home").chmod(0o644)
    with pytest.raises(Unavailable, match="can be read by others"):
        await site.enrol()


async def test_with_the_key_in_place_no_password_is_needed(site: Controller) -> None:
    line = (await site.routers.create_key(HOME)).line
    with pytest.raises(Refused) as refused:
        await site.routers.add(HOME, site.request(password=None))
    assert refused.value.facts["public_key"] == line
    site.lab.router.run("mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=f"ssh-ed25519 AAAA other\n{line}")
    await site.routers.add(HOME, site.request(password=None))
    await site.routers.remove(HOME)
    assert site.lab.router.run("cat /root/.ssh/authorized_keys").stdout == "ssh-ed25519 AAAA other\n"


async def test_a_host_that_shows_another_key_is_not_enrolled(site: Controller) -> None:
    before = site.picture()
    with pytest.raises(Conflict) as conflict:
        await site.routers.add(HOME, site.request(host_key=OTHER_KEY))
    assert conflict.value.facts == {"shown": site.lab.router.host_key, "expected": OTHER_KEY}
    assert site.picture() == before
    assert (await site.routers.list()).total == 0


@BOTH_SHELLS
async def test_an_enrolment_that_fails_half_way_takes_back_what_it_put_there(site: Controller) -> None:
    before = site.picture()
    with pytest.raises(Refused, match="wan7"):
        await site.routers.add(HOME, site.request(wan=InterfaceName("wan7")))
    site.lab.router.run("/sbin/tc qdisc add dev wan root handle 8001: bfifo")
    with pytest.raises(Refused, match="8001"):
        await site.enrol()
    site.lab.router.run("/sbin/tc qdisc del dev wan root")
    with pytest.raises(Refused, match="refuses to let root in"):
        await site.routers.add(HOME, site.request(password="wrong"))
    assert site.picture() == before
    assert (await site.routers.list()).total == 0
    await site.enrol()


async def test_a_request_that_makes_no_sense_is_invalid(site: Controller) -> None:
    with pytest.raises(Invalid):
        await site.routers.add(HOME, site.request(port=0))
    with pytest.raises(Invalid):
        await site.routers.add(HOME, site.request(wan=InterfaceName(site.lab.router.lan)))
    await site.enrol()
    with pytest.raises(Conflict):
        await site.enrol()


async def test_a_router_with_another_host_key_is_untrusted_and_nothing_is_sent(site: Controller) -> None:
    """SEC-30. The machine at the router's address is suddenly another one, which would let us in."""
    await site.enrol()
    await site.sync(1, site.device("child"), down=20)
    with Lab(clients=("child",)) as impostor:
        keys = site.lab.router.run("cat /root/.ssh/authorized_keys").stdout
        impostor.router.run("mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=keys)
        before = impostor.router.run("find /etc /root /usr/lib /tmp -type f | sort; nft list ruleset").stdout
        await lead(site, impostor.forward(impostor.router.address, 22))
        for _ in range(2):
            with pytest.raises(Conflict) as conflict:
                await site.sync(1, site.device("child"), down=5)
            assert conflict.value.facts["shown"] == impostor.router.host_key
        with pytest.raises(Conflict):
            await site.infrastructure.get_status(HOME)
        assert impostor.router.run("find /etc /root /usr/lib /tmp -type f | sort; nft list ruleset").stdout == before
    assert (await site.routers.status(HOME)).health == "untrusted"
    untrusted = [event for event in await site.events() if isinstance(event, RouterUntrusted)]
    assert untrusted == [RouterUntrusted("home", site.lab.router.host_key, impostor.router.host_key)]


async def test_a_router_with_a_new_host_key_is_trusted_again_only_by_an_administrators_word(site: Controller) -> None:
    """SEC-30. A real sshd ends, and another one with a key of its own listens in its place."""
    first = start_sshd(site.lab)
    await site.routers.add(HOME, site.request(port=first.port, host_key=Fingerprint(first.host_key)))
    await site.sync(1, site.device("child"), down=20)
    stop_sshd(site.lab)
    second = start_sshd(site.lab)
    for _ in range(2):
        with pytest.raises(Conflict, match="another host key"):
            await site.sync(1, site.device("child"), down=5)
    with pytest.raises(Conflict):
        await site.routers.trust(HOME, Fingerprint(first.host_key))
    with pytest.raises(Conflict):
        await site.routers.trust(HOME, OTHER_KEY)
    assert (await site.routers.status(HOME)).health == "untrusted"
    trusted = await site.routers.trust(HOME, Fingerprint(second.host_key))
    assert (trusted.host_key, trusted.health) == (second.host_key, "unknown")
    assert log_ins(site.lab) == 0
    assert (await site.sync(1, site.device("child"), down=5)).verified
    assert log_ins(site.lab) > 0
    told = [event for event in await site.events() if isinstance(event, RouterUntrusted | RouterTrusted)]
    assert told == [
        RouterUntrusted("home", first.host_key, second.host_key),
        RouterTrusted("home", first.host_key, second.host_key),
    ]


async def test_an_unreachable_router_is_said_to_be_and_comes_back(site: Controller) -> None:
    await site.enrol()
    await site.sync(1, site.device("child"), down=20)
    since = len(await site.events())
    with nobody_there() as port:
        await lead(site, port)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await site.sync(1, site.device("child"), down=5)
        assert (await site.routers.status(HOME)).health == "unreachable"
        with pytest.raises(Unavailable):
            await site.groups.get_group_status(HOME, GroupId(1))
        with pytest.raises(Unavailable):
            await site.routers.remove(HOME)
    assert [group.download_mbps for group in (await site.groups.list_groups(HOME)).groups] == [None, 20.0]
    assert "rate 20Mbit" in site.lab.router.run("tc class show dev wan").stdout
    await lead(site, site.port)
    assert (await site.sync(1, site.device("child"), down=5)).verified
    assert (await site.routers.status(HOME)).health == "reachable"
    told = [type(event) for event in (await site.events())[since:]]
    assert told == [GroupSyncFailed, RouterUnreachable, GroupSyncFailed, GroupSynced, RouterReachable]


async def test_a_power_cut_is_noticed_and_what_was_asked_before_stands_again_after_the_next_sync(site: Controller) -> None:
    await site.enrol()
    await site.sync(1, site.device("child"), down=20)
    site.lab.router.power_cut()
    with pytest.raises((Unavailable, TimedOut)):
        await site.sync(1, site.device("child"), down=5)
    site.lab.router.boot()
    assert (await site.sync(1, site.device("child"), down=20)).verified
    assert "rate 20Mbit" in site.lab.router.run("tc class show dev wan").stdout


async def test_a_cut_line_is_noticed_and_the_next_sync_goes_through(site: Controller) -> None:
    await site.enrol()
    await site.sync(1, site.device("child"), down=20)
    site.lab.router.run("for p in $(pidof dropbear); do [ $(cut -d' ' -f4 /proc/$p/stat) = 1 ] || kill -9 $p; done")
    assert (await site.sync(1, site.device("child"), down=5)).verified
    assert "rate 5Mbit" in site.lab.router.run("/sbin/tc class show dev wan").stdout


async def test_nobody_at_that_port_is_unavailable(site: Controller) -> None:
    with nobody_there() as port:
        with pytest.raises(Unavailable):
            await site.routers.scan_host_key(HostName("127.0.0.1"), port)
        with pytest.raises(Unavailable):
            await site.routers.add(HOME, site.request(port=port))


async def test_another_controller_takes_the_router_up_from_its_document_alone(site: Controller, tmp_path: Path) -> None:
    await site.enrol()
    await site.sync(1, site.device("child"), down=20, up=5, burst=35)
    await site.sync(0, down=50)
    (tmp_path / "other").mkdir()
    async with a_controller(site.lab, tmp_path / "other") as other:
        await other.enrol()
        added = (await other.events())[-1]
        assert isinstance(added, RouterAdded)
        assert added.taken_from == await site.enrolled.controller()
        listed = (await other.groups.list_groups(HOME)).groups
        assert [(g.group, g.devices, g.download_mbps, g.upload_mbps) for g in listed] == [(0, 0, 50, 50), (1, 1, 20, 5)]
        assert (await other.groups.get_group_status(HOME, GroupId(1))).verified
        with pytest.raises(Conflict, match="has taken this router up"):
            await site.sync(1, site.device("child"), down=5)
        assert (await other.sync(1, other.device("child"), down=7)).verified
        await site.routers.remove(HOME)  # lets go of it without touching what is another's by now
        assert (await other.groups.get_group_status(HOME, GroupId(1))).verified


@BOTH_SHELLS
async def test_an_agent_of_another_version_is_replaced_on_the_way(site: Controller) -> None:
    await site.enrol()
    for line in (
        "sed -i s/^VERSION=.*/VERSION=0ld/ /usr/lib/tidegate/agent",
        "rm -r /usr/lib/tidegate",
        ": >/usr/lib/tidegate/agent",
    ):
        assert site.lab.router.run(line).returncode == 0
        assert (await site.sync(1, site.device("child"), down=20, force=True)).verified


@pytest.mark.parametrize(
    "hostile",
    [
        "exec yes",
        "echo 'tidegate-agent'",
        "printf 'tidegate-agent %s ok\\n--- state\\nhalf an answ' $1",
        "printf 'tidegate-agent %s ok\\n--- nft\\n\\033[2J\\377\\376\\n--- = 0\\n--- end\\n' $1",
        "printf 'tidegate-agent %s ok\\n--- end\\n' $1",
        "head -c 1073741824 /dev/zero | tr '\\0' a",
        f"echo tidegate-agent {VERSION} ok; echo --- nft; yes [ | head -n 20000; echo --- = 0; echo --- end",
        "printf 'tidegate-agent 0 denied\\n'",
    ],
)
async def test_a_router_that_prints_nonsense_is_refused(site: Controller, hostile: str) -> None:
    """SEC-33: what a router prints is capped, and parsed or refused."""
    await site.enrol()
    site.lab.router.run(f"cat >/usr/lib/tidegate/agent <<'E'\n{hostile}\nE")
    with pytest.raises((Refused, Unavailable)) as error:
        await site.sync(1, site.device("child"), down=20, force=True)
    assert error.value.detail.isprintable()
    assert (await site.groups.list_groups(HOME)).total == 1


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_a_router_that_prints_without_end_or_hangs_costs_little_and_holds_up_no_other(
    site: Controller, tmp_path: Path
) -> None:
    """SEC-33. A line of a GiB is cut at 4 MiB; half a line that never ends is given up after 10 s."""
    await site.enrol()
    (tmp_path / "other").mkdir()
    with Lab(clients=("child",)) as neighbour:
        async with a_controller(neighbour, tmp_path / "other") as other:
            await other.enrol()
            before = resident()
            site.lab.router.run(f"echo \"head -c 1073741824 /dev/zero | tr '\\\\0' a\" >{PATH}")
            with pytest.raises(Refused, match="printed more than"):
                await site.sync(1, site.device("child"), down=20, force=True)
            assert resident() - before < 64 << 20
            site.lab.router.run(f"echo 'printf tidegate-agent; exec sleep 30' >{PATH}")
            hanging = asyncio.create_task(site.sync(1, site.device("child"), down=20, force=True))
            for number in range(5):
                assert (await other.sync(1, other.device("child"), down=5 + number)).verified
            assert not hanging.done()
            with pytest.raises((TimedOut, Unavailable)):
                await hanging


async def test_output_is_capped_in_bytes_and_in_time(shell: SshShell) -> None:
    with pytest.raises(Refused):
        await shell.run(["yes"], limit=100_000)
    with pytest.raises(TimedOut):
        await shell.run(["/bin/sh", "-c", "printf half; exec sleep 30"], seconds=0.3)
    assert (await shell.run(["echo", "again"])).out == b"again\n"


@BOTH_SHELLS
async def test_arguments_arrive_as_they_are_whatever_is_in_them(shell: SshShell) -> None:
    hostile = ["$(reboot)", "`reboot`", "a'b\"c", "; reboot", "two\nlines", "*", "", "é", "-n"]
    result = await shell.run(["printf", "<%s>", *hostile])
    assert result.out.decode() == "".join(f"<{word}>" for word in hostile)


async def test_four_megabytes_go_in_and_come_back(shell: SshShell) -> None:
    data = bytes(range(256)) * 16_000
    assert (await shell.run(["cat"], data)).out == data


async def test_commands_that_come_at_once_stand_in_line_on_one_connection(shell: SshShell) -> None:
    """dropbear 2022.83 fails when two sessions are opened at once on one connection."""
    done = await asyncio.gather(*(shell.run(["/bin/sh", "-c", f"echo {number}; exit {number}"]) for number in range(40)))
    assert [(result.status, result.out) for result in done] == [(number, b"%d\n" % number) for number in range(40)]


@pytest.mark.parametrize(
    "old",
    [
        ("HostKeyAlgorithms ssh-rsa",),
        ("KexAlgorithms diffie-hellman-group14-sha1",),
        ("Ciphers aes128-cbc",),
        ("MACs hmac-sha1", "Ciphers aes128-ctr"),
    ],
    ids=lambda options: options[0].split()[1],
)
async def test_a_server_of_old_algorithms_alone_is_not_talked_to(site: Controller, old: tuple[str, ...]) -> None:
    """SEC-31. Each is a real sshd that offers nothing better of its kind."""
    sshd = start_sshd(site.lab, PORT, *old, key_type="rsa" if "ssh-rsa" in old[0] else "ed25519")
    with pytest.raises((Refused, Unavailable, Conflict)):
        await site.routers.add(HOME, site.request(port=sshd.port, host_key=Fingerprint(sshd.host_key)))
    assert log_ins(site.lab) == 0
    assert (await site.routers.list()).total == 0
