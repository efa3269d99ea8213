"""Run a flow's body over what is recorded of one of its runs, and nothing else: no task runs, and no journal is written.

That is what `resume --plan` shows, and what `replay` and `assert_replays` stand on. The run is extracted into a temporary
journal and resumed there; the first call that would have to run stops the body, since its value is not known. A call that
is only submitted does not stop it before its result is asked for.

The code of the flow's own body does run, and so do prints and whatever else it does between its calls.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from wfengine.flow_engine import How, take_up
from wfengine.identity import differing_arguments
from wfengine.journals import journal_in_use
from wfengine.recovery import how_to_resume, load_flow, perform
from wfengine.reruns import correct
from wfengine_journal.corrections import TakeBackCalls
from wfengine_journal.errors import DryRunEnded, PausedRun, RunHalted, UsageError, WfengineError
from wfengine_journal.extraction import extract_run
from wfengine_journal.store import Journal

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.steps import Outcome
    from wfengine.task_engine import Call
    from wfengine_journal.records import CallRow

Decision = Literal["REPLAY", "RERUN", "NEW", "ORPHAN"]

#: Calls that a plan lists one by one; more are only counted.
LISTED = 10_000


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """What a resume would do about one call, and why. `differences`: (argument, recorded, now), where the inputs changed."""

    decision: Decision
    task: str
    inputs: str  # JSON object by parameter name
    task_run_id: int | None  # of the row there is; None: a new call
    why: str | None = None
    differences: tuple[tuple[str, str, str], ...] = ()


@dataclass(slots=True)
class Plan:
    """What a resume would do, up to the first call whose result is not known."""

    flow_run_id: int
    name: str
    calls: list[PlannedCall] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    ended: bool = False  # the body came to its end; else it stopped, at a call that would run or as `error` says
    outcome: Outcome | None = None  # of the body, if it ended
    error: WfengineError | None = None  # what would park or stop the run

    def note(self, call: PlannedCall) -> None:
        """Count a call, and list it unless there are too many."""
        self.counts[call.decision] += 1
        if len(self.calls) < LISTED:
            self.calls.append(call)


class DryRun:
    """Stands in a live run for the promise that nothing is executed; notes what would be. Called by the engine."""

    def __init__(self, plan: Plan, wrap: Callable[[Callable[..., object]], Callable[..., object]] | None = None) -> None:
        self.plan = plan
        self.entered: list[tuple[int, int]] = []  # id and epoch of the run, and of the subflow runs that were lived here
        self.body = wrap or (lambda fn: fn)  # what the flow's function is called through

    def decide(self, call: Call, outcome: Outcome | None) -> None:
        """Note what becomes of a call that was looked up. What has a life of its own, a block or a wait of ours, stops here."""
        self._note(call, outcome)
        if outcome is None and call.callee.key.startswith("wfengine."):
            raise call.run.halt(self.stop(call))

    def _note(self, call: Call, outcome: Outcome | None) -> None:
        name, text = call.callee.name, "{}" if call.inputs is None else call.inputs.text
        if outcome is not None or call.answered is not None:
            self.plan.note(PlannedCall("REPLAY", name, text, call.task_run_id or None, _replayed(call.row)))
            return
        if call.row is not None:
            self.plan.note(PlannedCall("RERUN", name, text, call.row.id, _rerun(call.row)))
            return
        before = call.replaces or _inputs_of_another(call)
        differences = () if before is None else tuple(differing_arguments(before, text))
        why = "its inputs changed" if before is not None else "it was not called before"
        self.plan.note(PlannedCall("NEW", name, text, None, why, differences))

    def enters(self, call: Call) -> bool:
        """Tell whether a call is lived here: that of a subflow which was begun, whose own calls are recorded."""
        return call.callee.kind == "flow" and call.row is not None

    def stop(self, call: Call) -> RunHalted:
        """Return the signal with which the body ends where a call would have to run."""
        return RunHalted(
            DryRunEnded(
                f"Nothing is executed here, and {call} of '{call.callee.name}' has no recorded result that may be used.",
                flow_run_id=call.run.id,
            )
        )


def _inputs_of_another(call: Call) -> str | None:
    """Return the inputs of a recorded call that nobody asked for, and that this one is likely to stand in for."""
    recorded, identity = call.run.recorded, call.identity
    if recorded is None or identity is None or call.lane != 0:
        return None
    row = recorded.find_unasked(identity.scope, identity.task_id)
    return None if row is None else call.run.journal.records.get_inputs(row.id)


def _replayed(row: CallRow | None) -> str | None:
    if row is None or row.state == "COMPLETED":
        return "set by a person" if row is not None and row.state_name == "Set" else None
    return "fails again as recorded"


def _rerun(row: CallRow) -> str:
    if row.state_name == "Rerun":
        return row.state_message or "taken back by a person"
    if row.is_failure:
        return "its failure ended the run" if row.fatal == 1 else "it failed"
    if row.is_cut_off:
        return "it was cut off"
    if row.state == "PAUSED":
        return "it waits for an answer" if row.state_name in ("Paused", "Suspended") else "it is in doubt"
    if row.state == "SCHEDULED":
        return "it waits for its next attempt"
    return "it was undone" if row.state_name == "RolledBack" else "it did not begin"


def plan_run(
    journal_path: Path, run_id: int, *, flow: AnyFlow | None = None, on_drift: str | None = None, rerun: Sequence[str] = (),
    values: Mapping[str, object] | None = None, as_recorded: bool = False, quiet: bool = True,
    wrap: Callable[[Callable[..., object]], Callable[..., object]] | None = None,
) -> Plan:  # fmt: skip
    """Return what a resume of that run would do, with the code as it is now; nothing is executed or written.

    `flow`: its code, default: found as a resume finds it. `on_drift`, `rerun`, `values` as for `resume_run`. `as_recorded`
    replays recorded failures too, as the recovery after a crash does. `quiet` keeps what the body prints from being seen.
    """
    with TemporaryDirectory(prefix="wfengine-plan-") as folder, using_journal_in(folder, journal_path, run_id) as journal:
        row = journal.records.get_flow_run(run_id)
        if row.parent_task_run_id is not None:
            raise UsageError(f"Flow run {row.id} '{row.name}' is a subflow of another run. Plan that one.")
        found = load_flow(journal, row) if flow is None else flow
        plan = Plan(row.id, row.name)
        asked = correct(journal, row, rerun, values or {})
        row = journal.records.get_flow_run(run_id)
        if row.state == "COMPLETED":
            opening = TakeBackCalls(row.id, (), version=row.version, at=journal.clock.now_text(), message="replayed")
            journal.write(opening, synced=False)
        dry = DryRun(plan, wrap)
        how = how_to_resume(on_drift or found.on_drift, asked, recovery=as_recorded, dry=dry)
        with _unseen() if quiet else contextlib.nullcontext():
            _perform(plan, found, journal, how)
        _note_orphans(plan, journal, dry)
        return plan


@contextlib.contextmanager
def using_journal_in(folder: str, source: Path, run_id: int) -> Iterator[Journal]:
    """Extract a run into that folder, and let the block use the extract as the journal of this process."""
    path = Path(folder) / "journal.db"
    extract_run(source, run_id, path, synced=False)
    with journal_in_use(path, "process") as journal:
        try:
            yield journal
        finally:
            journal.close()


def _perform(plan: Plan, flow: AnyFlow, journal: Journal, how: How) -> None:
    try:
        ended = perform(flow, take_up(flow, journal, plan.flow_run_id, how))
    except RunHalted as signal:
        if not isinstance(signal.error, DryRunEnded | PausedRun):
            plan.error = signal.error
        return
    plan.ended, plan.outcome = True, ended.outcome


def _note_orphans(plan: Plan, journal: Journal, dry: DryRun) -> None:
    why = "the flow does not ask for it any more" if plan.ended else "a call with other inputs takes its place"
    for run_id, epoch in dry.entered:
        for task_run_id, task, inputs in journal.records.list_orphans(run_id, epoch):
            plan.note(PlannedCall("ORPHAN", task, inputs, task_run_id, why))


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Keep what the flow's body prints and logs from being seen: it did so when it ran."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def debugged(fn: Callable[..., object]) -> Callable[..., object]:
    """Return a flow's function to be run under Python's debugger, which stops at its first line."""
    import functools
    import pdb

    return functools.partial(pdb.Pdb().runcall, fn)


def inputs_text(inputs: str, limit: int = 80) -> str:
    """Return recorded inputs as a person would write the call: x=1, name='a'."""
    try:
        text = ", ".join(f"{name}={value!r}" for name, value in json.loads(inputs).items())
    except (ValueError, AttributeError):
        text = inputs
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
