import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    """A daemon in a test sets the log up for its whole process; the next test begins with none set up."""
    handlers = logging.getLogger().handlers[:]
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
