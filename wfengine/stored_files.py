"""Delete the files of `result_storage` to which no row of the journal refers any more, after their runs were pruned.

A flow that runs meanwhile may get an equal result, and use the file that is there instead of writing it: it then touches the
file before it writes the row. So a file is first renamed, and put back if it turns out to be young. An object in a bucket is
never written again under its name, and is deleted as it is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wfengine.bucket_storage import EXTRAS, BucketStorage, is_own_name
from wfengine_journal.clock import SystemClock

#: Seconds for which a file stays after it was written or used again: a row that refers to it may be on its way.
YOUNG_SECONDS = 3600.0
#: What the names of files that result_storage writes look like.
_CHECKSUM = re.compile("[0-9a-f]{32}")

_logger = logging.getLogger("wfengine.stored_files")


def delete(references: Iterable[str]) -> int:
    """Delete the files of these references (JSON) where they lie in a folder; return how many there were.

    A second name that a `result_storage_key` gave a file is for people, and stays.
    """
    known = list(references)
    return sum(_delete_one(path) for path in filter(None, map(_path_of, known))) + _delete_objects(known)


def _delete_objects(references: Iterable[str]) -> int:
    """Delete the objects of these references that are in buckets; what a service does not delete now is an orphan."""
    deleted = 0
    for reference in references:
        try:
            fields = json.loads(reference)
            at, name = str(fields["at"]), str(fields["path"])
            if at.partition("://")[0] in EXTRAS and is_own_name(name):
                deleted += BucketStorage(at).delete_path(name, YOUNG_SECONDS)
        except Exception as error:  # whatever the library of a service raises: the rows are gone in any case
            _logger.warning("An object of a pruned result was not deleted: %s: %s", type(error).__name__, error)
    return deleted


def _path_of(reference: str) -> Path | None:
    """Return the file of a reference that was named by its content; None for another storage, or another name."""
    try:
        fields = json.loads(reference)
        at, name, checksum = str(fields["at"]), str(fields["path"]), str(fields["hash"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not at.startswith("file:") or name != checksum or not _CHECKSUM.fullmatch(name):
        return None  # only what is named by a checksum is a file that we wrote: a journal may say anything
    return Path(unquote(urlsplit(at).path)) / name


def _delete_one(path: Path) -> bool:
    doomed = path.with_name(f".pruned-{path.name}")
    try:
        path.rename(doomed)
    except OSError:
        return False  # it is gone, or not ours to delete
    if SystemClock().wall_seconds() - doomed.stat().st_mtime < YOUNG_SECONDS:
        with contextlib.suppress(OSError):
            if path.exists():  # it was written anew meanwhile
                doomed.unlink()
            else:
                doomed.rename(path)
        return False
    doomed.unlink(missing_ok=True)
    return True
