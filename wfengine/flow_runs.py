"""Flows that wait for a person, under the names Prefect gives it: `pause_flow_run`, `suspend_flow_run`, `resume_flow_run`.

    pause      the process waits where it is, and goes on at once
    suspend    the run is parked and its process is free; whoever resumes it executes it on, from its recorded results
    resume     gives the input; for a suspended run: `wfengine resume RUN --input ...` gives it and goes on

Each is a call as those of `wfengine.messages` are: until when it waits is recorded and counts over restarts, and the input is
recorded, as plain data, so that a resumed run has it again - through the model as the code has it then.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, TypeVar, overload

from wfengine.awaiting import awaited_in_async_code
from wfengine.ids import typed
from wfengine.input_requests import (
    InputGiven,
    Request,
    Wanted,
    fields_text,
    give_input,
    how_to_answer,
    plain_input,
    request_of,
)
from wfengine.journals import default_journal
from wfengine.loading import leaves_no_trace
from wfengine.messages import look_for_message
from wfengine.own_calls import (
    answered,
    begin,
    caller_awaits,
    checked_seconds,
    end,
    given_in_loop,
    halting,
    instant_after,
    is_asked_anew,
    own_call,
    own_callee,
    scope_of,
    settled,
    wait,
)
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine.states import State
from wfengine.steps import Create, Outcome, Steps, Write
from wfengine.task_engine import Call, issue
from wfengine_journal.codec import encode
from wfengine_journal.errors import (
    FlowPauseTimeout,
    InvalidInputError,
    JournalError,
    PausedRun,
    RunHalted,
    ValueNotStorableError,
)
from wfengine_journal.messages import MessageRow, NoteItem, RefuseMessage, TakeMessage, load_message
from wfengine_journal.states import StateType
from wfengine_journal.transitions import SettleCall

T = TypeVar("T")

_logger = logging.getLogger("wfengine.engine")

#: Prefect's limit for a pause, in seconds, where the flow does not give its own.
TIMEOUT_SECONDS = 3600.0
REQUEST = "input_request"
SCHEMA = "input_schema"


@overload
def pause_flow_run(
    wait_for_input: None = None, timeout: float | None = ..., poll_interval: float = ..., key: str | None = None
) -> Any: ...
@overload
def pause_flow_run(
    wait_for_input: type[T], timeout: float | None = ..., poll_interval: float = ..., key: str | None = None
) -> T: ...
@asks_the_flow
def pause_flow_run(
    wait_for_input: object = None,
    timeout: float | None = TIMEOUT_SECONDS,
    poll_interval: float = 10,
    key: str | None = None,
) -> object:
    """Wait here until somebody says that the flow is to go on, and return the input that they give, if one is wanted.

    `wait_for_input`: a pydantic model (see `wfengine.input.RunInput`) or another type, such as `bool`. Nobody within `timeout`
    seconds (None: no limit): FlowPauseTimeout. `key` names the request, where a run has several at a time. The process stays,
    and so does the run's state; if it dies, the resumed run goes on waiting. `poll_interval` does nothing: nothing is polled.
    """
    return _ask("pause", wait_for_input, timeout, key, awaits=caller_awaits())


@overload
def suspend_flow_run(wait_for_input: None = None, *, timeout: float | None = ..., key: str | None = None) -> Any: ...
@overload
def suspend_flow_run(wait_for_input: type[T], *, timeout: float | None = ..., key: str | None = None) -> T: ...
@asks_the_flow
def suspend_flow_run(
    wait_for_input: object = None, *, timeout: float | None = TIMEOUT_SECONDS, key: str | None = None
) -> object:
    """Park the run, PAUSED and named Suspended, until somebody resumes it; its process is free for other things.

    When it is resumed, the flow is executed from its recorded results to this place, and gets the input. Arguments are those
    of `pause_flow_run`. What the flow submitted before is finished first.
    """
    return _ask("suspend", wait_for_input, timeout, key, awaits=caller_awaits())


@asks_the_flow
@awaited_in_async_code
def resume_flow_run(flow_run_id: int | str, run_input: object = None, *, key: str | int | None = None) -> InputGiven:
    """Give a waiting flow run its input: an id or name, and a dict, or the model's instance; None where none is wanted.

    It is checked first. A run that waits in its process goes on at once; a suspended one does when it is resumed
    (`goes_on` of the answer is False): `wfengine resume RUN`. Raises NotPausedError, InvalidInputError, and UsageError
    where a run waits for several inputs and `key` does not say for which this one is.
    """
    scope = current_scope()
    journal = default_journal() if scope is None else scope.run.journal
    return give_input(journal, flow_run_id, plain_input(run_input), key)


# ------------------------------------------------------------------------------------------- the call that waits

_PAUSE = own_callee("pause", ("key",))
_SUSPEND = own_callee("suspend", ("key",))


def _ask(kind: str, wait_for_input: object, timeout: float | None, key: str | None, *, awaits: bool) -> object:
    function = f"{kind}_flow_run"
    seconds = checked_seconds(timeout, f"{function}()")
    if leaves_no_trace():
        return given_in_loop(None) if awaits else None
    scope = scope_of(function)
    wanted = None if wait_for_input is None else Wanted(wait_for_input)
    arguments: dict[str, object] = {"key": key, "input": None if wanted is None else wanted.name, "timeout": timeout}
    call = own_call(_PAUSE if kind == "pause" else _SUSPEND, scope, arguments)
    asking = _Asking(call, Request("pause" if kind == "pause" else "suspend", 0, "", None, key), wanted, seconds)
    return answered(call, issue(call), asking.steps, awaits=awaits, convert=asking.convert)


class _Asking:
    """One call that waits for a person."""

    def __init__(self, call: Call, request: Request, wanted: Wanted | None, seconds: float | None) -> None:
        self._call = call
        self._run = call.run
        self._wanted = wanted
        self._seconds = seconds
        if wanted is not None:
            request = replace(request, model=wanted.name, description=wanted.description)
        self._request = request

    def convert(self, recorded: object) -> object:
        """Return what the flow is given for the recorded input. Raises InvalidInputError where its model has changed."""
        if self._wanted is None:
            return None
        try:
            return self._wanted.load(recorded)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"The input that was given to {self._call} does not fit {self._wanted.name} as the code has it now: {error}. "
                "Give a new field a default, or take back the change, and resume the run."
            ) from error

    def steps(self) -> Steps[Outcome]:
        """Ask, wait, and record the answer."""
        yield from self._begin()
        while True:
            found = yield from self._wait()
            if found is None:
                return (yield from settled(self._call, Outcome(None, None)))
            if not isinstance(found, MessageRow):
                return (yield from settled(self._call, Outcome(None, self._timeout())))
            outcome = yield from self._take(found)
            if outcome is not None:
                return outcome

    # ---- the request

    def _begin(self) -> Steps[None]:
        """Begin the call; an earlier execution's request goes on, with the schema of the model as it is now."""
        call, run = self._call, self._run
        item = None if call.row is None else run.journal.records.find_item(run.id, call.task_run_id, REQUEST)
        known = None if item is None else request_of(item[0])
        if known is None or is_asked_anew(call):
            until = instant_after(run, self._seconds)
            number = 1 if known is None else known.number + 1
            self._request = replace(self._request, number=number, asked_at=run.journal.clock.now_text(), until=until)
        else:
            self._request = replace(
                self._request, number=known.number, asked_at=known.asked_at, until=known.until, refused=known.refused
            )
        notes = [self._note(self._request)]
        if self._wanted is not None:
            at = run.journal.clock.now_text()
            notes.append(NoteItem(run.id, SCHEMA, encode(self._wanted.schema, "the schema of an input"), at=at))
        yield from begin(call, notes)

    def _note(self, request: Request) -> NoteItem:
        at = self._run.journal.clock.now_text()
        return NoteItem(self._run.id, REQUEST, encode(request.as_json(), "what is asked for"), at=at)

    # ---- waiting

    def _wait(self) -> Steps[object]:
        """Return the answer's message, TIMED_OUT, or None where a person's resume is all there was to wait for."""
        found = self._look()
        if found is not None:
            return found
        if self._request.kind == "pause":
            _logger.warning("%s", self._text("waits"))
            return (yield from wait(self._call, self._look))
        row, recorded = self._call.row, self._run.recorded
        was_parked = row is not None and row.state_name == "Suspended"
        if self._wanted is None and was_parked and recorded is not None and recorded.by_person:
            return None
        return (yield from self._park())

    def _look(self) -> object:
        try:
            return look_for_message(self._call, self._request.topic(self._call.task_run_id), self._request.until)
        except JournalError as error:
            raise halting(self._call, error) from None

    def _park(self) -> Steps[object]:
        call, run = self._call, self._run
        call.seq += 1
        message = self._short()
        yield Write(
            run,
            SettleCall(
                run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt,
                at=run.journal.clock.now_text(), state="PAUSED", state_name="Suspended", message=message,
            ),
            False,
        )  # fmt: skip
        state: State[object] = State(StateType.PAUSED, "Suspended", message)
        paused = PausedRun(self._text("is suspended and waits"), flow_run_id=run.id, state=state, wake_at=self._request.until)
        raise run.halt(RunHalted(paused))

    def _short(self) -> str:
        fields = "somebody to go on" if self._wanted is None else f"input: {fields_text(self._wanted.schema)}"
        refused = "" if self._request.refused is None else f" (the last was refused: {self._request.refused})"
        return f"waits for {fields}{refused}"

    def _text(self, what: str) -> str:
        run, schema = self._run, None if self._wanted is None else self._wanted.schema
        until = "" if self._request.until is None else f", until {self._request.until}"
        top = run
        while top.parent is not None:
            top = top.parent
        return (
            f"{run} {what}{self._short().removeprefix('waits')}{until}. Answer with: {how_to_answer(top.id, top.name, schema)}"
        )

    def _timeout(self) -> FlowPauseTimeout:
        run = self._run
        return FlowPauseTimeout(
            f"{run} waited for {'input' if self._wanted is not None else 'somebody to go on'} until {self._request.until}, and "
            f"nobody came. Catch FlowPauseTimeout in the flow; or ask again, with the full time: wfengine resume "
            f"{typed(run.id, run.name)}",
            flow_run_id=run.id,
            task_run_id=self._call.task_run_id,
        )

    # ---- the answer

    def _take(self, message: MessageRow) -> Steps[Outcome | None]:
        """Record the answer as the outcome, or refuse it and ask again (None)."""
        call, run = self._call, self._run
        take = TakeMessage(message.id, scope=call.scope.task_run_id, at=run.journal.clock.now_text())
        try:
            data = load_message(run.journal.records, message)
        except (JournalError, ValueNotStorableError) as error:
            raise halting(call, error) from None
        if self._wanted is None:
            return (yield from end(call, Outcome(None, None), [take]))
        try:
            plain = self._wanted.plain(self._wanted.load(data))
        except InvalidInputError as error:
            request = self._request.again(str(error))
            change = RefuseMessage(
                take, [self._note(request)], flow_run_id=run.id, task_run_id=call.task_run_id, epoch=run.epoch
            )
            if (yield Create(run.journal, change, run.synced)):
                self._request = request
                _logger.warning("The input given to %s was refused: %s", run, error)
            return None
        return (yield from end(call, Outcome(plain, None), [take]))
