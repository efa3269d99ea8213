"""Every call from the command line into the engine.

The engine is imported inside the functions, so that the commands that only read never load it.
"""

from __future__ import annotations

import inspect
import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol, cast

from wfengine_journal.errors import EntrypointError, RunError, WfengineError

if TYPE_CHECKING:
    from wfengine.states import State


class _Parameters(Protocol):
    def from_text(self, texts: dict[str, str]) -> dict[str, object]: ...

    def bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]: ...

    def coerce(self, arguments: dict[str, object]) -> dict[str, object]: ...


class FlowLike(Protocol):
    """What the command line uses of a flow."""

    name: str
    parameters: _Parameters
    validate_parameters: bool

    def with_options(self, **options: object) -> FlowLike: ...

    def __call__(self, *arguments: object, **parameters: object) -> object: ...


class _Journal(Protocol):
    path: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start or resume ended: `run_id` null when nothing was started, `error` when the engine refused."""

    run_id: int | None
    error: WfengineError | None = None
    interrupted: bool = False


def load_flow(target: str) -> FlowLike:
    """Return the flow that FILE_OR_MODULE[:FLOW] names. Raises EntrypointError, also when it does not name one."""
    from wfengine.loading import load_target

    flows = cast("tuple[FlowLike, ...]", load_target(target))
    if len(flows) > 1:
        names = ", ".join(flow.name for flow in flows)
        raise EntrypointError(f"{target} holds {len(flows)} flows: {names}. Name one as {target}:FLOW")
    return flows[0]


def parameters_from_text(flow: FlowLike, texts: dict[str, str]) -> dict[str, object]:
    """Return the flow's keyword arguments. Raises ParameterError now, before a journal is made, if the call would."""
    parameters = flow.parameters.from_text(texts)
    bound = flow.parameters.bind((), parameters)
    if flow.validate_parameters:
        flow.parameters.coerce(bound)
    return parameters


def use_journal(path: Path | None) -> Path:
    """Open, or create, the journal that runs of this process go to; return its path."""
    from wfengine import journals

    return cast("_Journal", journals.use_journal(path)).path


def start(flow: FlowLike, parameters: Mapping[str, object]) -> Outcome:
    """Run a flow to its end in this process. Ctrl-C stops it gracefully, a second one ends the process at once."""
    return _execute(lambda: flow(**parameters, return_state=True))


def resume(path: Path, run_id: int, *, on_drift: str | None, takeover: bool, recovery: bool) -> Outcome:
    """Take a run up again and execute it to its end in this process; Ctrl-C as in `start`."""
    from wfengine import journals
    from wfengine import recovery as engine_recovery

    journal = journals.use_journal(path)
    outcome = _execute(
        lambda: engine_recovery.resume_run(journal, run_id, on_drift=on_drift, takeover=takeover, recovery=recovery)
    )
    return Outcome(run_id, outcome.error, outcome.interrupted)


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


def _execute(call: Callable[[], object]) -> Outcome:
    try:
        with _second_interrupt_ends():
            answer = call()
        if inspect.isawaitable(answer):
            import asyncio

            answer = asyncio.run(_awaited(answer))
    except KeyboardInterrupt:
        return Outcome(None, interrupted=True)
    except WfengineError as error:
        return Outcome(error.flow_run_id if isinstance(error, RunError) else None, error)
    return Outcome(cast("State[object]", answer).flow_run_id)


def _awaited(answer: Awaitable[object]) -> Coroutine[None, None, object]:
    async def run() -> object:
        # Entered inside asyncio.run, which has installed a handler of its own that cancels the flow.
        with _second_interrupt_ends():
            return await answer

    return run()


@contextmanager
def _second_interrupt_ends() -> Iterator[None]:
    """Let the first Ctrl-C do what it does now, and the second end the process without waiting for anything."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield  # not ours to change, or Ctrl-C is ignored (nohup)
        return
    pressed = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            os._exit(130)
        previous(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
