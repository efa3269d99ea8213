"""What earlier executions of a flow run recorded, and how a call of the present one is answered from it.

The rule: an exact identity with an outcome answers the call; one without is in doubt; a call with no row is new, unless it is
proof of drift. Nothing here runs user code or writes.

A run may have a million calls: they are read in parts, in the order in which they were recorded, which is that in which
most are asked for; what was asked for is forgotten, down to one bit.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from wfengine.id_sets import IdSet
from wfengine.identity import differing_arguments, drift_cause
from wfengine.ids import typed
from wfengine_journal import recorded_calls
from wfengine_journal.errors import DriftError
from wfengine_journal.recorded_calls import CALLS_AT_ONCE
from wfengine_journal.transitions import Identity

if TYPE_CHECKING:
    from wfengine_journal.records import CallRow, Records

#: Which recorded failures run again: those that ended the run, every one, or none (a crash: same decisions, same path).
Rerun = Literal["fatal", "failed", "none"]
#: What drift may lead to, if its author or a person says so.
ON_DRIFT = ("error", "rerun", "reuse")

_Key = tuple[int, int, bytes, int]  # scope, task, call key, occurrence

#: Rows that are read together from a run with more calls than are read at once.
PART = 2000


class Recorded:
    """The recorded calls of one flow run, up to the one that was written last. Used under the run's issue lock."""

    def __init__(
        self, records: Records, flow_run_id: int, *, until_id: int, rerun: Rerun = "none", by_person: bool = False,
        code_hash: str | None = None,
    ) -> None:  # fmt: skip
        self.rerun: Rerun = rerun
        self.by_person = by_person
        self._records = records
        self._flow_run_id = flow_run_id
        self._until_id = until_id
        self._code_hash = code_hash
        self._code_hashes: dict[int, str | None] = {}  # by epoch
        self._last_epochs: dict[str, int] = {}  # by why the body was started
        self._asked_epochs: dict[str, int] = {}  # by what a person asked to run again
        self._task_codes: dict[tuple[int, int], str] = {}  # by task and epoch
        self._read: dict[_Key, CallRow] = {}  # read from the file and not asked for
        self._read_to = 0
        self._is_whole = until_id == 0  # `_read` has all that was not asked for
        self._retaken: dict[_Key, CallRow] = {}  # of tasks that are being retried in this execution
        self._retried: set[int] = set()  # their scopes
        self._claimed = IdSet()
        self._lived: set[int] = set()  # recorded calls that run again: what they called counts
        self._replaced: set[int] = set()  # by a call with other inputs, after drift that was accepted
        self._adopted: set[int] = set()  # taken for replaced, and asked for after all
        self._expected: dict[tuple[int, int], deque[int]] = {}  # by scope and task: completed on the main lane, oldest first
        self._unasked: dict[tuple[int, int], deque[int]] = {}  # the same, excused or not: only a plan asks
        self._excused: dict[int, list[tuple[str, str]]] = {}  # by scope: what ended from .. until .. proves no drift
        self._has_not_ready: bool | None = None

    @classmethod
    def load(cls, records: Records, flow_run_id: int, *, epoch: int, rerun: Rerun, by_person: bool, code_hash: str) -> Recorded:
        """Return what the executions before that of `epoch` recorded."""
        until_id = recorded_calls.find_last_call(records, flow_run_id)
        self = cls(records, flow_run_id, until_id=until_id, rerun=rerun, by_person=by_person, code_hash=code_hash)
        self._code_hashes = records.list_code_hashes(flow_run_id)
        self._code_hashes.pop(epoch, None)  # this execution's own row
        self._last_epochs = {reason: number for number, reason in sorted(records.list_reasons(flow_run_id).items())}
        asked = recorded_calls.list_reruns(records, flow_run_id)
        for number, words in sorted(asked.items()):
            self._asked_epochs.update(dict.fromkeys(words.split(), number))
        if "changed" in self._asked_epochs:
            self._task_codes = recorded_calls.list_task_codes(records, flow_run_id)
        if asked:
            for scope, ended_at, at in recorded_calls.list_superseded(records, flow_run_id):
                self._excused.setdefault(scope, []).append((ended_at, at))
        return self

    # ---- what was recorded, in parts

    def _find(self, key: _Key) -> CallRow | None:
        """Return the recorded call with that identity, unless it was asked for."""
        row = self._retaken.get(key) or self._read.get(key)
        if row is None and not self._is_whole:
            if self._read_to < self._until_id:
                self._read_on()
                row = self._read.get(key)
            if row is None and not self._is_whole:
                row = recorded_calls.find_call_row(self._records, Identity(self._flow_run_id, *key), self._until_id)
        return None if row is None or row.id in self._claimed else row

    def _read_on(self) -> None:
        records, run_id = self._records, self._flow_run_id
        if self._read_to == 0 and not recorded_calls.is_large(records, run_id):
            rows = recorded_calls.list_calls(records, run_id)
            self._read_to, self._is_whole = self._until_id, True
        else:
            rows = recorded_calls.list_calls_after(records, run_id, self._read_to, self._until_id, PART)
            self._read_to = rows[-1].id if len(rows) == PART else self._until_id
        for row in rows:
            if row.id <= self._until_id and row.id not in self._claimed:
                self._read[_key(row)] = row
        while len(self._read) > CALLS_AT_ONCE and not self._is_whole:
            del self._read[next(iter(self._read))]  # the index finds it, should it be asked for

    def _any(self, key: _Key) -> CallRow | None:
        """Return the recorded call with that identity, whether it was asked for or not."""
        row = self._retaken.get(key) or self._read.get(key)
        return row or recorded_calls.find_call_row(self._records, Identity(self._flow_run_id, *key), self._until_id)

    def _take(self, row: CallRow) -> CallRow:
        self._claimed.add(row.id)
        self._read.pop(_key(row), None)
        self._retaken.pop(_key(row), None)
        if row.orphaned_in is not None or row.id in self._replaced:
            self._adopted.add(row.id)
        return row

    # ---- answering calls

    def claim(self, identity: Identity, task_ids: tuple[int, ...]) -> CallRow | None:
        """Return the row of a call that is being issued; `task_ids` are those of the task key and its aliases."""
        for task_id in task_ids:
            row = self._find((identity.scope, task_id, identity.call_key, identity.occurrence))
            if row is not None:
                return self._take(row)
        return None

    def claim_not_ready(self, scope: int, task_ids: tuple[int, ...], waiting_key: bytes) -> CallRow | None:
        """Return the row of a call that could not begin in an earlier execution, by the key of what it waited for."""
        for task_id in task_ids:
            for occurrence in itertools.count():
                row = self._any((scope, task_id, waiting_key, occurrence))
                if row is None:
                    break
                if row.id not in self._claimed:
                    return self._take(row)
        return None

    def is_recorded(self, identity: Identity) -> bool:
        """Tell whether an earlier execution wrote a row of that identity."""
        return self._any((identity.scope, identity.task_id, identity.call_key, identity.occurrence)) is not None

    @property
    def has_not_ready(self) -> bool:
        """Tell whether some calls could not begin, for what they waited for failed."""
        if self._has_not_ready is None:
            self._has_not_ready = recorded_calls.has_not_ready(self._records, self._flow_run_id)
        return self._has_not_ready

    def note_lived(self, row: CallRow) -> None:
        """Note that a recorded call is not answered but runs, so that what it called before is asked for or an orphan."""
        self._lived.add(row.id)

    def retry(self, scope: int, rows: Iterable[CallRow]) -> None:
        """Take in what the attempts of a task called so far, for its next one: what failed in it runs again."""
        expected: dict[tuple[int, int], deque[int]] = {}
        self._retried.add(scope)
        for row in rows:
            self._retaken[_key(row)] = row
            self._claimed.discard(row.id)
            self._retried.add(row.id)
            if row.state_name == "NotReady":
                self._has_not_ready = True
            if row.lane == 0 and row.state == "COMPLETED" and row.orphaned_in is None:
                expected.setdefault((row.scope, row.task_id), deque()).append(row.id)
        for key in [key for key in self._expected if key[0] in self._retried]:
            del self._expected[key]
        self._expected |= expected
        for each in self._retried:
            self._excused.pop(each, None)

    def rerun_in(self, scope: int) -> Rerun:
        """Tell which recorded failures of a scope run again."""
        return "failed" if scope in self._retried else self.rerun

    def rerun_of(self, row: CallRow) -> Rerun:
        """Tell by which rule a recorded failure runs again: the present execution's, or that of an earlier one.

        An earlier execution that was to run it again may have been cut off before it came to that call.
        """
        rule = self.rerun_in(row.scope)
        asked = max(self._last_epochs.get("retry", 0), self._asked_epochs.get("failed", 0))
        if rule == "failed" or row.epoch < asked:
            return "failed"
        return "fatal" if rule == "fatal" or row.epoch < self._last_epochs.get("resume", 0) else "none"

    @property
    def asks_for_changed(self) -> bool:
        """Tell whether a person asked for the calls of tasks that changed to run again, in this execution or before."""
        return "changed" in self._asked_epochs

    def is_changed(self, row: CallRow, code: str) -> bool:
        """Tell whether a person asked for what changed to run again, and the task's own code did since that outcome."""
        if row.epoch >= self._asked_epochs.get("changed", 0):
            return False
        recorded = self._task_codes.get((row.task_id, row.epoch))
        # Another version of Python compiles the same text to other code: nothing can be said then.
        return recorded is not None and recorded != code and recorded.split(":")[0] == code.split(":")[0]

    # ---- drift

    def diverge(self, row: CallRow) -> None:
        """A recorded outcome is made anew and may be another: what its scope called after it is not expected any more."""
        self._excused.setdefault(row.scope, []).append((row.ended_at or "", ""))

    def proof_of_drift(self, scope: int, task_ids: tuple[int, ...]) -> CallRow | None:
        """Return a completed main-lane call of that task in that scope which nobody asked for yet, oldest first."""
        for task_id in task_ids:
            row = self._next_expected(scope, task_id)
            if row is not None:
                return row
        return None

    def _next_expected(self, scope: int, task_id: int) -> CallRow | None:
        while (row := self._oldest(self._expected, scope, task_id)) is not None:
            if not self._is_excused(row):
                return row
            self._expected[(scope, task_id)].popleft()
        return None

    def find_unasked(self, scope: int, task_id: int) -> CallRow | None:
        """Return the oldest completed main-lane call of that task in that scope which nobody asked for: for people only."""
        return self._oldest(self._unasked, scope, task_id)

    def _oldest(self, queues: dict[tuple[int, int], deque[int]], scope: int, task_id: int) -> CallRow | None:
        """Return the first in one of these queues that was neither asked for nor replaced; what was leaves the queue."""
        ids = queues.get((scope, task_id))
        if ids is None:
            completed = recorded_calls.list_completed_on_main_lane(
                self._records, self._flow_run_id, scope, task_id, self._until_id
            )
            ids = queues[(scope, task_id)] = deque(each for each in completed if each not in self._claimed)
        while ids and (ids[0] in self._claimed or ids[0] in self._replaced):
            ids.popleft()
        return self._records.get_call(self._flow_run_id, ids[0]) if ids else None

    def _is_excused(self, row: CallRow) -> bool:
        ended_at = row.ended_at or ""
        return any(low <= ended_at and (not high or ended_at < high) for low, high in self._excused.get(row.scope, ()))

    def accept_drift(self, row: CallRow) -> None:
        """Take a row for the one that a new call has replaced, so that it is proof of nothing more."""
        self._replaced.add(row.id)

    def reuse(self, row: CallRow) -> CallRow:
        """Claim a completed call for one with other inputs, as a person asked."""
        return self._take(row)

    def list_adopted(self) -> list[int]:
        """Return the ids of calls that were taken for replaced and asked for after all."""
        return sorted(self._adopted)

    def drift_is_expected(self, row: CallRow) -> bool:
        """Tell whether the code was edited since that row was written and a person asked to go on with the new code."""
        if self._code_hash is None or row.epoch not in self._code_hashes:
            return False  # written by this very execution
        if self._code_hashes[row.epoch] == self._code_hash:
            return False
        if self.by_person:
            return True
        # An automatic recovery goes on where a person already resumed with this very code.
        resumed = self._last_epochs.get("resume", 0)
        return resumed > row.epoch and self._code_hashes.get(resumed) == self._code_hash

    def list_orphans(self) -> list[int]:
        """Return the ids of completed calls in live scopes that nobody asked for."""
        found = {row.id for row in self._retaken.values() if row.state == "COMPLETED"}
        after = 0
        while True:
            part = recorded_calls.list_completed(self._records, self._flow_run_id, after, self._until_id, CALLS_AT_ONCE)
            # What a finished task called is not consulted again: it belongs to that task's answer.
            found.update(
                row_id
                for row_id, scope in part
                if row_id not in self._claimed and (scope == 0 or scope in self._lived or scope in self._retried)
            )
            if len(part) < CALLS_AT_ONCE:
                return sorted(found)
            after = part[-1][0]


