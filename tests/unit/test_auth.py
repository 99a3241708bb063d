"""Which keys open the door. For each thing that opens it there is a twin that does not (SEC-07)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegate.daemon.auth
from tidegate.contract import Scope
from tidegate.daemon.auth import Authenticator, Credential, Doorman, new_id, new_secret, written
from tidegate.daemon.lockout import Lockout
from tidegate.daemon.secret import Secret
from tidegate.errors import TooMany, Unauthorized


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A daemon's authenticator with one key of each scope."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.authenticator = Authenticator(Secret(b"p" * 32), self.clock)
        self.keys = {scope: self.add(scope) for scope in Scope}

    def add(self, scope: Scope = Scope.READ, expires: float | None = None) -> str:
        key_id, secret = new_id(), new_secret()
        self.authenticator.add(Credential(key_id, self.authenticator.digest(secret), scope, expires))
        return written(key_id, secret)

    def refuses(self, shown: str | None) -> None:
        with pytest.raises(Unauthorized) as caught:
            self.authenticator.authenticate(shown)
        assert caught.value.detail == "no valid key: show one as `Authorization: Bearer KEY`"


def part(key: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"tg_(.{8})_(.{43})_(.{6})", key)
    assert match
    return match[1], match[2], match[3]


def test_a_key_has_the_documented_form_and_no_two_are_alike() -> None:
    keys = {written(new_id(), new_secret()) for _ in range(500)}
    assert len(keys) == 500
    assert all(re.fullmatch(r"tg_[a-z0-9]{8}_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}", key) for key in keys)


@pytest.mark.parametrize("scope", list(Scope))
def test_a_key_opens_with_its_own_scope_and_name(scope: Scope) -> None:
    house = House()
    principal = house.authenticator.authenticate(house.keys[scope])
    assert principal.scope is scope
    assert principal.by == "key:" + part(house.keys[scope])[0]
    assert principal.valid()


def test_no_key_no_entry() -> None:
    house = House()
    for shown in (None, "", " ", "tg_", "tg_" + "_" * 58):
        house.refuses(shown)


def test_the_right_id_with_a_wrong_secret_is_refused() -> None:
    house = House()
    key_id, _, _ = part(house.keys[Scope.ADMIN])
    house.refuses(written(key_id, new_secret()))


def test_the_right_secret_with_another_keys_id_is_refused() -> None:
    house = House()
    _, secret, _ = part(house.keys[Scope.READ])
    admin, _, _ = part(house.keys[Scope.ADMIN])
    house.refuses(written(admin, Secret(secret.encode())))


def test_the_right_secret_with_an_id_that_nobody_has_is_refused() -> None:
    house = House()
    for key in house.keys.values():
        house.refuses(written(new_id(), Secret(part(key)[1].encode())))


def test_a_well_made_key_of_another_daemon_is_refused() -> None:
    house, other = House(), House()
    for key in other.keys.values():
        house.refuses(key)


def test_a_secret_is_worth_nothing_under_another_pepper() -> None:
    house = House()
    key_id, secret, _ = part(house.keys[Scope.ADMIN])
    other = Authenticator(Secret(b"q" * 32), house.clock)
    other.add(Credential(key_id, house.authenticator.digest(Secret(secret.encode())), Scope.ADMIN, None))
    with pytest.raises(Unauthorized):
        other.authenticate(house.keys[Scope.ADMIN])


def test_a_key_with_anything_before_after_or_missing_is_refused() -> None:
    house = House()
    key = house.keys[Scope.ADMIN]
    for shown in (key[:-1], key[1:], key + "\n", "\n" + key, key + " ", " " + key, key + "\0", key + key, key.upper()):
        house.refuses(shown)
    for end in range(len(key)):
        house.refuses(key[:end])


def test_every_single_altered_character_is_refused() -> None:
    house = House()
    key = house.keys[Scope.ADMIN]
    for place, character in enumerate(key):
        house.refuses(key[:place] + ("A" if character != "A" else "B") + key[place + 1 :])


def test_a_wrong_checksum_is_refused_even_with_the_right_secret() -> None:
    house = House()
    key = house.keys[Scope.ADMIN]
    house.refuses(key[:-6] + ("000000" if key[-6:] != "000000" else "000001"))


def test_digits_of_other_scripts_are_no_digits() -> None:
    house = House()
    key = house.keys[Scope.ADMIN]
    house.refuses("tg_" + "١" * 8 + key[11:])


@given(st.text())
def test_no_text_opens_the_door_or_breaks_it(shown: str) -> None:
    HOUSE.refuses(shown)


HOUSE = House()


def test_a_revoked_key_is_refused_and_open_connections_see_it_at_once() -> None:
    house = House()
    key = house.keys[Scope.OPERATE]
    principal = house.authenticator.authenticate(key)
    house.authenticator.revoke(part(key)[0])
    assert not principal.valid()
    house.refuses(key)


def test_an_expired_key_is_refused_and_open_connections_see_it_at_once() -> None:
    house = House()
    key = house.add(expires=house.clock.now + 60)
    principal = house.authenticator.authenticate(key)
    house.clock.now += 59.9
    assert principal.valid()
    house.clock.now += 0.1
    assert not principal.valid()
    house.refuses(key)


def test_the_last_use_has_the_grain_of_a_minute_and_refusals_are_no_use() -> None:
    house = House()
    key_id, _, _ = part(house.keys[Scope.READ])
    house.refuses(written(key_id, new_secret()))
    assert house.authenticator.used()[key_id] == 0
    house.authenticator.authenticate(house.keys[Scope.READ])
    assert house.authenticator.used()[key_id] == house.clock.now // 60


def test_whatever_is_shown_one_comparison_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    expired = house.add(expires=house.clock.now - 1)
    made: list[int] = []
    matches = Secret.matches

    def counted(one: Secret, other: Secret) -> bool:
        made.append(1)
        return matches(one, other)

    monkeypatch.setattr(Secret, "matches", counted)
    key = house.keys[Scope.READ]
    for shown in (
        None,
        "",
        "x" * 100_000,
        key[:-1],
        written("unknown1", new_secret()),
        written(part(key)[0], new_secret()),
        expired,
    ):
        made.clear()
        house.refuses(shown)
        assert len(made) == 1, shown
    made.clear()
    house.authenticator.authenticate(key)
    assert len(made) == 1


def test_nothing_secret_is_compared_by_an_operator() -> None:
    folder = Path(tidegate.daemon.auth.__file__).parent
    for file in ("auth.py", "keys.py", "secret.py"):
        for node in ast.walk(ast.parse((folder / file).read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
                names = {
                    n.id if isinstance(n, ast.Name) else n.attr
                    for n in ast.walk(node)
                    if isinstance(n, ast.Name | ast.Attribute)
                }
                assert not names & {"secret", "digest", "pepper", "shown", "key_file", "reveal"}, f"{file}:{node.lineno}"


def test_a_guesser_is_slowed_down_and_a_valid_key_from_the_same_address_passes_always() -> None:
    house = House()
    doorman = Doorman(house.authenticator, Lockout(), house.clock)
    answers = []
    for _ in range(10_000):
        with pytest.raises((Unauthorized, TooMany)) as caught:
            doorman.authenticate(written(new_id(), Secret(b"A" * 43)), "192.0.2.1")
        answers.append(caught.type)
    assert answers == [Unauthorized] * 5 + [TooMany] * 9_995
    assert doorman.authenticate(house.keys[Scope.READ], "192.0.2.1").valid()


def test_asking_without_a_key_is_not_guessing() -> None:
    house = House()
    doorman = Doorman(house.authenticator, Lockout(), house.clock)
    for _ in range(20):
        with pytest.raises(Unauthorized):
            doorman.authenticate(None, "192.0.2.1")
