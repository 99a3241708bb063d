"""How the daemon logs: JSON lines for machines, a readable console for a terminal. Control characters never get through."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from tidegate.contract import codec
from tidegate.settings import Settings


def configure(settings: Settings) -> None:
    """Set the log up for this process, on standard error."""
    form = settings.log_format
    readable = form == "console" or (form == "auto" and sys.stderr.isatty())
    last: structlog.typing.Processor = structlog.dev.ConsoleRenderer() if readable else _json_line
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _harmless,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if readable
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


class _Forward(logging.Handler):
    """What is logged by the standard library's means comes out in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _harmless(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Strangers' text can't forge a line or move a cursor."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    return event


def _json_line(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return codec.encode(
        {key: value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in event.items()}
    )
