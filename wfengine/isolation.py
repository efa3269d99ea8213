"""Runs that have a process of their own each, and this process as its supervisor.

    launch      a process that is ready already is told the run; another one gets ready for the next
    watch       what it prints goes on to the log; one that runs too long is killed
    end         how it ended is journaled beside the run's execution, and a run that it left open is CRASHED by it

A run's process claims the run and executes it as any process does (`isolated_child`), so whoever looks sees it alive; it dies
with its supervisor. Nothing is forked here, since a daemon has threads.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wfengine.child_process import EXIT_NO_MEMORY, EXIT_NOT_BEGUN, GOES_ON, WAITS, ChildProcess, Death, Order, peak_memory_bytes
from wfengine.continuation import last_continuation
from wfengine.distributed_futures import Place
from wfengine.journals import default_durability
from wfengine.transcripts import Transcript, read_all
from wfengine_journal.child_ends import ChildEnd, RecordChildEnd
from wfengine_journal.errors import UsageError
from wfengine_journal.records import FlowRunRow
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread

_logger = logging.getLogger("wfengine.isolation")

#: How long a run that is told to stop may take for that before its process is killed, in seconds.
STOP_SECONDS = 10.0
#: How long the end of a killed process is waited for, in seconds: it may hang in the kernel.
KILLED_SECONDS = 5.0
#: How long the last of what a dead process printed is waited for, in seconds: what left its group may hold the pipe open.
DRAIN_SECONDS = 2.0
#: A process that was ended by a signal, and had so much of its memory limit, is said to have had it.
NEAR_LIMIT = 0.9


@dataclass(eq=False)
class _Child:
    """One process and, once it is told one, its run."""

    process: ChildProcess
    attended: set[int]  # of the journal: owners whose end is recorded here
    owner_id: int | None = None
    counted_at_first: int = 0  # memory that the system counts for it though it never had it
    peak: int | None = None
    is_drained: threading.Event = field(default_factory=threading.Event)
    transcript: Transcript | None = None
    run: FlowRunRow | None = None  # as it stood when the process was told it
    ended: Callable[[], object] | None = None
    place: Place | None = None
    memory_limit_bytes: int | None = None
    time_limit_seconds: float | None = None
    since: str = ""
    kill_at: float | None = None  # by the monotonic clock
    killed_because: str | None = None
    is_stopping: bool = False
    is_attended_to: bool = False  # all that is to be recorded of its end is recorded

    def note(self, words: Sequence[str]) -> None:
        """Take what the program of the process says of itself."""
        if words[0] == "ready":
            self.owner_id, self.counted_at_first = int(words[1]), int(words[2])
            self.attended.add(self.owner_id)
            if self.is_attended_to:  # this was read too late
                self.attended.discard(self.owner_id)
        elif words[0] == "peak":
            self.peak = int(words[1]) or None
        elif self.place is not None:
            if words[0] == WAITS:
                self.place.leave()
            elif words[0] == GOES_ON:
                self.place.come_back()

    def say(self, line: str) -> None:
        """Let a line of the process go on to the log."""
        if self.run is None:
            _logger.info("process %d, which has no run yet: %s", self.process.pid, line)
        else:
            _logger.info("flow run %d: %s", self.run.id, line)


class Children:
    """The processes of one daemon's isolated runs. All methods may be called from any thread."""

    def __init__(self, journal: Journal, *, preload: Sequence[str] = ()) -> None:
        """`preload`: modules that each process imports before it is told its run; it does not see later edits of them."""
        self._journal = journal
        self._preload = tuple(preload)
        self._changed = threading.Condition()
        self._children: dict[int, _Child] = {}  # by flow run
        self._spare: _Child | None = None
        self._alive: set[_Child] = set()
        self._is_closed = False
        self._keeps = False  # the thread that keeps time and a spare process is there
        self._wants_spare = False
        self._launched = 0
        self._ended = 0
        self._crashed = 0
        _EVERY.add(self)

    # ---- for the executor

    def prepare(self) -> None:
        """Have a process ready for the first run. `launch` sees to it that there is one for the next."""
        with self._changed:
            self._want_spare()

    def launch(
        self,
        run_id: int,
        *,
        memory_limit_bytes: int | None,
        time_limit_seconds: float | None,
        ended: Callable[[], object],
        place: Place | None = None,
    ) -> None:
        """Have a run taken up by a process of its own, and return at once; `ended` is called when that is over.

        It is called once, on some thread, after the end of the process is journaled; the run may have ended then, wait
        again, or be CRASHED. `place` is left while the run waits for another background run. Raises UsageError when this is
        closed, or has that run already; OSError where there can be no further process.
        """
        row = self._journal.records.get_flow_run(run_id)
        with self._changed:
            if self._is_closed:
                raise UsageError(f"Flow run {run_id} cannot be launched any more: the processes of this daemon are closed.")
            if run_id in self._children:
                raise UsageError(f"Flow run {run_id} was launched already, and its process {self._pid(run_id)} lives.")
            child = self._spare or self._start()
            self._spare = None
            child.run, child.ended, child.place = last_continuation(self._journal, row), ended, place
            child.memory_limit_bytes, child.time_limit_seconds = memory_limit_bytes, time_limit_seconds
            child.since = self._journal.clock.now_text()
            if time_limit_seconds is not None:
                child.kill_at = self._journal.clock.monotonic_seconds() + time_limit_seconds
            self._children[run_id] = child
            self._launched += 1
            child.process.order(Order(child.run.id, memory_limit_bytes))
            self._want_spare()

    def stop(self, run_id: int) -> None:
        """Ask a run's process to stop, such that the run can be resumed; after some seconds it is killed. Else nothing."""
        with self._changed:
            child = self._children.get(run_id)
            if child is not None:
                self._stop(child, STOP_SECONDS)

    def stop_all(self, timeout_seconds: float) -> None:
        """Ask the processes of all runs to stop, and return at once; what has not stopped after so many seconds is killed."""
        with self._changed:
            for child in self._children.values():
                self._stop(child, timeout_seconds)

    def close(self, timeout_seconds: float) -> None:
        """Stop what runs, kill what has not stopped within so many seconds, and return when every `ended` was called."""
        with self._changed:
            self._is_closed = True
            spare, self._spare = self._spare, None
            if spare is not None:
                spare.process.dismiss()
            for child in self._children.values():
                self._stop(child, timeout_seconds)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._alive, timeout_seconds + KILLED_SECONDS):
                _logger.warning(
                    "these processes did not end though they were killed: %s",
                    ", ".join(str(child.process.pid) for child in self._alive),
                )
        _EVERY.discard(self)

    def report(self) -> dict[str, object]:
        """Return what there is, as JSON has it."""
        with self._changed:
            return {
                "running": [
                    {"flow_run_id": run_id, "pid": child.process.pid, "since": child.since}
                    for run_id, child in sorted(self._children.items())
                ],
                "spare": self._spare is not None,
                "launched": self._launched,
                "ended": self._ended,
                "crashed": self._crashed,
            }

    def forget(self) -> None:
        """In a forked child of this process: let go of the processes, which are its parent's."""
        for child in list(self._alive):
            child.process.forget()

    # ---- processes

    def _pid(self, run_id: int) -> int:
        return self._children[run_id].process.pid

    def _start(self) -> _Child:
        """Start a process and the two threads that attend to it. Called with the lock held."""
        journal = self._journal
        child = _Child(ChildProcess(str(journal.path), default_durability(journal), self._preload), journal.attended)
        child.transcript = transcript = Transcript(child.process.token, child.say, child.note)

        def listen() -> None:
            try:
                read_all(child.process.output, transcript)
            finally:
                child.is_drained.set()
                child.process.close_output()

        start_thread("wfengine-child-output", listen)
        self._alive.add(child)
        start_thread("wfengine-child", lambda: self._attend(child))
        return child

    def _want_spare(self) -> None:
        self._wants_spare = not self._is_closed
        if not self._keeps and not self._is_closed:
            start_thread("wfengine-children", self._keep)
            self._keeps = True
        self._changed.notify_all()

    def _stop(self, child: _Child, seconds: float) -> None:
        if not child.is_stopping:
            child.is_stopping = True
            child.process.terminate()
        at = self._journal.clock.monotonic_seconds() + seconds
        child.kill_at = at if child.kill_at is None else min(at, child.kill_at)
        self._changed.notify_all()

    def _keep(self) -> None:
        """Have a spare process, and kill what is due to be (on a thread of its own)."""
        clock = self._journal.clock
        with self._changed:
            while not self._is_closed or self._children:
                if self._wants_spare and self._spare is None and not self._is_closed:
                    self._make_spare()
                self._wants_spare = False
                now = clock.monotonic_seconds()
                for child in self._children.values():
                    if child.kill_at is not None and child.kill_at <= now:
                        self._kill(child)
                due = [child.kill_at for child in self._children.values() if child.kill_at is not None]
                self._changed.wait(max(0.0, min(due) - now) if due else None)
            self._keeps = False

    def _make_spare(self) -> None:
        try:
            self._spare = self._start()
        except OSError as error:
            _logger.warning("no process could be started for the next isolated run (%s); it is tried again then", error)

    def _kill(self, child: _Child) -> None:
        child.kill_at = None
        if child.is_stopping:
            child.killed_because = "its process was told to stop, did not, and was killed"
        else:
            child.killed_because = f"ran longer than {child.time_limit_seconds:g} s: killed"
        child.peak = peak_memory_bytes(child.process.pid)
        child.process.kill()

    # ---- their end

    def _attend(self, child: _Child) -> None:
        """Wait for the end of a process and see to what is left of it (on a thread of its own)."""
        death = child.process.wait()
        child.is_drained.wait(DRAIN_SECONDS)
        with self._changed:
            if self._spare is child:
                self._spare = None
            run = child.run
        crashed = False
        if run is not None:
            try:
                crashed = self._record(child, run, death)
            except Exception as error:  # the run has to be given back whatever happens; a sweep finds it in any case
                _logger.error(
                    "how the process of flow run %d ended could not be journaled: %s: %s", run.id, type(error).__name__, error
                )
        elif death.exit_code not in (0, None) and not self._is_closed:
            _logger.warning("process %d ended before it was told a run: %s", child.process.pid, _how_it_ended(child, death))
        child.process.dismiss()
        child.is_attended_to = True
        if child.owner_id is not None:
            self._journal.attended.discard(child.owner_id)
        with self._changed:
            for run_id in [run_id for run_id, other in self._children.items() if other is child]:
                del self._children[run_id]
                self._ended += 1
            self._crashed += crashed
        try:
            if child.ended is not None:
                child.ended()
        finally:
            with self._changed:
                self._alive.discard(child)
                self._changed.notify_all()

    def _record(self, child: _Child, before: FlowRunRow, death: Death) -> bool:
        journal = self._journal
        last = last_continuation(journal, journal.records.get_flow_run(before.id))
        assert child.transcript is not None
        end = ChildEnd(
            death.exit_code,
            _peak_memory(child, death),
            child.transcript.tail(),
            _how_it_ended(child, death),
            counts=not child.is_stopping and death.exit_code != -signal.SIGTERM,
            refused=death.exit_code == EXIT_NOT_BEGUN,
        )
        change = RecordChildEnd(before, last.id, child.owner_id, end, at=journal.clock.now_text())
        journal.write(change, synced=bool(death.exit_code))
        for run_id in change.crashed:
            _logger.warning("flow run %d crashed: %s", run_id, end.message)
        return bool(change.crashed)


