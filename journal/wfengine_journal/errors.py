"""Every error wfengine raises, in one tree.

    WfengineError                     code
    ├── UsageError                    WF100  bad input, refused before anything is written
    │   ├── ParameterError            WF101  an argument does not fit the flow's or task's parameters
    │   │   ├── ParameterBindError    WF105  missing, unexpected, or given twice (a TypeError too)
    │   │   ├── ParameterTypeError    WF106  a value does not fit the type hint
    │   │   └── SignatureMismatchError WF107 names given apart from a call are not those of the function (a TypeError too)
    │   ├── EntrypointError           WF102  the file, module or flow named cannot be loaded
    │   │   ├── MissingFlowError      WF108  there is no such flow there
    │   │   ├── UnspecifiedFlowError  WF109  there are several flows there, and none was named
    │   │   └── ScriptError           WF110  the file or module raised while it was loaded
    │   ├── NotFoundError             WF103  no such run (or the name fits several)
    │   ├── MissingContextError       WF104  a task call that lost, or never had, its flow run (a RuntimeError too)
    │   ├── ReservedArgumentError     WF111  a function has a parameter whose name calls use (a TypeError too)
    │   ├── MappingLengthMismatch     WF112  the iterables given to map() differ in length
    │   ├── MappingMissingIterable    WF113  map() was given no iterable
    │   ├── NoCacheKeyError           WF114  a cache policy cannot make a key of these arguments; a task is then not cached
    │   ├── InvalidValueError         WF130  a name, key or value that is not allowed, or a name that is taken (a ValueError)
    │   ├── ScheduleError             WF140  a schedule that makes no sense (a ValueError too)
    │   ├── InvalidInputError         WF150  an input does not fit what a waiting flow run asked for (a ValueError too)
    │   ├── ConcurrencySlotAcquisitionError WF160 a limit that does not exist (strict=True), or that can never give as much
    │   ├── SecretError               WF170  a secret that is not there, or that cannot be read or kept (a ValueError too)
    │   ├── NotificationError         WF171  a notification, or a target of some, that makes no sense (a ValueError too)
    │   ├── UserTableError            WF190  a transactional task would touch what is not its own, or outlives its connection
    │   └── FlowVisualizationError    WF180  a flow cannot be drawn: its code needs the result of a task
    │       ├── GraphvizImportError              WF181  the package graphviz is not installed
    │       └── GraphvizExecutableNotFoundError  WF182  the program dot is not installed
    ├── RunError                      WF200  about one run or task run
    │   ├── RunOwnedError             WF201  another process executes this run
    │   ├── DriftError                WF202  a replayed call's inputs changed; the run is parked
    │   ├── OwnershipLostError        WF203  another process took this run over; nothing more is written from here
    │   ├── TaskInterrupted           WF204  an earlier attempt was cut off and the task may not run again (catchable)
    │   ├── TaskTimeoutError          WF205  a task or flow ran longer than its timeout_seconds
    │   │   └── TransactionTooLongError WF250 a transactional task held its transaction too long
    │   ├── RecordedError             WF206  a recorded exception that could not come back as itself
    │   ├── InDoubtError              WF207  parked until a person says whether the interrupted call took effect
    │   ├── DryRunEnded               WF216  a call would have to run, where nothing is executed
    │   ├── TooManyInterruptions      WF208  the task was running too often when its process died
    │   ├── RunEndedError             WF240  a message for a run that has ended, or an event that it never set
    │   ├── ReceiveTimeoutError       WF241  no message, event or condition came in time (a TimeoutError too)
    │   ├── FlowPauseTimeout          WF242  nobody gave the input in time that a flow waited for
    │   ├── AcquireConcurrencySlotTimeoutError WF260 no place of a limit became free in time (a TimeoutError too)
    │   ├── DuplicateRunError         WF261  a run that has not ended holds this deduplication key in its queue
    │   ├── DeadlockError             WF262  a flow run would wait for itself
    │   ├── WorkerDiedError           WF270  the worker that ran the task died or was lost
    │   ├── CommandFailedError        WF280  a shell command ended with another exit code than 0
    │   ├── RequestFailedError        WF281  an HTTP request had no answer, or one that is a failure
    │   ├── NotPausedError            WF243  an input for a run that waits for none
    │   └── FailedStateError          WF209  the result of a state that did not complete was asked for
    │       ├── FailedRun             WF210  it failed, and has no exception of its own
    │       ├── CrashedRun            WF211  it crashed
    │       ├── CancelledRun          WF212  it was cancelled
    │       ├── PausedRun             WF213  it is paused
    │       ├── UnfinishedRun         WF214  it has not ended
    │       └── MissingResult         WF215  never raised; for code that catches it
    ├── ValueNotStorableError         WF300  a result or parameter that cannot be written so that it can be read back
    │   └── UnsendableError           WF301  a value that cannot be sent to a worker or back (a TypeError too)
    ├── JournalError                  WF400  the file
    │   ├── JournalNotFoundError      WF401
    │   ├── NotAJournalError          WF402  not SQLite, or somebody else's database
    │   ├── NewerJournalError         WF403  written by a later wfengine; left untouched
    │   ├── JournalCorruptError       WF404  a checksum or page does not hold
    │   ├── JournalUnwritableError    WF405  disk full, read-only, I/O error
    │   ├── JournalBusyError          WF406  another process held the write lock too long
    │   ├── NetworkFileSystemError    WF407  SQLite's locks do not hold there
    │   └── StoredResultError         WF408  a result that is kept in a file of its own is missing or damaged
    ├── ApiError                      WF420  the API of a page was not reached, or refused without an error of this tree
    ├── ForkedProcessError            WF500  the engine was used in a forked child
    └── InternalError                 WF900  a broken invariant: please report it

    Signal (BaseException)            unwinds user code; user code must not catch it
    └── RunHalted                     carries the WfengineError the caller of the flow receives

The text of an error says what happened, which run or task, and what to do next. Ids are attributes as well.
"""

