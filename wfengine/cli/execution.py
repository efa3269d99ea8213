"""Every call from the command line into the engine.

The engine is imported inside the functions, so that the commands that only read never load it.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from wfengine.cli.exits import ExitCode
from wfengine_journal.errors import ParameterError, RunError, UnspecifiedFlowError, UsageError, WfengineError

if TYPE_CHECKING:
    from wfengine.dry_runs import Plan
    from wfengine.forks import Fork
    from wfengine.input_requests import InputGiven, Request
    from wfengine.states import State
    from wfengine.tasks import Task
    from wfengine_journal.messages import OpenRequest

#: What makes a terminal show its cursor, which the live view hides, and begin its line anew.
SHOW_CURSOR = b"\x1b[?25h"
LINE_START = b"\r\x1b[K"


class _Parameters(Protocol):
    def from_text(self, texts: dict[str, str]) -> dict[str, object]: ...

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]: ...

    def coerce(self, arguments: dict[str, object]) -> dict[str, object]: ...


class FlowLike(Protocol):
    """What the command line uses of a flow."""

    name: str
    bound: tuple[object, ...]
    parameters: _Parameters
    should_validate_parameters: bool

    def with_options(self, **options: object) -> FlowLike: ...

    def __call__(self, *arguments: object, **parameters: object) -> object: ...


class _Journal(Protocol):
    path: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start or resume ended: `run_id` null when nothing was started, `error` when the engine refused.

    `interrupted`: by Ctrl-C. `stopped`: by another signal of Python's that the user's code raised, such as SystemExit.
    """

    run_id: int | None
    error: WfengineError | None = None
    interrupted: bool = False
    stopped: BaseException | None = None


def load_flow(target: str) -> FlowLike:
    """Return the flow that FILE_OR_MODULE[:FLOW] names. Raises EntrypointError, also when it does not name one."""
    from wfengine.loading import load_target

    flows = cast("tuple[FlowLike, ...]", load_target(target))
    if len(flows) > 1:
        names = ", ".join(flow.name for flow in flows)
        raise UnspecifiedFlowError(f"{target} holds {len(flows)} flows: {names}. Name one as {target}:FLOW")
    return flows[0]


def path_to_use(journal: str | None) -> Path:
    """Return the journal that a run will go to: the one that was named, else that which the flow's file chose or is found."""
    from wfengine.journals import default_path

    return Path(journal).expanduser().absolute() if journal else default_path()


def parameters_from_text(flow: FlowLike, texts: dict[str, str], path: Path | None = None) -> dict[str, object]:
    """Return the flow's keyword arguments. Raises ParameterError now, before a journal is made, if the call would.

    `path`: the journal whose secrets and variables they may refer to; None: to none.
    """
    from wfengine.journals import use_journal
    from wfengine.references import mentions, resolved

    parameters = flow.parameters.from_text(texts)
    if mentions(parameters):
        if path is None or not path.exists():
            where = "here" if path is None else f"in {path}, which does not exist yet"
            raise ParameterError(
                f"There are no secrets and variables {where}, so references to them lead nowhere. Make what is referred to: "
                "wfengine secrets set NAME, or: wfengine variables set NAME VALUE"
            )
        parameters = resolved(parameters, use_journal(path), f"Flow '{flow.name}' was not started")
    bound = flow.parameters.bind(flow.bound, parameters)
    if flow.should_validate_parameters:
        flow.parameters.coerce(bound)
    return parameters


class Worker(Protocol):
    """What the command line uses of a task worker."""

    finished: int
    left: list[int]
    stopped_by: int | None

    def start(self, timeout: float | None = None) -> None: ...


def make_worker(targets: Sequence[str], limit: int) -> Worker:
    """Return a worker for the tasks that these targets name. Raises UsageError and EntrypointError."""
    from wfengine.loading import load_tasks
    from wfengine.task_worker import TaskWorker

    tasks = {id(task): task for target in targets for task in load_tasks(target)}
    if not tasks:
        raise UsageError("Name the tasks to serve: FILE:TASK, FILE, or -m MODULE. Example: wfengine task serve mails.py:send")
    return TaskWorker(*cast("Collection[Task[..., object]]", tasks.values()), limit=limit)


