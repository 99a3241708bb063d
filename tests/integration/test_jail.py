"""Files that somebody names are opened inside one folder, whatever is done to the names meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tidegate.daemon.jail import open_inside
from tidegate.errors import Invalid, NotFound, TidegateError, TooLarge

TRIES = int(os.environ.get("TIDEGATE_TEST_OPENS", "2000"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "lists"
    (inside / "sub").mkdir(parents=True)
    (inside / "list.txt").write_text("inside")
    (inside / "sub" / "list.txt").write_text("inside")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "list.txt").write_text("outside")
    return inside


def read(folder: Path, name: str) -> str:
    with open_inside(folder, name, 100) as file:
        return file.read().decode()


def test_a_file_inside_is_read(folder: Path) -> None:
    assert read(folder, "list.txt") == read(folder, "sub/list.txt") == "inside"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret/list.txt",
        "/etc/passwd",
        "sub/../list.txt",
        "sub//list.txt",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 2_000,
    ],
)
def test_a_name_that_leads_elsewhere_is_none(folder: Path, name: str) -> None:
    with pytest.raises(Invalid):
        read(folder, name)


def test_links_pipes_folders_and_what_is_too_large_are_refused(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "list.txt")
    (folder / "way").symlink_to(folder.parent / "secret")
    os.mkfifo(folder / "pipe")
    (folder / "large").write_bytes(bytes(101))
    for name in ("link", "way/list.txt", "pipe", "sub"):
        with pytest.raises(Invalid, match="links and devices"):
            read(folder, name)
    with pytest.raises(TooLarge):
        read(folder, "large")
    for name in ("none", "sub/none", "none/list.txt", "x" * 300):
        with pytest.raises(NotFound):
            read(folder, name)


def test_nobody_who_swaps_names_meanwhile_leads_us_outside(folder: Path) -> None:
    """2,000 opens against somebody who swaps a folder and a link to another; all 20,000 with TIDEGATE_TEST_OPENS."""
    link, kept, name = folder / "link", folder / "kept", folder / "sub"
    link.symlink_to(folder.parent / "secret")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            os.rename(name, kept)
            os.rename(link, name)
            os.rename(name, link)
            os.rename(kept, name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = {"inside": 0, "outside": 0, "refused": 0}
    try:
        for _ in range(TRIES):
            try:
                found[read(folder, "sub/list.txt")] += 1
            except TidegateError:
                found["refused"] += 1
    finally:
        over.set()
        swapping.join()
    assert found["outside"] == 0
    assert min(found["inside"], found["refused"]) > 0, f"the race was not run: {found}"
