"""The state document's older forms, brought forward one version at a time.

Each step is a pure function from the document of one schema, as JSON's own types, to that of the next, and never changes once
released: `tests/data/state/N.json` holds a document as version N wrote it, and a test reads each of them forward.

A new version is: a step here, its number in `SCHEMA`, the field in `state.py`, a document in tests/data. It is due whenever a
controller of before could not do what the document asks, for it refuses fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 2

Json = dict[str, Any]


def forward(document: Json, schema: int) -> Json:
    """A document of an older schema as one of `SCHEMA`. Raises KeyError for a schema that never was."""
    for version in range(schema, SCHEMA):
        document = STEPS[version](document)
    return document


def _when_and_what_had_been_recorded(before: Json) -> Json:
    """1 -> 2: `written`, when the generation was made, and `audit`, where its controller's audit trail ended then.

    The schema's number moved to where the checksum covers it.

        {"schema": 1, "checksum": ..., "generation": 7, ..., "groups": [...]}
        {"checksum": ..., "schema": 2, "generation": 7, ..., "written": null, "audit": null, "groups": [...]}
    """
    return {**before, "schema": 2, "written": None, "audit": None}


STEPS: Mapping[int, Callable[[Json], Json]] = {1: _when_and_what_had_been_recorded}
