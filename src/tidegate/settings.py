"""One typed tree of settings. Each field's text is its manual; `tidegate settings` prints the effective ones and their source.

Read, later over earlier: the defaults, a TOML file, the environment (`TIDEGATE_STATE_DIR`, `TIDEGATE_TORRENT__LISTEN`), flags.
Raises Invalid naming every unknown key, with the nearest known one, and every value of a wrong type.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from tidegate.errors import Fault, Invalid

S = TypeVar("S")


def doc(text: str, default: Any, *, least: int = 0, most: int = 0) -> Any:
    """A field with its manual, and of a number, its bounds."""
    return field(default=default, metadata={"doc": text, "least": least, "most": most})


def _state_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/tidegate")
    kept = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(kept) if kept else Path.home() / ".local/state") / "tidegate"
    except RuntimeError:  # a user without a home, as services and containers have
        return Path("/var/lib/tidegate")


@dataclass(frozen=True, slots=True)
class TorrentSettings:
    """The torrent half."""

    enabled: bool = doc("Run the torrent process.", True)
    download_dir: Path | None = doc("Where files go; `downloads` in the state directory when not given.", None)
    listen: str = doc("Addresses and ports that peers reach us at, with commas between.", "0.0.0.0:6881,[::]:6881")
    dht: bool = doc("Find peers without a tracker (BEP 5).", True)
    lsd: bool = doc("Find peers on the local network (BEP 14).", True)
    upnp: bool = doc("Ask the gateway for a port by UPnP.", True)
    natpmp: bool = doc("Ask the gateway for a port by NAT-PMP and PCP.", True)
    utp: bool = doc("Use uTP (BEP 29) beside TCP.", True)
    ip_filter: tuple[str, ...] = doc(
        "Lists of addresses that may not connect, NAME=FILE in the folder `lists` of the state directory, or NAME=URL.", ()
    )
    ip_filter_refresh_hours: int = doc("How old a list from a URL may get, 1 to 720 hours.", 24, least=1, most=720)
    ip_filter_hosts: tuple[str, ...] = doc(
        "Hosts that lists may be fetched from though their address is private, and by http.", ()
    )
    ip_filter_authority: Path | None = doc("A file of certificates (PEM) to trust beside the system's, for lists.", None)
    ip_filter_trackers: bool = doc("Let the filter hold for trackers too.", True)
    command_prefix: tuple[str, ...] = doc("Words put before the torrent process's own command, to run it elsewhere.", ())


@dataclass(frozen=True, slots=True)
class Settings:
    """The daemon."""

    state_dir: Path = field(
        default_factory=_state_dir, metadata={"doc": "Where everything is kept: journal, keys, routers' keys, torrents."}
    )
    listen: str = doc("Address and port of the API. Beyond loopback only with TLS in front; see docs.", "127.0.0.1:64124")
    hosts: tuple[str, ...] = doc(
        "More values of the Host header to answer to, such as a proxy's: name:port, or the name alone.", ()
    )
    confirm_seconds: int = doc(
        "How long a router waits to be reached again after a change, 10 to 600; then it takes the change back.",
        30,
        least=10,
        most=600,
    )
    watch_seconds: int = doc(
        "Seconds between two looks at each router, 10 to 86400: is it as it should be, who is there; 0: only when asked.",
        300,
        most=86400,
    )
    repair: bool = doc("Mend by itself what drifted on a router, of what is ours there; otherwise drift is only told.", True)
    log_format: Literal["auto", "console", "json"] = doc("Readable for a terminal, or JSON lines.", "auto")
    log_level: Literal["debug", "info", "warning", "error"] = doc("The least level that is logged.", "info")
    torrent: TorrentSettings = field(default_factory=TorrentSettings, metadata={"doc": "The torrent half."})

    @property
    def socket(self) -> Path:
        """The control process's unix socket."""
        return self.state_dir / "control.sock"


Source = dict[str, str]


def load(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> tuple[Settings, Source]:
    """The effective settings, and for each dotted name that was set, where it came from."""
    settings = Settings()
    sources: Source = {}
    faults: list[Fault] = []
    layers: list[tuple[str, dict[str, Any]]] = []
    if file is not None:
        layers.append((str(file), dict(_flatten(_toml(file)))))
    layers.append(("environment", _from_environment(os.environ if environment is None else environment)))
    layers.append(("flag", {name: value for name, value in (flags or {}).items() if value is not None}))
    for source, values in layers:
        for name, value in values.items():
            try:
                settings = _with(settings, name.split("."), value)
                sources[name] = source
            except ValueError as error:
                faults.append(Fault(f"{source}: {name}", str(error)))
    if faults:
        raise Invalid("these settings can't be read", faults)
    return settings, sources


def manual() -> Iterator[tuple[str, str, Any]]:
    """Every setting: its dotted name, its text and its default."""
    yield from _manual(Settings(), "")


def _manual(tree: Any, prefix: str) -> Iterator[tuple[str, str, Any]]:
    for each in fields(tree):
        value = getattr(tree, each.name)
        if is_dataclass(value):
            yield from _manual(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", each.metadata["doc"], value


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Invalid(f"{file}: {error}") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# Read by the command line or by scripts, not settings of the daemon.
_NOT_SETTINGS = {"TIDEGATE_URL", "TIDEGATE_KEY", "TIDEGATE_SOCKET", "TIDEGATE_CONFIG", "TIDEGATE_BUSYBOX"}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix("TIDEGATE_").lower().replace("__", "."): value
        for name, value in environment.items()
        if name.startswith("TIDEGATE_") and name not in _NOT_SETTINGS
    }


def _with(tree: S, path: list[str], value: Any) -> S:
    """The tree with one value in another; ValueError says what is wrong with the name or the value."""
    names = [each.name for each in fields(tree)]  # type: ignore[arg-type]
    name = path[0]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ValueError("no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    present = getattr(tree, name)
    if is_dataclass(present) != (len(path) > 1):
        raise ValueError("this names a group of settings" if is_dataclass(present) else "no such setting")
    new = _with(present, path[1:], value) if len(path) > 1 else _read(value, get_type_hints(type(tree))[name])
    bounds = next(each.metadata for each in fields(tree) if each.name == name)  # type: ignore[arg-type]
    if isinstance(new, int) and bounds.get("most") and not bounds["least"] <= new <= bounds["most"]:
        raise ValueError(f"from {bounds['least']} to {bounds['most']}")
    return replace(tree, **{name: new})  # type: ignore[type-var]


def _read(value: Any, kind: Any) -> Any:
    """A value from TOML, or its text from the environment, as the field's type."""
    if kind == tuple[str, ...]:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise ValueError("a list of strings")
        return tuple(word.strip() for word in words if word.strip())
    if kind is bool:
        known = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in known:
            raise ValueError("true or false")
        return known[str(value).lower()]
    if kind is int:
        if isinstance(value, bool) or not (isinstance(value, int) or re.fullmatch("[0-9]{1,9}", str(value), re.ASCII)):
            raise ValueError("a whole number")
        return int(value)
    if not isinstance(value, (str, Path)):
        raise ValueError("a string")
    if kind in (Path, Path | None):
        return Path(value).expanduser()
    choices = getattr(kind, "__args__", ())
    if choices and value not in choices:
        raise ValueError(f"one of {', '.join(choices)}")
    return value