from __future__ import annotations


class WfengineError(Exception):
    """Base of all errors of wfengine. `code` is stable and explained in the documentation."""

    code = "WF000"


class UsageError(WfengineError):
    """Bad input; nothing was written."""

    code = "WF100"


class ParameterError(UsageError):
    """An argument does not fit the parameters of a flow or task."""

    code = "WF101"


class ParameterBindError(ParameterError, TypeError):
    """The arguments of a call are not those the function takes: missing, unexpected, or given twice."""

    code = "WF105"


class ParameterTypeError(ParameterError):
    """A value does not fit the type hint of its parameter."""

    code = "WF106"


class SignatureMismatchError(ParameterError, TypeError):
    """Names that were recorded, or given on a command line, are not the parameters the function has now."""

    code = "WF107"


class EntrypointError(UsageError):
    """A file, module or flow that was named cannot be loaded."""

    code = "WF102"


class MissingFlowError(EntrypointError):
    """The file or module holds no flow of that name, or none at all."""

    code = "WF108"


class UnspecifiedFlowError(EntrypointError):
    """The file or module holds several flows, and it was not said which is meant."""

    code = "WF109"


class ScriptError(EntrypointError):
    """The file or module raised while it was loaded; its exception is the cause."""

    code = "WF110"

    @property
    def user_exc(self) -> BaseException | None:
        """Return the exception that the file raised."""
        return self.__cause__


class NotFoundError(UsageError):
    """Nothing, or more than one thing, in the journal answers to that name."""

    code = "WF103"


class MissingContextError(UsageError, RuntimeError):
    """A task was called where its flow run cannot be known (a thread of the user's own)."""

    code = "WF104"


class ReservedArgumentError(UsageError, TypeError):
    """A function to decorate has a parameter whose name is an option of every call, such as `wait_for`."""

    code = "WF111"


class MappingLengthMismatch(UsageError):
    """The iterables given to `map` differ in length."""

    code = "WF112"


class MappingMissingIterable(UsageError):
    """`map` was given no iterable argument to take items from."""

    code = "WF113"


class InvalidValueError(UsageError, ValueError):
    """A name, key or value of a variable or artifact is not allowed, or a variable of that name exists already."""

    code = "WF130"


class NoCacheKeyError(UsageError, ValueError):
    """A cache policy cannot make a key: an argument has no canonical form. A task that meets it runs, and is not cached."""

    code = "WF114"


class ScheduleError(UsageError, ValueError):
    """A schedule that makes no sense: no such time zone, no cron expression, no interval."""

    code = "WF140"


class InvalidInputError(UsageError, ValueError):
    """An input does not fit what a waiting flow run asked for, or what its code asks for now."""

    code = "WF150"


