"""The journal: state and events in one durable transaction, numbered, sealed, and told. `journal.py` is its face."""

from tidegate.daemon.journal.audit import Audit
from tidegate.daemon.journal.chain import Anchor, Break, Chain
from tidegate.daemon.journal.journal import Journal, nothing
from tidegate.daemon.journal.retention import Retention

__all__ = ["Anchor", "Audit", "Break", "Chain", "Journal", "Retention", "nothing"]
