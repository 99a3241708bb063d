"""What a shell can say: lists of records as JSON, policies as flags."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from tidegate.api.groups import GroupWish
from tidegate.console import application
from tidegate.contract.cli import read_file
from tidegate.errors import Invalid
from tidegate.policy.device import Label
from tidegate.policy.group import AccessControlPolicy, BandwidthPolicy, GroupId, Mbps

WISHES = [{"group": 1, "name": "Kids", "access_control_policy": {"block_all_internet": True}}]
KIDS = GroupWish(Label("Kids"), access_control_policy=AccessControlPolicy(block_all_internet=True), group=GroupId(1))


def typed(*words: str) -> dict[str, Any]:
    """The arguments that a command line comes to."""
    _, bound, _ = application().parse_args(words, exit_on_error=False, print_error=False)
    return dict(bound.arguments)


@pytest.mark.parametrize("command", ["sync-all-groups", "plan"])
def test_many_groups_are_given_as_json_in_a_file_on_standard_input_or_in_place(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(WISHES)
    (tmp_path / "groups.json").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    for word in (f"@{tmp_path}/groups.json", "@-", text):
        found = typed("groups", command, "home", word, "--no-atomic")
        assert found["groups"] == (KIDS,)


@pytest.mark.parametrize(
    ("text", "said"), [('[{"group": 1}]', "body/0"), ("{", "not JSON"), ("[" * 60, "nested"), ("@/nowhere", "/nowhere")]
)
def test_groups_that_can_not_be_read_are_wrong_usage_that_says_where(text: str, said: str) -> None:
    with pytest.raises(CycloptsError) as wrong:
        typed("groups", "plan", "home", text)
    assert said in str(wrong.value)


def test_of_policies_only_those_that_are_typed_are_sent() -> None:
    block = typed("groups", "update-group-policy", "home", "1", "--access-control-policy.block-all-internet")
    assert block["access_control_policy"] == AccessControlPolicy(block_all_internet=True)
    assert block.get("bandwidth_policy") is None
    slow = typed("groups", "update-group-policy", "home", "1", "--bandwidth-policy.limit-mbps", "5")
    assert slow["bandwidth_policy"] == BandwidthPolicy(Mbps(5))
    assert slow.get("access_control_policy") is None


def test_a_file_is_named_or_is_standard_input_and_one_without_an_end_is_not_read_to_it() -> None:
    assert typed("state", "import", "home", "-")["document"] == Path("-")
    with pytest.raises(Invalid, match="/dev/zero: is larger than 1 MiB"):
        read_file(Path("/dev/zero"), 1 << 20)


def test_wrong_usage_is_said_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        application()(["groups", "list-groups", "x y"])
    assert "digits and dashes, such as home" in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
