"""The documents' examples, run against a real daemon, and what they say of a running one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.golden import ROOT, documents
from tests.markdown import Block, blocks, name_of
from tidegate.api.keys import CreateKeyRequest
from tidegate.api.routers import Fingerprint, Router, RouterId
from tidegate.daemon import enrolled
from tidegate.daemon.app import Daemon, running
from tidegate.events import RouterAdded
from tidegate.policy.device import Label
from tidegate.policy.router import Capabilities
from tidegate.settings import Settings, load

pytestmark = pytest.mark.anyio

DEFAULT_URL = "http://127.0.0.1:64124"  # what the documents show
ANYTHING = "…"  # in an answer: whatever stands there
DOCUMENTS = documents()
PATIENCE = 30.0  # seconds


TORRENT = b"d4:infod6:lengthi4e4:name10:debian.iso12:piece lengthi16384e6:pieces20:" + bytes(20) + b"ee"


@asynccontextmanager
async def household(state_dir: Path, *, torrents: bool = False) -> AsyncIterator[tuple[Daemon, dict[str, str]]]:
    """A daemon that knows the router `home`, which does not answer; and the environment in which its user works."""
    user = state_dir.with_name("user")
    user.mkdir()
    (user / "debian.torrent").write_bytes(TORRENT)
    async with running(quiet(state_dir, torrents=torrents)) as daemon:
        assert daemon.first_key is not None
        await daemon.services.routers.create_key(RouterId("home"))
        await daemon.journal.commit(lambda db: enrolled.store(db, home()), RouterAdded("home", "127.0.0.1:1", ""))
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "HOME": str(user),
            "KEY": daemon.first_key,
            "TIDEGATE_STATE_DIR": str(state_dir),
        }
        yield daemon, variables


def quiet(state_dir: Path, *, torrents: bool = False) -> Settings:
    """Settings of a daemon that nobody outside this machine notices."""
    flags = {"state_dir": state_dir, "listen": "127.0.0.1:0", "log_level": "error", "torrent.enabled": torrents}
    flags |= {"torrent.listen": "127.0.0.1:0"} | {f"torrent.{name}": False for name in ("dht", "lsd", "upnp", "natpmp")}
    settings, _ = load(environment={}, flags=flags)
    return settings


def home() -> Router:
    able = Capabilities("", "6.1", "nftables 1.0", "iproute2", True, "fq_codel", True, "/bin/sh")
    key = Fingerprint("SHA256:" + "A" * 43)
    last_seen = datetime.now(UTC)
    return Router(
        RouterId("home"),
        "unknown",
        "",
        None,
        last_seen,
        0,
        last_seen,
        "127.0.0.1",
        1,
        "root",
        "unknown",
        "br-lan",
        "wan",
        key,
        able,
    )


async def run(command: list[str], variables: dict[str, str], until: str | None = None) -> tuple[int | None, str]:
    """A program's exit status and what it printed; with `until` it is stopped once that was printed (status None)."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=variables,
        cwd=variables["HOME"],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    printed = ""
    try:
        async with asyncio.timeout(PATIENCE):
            while line := await process.stdout.readline():
                printed += line.decode()
                if until and until in printed:
                    return None, printed
            return await process.wait(), printed
    except TimeoutError:
        raise AssertionError(f"{command} went on and on: {printed}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def shown(path: Path) -> list[tuple[Block, Block | None]]:
    """The document's shell examples that are run, each with the answer that is shown behind it.

    The README's readers see no marks: of its shell blocks those with a request are run.
    """
    found = blocks(path.read_text())
    answers = {number: block for number, block in enumerate(found) if block.info == "json answer"}
    return [
        (block, answers.get(number + 1))
        for number, block in enumerate(found)
        if block.info == "sh run" or (path.name == "README.md" and block.text.startswith("curl"))
    ]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if shown(path)], ids=name_of)
async def test_shell_examples_do_what_they_say(path: Path, tmp_path: Path) -> None:
    torrents = any("/torrents" in block.text for block, _ in shown(path))
    async with household(tmp_path / "state", torrents=torrents) as (daemon, variables):
        for block, answer in shown(path):
            script = block.text.replace(DEFAULT_URL, daemon.url)
            status, printed = await run(["sh", "-euc", script], variables)
            assert status == 0, f"{path.name}:{block.line}: {printed}"
            if answer is not None:
                assert differences(json.loads(printed), json.loads(answer.text)) == [], f"{path.name}:{answer.line}"
            else:
                assert "urn:tidegate" not in printed, f"{path.name}:{block.line}: {printed}"


