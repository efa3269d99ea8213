"""Durable building blocks: what a flow asks of the world outside, recorded once and the same ever after.

A resumed flow runs again from its top. What it read from a clock or drew at random the first time, it has to be given again:
`now`, `today`, `uuid4`, `random` and `side_effect` are small journaled calls, with an identity as a task has it (scope, key,
occurrence). `sleep` records the instant at which it ends, so that a restart waits only for the rest.

Outside of a flow run, and in hooks, all of them just do what their name says and record nothing.
"""

from __future__ import annotations

import datetime
import inspect
import random as _generators
import uuid as _uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar, cast, overload
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wfengine import listeners
from wfengine.continuation import ContinueAsNew
from wfengine.own_calls import own_call
from wfengine.parameters import Parameters
from wfengine.resolution import is_plain, resolved_arguments
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import ACTIVE_TRANSACTION, Scope, current_scope, current_tracer, find_scope
from wfengine.steps import Outcome, Steps, Write, drive
from wfengine.stored_parameters import describe_parameters
from wfengine.submission import call_now
from wfengine.task_engine import Call, Callee, first_row, issue
from wfengine_journal.block_transitions import RecordDrawn
from wfengine_journal.clock import Clock, SystemClock, instant_from_text
from wfengine_journal.codec import encode
from wfengine_journal.errors import UsageError
from wfengine_journal.transitions import BeginCall, StartAttempt

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

P = ParamSpec("P")
R = TypeVar("R")

_SYSTEM_CLOCK = SystemClock()
#: Independent of `random.seed` and of what the user's own code draws from the module's generator.
_GENERATOR = _generators.SystemRandom()


def block(name: str, signature: Callable[..., object]) -> Callee:
    """Return what is called by a building block. Its key cannot be that of a user's task by accident."""
    return Callee(
        kind="task", name=name, key=f"wfengine.{name}", decorated=signature, fn=signature, is_async=False,
        parameters=Parameters(signature, owner=f"{name}()"),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- drawn in an instant


@asks_the_flow
def now() -> datetime.datetime:
    """Return the present instant, aware and in UTC. In a flow run it is recorded, and the same whenever the run is resumed."""
    return instant_from_text(cast(str, _drawn(_NOW, {}, lambda clock: clock.now_text())))


@asks_the_flow
def today(tz: str | datetime.tzinfo | None = None) -> datetime.date:
    """Return today's date in a time zone ("Europe/Berlin", or a tzinfo; None: the machine's), recorded as `now` is."""
    zone = _zone(tz)

    def date_of(clock: Clock) -> str:
        return datetime.datetime.fromtimestamp(clock.wall_seconds(), datetime.UTC).astimezone(zone).date().isoformat()

    return datetime.date.fromisoformat(cast(str, _drawn(_TODAY, {"tz": None if tz is None else str(tz)}, date_of)))


@asks_the_flow
def uuid4() -> _uuid.UUID:
    """Return a random UUID, recorded as `now` is: the same one whenever the run is resumed."""
    return _uuid.UUID(cast(str, _drawn(_UUID4, {}, lambda _: str(_uuid.uuid4()))))


@asks_the_flow
def random() -> float:
    """Return a random number from 0 up to and without 1, recorded as `now` is."""
    return cast(float, _drawn(_RANDOM, {}, lambda _: _GENERATOR.random()))


def _nothing() -> None:
    """The parameters of a block that has none."""


def _in_zone(tz: str | None) -> None:
    """The parameters of `today`."""


_NOW, _TODAY = block("now", _nothing), block("today", _in_zone)
_UUID4, _RANDOM = block("uuid4", _nothing), block("random", _nothing)


def _zone(tz: str | datetime.tzinfo | None) -> datetime.tzinfo | None:
    if not isinstance(tz, str):
        return tz
    try:
        return ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"today(): there is no time zone {tz!r}. Use a name such as 'UTC' or 'Europe/Berlin'.") from error


def _drawn(callee: Callee, arguments: dict[str, object], draw: Callable[[Clock], str | float]) -> object:
    """Return the recorded value of this call, or draw and record one, as JSON that people can read."""
    scope = find_scope()
    if scope is None:
        return draw(_SYSTEM_CLOCK)
    call = own_call(callee, scope, arguments)
    outcome = issue(call) or drive(_draw(call, draw))
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _draw(call: Call, draw: Callable[[Clock], str | float]) -> Steps[Outcome]:
    value = draw(call.run.journal.clock)
    yield from record_drawn(call, begin_block(call), value)
    return Outcome(value, None)


# ------------------------------------------------------------------------------------------- what all blocks share


