"""The steps of which the life of a run is made, and the two drivers that perform their waiting.

The life of a task run and of a flow run is a generator (`task_engine`, `flow_engine`) that yields these steps and is sent
what came of them. `drive` performs them on the calling thread; `drive_async` performs them in an event loop. Neither
knows what a task is.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from wfengine.halts import halt_as_asked, notice
from wfengine.interrupts import Invocation
from wfengine.loop_commits import LoopCommits, uncancelled
from wfengine.scopes import LiveRun, Scope, reset_scope, set_scope
from wfengine.task_future import refuse_waiting, waiting, worker_hooks
from wfengine.tracebacks import as_raised
from wfengine_journal.clock import sleep_unless, sleep_unless_async
from wfengine_journal.errors import (
    InternalError,
    JournalError,
    MissingContextError,
    OwnershipLostError,
    RunHalted,
    Signal,
    TaskTimeoutError,
)
from wfengine_journal.threads import start_thread
from wfengine_journal.tickets import Change, WriteRefused

if TYPE_CHECKING:
    from wfengine.states import State
    from wfengine.task_future import TaskFuture
    from wfengine_journal.changes import Mark
    from wfengine_journal.store import Journal

T = TypeVar("T")

#: A wait for a delay is cut into pieces of this length, in seconds, so that a stopped run is noticed.
WAIT_PIECE_SECONDS = 3600.0
#: How often a look at the journal is repeated though nothing changed, in seconds: a process that died writes nothing.
LOOK_AGAIN_SECONDS = 0.1


class Outcome(NamedTuple):
    """What user code gave: a value, or the exception it raised.

    `state` is what it returned in place of a value, see `returned`; `value` is then the state's data, also beside an error.
    """

    value: object
    error: BaseException | None
    state: State[object] | None = None


class Write(NamedTuple):
    """Commit a change; the next step begins after the commit."""

    run: LiveRun
    change: Change
    synced: bool
    final: bool = False  # the run's outcome: nothing but the telling follows


class Create(NamedTuple):
    """Commit a change for a run that does not exist yet; a refusal is sent back as False instead of ending the run."""

    journal: Journal
    change: Change
    synced: bool


class Invoke(NamedTuple):
    """Run user code in a scope, under a time limit; an Outcome is sent back."""

    scope: Scope
    fn: Callable[..., object]
    args: tuple[object, ...]
    kwargs: dict[str, object]
    is_async: bool
    timeout_seconds: float | None


class Transact(NamedTuple):
    """Run user code inside a transaction of the journal, in which its result is recorded too; an Outcome is sent back."""

    invoke: Invoke
    within: Callable[[Invoke, Callable[[Invoke], Outcome]], Outcome]  # is given the step, and what performs it


class Delay(NamedTuple):
    """Wait until an instant of the wall clock."""

    run: LiveRun
    until_seconds: float


class Await(NamedTuple):
    """Wait until a look at the journal finds something; what it found is sent back.

    The look is repeated whenever the journal changed, and now and then, since the death of a process is no change.
    """

    run: LiveRun
    look: Callable[[], object]  # None: not yet


class Settle(NamedTuple):
    """Wait until all these futures are settled."""

    futures: Iterable[TaskFuture[object]]


class Emit(NamedTuple):
    """Hand an item of a stream to whoever consumes it, if anybody does."""

    value: object


class StreamClosed(Signal):
    """Thrown in at an Emit: the consumer of the stream closed it."""


Step: TypeAlias = Write | Create | Invoke | Transact | Delay | Await | Settle | Emit
Steps: TypeAlias = Generator[Step, object, T]


# ---------------------------------------------------------------------------------------------------- on a thread


def drive(steps: Steps[T], problem: BaseException | None = None) -> T:
    """Perform the steps on the calling thread and return what they return. Items of a stream have no consumer here.

    What goes wrong while a step is performed is raised inside the generator, at its yield; so is `problem`, first of all.
    """
    answer: object = None
    try:
        while True:
            step = steps.send(answer) if problem is None else steps.throw(problem)
            problem = None
            try:
                answer = _perform(step)
            except BaseException as error:
                problem = error
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()  # where a signal struck this very frame, the run must not stay suspended as long as a traceback lives


def drive_stream(steps: Steps[T]) -> Generator[object, None, T]:
    """Perform the steps on the thread that asks for the next item, and yield each item; return what the steps return.

    Closing the generator throws StreamClosed in where the item was handed out, and performs what is left to do.
    """
    answer: object = None
    problem: BaseException | None = None
    try:
        while True:
            step = steps.send(answer) if problem is None else steps.throw(problem)
            answer = problem = None
            if type(step) is Emit:
                try:
                    yield step.value
                except BaseException as error:
                    drive(steps, StreamClosed(type(error).__name__))
                    raise
                continue
            try:
                answer = _perform(step)
            except BaseException as error:
                problem = error
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


def drive_deferred(steps: Steps[T], settle: Callable[[T | None, BaseException | None], None]) -> None:
    """Perform the steps, but leave the final write to whoever commits next; `settle` is called after that commit.

    The worker is then free for the next task, whose beginning rides in the same transaction.
    """
    answer: object = None
    problem: BaseException | None = None
    try:
        while True:
            step = steps.send(answer) if problem is None else steps.throw(problem)
            problem = None
            if type(step) is Write and step.final:
                write = step
                break
            try:
                answer = _perform(step)
            except BaseException as error:
                problem = error
    except StopIteration as stop:
        settle(stop.value, None)
        return
    except BaseException as error:
        settle(None, error)
        return

    def committed(error: BaseException | None) -> None:
        try:
            if error is not None:
                raise _halting(write.run, error)
            value = drive(steps)
        except BaseException as refused:
            settle(None, refused)
        else:
            settle(value, None)

    write.run.journal.post(write.change, synced=write.synced, on_commit=committed)


def _perform(step: Step) -> object:
    if type(step) is Write:
        _commit(step)
        return None
    if type(step) is Invoke:
        return _invoke(step)
    return _perform_rare(step)


def _perform_rare(step: Step) -> object:
    if isinstance(step, Delay):
        _wait_until(step)
        return None
    if isinstance(step, Settle):
        for future in list(step.futures):
            future.wait()
        return None
    if isinstance(step, Create):
        return _create(step)
    if isinstance(step, Transact):
        return _transact(step)
    if isinstance(step, Await):
        return _await(step)
    if isinstance(step, Emit):
        return None
    return _perform(step)


def _commit(write: Write) -> None:
    try:
        write.run.journal.write(write.change, synced=write.synced)
    except (WriteRefused, JournalError) as error:
        raise _halting(write.run, error) from error
    except sqlite3.Error as error:
        raise _faulty(write.run, error) from error


def _faulty(run: LiveRun, error: sqlite3.Error) -> BaseException:
    """Stop a run. Not a failure of the task: the change was wrong, so what stands in the journal is not what it should be."""
    fault = InternalError(f"The journal refused a change of {run} ({error}). Please report this; the run can be resumed.")
    return run.halt(RunHalted(fault))


def _transact(step: Transact) -> Outcome:
    run = step.invoke.scope.run
    try:
        return step.within(step.invoke, _invoke)
    except (WriteRefused, JournalError) as error:
        raise _halting(run, error) from error
    except sqlite3.Error as error:
        raise _faulty(run, error) from error


def _create(step: Create) -> bool:
    try:
        step.journal.write(step.change, synced=step.synced)
    except WriteRefused:
        return False
    return True


def _halting(run: LiveRun, error: BaseException) -> BaseException:
    """Return the signal with which a run stops when its writing was refused or the file failed."""
    if isinstance(error, WriteRefused):
        row = run.journal.records.get_flow_run(run.id)
        if asked := halt_as_asked(run, row):
            notice(run.journal)  # the same was asked of the runs around it, and inside
            return asked
        if row.epoch == run.epoch and (row.state == "RUNNING" or row.state_name == "AwaitingRetry"):
            return RunHalted(MissingContextError(f"A call in {run} was given up, so its late outcome is not recorded."))
        lost = OwnershipLostError(
            f"This process no longer executes {run}: another one took it over, and writes from here are refused. "
            f"See who has it: wfengine runs show {run.id}",
            flow_run_id=run.id,
        )
        return run.halt(RunHalted(lost))
    if isinstance(error, JournalError):
        return run.halt(RunHalted(error))
    return error


def _wait_until(delay: Delay) -> None:
    refuse_waiting()
    run, clock, woken = delay.run, delay.run.journal.clock, threading.Event()
    with run.woken_by_halt(woken.set):
        while True:
            run.check_not_halted()
            remaining = delay.until_seconds - clock.wall_seconds()
            if remaining <= 0:
                return
            sleep_unless(clock, min(remaining, WAIT_PIECE_SECONDS), woken)


def _await(step: Await) -> object:
    journal = step.run.journal
    with waiting():
        journal.flush()  # what was left to the next commit may be what is waited for
        while True:
            mark, found = _look(step)
            if found is not None:
                return found
            journal.changes.wait(mark, LOOK_AGAIN_SECONDS)


def _look(step: Await) -> tuple[Mark, object]:
    step.run.check_not_halted()
    try:
        return step.run.journal.changes.mark(), step.look()
    except JournalError as error:
        raise _halting(step.run, error) from error


def _invoke(step: Invoke) -> Outcome:
    away = worker_hooks.away
    if away is not None:
        step = away(step)  # the code runs elsewhere, and here what waits for it
    if step.timeout_seconds is not None:
        return _invoke_with_limit(step)
    scope = step.scope
    scope.enter_lane()
    token = set_scope(scope)
    try:
        result = step.fn(*step.args, **step.kwargs)
        return Outcome(run_coroutine(result, scope.enter_lane) if step.is_async else result, None)
    except BaseException as error:
        if type(error) is SystemExit and scope.run.journal.is_forked:
            _leave_child(error)
        return Outcome(None, as_raised(error))
    finally:
        reset_scope(token)


def run_coroutine(coroutine: object, begin: Callable[[], object] | None = None) -> object:
    """Run async user code from a thread without an event loop to its end: an async hook of a sync task. Returns its result.

    `begin` is called first of all in the thread and asyncio task that run it.
    """
    import asyncio

    async def awaited() -> object:
        if begin is not None:
            begin()
        return await coroutine if isinstance(coroutine, Awaitable) else coroutine

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(awaited())
    # A sync flow was called inside a running loop, which is blocked until it returns.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "wfengine-coroutine") as executor:
        return executor.submit(contextvars.copy_context().run, asyncio.run, awaited()).result()


def _leave_child(error: SystemExit) -> None:
    """End a forked child that user code left by sys.exit() on a thread of ours, where nobody else would."""
    if threading.current_thread().name.startswith("wfengine-"):
        code = error.code
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _invoke_with_limit(step: Invoke) -> Outcome:
    """Run user code on a thread of its own; at the limit the thread is left behind and its late result discarded."""
    outcomes: list[Outcome] = []
    done = threading.Event()
    unlimited = step._replace(timeout_seconds=None)
    context = contextvars.copy_context()
    about_thread = dict(vars(worker_hooks))

    def body() -> None:
        vars(worker_hooks).update(about_thread)  # this thread stands for the worker: where it blocks, the worker does
        try:
            outcomes.append(context.run(_invoke, unlimited))
        finally:
            done.set()

    try:
        start_thread("wfengine-timed-task", body)
    except JournalError as error:  # there are no more threads: no failure of the task, nor for the flow to catch
        return Outcome(None, step.scope.run.halt(RunHalted(error)))
    if done.wait(step.timeout_seconds):
        return outcomes[0]
    step.scope.attempt_over = True
    return Outcome(None, timed_out(step))


def timed_out(step: Invoke, given_up: str | None = None) -> TaskTimeoutError:
    """Return the error of user code that ran longer than its limit; `given_up` says what became of it."""
    what = str(step.scope.call) if step.scope.call is not None else str(step.scope.run)
    if given_up is None:
        given_up = "" if step.is_async else "Its thread cannot be stopped; whatever it still returns is discarded."
    left_behind = f" {given_up}" if given_up else ""
    return TaskTimeoutError(
        f"{what} ran longer than its limit of {step.timeout_seconds} s.{left_behind} Raise timeout_seconds or make it shorter.",
        flow_run_id=step.scope.run.id,
        task_run_id=step.scope.task_run_id or None,
    )


# ---------------------------------------------------------------------------------------------------- in an event loop


async def drive_async(steps: Steps[T], problem: BaseException | None = None) -> T:
    """Perform the steps in the running event loop, which goes on with other work wherever a step waits. See `drive`."""
    answer: object = None
    try:
        while True:
            step = steps.send(answer) if problem is None else steps.throw(problem)
            problem = None
            try:
                answer = await _perform_async(step)
            except BaseException as error:
                problem = error
    except StopIteration as stop:
        result: T = stop.value
        return result


async def drive_stream_async(steps: Steps[T], ended: Callable[[T], None]) -> AsyncGenerator[object, None]:
    """Do as `drive_stream` in an event loop. An async generator returns nothing, so `ended` is given what the steps return."""
    answer: object = None
    problem: BaseException | None = None
    try:
        while True:
            step = steps.send(answer) if problem is None else steps.throw(problem)
            answer = problem = None
            if type(step) is Emit:
                try:
                    yield step.value
                except BaseException as error:
                    await drive_async(steps, StreamClosed(type(error).__name__))
                    raise
                continue
            try:
                answer = await _perform_async(step)
            except BaseException as error:
                problem = error
    except StopIteration as stop:
        ended(stop.value)


async def _perform_async(step: Step) -> object:
    if type(step) is Write:
        await _commit_async(step)
        return None
    if type(step) is Invoke:
        return await _invoke_async(step)
    if isinstance(step, Delay):
        await _wait_until_async(step)
        return None
    if isinstance(step, Settle):
        for future in list(step.futures):
            await future.wait_async()
        return None
    if isinstance(step, Await):
        return await _await_async(step)
    return _perform_rare(step)


async def _commit_async(write: Write) -> None:
    """Wait for the disk without stopping the loop: what is due in the same turn of the loop shares one commit.

    A write that need not be synced is done at once by the only asyncio task that writes. Beside one that waits for the disk
    it would lead a commit that syncs the other's, and stop the loop for that.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    turn = write.run.turns.get(loop)
    if turn is None:
        turn = write.run.turns[loop] = LoopCommits(loop, write.run.journal)
    if not write.synced and turn.is_alone(asyncio.current_task()):
        _commit(write)
        return
    try:
        if write.final:
            await turn.commit(write.change, write.synced)
        else:
            await uncancelled(turn.commit_surely(write.change, write.synced))
    except (WriteRefused, JournalError) as error:
        raise _halting(write.run, error) from error
    except sqlite3.Error as error:
        raise _faulty(write.run, error) from error


