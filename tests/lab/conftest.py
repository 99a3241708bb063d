from collections.abc import Iterator
from typing import Any

import pytest

from tidegate.lab import Lab

DIALECTS: dict[str, dict[str, Any]] = {
    "nftables": {},
    "iptables": {"lacks": ("nft",)},
    "iptables over nftables": {"lacks": ("nft",), "tables": "nft"},
}
"""Routers by what their rules are written in."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `dialects` runs on a router of each that is named, of the first two where none is."""
    if marker := metafunc.definition.get_closest_marker("dialects"):
        metafunc.parametrize("lab", marker.args or list(DIALECTS)[:2], indirect=True, scope="module")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that the tests of a module share: whoever changes its router puts it right again, or reboots it."""
    with Lab(**DIALECTS[getattr(request, "param", "nftables")]) as running:
        yield running
