"""All operations: what `reading_operations`, `managing_reads`, `operations` and `managing_operations` say, in one table."""

from __future__ import annotations

from wfengine.page.managing_operations import MANAGING
from wfengine.page.managing_reads import MANAGING_READS
from wfengine.page.operations import CHANGES, Operation
from wfengine.page.reading_operations import READS

OPERATIONS: tuple[Operation, ...] = (*READS, *MANAGING_READS, *CHANGES, *MANAGING)
_CHANGING = {each.name: each for each in OPERATIONS if each.changes}


def find(name: str) -> Operation:
    """Return the operation of that name that changes something. Raises KeyError."""
    return _CHANGING[name]