async def _invoke_async(step: Invoke) -> Outcome:
    import asyncio

    if not step.is_async or worker_hooks.away is not None:
        return _invoke(step)
    if step.scope.closed:  # a hook: it is called because the run ends, and may be awaited to its end
        return await _invoke_in_scope(step)
    run = step.scope.run
    invocation = Invocation(run)
    try:
        outcome = await _invoke_in_scope(step)
    finally:
        await invocation.end()
    if isinstance(outcome.error, asyncio.CancelledError) and run.cancelled is not None and not invocation.is_foreign:
        return Outcome(None, RunHalted(run.cancelled))
    return outcome


async def _invoke_in_scope(step: Invoke) -> Outcome:
    import asyncio

    scope = step.scope
    token = set_scope(scope)
    try:
        if step.timeout_seconds is None:
            scope.enter_lane()
            return Outcome(await _awaited(step), None)
        try:
            async with asyncio.timeout(step.timeout_seconds) as limit:
                scope.enter_lane()
                return Outcome(await _awaited(step), None)
        except TimeoutError as error:
            return Outcome(None, timed_out(step) if limit.expired() else as_raised(error))
    except BaseException as error:
        return Outcome(None, as_raised(error))
    finally:
        reset_scope(token)


async def _awaited(step: Invoke) -> object:
    result = step.fn(*step.args, **step.kwargs)
    return await result if isinstance(result, Awaitable) else result


async def _wait_until_async(delay: Delay) -> None:
    import asyncio

    run, clock, loop = delay.run, delay.run.journal.clock, asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(woken.set)

    with run.woken_by_halt(wake):
        while True:
            run.check_not_halted()
            remaining = delay.until_seconds - clock.wall_seconds()
            if remaining <= 0:
                return
            await sleep_unless_async(clock, min(remaining, WAIT_PIECE_SECONDS), woken)


async def _await_async(step: Await) -> object:
    import asyncio

    journal = step.run.journal
    loop = asyncio.get_running_loop()
    while True:
        mark, found = _look(step)
        if found is not None:
            return found
        changed = asyncio.Event()
        forget = journal.changes.call(mark, lambda: loop.call_soon_threadsafe(changed.set))  # noqa: B023 - of this very turn
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await changed.wait()
        except TimeoutError:
            continue
        finally:
            forget()