def serve(worker: Worker, timeout: float | None, *, quiet: bool) -> None:
    """Serve until stopped; what it does is told on stderr."""
    from wfengine.logging import get_logger

    get_logger("task_worker").setLevel(logging.WARNING if quiet else logging.INFO)
    worker.start(timeout)


class DaemonLike(Protocol):
    """What the command line uses of a daemon."""

    name: str
    left: list[int]
    is_hanging: bool
    stopped_by: int | None

    def run(self, timeout: float | None = None) -> None: ...


def make_daemon(path: Path, files: Sequence[str], options: Mapping[str, object]) -> DaemonLike:
    """Record what files declare, and return the daemon that serves it; without files, all there is in the journal."""
    from wfengine.serving import daemon_of

    return daemon_of(path, files, **dict(options))  # type: ignore[arg-type]  # their types are checked by the command line


def what_is_served(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the deployments that files declare, and their flows without one; nothing is written."""
    from wfengine.serving import find_served

    found = find_served(files)
    return [f"{each.flow_name}/{each.name}" for each in found.declared], [flow.name for flow, _ in found.others]


def leave_behind(code: int) -> NoReturn:
    """End the process, with threads that user code still runs on: Python itself would wait for some of them."""
    from wfengine.listeners import close_listeners
    from wfengine_journal.store import close_all

    close_listeners()
    close_all()
    sys.stdout.flush()
    os._exit(code)


def use_journal(path: Path | None) -> Path:
    """Open, or create, the journal that runs of this process go to; return its path."""
    from wfengine import journals

    return cast("_Journal", journals.use_journal(path)).path


def start(flow: FlowLike, parameters: Mapping[str, object], last_words: Callable[[], str]) -> Outcome:
    """Run a flow to its end in this process.

    Ctrl-C stops it gracefully, a second one ends the process at once, after the line that `last_words` returns.
    """
    return _execute(lambda: flow(**parameters, return_state=True), last_words)


def resume(
    path: Path, run_id: int, *, on_drift: str | None, takeover: bool, recovery: bool, last_words: Callable[[], str],
    rerun: Sequence[str] = (), values: Mapping[str, object] | None = None,
) -> Outcome:  # fmt: skip
    """Take a run up again and execute it to its end in this process; Ctrl-C as in `start`."""
    from wfengine import journals
    from wfengine import recovery as engine_recovery

    journal = journals.use_journal(path)
    outcome = _execute(
        lambda: engine_recovery.resume_run(
            journal, run_id, on_drift=on_drift, takeover=takeover, recovery=recovery, rerun=rerun, values=values
        ),
        last_words,
    )
    return replace(outcome, run_id=run_id)


def plan(
    path: Path, run_id: int, *, on_drift: str | None = None, rerun: Sequence[str] = (),
    values: Mapping[str, object] | None = None,
) -> Plan:  # fmt: skip
    """Return what a resume would do; nothing is executed."""
    from wfengine.dry_runs import plan_run

    return plan_run(path, run_id, on_drift=on_drift, rerun=rerun, values=values)


def replay(path: Path, run_id: int, *, debug: bool) -> Plan:
    """Run the flow's body over what is recorded, as it was; `debug`: under Python's debugger."""
    from wfengine.dry_runs import debugged, plan_run

    return plan_run(path, run_id, as_recorded=True, quiet=False, wrap=debugged if debug else None)


def fork(
    path: Path, run_id: int, *, before: str | None, texts: Mapping[str, str], exact: Mapping[str, object]
) -> Fork:  # fmt: skip
    """Make a new run of what another one recorded. Parameters: `texts` as they were typed, `exact` as they are."""
    from wfengine import journals
    from wfengine.forks import fork_run
    from wfengine.recovery import load_flow

    journal = journals.use_journal(path)
    flow = load_flow(journal, journal.records.get_flow_run(run_id)) if texts or exact else None
    parameters = None if flow is None else {**exact, **flow.parameters.from_text(dict(texts))}
    return fork_run(journal, run_id, before=before, parameters=parameters, flow=flow)


def resolve(path: Path, run_id: int, task_run_id: int, *, done: bool, value: object) -> None:
    """Settle a call in doubt by a person's word. Raises UsageError when there is no doubt."""
    from wfengine import journals
    from wfengine.recovery import resolve_call

    resolve_call(journals.use_journal(path), run_id, task_run_id, done=done, value=value)


class KillLike(Protocol):
    """What the command line uses of one kill of a crashtest."""

    point: str
    commit: str
    problem: str | None
    command: str


class CrashReportLike(Protocol):
    """What the command line uses of the report of a crashtest."""

    flow: str
    commits: int
    kills: tuple[KillLike, ...]
    failures: list[KillLike]

    def explanation(self) -> str: ...


def crashtest(
    flow: FlowLike, parameters: dict[str, object], options: Mapping[str, object], on_kill: Callable[[KillLike, int], object]
) -> CrashReportLike:
    """Kill a flow around its commits, in processes of their own, and return what came of it. `options` as of `CrashOptions`."""
    from wfengine.flows import AnyFlow
    from wfengine.testing.crashes import CrashOptions, find_failures

    chosen = CrashOptions(**options)  # type: ignore[arg-type]  # their types are checked by the command line
    return cast(
        "CrashReportLike",
        find_failures(cast("AnyFlow", flow), (), parameters, chosen, cast("Callable[[object, int], object]", on_kill)),
    )


def follow(
    path: Path, run_id: int, task: str | int | None, *, start: int, timeout_seconds: float | None
) -> Iterator[tuple[str, bool]]:
    """Give the items of a stream as (text, whether it is JSON), as they come."""
    from wfengine import following, journals

    found = following.follow_texts(
        journals.use_journal(path), run_id, task, start=start, timeout_seconds=timeout_seconds
    )  # fmt: skip
    return cast("Iterator[tuple[str, bool]]", found)


def send(path: Path, run_id: int, value: object, *, topic: str, key: str | None) -> tuple[int, bool]:
    """Send a message to a run; return its id, and whether it is new. Raises RunEndedError, InvalidValueError."""
    from wfengine import journals, messages

    journals.use_journal(path)
    message = messages.send(run_id, value, topic=topic, idempotency_key=key)
    return message.id, message.is_new


def give_input(path: Path, row: OpenRequest, request: Request, value: object) -> InputGiven:
    """Give a waiting run its input. Raises InvalidInputError, NotPausedError."""
    from wfengine import journals
    from wfengine.input_requests import deliver

    return deliver(journals.use_journal(path), row, request, value)


def wait_until_parked(path: Path, run_id: int, limit_seconds: float) -> None:
    """Wait until no process executes a run any more, at most so long: it may still be finishing what it began."""
    from wfengine import journals

    journal = journals.use_journal(path)
    until = journal.clock.monotonic_seconds() + limit_seconds
    while True:
        mark = journal.changes.mark()
        row = journal.records.get_flow_run(run_id)
        left = until - journal.clock.monotonic_seconds()
        if row.state != "RUNNING" or row.owner_id is None or not journal.is_owner_alive(row.owner_id) or left <= 0:
            return
        journal.changes.wait(mark, min(left, 0.1))


def cancel(path: Path, run_id: int, reason: str | None, *, wait: bool) -> None:
    """Ask to cancel a run; `wait` until that was done. Raises UsageError for one that has ended."""
    from wfengine import cancellation, journals

    journal = journals.use_journal(path)
    cancellation.cancel_run(journal, run_id, reason)
    if wait:
        cancellation.wait_until_ended(journal, run_id)


def pause(path: Path, run_id: int, reason: str | None) -> None:
    """Ask to pause a run. Raises UsageError for one that has ended, is paused, or is a subflow."""
    from wfengine import cancellation, journals

    cancellation.pause_run(journals.use_journal(path), run_id, reason)


def let_wait_again(path: Path, run_id: int) -> bool:
    """Let a paused run wait for what it waited for; tell whether it does: else it is to be resumed."""
    from wfengine import cancellation, journals

    return cancellation.let_wait_again(journals.use_journal(path), run_id) is not None


def set_variable(path: Path, name: str, value: object, *, tags: Iterable[str], overwrite: bool) -> None:
    """Set a variable. Raises InvalidValueError when it exists and is not to be overwritten, or is not allowed."""
    from wfengine import journals
    from wfengine.variables import Variable

    journals.use_journal(path)
    Variable.set(name, value, tags, overwrite)


def unset_variable(path: Path, name: str) -> bool:
    """Delete a variable; tell whether there was one."""
    from wfengine import journals
    from wfengine.variables import Variable

    journals.use_journal(path)
    return Variable.unset(name)


def set_limit(path: Path, name: str, *, tag: bool, **options: object) -> None:
    """Set a limit. Raises UsageError."""
    from wfengine import concurrency, journals

    journals.use_journal(path)
    concurrency.set_limit(name, tag=tag, **options)  # type: ignore[arg-type]  # checked there


def remove_limit(path: Path, name: str, *, tag: bool) -> bool:
    """Remove a limit; tell whether there was one."""
    from wfengine import concurrency, journals

    journals.use_journal(path)
    return concurrency.remove_limit(name, tag=tag)


def change_queue(path: Path, name: str, verb: str, **options: object) -> bool:
    """Set, pause, resume or remove what limits a queue; tell whether it existed, of one that is removed. Raises UsageError."""
    from wfengine import concurrency, journals

    journals.use_journal(path)
    if verb == "rm":
        return concurrency.remove_queue(name)
    if verb == "set":
        concurrency.set_queue(name, **options)  # type: ignore[arg-type]  # checked there
    elif verb == "pause":
        concurrency.pause_queue(name)
    else:
        concurrency.resume_queue(name)
    return True


def resumable_runs(path: Path) -> list[int]:
    """Return the top-level runs whose process died, after looking for such."""
    from wfengine import journals, recovery

    journal = journals.use_journal(path)
    recovery.sweep(journal)
    return list(recovery.resumable_runs(journal))


def sweep(path: Path) -> None:
    """Mark runs whose process died as crashed, if the journal can be written; else leave them as they are."""
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        return
    from wfengine import journals, recovery

    try:
        recovery.sweep(journals.use_journal(path))
    except (WfengineError, sqlite3.Error, OSError):
        return  # whoever reads sees the state that was recorded last


def _execute(call: Callable[[], object], last_words: Callable[[], str]) -> Outcome:
    try:
        with _without_the_engines_advice():
            with _second_interrupt_ends(last_words):
                answer = call()
            if inspect.isawaitable(answer):
                import asyncio

                answer = asyncio.run(_awaited(answer, last_words))
    except KeyboardInterrupt:
        return Outcome(None, interrupted=True)
    except WfengineError as error:
        return Outcome(error.flow_run_id if isinstance(error, RunError) else None, error)
    except BaseException as error:
        if isinstance(error, Exception):
            raise  # the engine records what user code raises, so this is a fault of its own
        return Outcome(None, stopped=error)
    return Outcome(cast("State[object]", answer).flow_run_id)


def _awaited(answer: Awaitable[object], last_words: Callable[[], str]) -> Coroutine[None, None, object]:
    async def run() -> object:
        # Entered inside asyncio.run, which has installed a handler of its own that cancels the flow.
        with _second_interrupt_ends(last_words):
            return await answer

    return run()


@contextmanager
def _without_the_engines_advice() -> Iterator[None]:
    """Leave out the engine's line about how to go on with an interrupted run: the command line ends with its own."""

    def keeps(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("%s was interrupted by %s. Go on with it")

    logger = logging.getLogger("wfengine.engine")
    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)


@contextmanager
def _second_interrupt_ends(last_words: Callable[[], str]) -> Iterator[None]:
    """Let the first Ctrl-C do what it does now, and the second end the process without waiting for anything.

    Once it was pressed, that holds until the process ends.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield  # not ours to change, or Ctrl-C is ignored (nohup)
        return
    pressed = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            _end_at_once(last_words)
        # Past Python's streams: the signal may have come in the middle of a write to them.
        _write_to_stderr("stopping; press Ctrl-C again to end at once\n")
        previous(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        if not pressed:  # else it may be pressed once more while the end is being said
            signal.signal(signal.SIGINT, previous)


def _end_at_once(last_words: Callable[[], str]) -> NoReturn:
    try:
        words = last_words()
        terminal = next((os.dup(number) for number in (2, 1) if os.isatty(number)), None)
        stderr = os.dup(2)
        _silence()  # the live view, on its thread, would write below the last words
        if terminal is not None:
            os.write(terminal, SHOW_CURSOR)
        _write_to_stderr(f"{words}\n", stderr)
    finally:
        os._exit(ExitCode.INTERRUPTED)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


def _write_to_stderr(text: str, descriptor: int = 2) -> None:
    with suppress(OSError):  # nobody listens any more
        os.write(descriptor, (LINE_START if os.isatty(descriptor) else b"") + text.encode("utf-8", "replace"))
