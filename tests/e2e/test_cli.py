"""The command line as a process: what it says and how it ends when its world is not as it should be."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import TIDEGATE, answer, environment, up
from tidegate.api.routers import Fingerprint, HostKey, HostName, Router, RouterAddRequest, RouterId, Routers
from tidegate.contract import Scope
from tidegate.contract.guard import OpenDoor
from tidegate.contract.serve import application
from tidegate.daemon.listen import serving, unix_socket

FINGERPRINT = "SHA256:" + "A" * 43
IN_A_TERMINAL = [sys.executable, "-c", "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"]


def shell(words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell that begins with the command line's words."""
    line = f"{' '.join(TIDEGATE)} {words}"
    env = {**environment(), **more}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, env=env)


def following(socket: Path, *words: str) -> subprocess.Popen[str]:
    command = [*TIDEGATE, *words, "--since", "0", "--socket", str(socket)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        for words in (["watch"], ["watch", "--json"], ["events", "follow"]):
            with following(daemon.socket, *words) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                assert process.stdout.readline()
                process.stdout.close()
                answer("keys", "create", "Ada", socket=daemon.socket)
                assert (process.wait(20), process.stderr.read()) == (141, ""), words


def test_ctrl_c_ends_what_follows_with_the_status_of_an_interrupt(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        for words in (["watch"], ["events", "follow"]):
            with following(daemon.socket, *words) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.readline()
                process.send_signal(signal.SIGINT)
                assert (process.wait(20), process.stderr.read()) == (130, ""), words


@pytest.mark.parametrize("words", ["settings", "settings --json", "--help", "--version", "keys --help"])
def test_an_answer_that_can_not_be_written_is_a_failure_and_says_so(words: str) -> None:
    full = shell(f"{words} >/dev/full")
    assert (full.returncode, full.stderr) == (1, "the output can't be written: No space left on device\n")
    deaf = shell(f"{words} >/dev/full 2>&1")
    assert (deaf.returncode, deaf.stderr) == (1, "")


def test_a_terminal_without_a_letter_is_shown_which_one_it_is(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        answer("keys", "create", "Zoë", socket=daemon.socket)
        listed = shell(f"keys list --socket {daemon.socket}", PYTHONIOENCODING="ascii")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "Zo\\xeb" in listed.stdout


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TIDEGATE_KEY", "tg_kö", "key: a key has printable ASCII only"),
        ("TIDEGATE_KEY", "tg_a\r\nX-Evil: 1", "key: a key has printable ASCII only"),
        ("TIDEGATE_URL", "notaurl", "url: 'notaurl' is not a daemon's URL"),
        ("TIDEGATE_URL", "ftp://x", "url: 'ftp://x' is not a daemon's URL"),
        ("TIDEGATE_URL", "http://x:port", "is not a daemon's URL"),
        ("TIDEGATE_URL", "http://[::1", "is not a daemon's URL"),
        ("TIDEGATE_URL", "http://a b/", "is not a daemon's URL"),
        ("TIDEGATE_STATE_DRI", "/x", "did you mean state_dir?"),
        ("TIDEGATE_CONFIG", "/nowhere/t.toml", "No such file"),
    ],
)
def test_an_environment_that_can_not_be_meant_is_told_as_wrong_usage(name: str, value: str, told: str) -> None:
    done = shell("keys list", **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["watch", f"router add home 192.0.2.1 --host-key {FINGERPRINT} --key-in-place"])
def test_commands_written_by_hand_tell_of_wrong_usage_the_same_way(words: str) -> None:
    done = shell(words, TIDEGATE_URL="notaurl")
    assert (done.returncode, "'notaurl' is not a daemon's URL" in done.stderr) == (2, True)


class Shown(Routers):
    """Knows one host's key, and counts what it is asked to add."""

    def __init__(self) -> None:
        self.added: list[RouterId] = []

    async def scan_host_key(self, host: HostName, port: int = 22) -> HostKey:
        return HostKey(host, port, "ssh-ed25519", Fingerprint(FINGERPRINT))

    async def add(self, router_id: RouterId, request: RouterAddRequest) -> Router:
        self.added.append(router_id)
        raise NotImplementedError


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("words", "prompt", "typed", "status"),
    [
        ([], b"router's?", b"\x03", 130),
        ([], b"router's?", b"\x04", 1),
        ([], b"router's?", b"n\n", 1),
        (["--host-key", FINGERPRINT], b"password on", b"\x03", 130),
        (["--host-key", FINGERPRINT], b"password on", b"\x04", 1),
    ],
)
async def test_a_person_who_stops_at_a_prompt_has_changed_nothing(
    tmp_path: Path, words: list[str], prompt: bytes, typed: bytes, status: int
) -> None:
    routers = Shown()  # type: ignore[abstract]  # nothing else of it is asked
    path = tmp_path / "control.sock"
    async with serving(application([(Routers, routers)], OpenDoor("local:0", Scope.ADMIN)), unix_socket(path)):
        command = [*IN_A_TERMINAL, *TIDEGATE, "router", "add", "home", "192.0.2.1", "--socket", str(path), *words]
        terminal = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environment(), "TERM": "dumb"}
        )
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        said = b""
        async with asyncio.timeout(30):
            while prompt not in said:
                data = await terminal.stdout.read(1024)
                assert data, said
                said += data
            terminal.stdin.write(typed)
            said += await terminal.stdout.read()
            assert await terminal.wait() == status, said
    assert b"Traceback" not in said
    assert not routers.added
