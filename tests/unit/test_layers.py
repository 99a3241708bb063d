"""Who may import whom: architecture as a test, so that the picture stays true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tidegate"

# What each package may import of the project, besides itself; and why that is all.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),  # a failure knows nobody
    "events": set(),  # an event is a value
    "settings": {"errors"},
    "contract": {"errors", "events"},  # HOW a contract is served and called; never WHAT it says
    "policy": {"errors"},  # pure decisions
    "api": {"contract", "events", "policy"},  # WHAT can be done: declarations and values
    "router": {"policy", "errors"},  # talks to routers; knows no torrents, no HTTP, no journal
    "torrent": {"errors"},  # talks to the engine; knows no routers
    "lab": {"errors"},  # a test bed that any program may use
    "daemon": {"api", "contract", "errors", "events", "policy", "router", "settings", "torrent", "__init__"},
    "console": {"api", "contract", "daemon", "errors", "events", "lab", "policy", "settings", "__init__"},
    "__init__": {"api", "contract", "errors", "events"},
    "__main__": {"console"},
}

# The contract's own face towards `api`: declarations, not the machinery that serves or calls them.
API_MAY_USE = {"tidegate.contract", "tidegate.contract.answers"}

# policy decides without I/O and without a clock; "now" is an argument.
FORBIDDEN_IN_POLICY = {"os", "asyncio", "socket", "subprocess", "time", "random", "logging", "pathlib", "threading"}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            if module == "tidegate":
                yield from (f"tidegate.{name.name}" for name in node.names)
            else:
                yield module


def room(file: Path) -> str:
    """The package or top-level file that a source file belongs to."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported_room(module: str) -> str:
    name = module.removeprefix("tidegate").removeprefix(".").partition(".")[0]
    return name if name in ALLOWED else "__init__"  # `from tidegate import connect` means the package's own face


def test_every_file_lives_in_a_known_room() -> None:
    assert {room(file) for file in files()} <= ALLOWED.keys()


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_file_imports_only_what_its_room_may(file: Path) -> None:
    here = room(file)
    for module in imports(file):
        if module == "tidegate" or module.startswith("tidegate."):
            assert imported_room(module) in ALLOWED[here] | {here}, f"{here} imports {module}"
            if here == "api" and module.startswith("tidegate.contract"):
                assert module in API_MAY_USE, f"api imports the machinery {module}"


@pytest.mark.parametrize("file", sorted((SOURCE / "policy").glob("*.py")), ids=lambda file: file.name)
def test_policy_decides_without_io(file: Path) -> None:
    outside = {module.partition(".")[0] for module in imports(file)}
    assert not outside & FORBIDDEN_IN_POLICY
    import sys

    assert outside <= sys.stdlib_module_names | {"tidegate", "__future__"}, "policy imports the standard library only"


def test_only_one_file_knows_the_web_framework() -> None:
    knowing = {
        str(file.relative_to(SOURCE))
        for file in files()
        if any(module.partition(".")[0] in ("starlette", "uvicorn") for module in imports(file))
    }
    assert knowing == {"contract/serve.py", "daemon/listen.py", "daemon/connection.py"}


def test_libtorrent_is_known_to_the_torrent_room_and_the_labs_seeder_alone() -> None:
    knowing = {room(file) for file in files() if any(m.partition(".")[0] == "libtorrent" for m in imports(file))}
    assert knowing <= {"torrent", "lab"}


# Each trusts whoever answers, or lets text become a command or code.
UNSAFE = {"known_hosts=None", "shell=True", "AutoAddPolicy", "WarningPolicy", "pickle", "marshal", "shelve", "eval", "exec"}
UNSAFE |= {"os.system", "os.popen", "create_subprocess_shell", "agent_forwarding=True", "x11_forwarding=True"}


def unsafe(source: str) -> set[str]:
    """What of UNSAFE a source says, in whatever way it says it."""
    said: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            said.add(f"{node.arg}={node.value.value!r}")
        elif isinstance(node, ast.Attribute):
            said |= {node.attr, ast.unparse(node)}
        elif isinstance(node, ast.alias):
            said |= {node.name.partition(".")[0]}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            said.add(node.func.id)
        elif isinstance(node, ast.ImportFrom):
            said |= {f"{node.module}.{name.name}" for name in node.names} | {name.name for name in node.names}
            said.add((node.module or "").partition(".")[0])
    return said & UNSAFE


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_nothing_trusts_any_host_or_makes_text_a_command(file: Path) -> None:
    """SEC-26, SEC-30."""
    assert unsafe(file.read_text()) == set()


@pytest.mark.parametrize(
    "line",
    [
        "asyncssh.connect('h', known_hosts=None)",
        "subprocess.run('ls', shell=True)",
        "client.set_missing_host_key_policy(paramiko.AutoAddPolicy())",
        "from paramiko import AutoAddPolicy",
        "from os import system as run",
        "import pickle",
        "eval(text)",
        "asyncio.create_subprocess_shell(text)",
    ],
)
def test_each_unsafe_way_would_be_found(line: str) -> None:
    assert unsafe(line)
