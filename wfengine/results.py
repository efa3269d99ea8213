"""`ResultStore`: values kept under keys of one's own, beside the cached results of tasks and found in the same way.

Results of tasks and flows need no store: they are recorded in any case. This is for code that keeps something under a
key by hand, as `prefect.results` lets it. A key that a task is cached under is its result, and the other way round.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from wfengine.journals import default_journal
from wfengine.keeping import Keeping, keeping_of
from wfengine.runners.away import refuse_on_worker
from wfengine.scopes import current_scope
from wfengine_journal.cache import Entry, PutEntry, find_entry
from wfengine_journal.clock import seconds_from_text, text_from_seconds
from wfengine_journal.errors import JournalCorruptError, NotFoundError, StoredResultError, UsageError, ValueNotStorableError
from wfengine_journal.store import Journal
from wfengine_journal.transitions import utf8_text

__all__ = ["ResultRecord", "ResultRecordMetadata", "ResultStore", "get_result_store", "should_persist_result"]


@dataclass(frozen=True, slots=True)
class ResultRecordMetadata:
    """What is known of a kept value besides itself."""

    storage_key: str
    expiration: datetime | None = None  # None: never


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """A kept value."""

    result: object
    metadata: ResultRecordMetadata

    @property
    def expiration(self) -> datetime | None:
        """Return until when it is used; None: for ever."""
        return self.metadata.expiration


class ResultStore:
    """Keeps values under keys, in the journal of the present run or of this process.

    `result_storage` and `serializer` are as for `task`. `lock_manager` is accepted and means the journal's own lock.
    """

    def __init__(self, result_storage: object = None, serializer: object = None, lock_manager: object = None) -> None:
        options = {"result_storage": result_storage, "result_serializer": serializer}
        self._keeping = keeping_of("ResultStore", options) or Keeping()
        self.result_storage = self._keeping.storage
        self.serializer = self._keeping.serializer
        self.lock_manager = lock_manager

    def __repr__(self) -> str:
        return f"ResultStore(result_storage={self.result_storage!r}, serializer={self.serializer!r})"

    def exists(self, key: str) -> bool:
        """Tell whether there is a value under the key that has not expired and can be read."""
        return _find(key) is not None

    def read(self, key: str) -> ResultRecord:
        """Return what is kept under a key. Raises NotFoundError."""
        found = _find(key)
        if found is None:
            raise NotFoundError(f"There is no result under the key {key!r}, or it has expired. Keep one with: store.write(...)")
        return found

    def write(self, obj: object, key: str | None = None, expiration: datetime | None = None) -> None:
        """Keep a value under a key (default: a new one), in place of what is there; it is synced to the disk.

        Raises ValueNotStorableError for a value that could not be read back.
        """
        if expiration is not None and expiration.tzinfo is None:
            raise UsageError("expiration must have a time zone: datetime.now(UTC) + timedelta(hours=1)")
        name = utf8_text(key if key is not None else uuid.uuid4().hex)
        journal, run_id = _journal(), _run_id()
        encoded, _ = self._keeping.encode(obj, f"the result under the key {name!r}")
        expires_at = None if expiration is None else text_from_seconds(expiration.timestamp())
        at = journal.clock.now_text()
        journal.write(PutEntry(name, encoded, flow_run_id=run_id, at=at, expires_at=expires_at), synced=True)

    async def aexists(self, key: str) -> bool:
        """Do as `exists`."""
        return self.exists(key)

    async def aread(self, key: str) -> ResultRecord:
        """Do as `read`."""
        return self.read(key)

    async def awrite(self, obj: object, key: str | None = None, expiration: datetime | None = None) -> None:
        """Do as `write`."""
        self.write(obj, key, expiration)


def get_result_store() -> ResultStore:
    """Return a store that writes as the results of the present run are written."""
    refuse_on_worker("get_result_store()", "Use it in the flow, or run the task on threads.")
    scope = current_scope()
    keeping = scope.run.results if scope is not None else None
    return ResultStore() if keeping is None else ResultStore(keeping.storage, keeping.serializer)


def should_persist_result() -> bool:
    """Return True: results are recorded in any case."""
    return True


def _journal() -> Journal:
    scope = current_scope()
    return default_journal() if scope is None else scope.run.journal


def _run_id() -> int:
    scope = current_scope()
    return 0 if scope is None else scope.run.id


def _find(key: str) -> ResultRecord | None:
    journal = _journal()
    entry = find_entry(journal.records, utf8_text(key))
    if entry is None or entry.is_expired(journal.clock.now_text()):
        return None
    what = f"the result under the key {key!r}"
    try:
        value = journal.records.load_result(entry.result, entry.result_codec, entry.result_hash, what)
    except (JournalCorruptError, StoredResultError, ValueNotStorableError):
        return None  # as for a cached task: what cannot be read is not there
    return ResultRecord(value, ResultRecordMetadata(key, _instant(entry)))


def _instant(entry: Entry) -> datetime | None:
    return None if entry.expires_at is None else datetime.fromtimestamp(seconds_from_text(entry.expires_at), UTC)
