"""Documents of every version that was ever written are read; each step is held against a recorded before and after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.markdown import blocks
from tests.unit.test_state import DOCUMENT
from tidegate.policy.migrations import SCHEMA, STEPS
from tidegate.policy.state import AuditAnchor, Damaged, Moment, Sha256, Stamp, from_text, to_text

RECORDED = Path(__file__).parents[1] / "data" / "state"
STAMP = Stamp(Moment("2026-11-22T22:15:00Z"), AuditAnchor(120, Sha256("ab" * 32)))


def recorded(version: int) -> str:
    return (RECORDED / f"{version}.json").read_text()


def test_every_version_has_a_step_and_a_recorded_document() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA))
    assert sorted(path.name for path in RECORDED.iterdir()) == [f"{version}.json" for version in range(1, SCHEMA + 1)]


@pytest.mark.parametrize("version", STEPS)
def test_a_step_makes_of_the_recorded_before_the_recorded_after(version: int) -> None:
    before, after = (json.loads(recorded(each)) for each in (version, version + 1))
    del before["checksum"], after["checksum"]
    kept = json.loads(json.dumps(before))
    assert STEPS[version](before) == after
    assert before == kept, "a step changes nothing in place"


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_a_document_of_any_version_reads_as_the_same_groups(version: int) -> None:
    assert from_text(recorded(version)) == DOCUMENT


def test_what_is_written_today_is_the_recorded_document_of_this_version() -> None:
    """Where this fails after a change of the format: that is a new version, with a step and a document of its own."""
    assert to_text(DOCUMENT) == recorded(SCHEMA)


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_no_flipped_bit_of_any_version_is_believed(version: int) -> None:
    text = recorded(version)
    for at in range(len(text)):
        with pytest.raises(Damaged):
            from_text(text[:at] + chr(ord(text[at]) ^ 1 << at % 7) + text[at + 1 :])


def test_when_it_was_written_and_where_the_audit_trail_ended_is_kept() -> None:
    assert from_text(to_text(replace(DOCUMENT, stamp=STAMP))).stamp == STAMP


def test_the_manuals_example_is_a_document_and_each_of_its_fields_is_explained() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
    (example,) = (block.text for block in blocks(manual) if block.info == "json")
    document = from_text(example)
    assert document == replace(DOCUMENT, stamp=STAMP, groups=DOCUMENT.groups[:3])
    assert to_text(document) == example
    whole = json.loads(to_text(replace(document, groups=DOCUMENT.groups)))
    fields = set(whole) | set(whole["audit"]) | {name for group in whole["groups"] for name in group}
    fields |= {name for group in whole["groups"] for device in group["devices"] for name in device}
    fields |= {name for group in whole["groups"] for name in group.get("limit", ())}
    assert [name for name in sorted(fields) if f"`{name}`" not in manual] == []
    assert f"| {SCHEMA} |" in manual