def begin_block(call: Call) -> BeginCall | StartAttempt:
    """Return the change that begins a call: it writes its row, or begins anew what has one without an outcome."""
    run, at = call.run, call.run.journal.clock.now_text()
    call.seq += 1
    if call.seq == 1:
        call.attempt = 1
        return first_row(call, at, running=True)
    call.attempt = max(call.attempt, 1)  # it is not tried again: nothing failed
    return StartAttempt(
        None, run.id, call.task_run_id, seq=call.seq, epoch=run.epoch, attempt=call.attempt, at=at, fresh=call.fresh
    )


def record_drawn(call: Call, begin: BeginCall | StartAttempt, value: object) -> Steps[None]:
    """Begin a call and record its result, in one commit."""
    change = RecordDrawn(begin, attempt=call.attempt, result=encode(value, f"the result of {call}"))
    yield Write(call.run, change, call.run.synced)
    call.seq, call.task_run_id = change.seq, change.task_run_id
    tell_block(call, "COMPLETED")


def tell_block(call: Call, state: str) -> None:
    """Tell the listeners of a committed state."""
    if listeners.LISTENERS:
        at = call.run.journal.clock.now_text()
        listeners.tell(listeners.Event(call.run.id, call.task_run_id, call.callee.name, state, None, at))


# ------------------------------------------------------------------------------------------- side effects


def _effect(fn: str, args: list[object], kwargs: dict[str, object]) -> None:
    """The parameters of `side_effect`, as they are shown and told apart: the function counts by its name."""


_EFFECT_PARAMETERS = Parameters(_effect, owner="side_effect()")


@overload
def side_effect(fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...
@overload
def side_effect(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
@asks_the_flow
def side_effect(fn: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call `fn(*args, **kwargs)` and record its result: a task for a function that is none. Await it if `fn` is async.

    A resumed run is given the recorded result. A call that was cut off in the middle is made again: at least once.
    """
    scope = find_scope()
    if scope is None:
        return None if current_tracer() is not None else fn(*args, **kwargs)
    name = getattr(fn, "__qualname__", type(fn).__qualname__)

    def call_it(_: str, args: list[object], kwargs: dict[str, object]) -> object:
        return fn(*args, **kwargs)

    callee = Callee(
        kind="task", name="side_effect", key=f"wfengine.side_effect:{name}", decorated=fn, fn=call_it,
        is_async=inspect.iscoroutinefunction(inspect.unwrap(fn)), parameters=_EFFECT_PARAMETERS,
    )  # fmt: skip
    return call_now(callee, scope, (name, list(args), kwargs), {})


# ------------------------------------------------------------------------------------------- an endless flow


def continue_as_new(**parameters: object) -> NoReturn:
    """End this flow run and go on as a new one with these parameters; those not named stay as they are. Never returns.

    For a flow that loops for ever: no run grows without bound. The end of the one and the beginning of the other are one
    transaction. The caller of the flow is given the last run's result. Only in the body of a flow; raises UsageError elsewhere.
    """
    scope = find_scope() if current_scope() is not None else None
    if scope is None or scope.call is not None or not scope.on_main_lane():
        raise UsageError(
            "continue_as_new() was called outside of a flow's body (in a task, a hook, a thread, another asyncio task or "
            "no flow at all), and nothing was changed. Call it in the function decorated with @flow."
        )
    flow = scope.run.flow
    if flow.is_generator or flow.is_task:
        raise UsageError(
            f"continue_as_new() was called in {scope.run}, a {'generator' if flow.is_generator else 'task called alone'}; only "
            "a flow that returns its result can go on as a new run. Call a flow that is none from here."
        )
    active = ACTIVE_TRANSACTION.get()
    if active is not None and active.scope is scope:
        raise UsageError(
            f"continue_as_new() was called inside a transaction of {scope.run}, which could then neither be committed nor "
            "undone. Nothing was changed. Leave the `with transaction(...)` block first."
        )
    arguments = _new_arguments(flow, scope, parameters)
    text, stored = describe_parameters(flow.parameters.owner, arguments)
    raise ContinueAsNew(arguments, text, stored)


def _new_arguments(flow: AnyFlow, scope: Scope, parameters: dict[str, object]) -> dict[str, object]:
    """Return the parameters of the run with some replaced, fitted to the hints. Raises ParameterError."""
    if not is_plain((), parameters):
        parameters = resolved_arguments(parameters)
    args, kwargs = flow.parameters.unbind({**scope.run.parameters, **parameters})
    arguments = flow.parameters.bind(args, kwargs)
    return flow.parameters.coerce(arguments) if flow.should_validate_parameters else arguments
