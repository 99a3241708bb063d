"""A command is declared once: adding one touches its contract and its service, and nothing else."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tidegate.api import Tidegate
from tidegate.contract import areas, commands

ROOT = Path(__file__).parents[2]

DECLARATION = '''
    @get("/system/greeting/{name}")
    async def greet(self, name: str, loud: bool = False) -> Greeting:
        """Say hello, to see that the daemon listens."""
        ...
'''
VALUE = """
@dataclass(frozen=True, slots=True)
class Greeting:
    text: str


class System(Protocol):"""
SERVICE = """
    async def greet(self, name: str, loud: bool = False) -> Greeting:
        return Greeting(f"Hello {name}{'!' if loud else '.'}")
"""

SEEN = """
import asyncio, httpx2
from datetime import UTC, datetime
from pathlib import Path
from tidegate.api import Tidegate
from tidegate.api.system import Greeting, System
from tidegate.console import application
from tidegate.contract import Scope, areas
from tidegate.contract.client import Address, AsyncLine, remote
from tidegate.contract.executor import Executor
from tidegate.contract.guard import OpenDoor
from tidegate.contract.openapi import document
from tidegate.contract.serve import application as serve
from tidegate.daemon.system import SystemService

service = SystemService(Path("/"), datetime.now(UTC), None, None, None)

async def main():
    app = serve([(System, service)], OpenDoor("local:0", Scope.ADMIN))
    line = AsyncLine(Address("http://d"), httpx2.ASGITransport(app))
    assert await remote(System, line).greet("Ada", loud=True) == Greeting("Hello Ada!")
    assert await Executor([(System, service)]).execute("system.greet", name="Ada") == Greeting("Hello Ada.")
    await line.close()

asyncio.run(main())
made = document([contract for contract, _ in areas(Tidegate)], "/api/v1")
assert made["paths"]["/api/v1/system/greeting/{name}"]["get"]["operationId"] == "system.greet"
application()(["system", "greet", "--help"], result_action="return_value")
"""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has changed: mend this test"
    file.write_text(text.replace(old, new))


def test_a_new_command_is_everywhere_after_two_files_are_touched(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src" / "tidegate"
    edit(package / "api" / "system.py", "\nclass System(Protocol):", VALUE)
    edit(package / "api" / "system.py", "\n\nclass Operations(Protocol):", f"{DECLARATION}\n\nclass Operations(Protocol):")
    service = package / "daemon" / "system.py"
    edit(service, "import Node, System, SystemStatus", "import Greeting, Node, System, SystemStatus")
    service.write_text(service.read_text() + SERVICE)

    environment = {"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "120"}
    seen = subprocess.run([sys.executable, "-c", SEEN], env=environment, capture_output=True, text=True, timeout=60)
    assert seen.returncode == 0, seen.stderr
    assert "Say hello, to see that the daemon listens." in seen.stdout
    assert "--loud" in seen.stdout


def constants(source: str) -> Iterator[str]:
    """The strings that a program uses; documentation may name what it likes."""
    tree = ast.parse(source)
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_command_is_written_down_a_second_time() -> None:
    """Nobody outside its contract spells a command's executor name or its path: they are read from the declaration."""
    texts = {file: file.read_text() for file in (ROOT / "src").rglob("*.py")}
    spoken = {file: set(constants(text)) for file, text in texts.items()}
    by_hand = {"routers.add", "routers.seal"}  # left out of the made command line, in console/__init__.py
    for contract, _ in areas(Tidegate):
        for command in commands(contract):
            if command.path_parameters:
                holders = [f for f, text in texts.items() if f'"{command.path}"' in text]
                assert [f.parent.name for f in holders] == ["api"], f"{command.path} stands in {holders}"
            if command.name not in by_hand:
                spelt = [f for f, words in spoken.items() if command.name in words]
                assert not spelt, f"{command.name} is spelt in {spelt}"
