"""Run in this process what waits in the queues of deployments, and what crashed.

An executor is a part of the daemon (`services`). It looks for runs: those whose process died, and then those that wait, by
priority and in turn over the queues, as the limits of queues and deployments allow (`wfengine_journal.queues`). What it does
with them is in `run_worker`. Several executors, in any processes, may serve one journal.

A run of a deployment is of a flow that somebody else named. Its code is at hand (`flows`), or loaded by the run's entrypoint
when it is needed first. Runs of deployments that ask for it are given to `isolate`, to run each in a process of its own.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

from wfengine.flow_engine import How, take_up
from wfengine.ids import typed
from wfengine.loading import entrypoint_of
from wfengine.ownership import sweep
from wfengine.recovery import load_flow
from wfengine.run_worker import DEFAULT_LIMIT, Place, RunWorker
from wfengine.scopes import current_scope
from wfengine.steps import Outcome, Steps
from wfengine_journal.codec import encode_error
from wfengine_journal.errors import EntrypointError, InternalError, ParameterError, UsageError, WfengineError
from wfengine_journal.queued_runs import RefuseRun
from wfengine_journal.queues import (
    Asked,
    CancelCollided,
    FoundRun,
    HoldRun,
    QueueAdmission,
    RestartRate,
    list_given_up,
    look,
)
from wfengine_journal.threads import start_thread
from wfengine_journal.tickets import WriteRefused
from wfengine_scheduler.services import unforeseen

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.runners.threads import ThreadTaskRunner
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.executor")

#: Whose crashed and sleeping runs an executor takes up by itself: those of deployments, every one, or none.
Recover: TypeAlias = Literal["own", "all", "none"]
RECOVER = ("own", "all", "none")
#: How long stopping waits for the executor's own thread beyond what it was told, in seconds.
THREAD_SECONDS = 5.0
#: How much of the time to stop in is left for the processes of isolated runs to unwind in, at the most, in seconds.
UNWIND_SECONDS = 5.0


class Launcher(Protocol):
    """What gives runs a process of their own each."""

    def launch(
        self,
        run_id: int,
        *,
        memory_limit_bytes: int | None,
        time_limit_seconds: float | None,
        ended: Callable[[], object],
        place: Place | None = None,
    ) -> None:
        """Have a run taken up by a process of its own and return at once; `ended` is called when that has ended.

        While the run waits for another one, `place` is left.
        """

    def stop_all(self, timeout_seconds: float) -> None:
        """Ask what runs to stop, such that it can be resumed, and return; what has not after so many seconds is killed."""

    def close(self, timeout_seconds: float) -> None:
        """Stop what runs such that it can be resumed, within so many seconds."""


class Executor(RunWorker):
    """Runs of deployments, taken out of `queues` (None: all but those of background tasks), at most `limit` at a time.

    `flows`: code that is at hand, by the flow's name. `isolate` makes what gives runs processes of their own; it is called
    when the first such run is found. `deployment_ids`: only runs of these deployments (None: of any). Its methods may be
    called from any thread.
    """

    name = "executor"
    stop_seconds = None
    _log = _logger
    _left = "its daemon was stopped; the next one takes it up"

    def __init__(
        self,
        journal: Journal,
        *,
        queues: Sequence[str] | None = None,
        limit: int = DEFAULT_LIMIT,
        flows: Mapping[str, AnyFlow] | None = None,
        isolate: Callable[[Journal], Launcher] | None = None,
        recover: Recover = "own",
        deployment_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(limit)
        if recover not in RECOVER:
            raise UsageError(f"recover must be 'own', 'all' or 'none', not {recover!r}.")
        self.queues = None if queues is None else checked_queues(queues)
        self.recover = recover
        self.deployment_ids = None if deployment_ids is None else list(deployment_ids)
        self._journal = journal
        self._flows = dict(flows or {})
        self._isolate = isolate
        self._launcher: Launcher | None = None
        self._begun: dict[int, FoundRun] = {}  # what has a place
        self._isolated: set[int] = set()  # of these, what has a process of its own
        self._told: set[int] = set()  # of these, what was told to stop
        self._turns: dict[str, int] = {}  # by queue: when it had its last turn
        self._loaded: dict[str, AnyFlow] = {}  # by entrypoint
        self._load_lock = threading.Lock()  # a file is executed once, however many of its runs begin at a time
        self._given_up: set[int] = set()  # runs that crashed too often, and were told of
        self._thread: threading.Thread | None = None

    # ---- a part of the daemon

    @property
    def is_ready(self) -> bool:
        """Tell whether it has looked for runs whose process died."""
        return self._sweep_at > 0.0

    def start(self) -> None:
        """Begin, on threads of its own, and return at once."""
        if self._thread is not None or self._stops:
            raise UsageError("An executor is started once. Make another one.")
        self._thread = start_thread("wfengine-executor", self._work)

    def stop_taking(self) -> None:
        """Take up nothing more; what is under way goes on."""
        self._stops = max(self._stops, 1)

    def stop(self, timeout_seconds: float) -> None:
        """Let finish what is under way, at most so long, leave the rest such that it is taken up again, and end.

        Runs in processes of their own are told to stop at once: they unwind, and what has not by then is killed.
        """
        self._until = self._journal.clock.monotonic_seconds() + timeout_seconds
        self.stop_taking()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds + THREAD_SECONDS)

    def report(self) -> dict[str, object]:
        """Return how it is, as JSON values."""
        return {
            "running": sorted(self._begun),
            "limit": self.limit,
            "finished": self.finished,
            "refused": sorted(self._refused),
            "left": self.left,
            "queues": self.queues,
        }

    def run_once(self) -> None:
        """Run what may begin now, and what that queues, to its end, on this thread; raise what it could not go on for."""
        if current_scope() is not None:
            raise UsageError(
                "An executor was started in a flow or task, which would wait for itself. Start it outside of them."
            )
        try:
            self.work(self._journal, until_empty=True)
        finally:
            self._close_launcher()
        if self.fault is not None:
            raise self.fault

    def _work(self) -> None:
        try:
            self.work(self._journal)
        except WfengineError as error:
            self.fault = self.fault or error
        except Exception as error:
            self.fault = unforeseen(self.name, error)
        except BaseException as error:
            self.fault = InternalError(f"The executor ended by {type(error).__name__}: {error}. Please report this.")
            _logger.exception("the executor ended by an error that it should not have met")
        finally:
            self._close_launcher()

    # ---- looking

    def sweep(self, journal: Journal) -> None:
        """See RunWorker. Runs of its own queues and others alike: a dead process holds places of all of them."""
        sweep(journal)
        given_up = journal.read(lambda connection: list_given_up(connection, self._asked(journal, 0, self._given_up)))
        for run_id, name, crashes in given_up:
            self._given_up.add(run_id)
            _logger.error(
                "flow run %d '%s' crashed %d times and is not taken up by itself any more. See why: wfengine runs show %d. "
                "Go on with it: wfengine resume %s",
                run_id, name, crashes, run_id, typed(run_id, name),
            )  # fmt: skip

    def _asked(self, journal: Journal, free: int, passed_over: set[int]) -> Asked:
        clock = journal.clock
        return Asked(
            clock.now_text(), clock.wall_seconds(), free, list(self._begun.values()), frozenset(passed_over), self.queues,
            self.recover, self._turns, self.deployment_ids,
        )  # fmt: skip

    def begin_what_waits(self, journal: Journal, runner: ThreadTaskRunner) -> bool:
        """See RunWorker."""
        free = self.free_places()
        if free <= 0:
            return False
        asked = self._asked(journal, free, self._refused)
        found = journal.read(lambda connection: look(connection, asked))
        self._due_at = found.due_at
        for name in found.set_back:
            journal.write(RestartRate(name, at=asked.now), synced=False)
        for run in found.held:
            self._hold(journal, run)
        for run in found.runs:
            self._begin_run(journal, runner, run)
        return len(found.runs) < free

    def _hold(self, journal: Journal, run: FoundRun) -> None:
        """Tell a run beyond its deployment's limit to wait, or cancel it, as the deployment says."""
        at = journal.clock.now_text()
        if run.collision == "cancel_new":
            change: HoldRun | CancelCollided = CancelCollided(run, at=at)
        else:
            change = HoldRun(run, at=at)
        try:
            journal.write(change, synced=True)
        except WriteRefused:
            return  # it is as it should be already, or a place became free
        _logger.info(
            "flow run %d '%s' %s: %s",
            run.id,
            run.name,
            "waits" if run.collision != "cancel_new" else "is cancelled",
            change.message,
        )

    # ---- beginning

    def _begin_run(self, journal: Journal, runner: ThreadTaskRunner, run: FoundRun) -> None:
        if run.queue is not None:
            self._turns[run.queue] = max(self._turns.values(), default=0) + 1
        place = self.occupy(runner, run.id)
        self._begun[run.id] = run
        if run.isolate:
            self._launch(journal, run, place)
            return
        flow = self._at_hand(run)
        if flow is not None:
            self._execute(journal, runner, run, place, flow)
            return

        def loaded(outcome: Outcome | None, error: BaseException | None) -> None:
            if outcome is None:
                self.run_ended(run.id, None, error)
            else:
                self._execute(journal, runner, run, place, cast("AnyFlow", outcome.value))

        self.perform(runner, lambda: self._load(journal, run), loaded, place)

    def _at_hand(self, run: FoundRun) -> AnyFlow | None:
        flow = self._flows.get(run.flow_name)
        if flow is not None and run.entrypoint in (None, entrypoint_of(flow.fn)):
            return flow
        return None if run.entrypoint is None else self._loaded.get(run.entrypoint)

    def _load(self, journal: Journal, run: FoundRun) -> Steps[Outcome]:
        """Load the code of a run: on a thread, since importing may take long."""
        with self._load_lock:
            flow = self._at_hand(run) or load_flow(journal, journal.records.get_flow_run(run.id))
            if run.entrypoint is not None:
                self._loaded[run.entrypoint] = flow
        yield from ()
        return Outcome(flow, None)

    def _execute(self, journal: Journal, runner: ThreadTaskRunner, run: FoundRun, place: Place, flow: AnyFlow) -> None:
        self.begin(runner, run.id, place, functools.partial(_lived, flow, journal, run), is_async=flow.is_async)

    def _launch(self, journal: Journal, run: FoundRun, place: Place) -> None:
        """Have a run taken up by a process of its own."""
        if self._launcher is None:
            if self._isolate is None:
                self.run_ended(run.id, None, UsageError("it is to run in a process of its own, which is not to be had here"))
                return
            self._launcher = self._isolate(journal)
        self._isolated.add(run.id)

        def ended() -> None:
            self.finished += 1
            self.run_ended(run.id, None, None)

        try:
            self._launcher.launch(
                run.id, memory_limit_bytes=run.memory_limit_bytes, time_limit_seconds=run.time_limit_seconds, ended=ended,
                place=place,
            )  # fmt: skip
        except (WfengineError, OSError) as error:
            self.run_ended(run.id, None, error)

    def forget(self, run_id: int) -> None:
        """See RunWorker."""
        self._isolated.discard(run_id)
        self._begun.pop(run_id, None)

    def refuse(self, run_id: int, reason: BaseException) -> None:
        """See RunWorker."""
        if isinstance(reason, ParameterError) and self._fail(run_id, reason):
            return
        self._refused.add(run_id)
        what = str(reason) if isinstance(reason, WfengineError) else f"{type(reason).__name__}: {reason}"
        then = "It waits on; this daemon tries it again when it is restarted"
        if isinstance(reason, EntrypointError):
            _logger.error("the code of flow run %d could not be loaded: %s %s.", run_id, what, then)
        else:
            _logger.error("flow run %d could not be run here: %s %s.", run_id, what, then)

    def _fail(self, run_id: int, error: ParameterError) -> bool:
        """End a run that was never begun and cannot be; False if it was begun."""
        journal = self._journal
        row = journal.records.get_flow_run(run_id)
        if row.epoch > 0:
            return False
        change = RefuseRun(run_id, version=row.version, error=encode_error(error), at=journal.clock.now_text())
        try:
            journal.write(change, synced=True)
        except WriteRefused:
            return True  # another process was quicker
        _logger.error("flow run %d '%s' failed: %s", run_id, row.name, error)
        return True

    # ---- stopping

    def tell_to_stop(self, seconds: float) -> None:
        """See RunWorker."""
        self._told = set(self._isolated)
        if self._launcher is not None:
            self._launcher.stop_all(seconds)

    def leave_rest(self, journal: Journal, run_ids: Sequence[int]) -> list[int]:
        """See RunWorker."""
        isolated = self._told | self._isolated
        self._close_launcher()
        left = [run_id for run_id in sorted(isolated) if journal.records.get_flow_run(run_id).state == "CRASHED"]
        return [*left, *super().leave_rest(journal, [run_id for run_id in run_ids if run_id not in isolated])]

    def _close_launcher(self) -> None:
        launcher, self._launcher = self._launcher, None
        if launcher is not None:
            launcher.close(UNWIND_SECONDS)


def _lived(flow: AnyFlow, journal: Journal, run: FoundRun) -> Steps[Outcome]:
    how = How("recovery", "none", by_person=False, is_found=run.state != "PAUSED", admission=QueueAdmission(journal.clock))
    ended = yield from take_up(flow, journal, run.id, how)
    return ended.outcome


def checked_queues(queues: Sequence[str]) -> list[str]:
    """Return names of queues of deployments. Raises UsageError."""
    names = [queues] if isinstance(queues, str) else list(queues)
    for name in names:
        if not isinstance(name, str) or not name or name.startswith("task:"):
            raise UsageError(
                f"{name!r} is no queue of deployments. What `delay` puts into queues is run by: wfengine task serve FILE"
            )
    return names