def differences(given: Any, told: Any, at: str = "answer") -> list[str]:
    """Where an answer is not as a document tells it."""
    if told == ANYTHING:
        return []
    if isinstance(given, dict) and isinstance(told, dict):
        missing = [f"{at}/{key}" for key in sorted(given.keys() ^ told.keys())]
        pairs = [(key, given[key], told[key]) for key in sorted(given.keys() & told.keys())]
    elif isinstance(given, list) and isinstance(told, list):
        missing = [] if len(given) == len(told) else [f"{at}: {len(given)} items, not {len(told)}"]
        pairs = [(str(place), one, other) for place, (one, other) in enumerate(zip(given, told, strict=False))]
    else:
        return [] if given == told and type(given) is type(told) else [f"{at}: {given!r}, not {told!r}"]
    return missing + [more for place, one, other in pairs for more in differences(one, other, f"{at}/{place}")]


def test_an_answer_that_is_told_wrongly_is_found() -> None:
    given = {"a": 1, "b": [{"c": None}]}
    assert differences(given, {"a": "…", "b": [{"c": None}]}) == []
    assert differences(given, {"a": 2, "b": [{}], "d": 1}) == ["answer/d", "answer/a: 1, not 2", "answer/b/0/c"]


def programs() -> list[Any]:
    return [
        pytest.param(block, id=f"{path.name}:{block.line}")
        for path in DOCUMENTS
        for block in blocks(path.read_text())
        if block.info.split()[:1] == ["python"]
    ]


@pytest.mark.parametrize("program", programs())
async def test_python_examples_run(program: Block, tmp_path: Path) -> None:
    """One that follows events for ever has done what it says once it printed one."""
    async with household(tmp_path / "state") as (daemon, variables):
        code = program.text.replace('key="tg_…"', f'"{daemon.url}", key="{daemon.first_key}"')
        assert code != program.text, "an example connects with a key"
        until = "Entry(" if re.search(r"follow\(\):", code) else None
        telling = asyncio.create_task(something_happens(daemon))
        try:
            status, printed = await run([sys.executable, "-W", "error", "-c", code], variables, until)
        finally:
            telling.cancel()
        assert status == (None if until else 0), printed
        assert "Guests" in printed or "home" in printed or "127.0.0.1" in printed


async def something_happens(daemon: Daemon) -> None:
    while True:
        await asyncio.sleep(0.2)
        await daemon.services.keys.create(CreateKeyRequest(Label("phone")))


async def test_the_manual_explains_every_file_in_the_state_directory(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    async with household(state_dir, torrents=True):
        made = {f"{each.name}/" if each.is_dir() else each.name for each in state_dir.iterdir()}
    manual = (ROOT / "docs" / "operations.md").read_text()
    assert {"control.sock", "router-keys/", "torrent/"} <= made
    assert sorted(name for name in made if f"| `{name}` |" not in manual) == []


async def test_a_backup_made_as_the_manual_says_comes_to_life(tmp_path: Path) -> None:
    state_dir, restored = tmp_path / "state", tmp_path / "restored"
    restored.mkdir()
    async with household(state_dir) as (daemon, _):
        with (
            closing(sqlite3.connect(state_dir / "journal.db")) as live,
            closing(sqlite3.connect(restored / "journal.db")) as copy,
        ):
            live.backup(copy)
        for secret in ("journal.key", "pepper"):
            shutil.copy2(state_dir / secret, restored)
        shutil.copytree(state_dir / "router-keys", restored / "router-keys")
        keys, line = await daemon.services.keys.list(), await daemon.services.routers.create_key(RouterId("home"))
    async with running(quiet(restored)) as daemon:
        assert daemon.first_key is None
        assert await daemon.services.keys.list() == keys
        assert await daemon.services.routers.create_key(RouterId("home")) == line
        assert [router.id for router in (await daemon.services.routers.list()).routers] == ["home"]
        assert (await daemon.services.audit.verify()).intact
