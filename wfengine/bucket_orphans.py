"""Objects in a bucket that no row of a journal names: uploaded by a process that was killed before it wrote the row, or left
by a pruning that the service did not answer.

They are harmless and cost money. A prefix belongs to one journal: an object that another journal names looks like an orphan.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.bucket_storage import EXTRAS, BucketStorage
from wfengine.journals import default_journal
from wfengine.stored_files import YOUNG_SECONDS
from wfengine_journal.errors import StoredResultError, WfengineError
from wfengine_journal.pruning import place_of, stored_references
from wfengine_journal.queries import reading

if TYPE_CHECKING:
    import os


def list_buckets(journal: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the addresses of the prefixes in buckets that rows of a journal name. No bucket is asked."""
    with reading(_path_of(journal)) as connection:
        places = {str(place_of(text)[0]) for text in stored_references(connection)}
    return sorted(at for at in places if at.partition("://")[0] in EXTRAS)


def find_orphans(
    address: str, *, journal: str | os.PathLike[str] | None = None, age_seconds: float = YOUNG_SECONDS
) -> list[str]:
    """Return the names of the objects at an address, made so long ago at least, that no row of the journal names.

    Raises JournalError, UsageError for what is no address, StoredResultError where the bucket does not answer.
    """
    storage = BucketStorage(address)
    path = _path_of(journal)
    with _explained(storage):  # before the journal: what is uploaded and named meanwhile is not among the objects then
        names = storage.list_names(age_seconds)
    with reading(path) as connection:  # refuses what is no journal: to a new and empty one everything would be an orphan
        named = {place_of(text) for text in stored_references(connection)}
    return sorted(name for name in names if (storage.address, name) not in named)


def delete_orphans(
    address: str, *, journal: str | os.PathLike[str] | None = None, age_seconds: float = YOUNG_SECONDS
) -> list[str]:
    """Delete the objects that `find_orphans` finds; return their names."""
    storage = BucketStorage(address)
    found = find_orphans(address, journal=journal, age_seconds=age_seconds)
    with _explained(storage):
        return [name for name in found if storage.delete_path(name, age_seconds)]


@contextmanager
def _explained(storage: BucketStorage) -> Iterator[None]:
    """Raise StoredResultError for whatever the library of a service raises."""
    try:
        yield
    except WfengineError:
        raise
    except Exception as error:
        raise StoredResultError(
            f"The bucket of {storage.address} did not answer: {type(error).__name__}: {error}. See that it is there and that "
            "the environment has the credentials, then try again."
        ) from error


def _path_of(journal: str | os.PathLike[str] | None) -> Path:
    return default_journal().path if journal is None else Path(journal)
