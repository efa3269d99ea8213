"""All operations, in one table: what `reading_operations`, `run_operations`, `managing_reads` and `downloads` read, what
`operations` and `managing_operations` change, and what people `saved`.
"""

from __future__ import annotations

from wfengine.page.downloads import DOWNLOADS
from wfengine.page.managing_operations import MANAGING
from wfengine.page.managing_reads import MANAGING_READS
from wfengine.page.operations import CHANGES, Operation
from wfengine.page.reading_operations import READS
from wfengine.page.run_operations import RUN_READS
from wfengine.page.saved import SAVED

OPERATIONS: tuple[Operation, ...] = (*READS, *RUN_READS, *DOWNLOADS, *MANAGING_READS, *CHANGES, *MANAGING, *SAVED)
_CHANGING = {each.name: each for each in OPERATIONS if each.changes}


def find(name: str) -> Operation:
    """Return the operation of that name that changes something. Raises KeyError."""
    return _CHANGING[name]