def _how_it_ended(child: _Child, death: Death) -> str:
    """Return, for people, how a process ended; it stands in the state of the run that it left open."""
    code, limit = death.exit_code, child.memory_limit_bytes
    if child.killed_because is not None:
        return child.killed_because
    if code is None:
        return "its process ended"
    if code == -signal.SIGTERM:
        return "its process was told to stop"
    if limit is not None and code == EXIT_NO_MEMORY:
        return f"used more than {_size(limit)}"
    text = f"its process was ended by {_signal_name(-code)}" if code < 0 else f"its process ended with exit code {code}"
    peak = _peak_memory(child, death)
    if limit is not None and peak is not None and peak >= NEAR_LIMIT * limit:
        text += f", having used {_size(peak)} of at most {_size(limit)}"
    return text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _size(count: int) -> str:
    return f"{count / 1_000_000:.0f} MB"


def _peak_memory(child: _Child, death: Death) -> int | None:
    """Return the most memory that a process had.

    It says so itself at its end. Of one that could not, the system tells; but it counts in what the supervisor had when it
    started the process, so a smaller figure than that cannot be told.
    """
    if child.peak is not None:
        return child.peak
    counted = death.peak_memory_bytes
    return counted if counted is not None and counted > child.counted_at_first > 0 else None


#: What a forked child of this process has to let go of.
_EVERY: weakref.WeakSet[Children] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Close the pipes: a process whose supervisor died would else live on for as long as this one."""
    for children in list(_EVERY):
        children.forget()
    _EVERY.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
