from collections.abc import Iterator

import pytest

from tidegate.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab that the tests of a module share: whoever changes its router puts it right again, or reboots it."""
    with Lab() as running:
        yield running