class FlowVisualizationError(UsageError):
    """A flow cannot be drawn without running it: its own code needs the result of a task."""

    code = "WF180"


class GraphvizImportError(FlowVisualizationError):
    """A flow cannot be drawn as a picture: the package graphviz is not installed."""

    code = "WF181"


class GraphvizExecutableNotFoundError(FlowVisualizationError):
    """A flow cannot be drawn as a picture: Graphviz's program `dot` is not installed."""

    code = "WF182"


class ConcurrencySlotAcquisitionError(UsageError):
    """A limit that was named does not exist though it was to (`strict=True`), or can never give what was asked of it."""

    code = "WF160"


class SecretError(UsageError, ValueError):
    """A secret is not there, or it cannot be read or kept: there is no key, a wrong one, or what keeps it does not answer."""

    code = "WF170"


class NotificationError(UsageError, ValueError):
    """A notification makes no sense, its target is not there, or what is said of a target is not allowed."""

    code = "WF171"


class UserTableError(UsageError):
    """A transactional task would touch what is not its own, or used its connection where the transaction is over."""

    code = "WF190"


class RunError(WfengineError):
    """Something about one run. `flow_run_id` and `task_run_id` are integers or None."""

    code = "WF200"

    def __init__(self, message: str, *, flow_run_id: int | None = None, task_run_id: int | None = None) -> None:
        super().__init__(message)
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id


class RunOwnedError(RunError):
    """Another living process executes this run."""

    code = "WF201"


class DriftError(RunError):
    """A call of the resumed flow does not match what the journal recorded, though the flow's code did not change."""

    code = "WF202"


class OwnershipLostError(RunError):
    """Another process took this run over while we were stopped; our writes are refused."""

    code = "WF203"


class TaskInterrupted(RunError):
    """An earlier attempt of a task with on_interrupt="fail" was cut off; it may or may not have taken effect."""

    code = "WF204"


class TaskTimeoutError(RunError, TimeoutError):
    """A task or flow ran longer than its timeout_seconds."""

    code = "WF205"


class TransactionTooLongError(TaskTimeoutError):
    """A transactional task held its transaction longer than its limit; everything it wrote was rolled back."""

    code = "WF250"


class RecordedError(RunError):
    """An exception read from the journal whose class could not be restored. `recorded_type` names it."""

    code = "WF206"

    def __init__(self, recorded_type: str, message: str, recorded_traceback: str = "") -> None:
        super().__init__(f"{recorded_type}: {message}" if message else recorded_type)
        self.recorded_type = recorded_type
        self.recorded_message = message
        self.recorded_traceback = recorded_traceback

    def __reduce__(self) -> tuple[type[RecordedError], tuple[str, str, str]]:
        return type(self), (self.recorded_type, self.recorded_message, self.recorded_traceback)


class InDoubtError(RunError):
    """A call was started, its outcome is unknown, and its author asked that a person decides."""

    code = "WF207"


class TooManyInterruptions(RunError):
    """The process died `max_interruptions` times while this task was running."""

    code = "WF208"


class RunEndedError(RunError):
    """A message was sent to a flow run that has ended, or an event was waited for that such a run never set."""

    code = "WF240"


class ReceiveTimeoutError(RunError, TimeoutError):
    """No message, event or condition came in the time that was given."""

    code = "WF241"


class FlowPauseTimeout(RunError):
    """Nobody gave the input, or the word to go on, in time that a flow waited for."""

    code = "WF242"


class NotPausedError(RunError):
    """An input was given to a flow run that waits for none."""

    code = "WF243"


class FailedStateError(RunError):
    """The result of a state that did not complete was asked for."""

    code = "WF209"


class FailedRun(FailedStateError):
    """The result of a failed run was asked for, and the run has no exception of its own: its state was made by hand."""

    code = "WF210"


class CrashedRun(FailedStateError):
    """The result of a crashed run was asked for."""

    code = "WF211"


class CancelledRun(FailedStateError):
    """The result of a cancelled run was asked for."""

    code = "WF212"


