"""Results of settled tasks leave memory when there are many, for the journal has them, and come back when they are asked for.

A small result stays with its future. Of the others a flow run keeps as much as there is room for, and some in any case: a
future that was settled, or asked, longest ago gives its result up first. What it then gives is read from the journal, its
checksum verified: the recorded result, as a resumed run would be given it.

Who holds a result must not find another one in its future, and who changed it in place must not find it unchanged. So a result
stays with its future when something else refers to it, or when it was asked for and is not what is recorded any more.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from wfengine.result_hashes import remember_result_hash
from wfengine_journal.codec import encode, recorded_size
from wfengine_journal.errors import JournalError, RunHalted, ValueNotStorableError

if TYPE_CHECKING:
    from wfengine.ended_calls import ToldOfCall
    from wfengine.task_engine import Call
    from wfengine.task_future import TaskFuture

#: A result of so many bytes in the journal, or fewer, stays with its future, which takes more than that itself.
SMALL_BYTES = 256
#: Bytes, as recorded and not compressed, of larger results that a flow run keeps in memory. As Python objects they take one to
#: five times that.
ROOM_BYTES = 8 * 1024 * 1024
#: Results that a flow run keeps however large they are: a few data frames, say, that task after task is given.
KEPT_AT_LEAST = 16
#: Results that are looked at, whether they can go, whenever one comes: two, so that those which cannot do not pile up.
_LOOKS = 2
#: What cannot be changed in place.
_UNCHANGING = frozenset({str, bytes, int, float, complex, bool, type(None), range, frozenset})


class Recorded:
    """Which result the journal has of a call: its size and checksum, those of the file if it is in a result storage."""

    __slots__ = ("hash", "size")

    def __init__(self, codec: str, data: str | bytes, hash_: bytes) -> None:
        self.size: int = recorded_size(codec, data)
        self.hash = hash_
        if codec == "stored":
            reference = json.loads(data)
            self.size, self.hash = reference["size"], bytes.fromhex(reference["hash"])


class Kept:
    """Stands in a future for a result that is in the journal, and in memory as long as there is room."""

    __slots__ = ("may_differ", "recorded", "value", "was_given")

    def __init__(self, value: object, recorded: Recorded, *, was_given: bool = False) -> None:
        self.value = value
        self.recorded = recorded
        self.was_given = was_given  # to somebody, since it was looked at
        self.may_differ = False  # somebody had it at an earlier look, and may have changed it


class Gone:
    """Stands in a future for a result that is in the journal only."""

    __slots__ = ()


_GONE: Final = Gone()


class ResultMemory:
    """The results that one flow run keeps in memory. Used by any thread."""

    __slots__ = ("_bytes", "_kept", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[TaskFuture[object], Kept]] = deque()  # the one that gives its result up first on the left
        self._bytes = 0

    def keep(self, future: TaskFuture[object], kept: Kept) -> None:
        """Take a future in that was settled with a large result, and let others give up theirs if there is no room."""
        with self._lock:
            self._kept.append((future, kept))
            self._bytes += kept.recorded.size
        for _ in range(_LOOKS):
            if self._bytes <= ROOM_BYTES or len(self._kept) <= KEPT_AT_LEAST:
                return
            self._look_at_one()

    def close(self) -> None:
        """The run is over: futures that are held on to keep what they have, and none keeps what the others had."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def take(self, future: TaskFuture[object]) -> object:
        """Return the result of a settled future, from the journal if it is nowhere else."""
        loaded: Kept | None = None
        while True:
            with self._lock:
                value = future.stored_value
                if type(value) is Kept:
                    value.was_given = True
                    return value.value
                if type(value) is not Gone:
                    return value
                if loaded is not None:
                    future.stored_value = loaded
                    break
            loaded = _load(future.call)
        self.keep(future, loaded)
        return loaded.value

    def _look_at_one(self) -> None:
        """Let the future whose turn it is give up its result, unless it was asked for since its last turn."""
        with self._lock:
            if not self._kept:
                return
            future, kept = self._kept.popleft()
            if self._is_in_use(kept):
                self._kept.append((future, kept))
                return
        was_changed = kept.may_differ and _was_changed(future.call, kept)  # may take long: others go on meanwhile
        with self._lock:
            if self._is_in_use(kept):
                self._kept.append((future, kept))
            else:
                self._bytes -= kept.recorded.size
                future.stored_value = kept.value if was_changed else _GONE

    def _is_in_use(self, kept: Kept) -> bool:
        if type(kept.value) in _UNCHANGING:
            return False  # whoever holds it cannot tell it from an equal one
        if kept.was_given or _references(kept) > _ALONE:
            kept.was_given, kept.may_differ = False, True  # whoever has it now may change it before its next turn
            return True
        return False


def _references(kept: Kept) -> int:
    value = kept.value
    return sys.getrefcount(value)


#: What `_references` gives for a value to which nothing else refers.
_ALONE = _references(Kept(object(), Recorded("", b"", b"")))


def note_recorded(call: Call, codec: str, data: str | bytes, hash_: bytes) -> None:
    """Note for the call's future that the journal has its result, if that is worth giving up."""
    is_small = codec != "stored" and recorded_size(codec, data) <= SMALL_BYTES
    call.recorded = None if is_small else Recorded(codec, data, hash_)


def _was_changed(call: ToldOfCall, kept: Kept) -> bool:
    """Tell whether a value would not be recorded as it was: in doubt it is taken for changed."""
    keeping = call.run.results if call.callee.results is None else call.callee.results.keeping.under(call.run.results)
    what = f"the result of {call}"
    try:
        if keeping is not None and keeping.serializer is not None:
            from wfengine.serializers import serialize  # loaded by who has one

            return serialize(keeping.serializer, kept.value, what)[0].hash != kept.recorded.hash
        return encode(kept.value, what).hash != kept.recorded.hash
    except ValueNotStorableError:
        return True


def _load(call: ToldOfCall) -> Kept:
    records, what = call.run.journal.records, f"the result of {call}"
    try:
        row = records.get_call(call.run.id, call.task_run_id)
        codec, hash_ = row.result_codec or "", row.result_hash or b""
        data = records.get_raw_value(hash_, what)[1] if row.result is None else row.result
        value = records.load_result(data, codec, hash_, what)
    except (JournalError, ValueNotStorableError) as error:
        if not call.run.left_open:
            raise
        # Not for the flow to catch: it was a result when the task ended, so the flow must not take it for a failure.
        raise call.run.halt(RunHalted(error)) from None
    if codec != "json":
        remember_result_hash(value, hash_)
    return Kept(value, Recorded(codec, data, hash_), was_given=True)
