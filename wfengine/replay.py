"""What earlier executions of a flow run recorded, and how a call of the present one is answered from it.

The rule (DESIGN, "the replay rule"): an exact identity with an outcome answers the call; one without is in doubt; a call
with no row is new, unless it is proof of drift. Nothing here runs user code or writes.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Literal

from wfengine.identity import differing_arguments, drift_cause
from wfengine.ids import typed
from wfengine_journal.errors import DriftError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wfengine_journal.records import CallRow
    from wfengine_journal.transitions import Identity

#: Which recorded failures run again: those that ended the run, every one, or none (a crash: same decisions, same path).
Rerun = Literal["fatal", "failed", "none"]


class Recorded:
    """The recorded calls of one flow run. Claimed and looked up under the run's issue lock."""

    def __init__(
        self,
        rows: Iterable[CallRow],
        *,
        rerun: Rerun,
        by_person: bool,
        code_hash: str | None,
        code_hashes: dict[int, str | None],
        reasons: dict[int, str],
    ) -> None:
        self._rows = {(row.scope, row.task_id, row.call_key, row.occurrence): row for row in rows}
        self.rerun: Rerun = rerun
        self.by_person = by_person
        self._code_hash = code_hash
        self._code_hashes = code_hashes
        self._last_epochs = {reason: epoch for epoch, reason in sorted(reasons.items())}
        self._claimed: set[int] = set()
        self._orphaned = {row.id for row in self._rows.values() if row.orphaned_in is not None}
        self._retried: set[int] = set()  # scopes of tasks that are being retried in this execution
        self.has_not_ready = False  # some calls could not begin, for what they waited for failed
        self._unclaimed_on_main_lane: dict[tuple[int, int], dict[int, CallRow]] = {}
        for row in self._rows.values():
            self._expect(row)

    def _expect(self, row: CallRow) -> None:
        if row.state_name == "NotReady":
            self.has_not_ready = True
        if row.lane == 0 and row.state == "COMPLETED" and row.orphaned_in is None:
            self._unclaimed_on_main_lane.setdefault((row.scope, row.task_id), {})[row.id] = row

    def retry(self, scope: int, rows: Iterable[CallRow]) -> None:
        """Take in what the attempts of a task called so far, for its next one: what failed in it runs again."""
        self._retried.add(scope)
        for row in rows:
            self._rows[(row.scope, row.task_id, row.call_key, row.occurrence)] = row
            self._claimed.discard(row.id)
            self._retried.add(row.id)
            self._expect(row)

    def diverge(self, row: CallRow) -> None:
        """A recorded failure runs again and may end otherwise: what its scope called after it is not expected any more."""
        for (scope, _), unclaimed in self._unclaimed_on_main_lane.items():
            if scope == row.scope:
                for later in [other for other in unclaimed.values() if (other.ended_at or "") >= (row.ended_at or "")]:
                    del unclaimed[later.id]

    def rerun_in(self, scope: int) -> Rerun:
        """Tell which recorded failures of a scope run again."""
        return "failed" if scope in self._retried else self.rerun

    def rerun_of(self, row: CallRow) -> Rerun:
        """Tell by which rule a recorded failure runs again: the present execution's, or that of an earlier one.

        An earlier execution that was to run it again may have been cut off before it came to that call.
        """
        rule = self.rerun_in(row.scope)
        if rule == "failed" or row.epoch < self._last_epochs.get("retry", 0):
            return "failed"
        return "fatal" if rule == "fatal" or row.epoch < self._last_epochs.get("resume", 0) else "none"

    def claim(self, identity: Identity, task_ids: tuple[int, ...]) -> CallRow | None:
        """Return the row of a call that is being issued; `task_ids` are those of the task key and its aliases."""
        for task_id in task_ids:
            row = self._rows.get((identity.scope, task_id, identity.call_key, identity.occurrence))
            if row is not None and row.id not in self._claimed:
                self._claimed.add(row.id)
                unclaimed = self._unclaimed_on_main_lane.get((row.scope, row.task_id))
                if unclaimed is not None:
                    unclaimed.pop(row.id, None)
                return row
        return None

    def claim_not_ready(self, scope: int, task_ids: tuple[int, ...], waiting_key: bytes) -> CallRow | None:
        """Return the row of a call that could not begin in an earlier execution, by the key of what it waited for."""
        for task_id in task_ids:
            for occurrence in itertools.count():
                row = self._rows.get((scope, task_id, waiting_key, occurrence))
                if row is None:
                    break
                if row.id not in self._claimed:
                    self._claimed.add(row.id)
                    return row
        return None

    def is_recorded(self, identity: Identity) -> bool:
        """Tell whether an earlier execution wrote a row of that identity."""
        return (identity.scope, identity.task_id, identity.call_key, identity.occurrence) in self._rows

    def proof_of_drift(self, scope: int, task_ids: tuple[int, ...]) -> CallRow | None:
        """Return a completed main-lane call of that task in that scope which nobody asked for yet, oldest first."""
        for task_id in task_ids:
            unclaimed = self._unclaimed_on_main_lane.get((scope, task_id))
            if unclaimed:
                return next(iter(unclaimed.values()))
        return None

    def accept_drift(self, row: CallRow) -> None:
        """Take a row for the one that a new call has replaced, so that it is proof of nothing more."""
        self._orphaned.add(row.id)
        unclaimed = self._unclaimed_on_main_lane.get((row.scope, row.task_id))
        if unclaimed is not None:
            unclaimed.pop(row.id, None)

    def list_adopted(self) -> list[int]:
        """Return the ids of calls that were taken for replaced and asked for after all."""
        return sorted(self._orphaned & self._claimed)

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
        parents = {row.id: row for row in self._rows.values()}

        def answered_by_parent(row: CallRow) -> bool:
            # What a finished task called is not consulted again: it belongs to that task's answer.
            parent = parents.get(row.scope)
            return parent is not None and (parent.state == "COMPLETED" or parent.id not in self._claimed)

        return [
            row.id
            for row in self._rows.values()
            if row.state == "COMPLETED" and row.id not in self._claimed and not answered_by_parent(row)
        ]


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
        f"Or run the call anew with its present arguments: wfengine resume {typed(run_id, run_name)} --on-drift rerun",
        flow_run_id=run_id,
    )


def _shown(inputs: str) -> str:
    try:
        return ", ".join(f"{name}={value!r}" for name, value in json.loads(inputs).items())
    except ValueError:
        return inputs