class PausedRun(FailedStateError):
    """The result of a paused run was asked for. `state` is its state, where that is known.

    `wake_at`: of a suspended run, when its timer ends, as the journal writes it.
    """

    code = "WF213"

    def __init__(
        self, message: str, *, flow_run_id: int | None = None, task_run_id: int | None = None, state: object = None,
        wake_at: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, flow_run_id=flow_run_id, task_run_id=task_run_id)
        self.state = state
        self.wake_at = wake_at

    def __reduce__(self) -> tuple[object, ...]:
        # Without the state: it is an object of wfengine's own, which no journal may hold.
        return type(self), self.args, {"flow_run_id": self.flow_run_id, "task_run_id": self.task_run_id}


class UnfinishedRun(FailedStateError):
    """The result of a run that has not ended was asked for, or a run returned a state that is no end."""

    code = "WF214"


class AcquireConcurrencySlotTimeoutError(RunError, TimeoutError):
    """A limit did not give what was asked of it within `timeout_seconds`."""

    code = "WF260"


class WorkerDiedError(RunError):
    """The worker of a runner died, or was lost, while it ran this task; the task failed, and its retries apply."""

    code = "WF270"


class CommandFailedError(RunError):
    """A command of a shell task ended with another exit code than 0. `output` and `errors` are the last of what it printed."""

    code = "WF280"

    def __init__(self, message: str, *, exit_code: int = 1, output: str = "", errors: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.output = output
        self.errors = errors


class RequestFailedError(RunError):
    """A request of an HTTP task had no answer (`status` is None), or one that says failure.

    `body` is the beginning of the answer. `retry_after_seconds`: when the server wants to be asked again. `is_temporary`:
    another try makes sense.
    """

    code = "WF281"

    def __init__(
        self, message: str, *, status: int | None = None, body: str = "", retry_after_seconds: float | None = None,
        is_temporary: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status = status
        self.body = body
        self.retry_after_seconds = retry_after_seconds
        self.is_temporary = is_temporary


class DuplicateRunError(RunError):
    """A run that has not ended holds this deduplication key in its queue; `flow_run_id` is its id. Nothing was written."""

    code = "WF261"


class DeadlockError(RunError):
    """A flow run would wait for the end of itself, or of one that waits for it."""

    code = "WF262"


class DryRunEnded(RunError):
    """A call would have to run, in a plan or a replay, where nothing is executed."""

    code = "WF216"


class MissingResult(FailedStateError):
    """Never raised: a result is always in the journal. It exists for code that catches it."""

    code = "WF215"


class ValueNotStorableError(WfengineError):
    """A value that cannot be written such that it can be read back. Said when the task ends, not at resume."""

    code = "WF300"


class UnsendableError(ValueNotStorableError, TypeError):
    """A value that cannot be sent to a worker, or back from it."""

    code = "WF301"


class JournalError(WfengineError):
    """The journal file cannot be used as asked."""

    code = "WF400"


class JournalNotFoundError(JournalError):
    """There is no journal at that path."""

    code = "WF401"


class NotAJournalError(JournalError):
    """The file is not a wfengine journal."""

    code = "WF402"


class NewerJournalError(JournalError):
    """The file was written by a later version of wfengine. It was not changed."""

    code = "WF403"


class JournalCorruptError(JournalError):
    """What was read is not what was written."""

    code = "WF404"


class JournalUnwritableError(JournalError):
    """The disk is full, the folder read-only, or the disk failed. The run stays resumable."""

    code = "WF405"


class JournalBusyError(JournalError):
    """Another process held the write lock longer than the limit."""

    code = "WF406"


class NetworkFileSystemError(JournalError):
    """The path lies on a network file system, where SQLite's locks do not hold."""

    code = "WF407"


class StoredResultError(JournalError):
    """A result that `result_storage` keeps outside of the journal is missing, or is not what was written."""

    code = "WF408"


class ApiError(WfengineError):
    """The API of a page was not reached, or refused with an error of HTTP. `status`: of the answer; 0: there was none."""

    code = "WF420"

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ForkedProcessError(WfengineError):
    """A forked child used the engine of its parent."""

    code = "WF500"


class InternalError(WfengineError):
    """An invariant of wfengine does not hold. Please report it."""

    code = "WF900"


class Signal(BaseException):
    """Unwinds user code. Derives from BaseException so that `except Exception` in a flow lets it pass."""


class RunHalted(Signal):
    """This process stops executing the run; `error` is what the caller of the flow receives."""

    def __init__(self, error: WfengineError) -> None:
        super().__init__(str(error))
        self.error = error