def _key(row: CallRow) -> _Key:
    return row.scope, row.task_id, row.call_key, row.occurrence


def drift_error(run_id: int, run_name: str, task_name: str, recorded: str, present: str) -> DriftError:
    """Return the error that shows, argument by argument, how a call differs from the recorded one, and how to go on."""
    lines = []
    for name, before, now in differing_arguments(recorded, present):
        lines.append(f"    {name}: recorded {before}, now {now}")
        cause = drift_cause(before, now)
        if cause:
            lines.append(f"      {cause}")
    if not lines:
        lines.append(f"    recorded {_shown(recorded)}, now {_shown(present)}")
    return DriftError(
        f"Flow run {run_id} '{run_name}' is parked: its call of task '{task_name}' does not match what the journal recorded, "
        "though the flow's code did not change (or nobody asked to go on with changed code).\n"
        + "\n".join(lines)
        + "\nNothing was run. Make the argument the same on each run (a flow parameter, or from a task, wfengine.now(), "
        f"uuid4() or random()) and type: wfengine resume {typed(run_id, run_name)}\n"
        f"Or run the call anew with its present arguments: wfengine resume {typed(run_id, run_name)} --on-drift rerun\n"
        f"Or let the recorded result stand for it: wfengine resume {typed(run_id, run_name)} --on-drift reuse",
        flow_run_id=run_id,
    )


def _shown(inputs: str) -> str:
    try:
        return ", ".join(f"{name}={value!r}" for name, value in json.loads(inputs).items())
    except ValueError:
        return inputs
