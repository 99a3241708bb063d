"""Secrets do not leak by accident."""

from __future__ import annotations

import copy
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.daemon.secret import Secret, secret_file
from tidegate.errors import Unavailable

SECRET = Secret(b"hunter2")


@pytest.mark.parametrize(
    "shown", [repr(SECRET), str(SECRET), f"{SECRET}", f"{SECRET!r:>40}", repr([SECRET]), "".join(map(str, [SECRET]))]
)
def test_a_secret_is_masked_in_every_text(shown: str) -> None:
    assert "hunter2" not in shown
    assert "Secret" in shown


@pytest.mark.parametrize(
    "leak",
    [
        lambda: Secret(b"hunter2") == SECRET,
        lambda: SECRET != b"hunter2",
        lambda: SECRET in [Secret(b"x"), Secret(b"y")],
        lambda: {SECRET: 1},
        lambda: pickle.dumps(SECRET),
        lambda: copy.copy(SECRET),
        lambda: copy.deepcopy(SECRET),
    ],
)
def test_comparing_hashing_copying_and_pickling_a_secret_raise(leak: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        leak()


def test_secrets_match_only_if_they_are_the_same() -> None:
    assert SECRET.matches(Secret(b"hunter2"))
    assert not SECRET.matches(Secret(b"hunter3"))
    assert not SECRET.matches(Secret(b"hunter"))


def test_a_secret_file_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    made = secret_file(path, create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.matches(secret_file(path, create=True))
    assert made.matches(secret_file(path, create=False))
    assert [file.name for file in tmp_path.iterdir()] == ["pepper"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o620, 0o602])
def test_a_secret_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "pepper"
    secret_file(path, create=True)
    path.chmod(mode)
    with pytest.raises(Unavailable, match=f"{mode:04o}"):
        secret_file(path, create=True)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_secret_file_of_another_length_is_refused_and_never_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="damaged"):
        secret_file(path, create=True)
    assert path.read_bytes() == content


def test_a_missing_secret_is_not_replaced_where_one_was(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="backup"):
        secret_file(tmp_path / "pepper", create=False)
    assert not list(tmp_path.iterdir())


def test_a_link_is_not_followed_to_a_secret(tmp_path: Path) -> None:
    secret_file(tmp_path / "real", create=True)
    (tmp_path / "pepper").symlink_to(tmp_path / "real")
    with pytest.raises(Unavailable):
        secret_file(tmp_path / "pepper", create=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Unavailable):
        secret_file(tmp_path / "dangling", create=True)


def test_the_words_that_refuse_a_file_do_not_hold_its_content(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(b"A" * 32)
    path.chmod(0o644)
    with pytest.raises(Unavailable) as caught:
        secret_file(path, create=False)
    assert "AAAA" not in caught.value.detail
