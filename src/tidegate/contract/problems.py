"""Failures as RFC 9457 problem documents, and back: the only table of HTTP statuses."""

from __future__ import annotations

import re
from typing import Any

from tidegate import errors
from tidegate.errors import Fault, Invalid, TidegateError

STATUS: dict[type[TidegateError], int] = {
    errors.Malformed: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotAllowed: 405,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.TooLarge: 413,
    errors.Unsupported: 415,
    errors.Misdirected: 421,
    errors.Invalid: 422,
    errors.TooMany: 429,
    errors.Refused: 502,
    errors.Unavailable: 503,
    errors.NoDaemon: 503,
    errors.TimedOut: 504,
    errors.StorageFull: 507,
}


def _type(kind: type[TidegateError]) -> str:
    return "urn:tidegate:" + re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


_BY_TYPE = {_type(kind): kind for kind in STATUS}


def status(error: TidegateError) -> int:
    return STATUS[type(error)]


def problem(error: TidegateError, request_id: str) -> dict[str, Any]:
    """`type`, `title`, `status` and `detail` of RFC 9457, the request's id, the error's facts and, if invalid, all `faults`."""
    kind = type(error)
    document: dict[str, Any] = {
        "type": _type(kind),
        "title": re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).capitalize(),
        "status": STATUS[kind],
        "detail": error.detail,
        "request": request_id,
        **error.facts,
    }
    if isinstance(error, Invalid):
        document["faults"] = [{"at": fault.at, "why": fault.why} for fault in error.faults]
    return document


def failure(document: dict[str, Any]) -> TidegateError:
    """The failure that the daemon raised, to be raised again where it was called from."""
    kind = _BY_TYPE.get(str(document.get("type")), TidegateError)
    detail = str(document.get("detail", "the daemon failed"))
    known = {"type", "title", "status", "detail", "request", "faults"}
    facts = {key: value for key, value in document.items() if key not in known}
    if kind is Invalid:
        return Invalid(detail, [Fault(str(f["at"]), str(f["why"])) for f in document.get("faults", [])], **facts)
    return kind(detail, **facts)
