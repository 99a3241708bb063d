"""The log-in key that a router takes lets its holder at the agent and at nothing else (SEC-32): real servers, real clients."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.lab.managed import HOME, Controller, a_controller
from tests.lab.openssh import start_sshd
from tidegate.api.routers import Fingerprint, RouterSealRequest
from tidegate.errors import Refused
from tidegate.events import RouterSealed
from tidegate.lab import Lab
from tidegate.router.agent import PATH, VERSION
from tidegate.router.ssh import Endpoint, SshShell

pytestmark = pytest.mark.anyio

ASK = f"/bin/sh {PATH} {VERSION}"
CANARY = "/tmp/canary"
TOUCH = f"touch {CANARY}"
DENIED = f"tidegate-agent {VERSION} denied this key may only ask for what the agent does"
ZOO = (
    "",
    "id",
    TOUCH,
    f"/bin/sh -c '{TOUCH}'",
    "/bin/sh",
    f"/bin/sh {PATH}",
    f"/bin/sh {PATH} gate",
    f"/bin/sh {PATH} {VERSION}",
    f"/bin/sh {PATH} - boot",
    f"/bin/sh {PATH} - tick",
    f"sh {PATH} {VERSION} status",
    f"/bin/sh  {PATH} {VERSION} status",
    f"{ASK} status ; {TOUCH}",
    f"{ASK} status; {TOUCH}",
    f"{ASK} status\n{TOUCH}",
    f"{ASK} status\r{TOUCH}",
    f"{ASK} status && {TOUCH}",
    f"{ASK} status & {TOUCH}",
    f"{ASK} status | {TOUCH}",
    f"{ASK} status > {CANARY}",
    f"{ASK} status <{PATH}",
    f"{ASK} $({TOUCH})",
    f"{ASK} `{TOUCH}`",
    f"{ASK} observe $({TOUCH})",
    f"{ASK} observe 'br-lan'",
    f'{ASK} observe "br-lan"',
    f"{ASK} observe br-lan\\ wan",
    f"{ASK} observe -batch",
    f"{ASK} observe --help",
    f"{ASK} observe ../../etc/passwd",
    f"{ASK} observe /etc/shadow",
    f"{ASK} observe sixteen-letters-",
    f"{ASK} observe br-lan wän",
    f"{ASK} observe *",
    f"{ASK} observe [a-z]",
    f"{ASK} observe ${{PATH}}",
    f"{ASK} observe %n",
    f"{ASK} observe #",
    f"{ASK} observe !!",
    f"{ASK} observe ~root",
    f"{ASK} probe {TOUCH}",
    f"{ASK} status x",
    f"{ASK} confirm {'A' * 16}",
    f"{ASK} confirm {'a' * 15}",
    f"{ASK} confirm",
    f"{ASK} revert",
    f"{ASK} apply",
    f"{ASK} apply 1",
    f"{ASK} apply -1 {'0' * 64} 30 br-lan wan",
    f"{ASK} apply 1 {'0' * 64} 3e9 br-lan wan",
    f"{ASK} apply 1 {'0' * 63} 30 br-lan wan",
    f"{ASK} apply 1 {'0' * 64} 30 br-lan ;reboot",
    f"{ASK} teardown",
    f"{ASK} teardown ../key br-lan",
    f"{ASK} forget",
    f"{ASK} forget . x",
    f"{ASK} lock",
    f"{ASK} take_back",
    f"{ASK} unlock",
    f"{ASK} reboot",
    f"/bin/sh {PATH} - install",
    f"/bin/sh {PATH} - install {'0' * 64} x",
    f"/bin/sh {PATH} - install ../../x",
    f"/usr/lib/sftp-server; {TOUCH}",
    "a" * 8_000,  # dropbear hangs up at 9,000
    f"{ASK} observe {'a ' * 8}a",
    f"{ASK} observe {'a ' * 4_000}",
)


class Way:
    """How the lab's router is reached: by its dropbear, or by an sshd that was started on it."""

    def __init__(self, site: Controller, port: int, host_key: str, key: Path) -> None:
        self.site, self.port, self.host_key, self.key = site, port, Fingerprint(host_key), key

    async def enrol(self) -> None:
        added = await self.site.routers.add(HOME, self.site.request(port=self.port, host_key=self.host_key))
        assert added.login == "agent"

    def client(self, *argv: str, to: str = "root@127.0.0.1") -> subprocess.CompletedProcess[str]:
        """OpenSSH's client, with the daemon's own key and a forgetful mind; `argv` begins with the program."""
        program, *rest = argv
        options = ["BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["ExitOnForwardFailure=yes", f"Port={self.port}", f"IdentityFile={self.key}", "LogLevel=ERROR"]
        flags = [word for option in options for word in ("-o", option)]
        command = [program, "-F", "/dev/null", *flags, *(part.replace("ROUTER", to) for part in rest)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)

    def connected(self) -> asyncssh.misc._ACMWrapper[asyncssh.SSHClientConnection]:
        known: tuple[list[str], list[str], list[str]] = ([], [], [])
        pinned = str(self.host_key)

        class Pinned(asyncssh.SSHClient):
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                return key.get_fingerprint() == pinned

        return asyncssh.connect(
            "127.0.0.1",
            self.port,
            username="root",
            client_keys=[str(self.key)],
            known_hosts=known,
            server_host_key_algs=["ssh-ed25519"],
            client_factory=Pinned,
            config=None,
        )

    def canaries(self) -> str:
        return self.site.lab.router.run("ls -d /tmp/canary* /root/canary* /canary* 2>/dev/null").stdout


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A router of its own: an sshd is put onto it."""
    with Lab(clients=("child",)) as running:
        yield running


@pytest.fixture(params=["dropbear", "openssh"])
async def way(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> AsyncIterator[Way]:
    async with a_controller(lab, tmp_path) as site:
        key = tmp_path / "router-keys/home"
        if request.param == "dropbear":
            yield Way(site, site.port, lab.router.host_key, key)
        else:
            sshd = start_sshd(lab)
            yield Way(site, sshd.port, sshd.host_key, key)


async def test_no_command_but_the_agents_own_is_run(way: Way) -> None:
    await way.enrol()
    before = way.site.picture()
    async with way.connected() as line:
        for command in ZOO:
            done = await line.run(command or None, check=False, input="")
            assert (done.exit_status, str(done.stdout).strip()) == (1, DENIED), command[:200]
    assert way.canaries() == ""
    assert way.site.picture() == before


async def test_nothing_that_ssh_can_do_besides_is_to_be_had(way: Way, tmp_path: Path) -> None:
    """A terminal, copies and forwards of every kind, as people's own tools ask for them."""
    await way.enrol()
    here = tmp_path / "canary"
    here.write_text("a file of ours")
    for argv in (
        ("ssh", "ROUTER", "id"),
        ("ssh", "-tt", "ROUTER", "id"),
        ("ssh", "ROUTER"),
        ("ssh", "-s", "ROUTER", "sftp"),
        ("scp", str(here), "ROUTER:/tmp/canary"),
        ("scp", "-O", str(here), "ROUTER:/tmp/canary"),
        ("scp", "ROUTER:/etc/passwd", str(tmp_path / "taken")),
        ("sftp", "ROUTER:/etc/passwd", str(tmp_path / "taken")),
        ("ssh", "-W", f"{way.site.lab.router.address}:53", "ROUTER"),
        ("ssh", "-N", "-R", "127.0.0.1:7777:127.0.0.1:22", "ROUTER"),
    ):
        done = await asyncio.to_thread(way.client, *argv)
        assert done.returncode != 0, argv
        assert "uid=0" not in done.stdout
        assert "root:" not in done.stdout
    assert not (tmp_path / "taken").exists()
    assert way.canaries() == ""
    async with way.connected() as line:
        with pytest.raises(asyncssh.ChannelOpenError):
            await line.open_connection(way.site.lab.router.address, 53)
        with pytest.raises(asyncssh.ChannelListenError):
            await line.start_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", 7778)


async def test_the_same_refusals_are_not_there_with_a_key_that_may_do_all(way: Way, tmp_path: Path) -> None:
    """The counterpart: without its restriction the very same key gets a shell, and the daemon says so."""
    plain = (await way.site.routers.create_key(HOME)).line.split("no-X11-forwarding ")[1]
    way.site.lab.router.run("mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=f"{plain}\n")
    assert (await asyncio.to_thread(way.client, "ssh", "ROUTER", "id")).stdout.startswith("uid=0")
    assert (await asyncio.to_thread(way.client, "ssh", "ROUTER", f"{ASK} x; {TOUCH}")).returncode == 0
    assert way.canaries() == f"{CANARY}\n"
    added = await way.site.routers.add(HOME, way.site.request(port=way.port, host_key=way.host_key, password=None))
    assert added.login == "root"
    assert (await way.site.routers.status(HOME)).login == "root"
    others = "ssh-ed25519 AAAA of-somebody\n"
    way.site.lab.router.run("echo 'ssh-ed25519 AAAA of-somebody' >>/root/.ssh/authorized_keys")
    await way.site.sync(1, way.site.device("child"), down=20)
    assert (await way.site.routers.seal(HOME, RouterSealRequest())).login == "agent"
    assert (await asyncio.to_thread(way.client, "ssh", "ROUTER", "id")).stdout == f"{DENIED}\n"
    line = (await way.site.routers.create_key(HOME)).line
    assert way.site.lab.router.run("cat /root/.ssh/authorized_keys").stdout == f"{others}{line}\n"
    assert (await way.site.sync(1, way.site.device("child"), down=5)).verified
    assert RouterSealed("home") in await way.site.events()


async def test_a_router_lives_its_whole_life_by_that_key(way: Way) -> None:
    before = way.site.picture()
    await way.enrol()
    assert (await way.site.sync(1, way.site.device("child"), down=20)).verified
    assert (await way.site.infrastructure.verify(HOME)).verified
    way.site.lab.router.run("nft delete table inet tidegate")
    assert (await way.site.infrastructure.repair(HOME)).changed
    assert (await way.site.routers.status(HOME)).login == "agent"
    await way.site.infrastructure.teardown(HOME)
    await way.site.routers.remove(HOME)
    assert way.site.picture() == before


async def test_the_line_can_be_placed_before_anything_else_is_there(way: Way) -> None:
    """It takes in an agent whose checksum is right, and nothing else, where there is none or an emptied one."""
    line = (await way.site.routers.create_key(HOME)).line
    way.site.lab.router.run("mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys", input=f"{line}\n")
    async with way.connected() as ssh:
        for command in (TOUCH, f"/bin/sh {PATH} - install {'0' * 64}", f"/bin/sh {PATH} - install ../x", f"{ASK} status"):
            assert (await ssh.run(command, check=False, input="echo something else")).stdout == ""
    assert way.canaries() == ""
    assert way.site.lab.router.run("ls /usr/lib/tidegate").stdout == ""
    added = await way.site.routers.add(HOME, way.site.request(port=way.port, host_key=way.host_key, password=None))
    assert added.login == "agent"
    way.site.lab.router.run(f": >{PATH}")
    assert (await way.site.sync(1, way.site.device("child"), down=20, force=True)).verified


async def test_an_agent_that_does_not_arrive_whole_replaces_nothing(way: Way) -> None:
    await way.enrol()
    there = way.site.lab.router.run(f"sha256sum {PATH}; ls /usr/lib/tidegate").stdout
    shell = SshShell(Endpoint("127.0.0.1", way.port, "root", way.host_key), asyncssh.read_private_key(way.key))
    try:
        for text in (b"", b"echo half an ag", b"x" * 600_000):
            result = await shell.run(["/bin/sh", PATH, "-", "install", "0" * 64], text)
            assert result.out == f"tidegate-agent {VERSION} incomplete\n".encode()
    finally:
        await shell.close()
    assert way.site.lab.router.run(f"sha256sum {PATH}; ls /usr/lib/tidegate").stdout == there


async def test_with_the_password_a_lost_key_and_a_damaged_agent_are_put_in_order(way: Way) -> None:
    await way.enrol()
    way.site.lab.router.run(f"echo 'if (;' >{PATH}")
    with pytest.raises(Refused, match="can't be put onto the router"):
        await way.site.sync(1, way.site.device("child"), down=20)
    with pytest.raises(Refused, match="refuses to let root in"):
        await way.site.routers.seal(HOME, RouterSealRequest("wrong"))
    password = RouterSealRequest(way.site.lab.router.password)
    assert (await way.site.routers.seal(HOME, password)).login == "agent"
    assert (await way.site.sync(1, way.site.device("child"), down=20)).verified
    way.site.lab.router.run("rm /root/.ssh/authorized_keys /etc/dropbear/authorized_keys")
    await way.site.fleet.drop(HOME)
    with pytest.raises(Refused):
        await way.site.routers.seal(HOME, RouterSealRequest())
    way.key.unlink()
    assert (await way.site.routers.seal(HOME, password)).login == "agent"
    assert (await way.site.sync(1, way.site.device("child"), down=5)).verified
