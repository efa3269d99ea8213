"""Objects in a bucket that no row of a journal names: uploaded by a process that was killed before it wrote the row, or left
by a pruning that the service did not answer.

They are harmless and cost money. A prefix belongs to one journal: an object that another journal names looks like an orphan.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.bucket_storage import BucketStorage
from wfengine.journals import default_journal
from wfengine.stored_files import YOUNG_SECONDS
from wfengine_journal.pruning import without_a_row
from wfengine_journal.queries import reading
from wfengine_journal.store import open_journal

if TYPE_CHECKING:
    import os


def find_orphans(
    address: str, *, journal: str | os.PathLike[str] | None = None, age_seconds: float = YOUNG_SECONDS
) -> list[str]:
    """Return the names of the objects at an address, made so long ago at least, that no row of the journal names."""
    storage = BucketStorage(address)
    # The bucket is looked at first: what is uploaded and named meanwhile is not among the objects then.
    names = storage.list_names(age_seconds)
    path = default_journal().path if journal is None else Path(journal)
    with reading(path):  # refuses what is no journal: to a new and empty one everything would be an orphan
        pass
    opened = open_journal(path)
    paths = {json.dumps({"at": storage.address, "path": name}): name for name in names}
    return sorted(paths[reference] for reference in without_a_row(opened, set(paths)))


def delete_orphans(
    address: str, *, journal: str | os.PathLike[str] | None = None, age_seconds: float = YOUNG_SECONDS
) -> list[str]:
    """Delete the objects that `find_orphans` finds; return their names."""
    storage = BucketStorage(address)
    found = find_orphans(address, journal=journal, age_seconds=age_seconds)
    return [name for name in found if storage.delete_path(name, age_seconds)]
