"""Slowing down those who guess keys (SEC-14). Pure: `now` is an argument, in seconds of any clock that does not go back.

Only failed attempts are counted and only failed attempts are refused: whoever shows a valid key is never asked here, so a
neighbour's (or an app's own) wrong keys lock nobody out (what happens otherwise: home-assistant/core #26234, #85024).
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from tidegate.errors import TooMany

FAILURES = 5
WITHIN = 60.0
FIRST_WAIT = 15 * 60.0  # doubled with each further lockout
LONGEST_WAIT = 24 * 3600.0
TABLE_LIMIT = 4_096


@dataclass(slots=True)
class _Record:
    failures: list[float] = field(default_factory=list)
    until: float = -math.inf
    lockouts: int = 0


class Lockout:
    """Failed attempts by address (an IPv6 one by its /64); the longest silent are forgotten first."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def failed(self, address: str, now: float) -> None:
        """Count one failed attempt. Raises TooMany, with `retry_after` in seconds, where there were too many already."""
        record = self._record(_origin(address))
        if now < record.until:
            raise self._refusal(record, now)
        if now - record.until >= LONGEST_WAIT:
            record.lockouts = 0
        record.failures = [*(at for at in record.failures if now - at < WITHIN), now]
        if len(record.failures) > FAILURES:
            record.until = now + min(LONGEST_WAIT, FIRST_WAIT * 2.0**record.lockouts)
            record.lockouts += 1
            raise self._refusal(record, now)

    def _record(self, origin: str) -> _Record:
        record = self._records.setdefault(origin, _Record())
        self._records.move_to_end(origin)
        if len(self._records) > TABLE_LIMIT:
            self._records.popitem(last=False)
        return record

    @staticmethod
    def _refusal(record: _Record, now: float) -> TooMany:
        return TooMany("too many wrong keys from this address", retry_after=math.ceil(record.until - now))


def _origin(address: str) -> str:
    """What counts as one client: a household's IPv6 prefix is one, an IPv4 address written as IPv6 is that address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
