"""Hooks: functions of the user that are called after a state was committed. They cannot break or change a run.

A hook is `hook(flow, flow_run, state)` or `hook(task, task_run, state)`; one whose parameters are named `old_state` and
`new_state` is given these instead, as in Prefect 1. What it returns is ignored, what it raises is logged and recorded.

Each call of a hook is recorded (table `hook_run`). A resumed run calls those of a replayed task that its dead process did
not come to, so a hook is called at least once for each state it is for, and again only if the process died in the middle
of it. A task or flow that a hook calls is a run of its own.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from wfengine.scopes import LiveRun, Scope
from wfengine.states import State
from wfengine.steps import Invoke, Outcome, Steps
from wfengine_journal.errors import UsageError
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.run_objects import FlowRun, TaskRun
    from wfengine.task_engine import Call

_logger = logging.getLogger("wfengine.hooks")

_AFTER_FAILURE = {
    "on_commit": "Its transaction is rolled back.",
    "on_rollback": "What it was to undo is not undone, and stays Completed.",
}

Hook = Callable[..., object]

#: The option that names the hooks of a state type.
OPTIONS = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CANCELLED: "on_cancellation",
    StateType.CRASHED: "on_crashed",
}


class Hooks:
    """The hooks of one flow or task, by the option that named them."""

    __slots__ = ("_hooks", "subject")

    def __init__(self, subject: object, hooks: dict[str, tuple[Hook, ...]]) -> None:
        self.subject = subject  # the Flow or Task that is given to each
        self._hooks = {option: named_hooks(listed) for option, listed in hooks.items()}

    def of(self, state_type: StateType) -> tuple[tuple[str, Hook], ...]:
        """Return (name, hook) of the hooks for a state, in the order in which they were given."""
        return self.named(OPTIONS.get(state_type, ""))

    def named(self, option: str) -> tuple[tuple[str, Hook], ...]:
        """Return (name, hook) of the hooks that an option names."""
        return self._hooks.get(option, ())


def named_hooks(hooks: Iterable[Hook]) -> tuple[tuple[str, Hook], ...]:
    """Return the hooks with the names under which their calls are recorded; of two with one name, the second is 'name#2'."""
    counts: dict[str, int] = {}
    named = []
    for hook in hooks:
        name = str(getattr(hook, "__qualname__", None) or getattr(hook, "__name__", None) or type(hook).__qualname__)
        counts[name] = counts.get(name, 0) + 1
        named.append((name if counts[name] == 1 else f"{name}#{counts[name]}", hook))
    return tuple(named)


class HookDecorators:
    """What flows and tasks share: hooks that are added by decorating a function, `@my_flow.on_failure`."""

    _hooks: dict[str, tuple[Hook, ...]]
    _options: dict[str, object]

    def _take_hooks(self, owner: str, options: Mapping[str, object], names: Iterable[str]) -> None:
        """Check the hooks that the options name, and use them."""
        self._hooks = {option: checked_hooks(owner, option, options.get(option)) for option in names}
        if any(self._hooks.values()):
            self._use_hooks(Hooks(self, self._hooks))

    def _add_hook(self, option: str, hook: Hook) -> Hook:
        self._hooks[option] = (*self._hooks[option], *checked_hooks(repr(self), option, [hook]))
        self._options[option] = self._hooks[option]
        self._use_hooks(Hooks(self, self._hooks))
        return hook

    def _use_hooks(self, hooks: Hooks) -> None:
        raise NotImplementedError

    def on_running(self, hook: Hook) -> Hook:
        """Decorate a function to be called, as those of the option `on_running` are, when an attempt begins."""
        return self._add_hook("on_running", hook)

    def on_completion(self, hook: Hook) -> Hook:
        """Decorate a function to be called, as those of the option `on_completion` are, after a result was committed."""
        return self._add_hook("on_completion", hook)

    def on_failure(self, hook: Hook) -> Hook:
        """Decorate a function to be called, as those of the option `on_failure` are, after the last attempt failed."""
        return self._add_hook("on_failure", hook)


def checked_hooks(owner: str, option: str, hooks: object) -> tuple[Hook, ...]:
    """Return the hooks that an option names; UsageError when it is not a list of functions."""
    if hooks is None:
        return ()
    if callable(hooks) or not isinstance(hooks, Iterable):
        raise UsageError(f"{owner}: {option} takes a list of functions, not {hooks!r}. Write: {option}=[...]")
    found = tuple(hooks)
    for hook in found:
        if not callable(hook):
            raise UsageError(f"{owner}: {option} takes a list of functions; {hook!r} is none.")
    return found


class Moment(NamedTuple):
    """The state that hooks are called for."""

    run: LiveRun
    call: Call | None
    seq: int  # of the transition
    new: State[object]

    @property
    def old(self) -> State[object]:
        return State(StateType.PENDING if self.new.type is StateType.RUNNING else StateType.RUNNING)

    @property
    def task_run_id(self) -> int:
        return 0 if self.call is None else self.call.task_run_id

    def subject_run(self) -> FlowRun | TaskRun:
        from wfengine.run_objects import flow_run_of, task_run_of  # lazy: only a hook needs them

        return flow_run_of(self.run, self.new) if self.call is None else task_run_of(self.call, self.new)


def call_task_hooks(call: Call, state: State[object], seq: int) -> Steps[None]:
    """Call the hooks of a task for a state that is committed as its transition `seq`."""
    hooks = call.callee.hooks
    if hooks is not None:
        yield from _call_all(hooks, Moment(call.run, call, seq, state))


def has_untold(call: Call, state_type: StateType, seq: int) -> bool:
    """Tell whether a recorded state of a task has hooks that were not called: the process died first."""
    hooks = call.callee.hooks
    if hooks is None or call.run.dry is not None:
        return False
    option = OPTIONS.get(state_type, "")
    if any((call.task_run_id, seq, option, name) not in call.run.told for name, _ in hooks.of(state_type)):
        return True
    if call.transaction is not None or state_type is not StateType.COMPLETED:
        return False
    return any((call.task_run_id, seq, "on_commit", name) not in call.run.told for name, _ in hooks.named("on_commit"))


def call_flow_hooks(run: LiveRun, state: State[object], seq: int) -> Steps[None]:
    """Call the hooks of a flow for a state that is committed as its transition `seq`."""
    hooks = run.flow.hooks
    if hooks is not None:
        yield from _call_all(hooks, Moment(run, None, seq, state))


def _call_all(hooks: Hooks, moment: Moment) -> Steps[None]:
    if moment.run.dry is not None:
        return
    for name, hook in hooks.of(moment.new.type):
        args = _arguments(hook, hooks.subject, moment)
        yield from call_hook(moment, OPTIONS.get(moment.new.type, ""), name, hook, args)


def call_hook(
    moment: Moment, option: str, name: str, hook: Hook, args: tuple[object, ...], *, again: bool = False
) -> Steps[Exception | None]:
    """Call one hook and record that; return what it raised. One that was called already is not, unless `again`."""
    if moment.run.dry is not None:
        return None
    if not again and (moment.task_run_id, moment.seq, option, name) in moment.run.told:
        return None
    scope = Scope(moment.run, moment.call)
    scope.closed = True
    outcome = yield Invoke(scope, hook, args, {}, inspect.iscoroutinefunction(inspect.unwrap(hook)), None)
    assert isinstance(outcome, Outcome)
    _record(moment, option, name, outcome.error)
    if outcome.error is not None and not isinstance(outcome.error, Exception):
        raise outcome.error  # Ctrl-C, not a failure of the hook
    return outcome.error


def ask_condition(call: Call, state: State[object]) -> Steps[bool]:
    """Ask a task's retry_condition_fn whether a failure is worth another attempt; one that raises has said no."""
    from wfengine.run_objects import task_run_of  # lazy: only a hook or condition needs it

    condition = call.callee.policy.state_condition
    assert condition is not None
    scope = Scope(call.run, call)
    scope.closed = True
    args = (call.callee.decorated, task_run_of(call, state), state)
    outcome = yield Invoke(scope, condition, args, {}, inspect.iscoroutinefunction(inspect.unwrap(condition)), None)
    assert isinstance(outcome, Outcome)
    if outcome.error is not None and not isinstance(outcome.error, Exception):
        raise outcome.error
    if outcome.error is not None:
        _logger.error("The retry_condition_fn of %s failed, so it is not tried again.", call, exc_info=outcome.error)
    return outcome.error is None and bool(outcome.value)


def _arguments(hook: Hook, subject: object, moment: Moment) -> tuple[object, ...]:
    if _takes_two_states(hook):
        return (subject, moment.old, moment.new)
    return (subject, moment.subject_run(), moment.new)


@functools.lru_cache(maxsize=256)
def _takes_two_states(hook: Hook) -> bool:
    try:
        names = list(inspect.signature(hook).parameters)
    except (TypeError, ValueError):
        return False
    return names[1:3] == ["old_state", "new_state"]


def _record(moment: Moment, option: str, name: str, error: BaseException | None) -> None:
    run = moment.run
    text = None if error is None else f"{type(error).__name__}: {error}"
    run.told.add((moment.task_run_id, moment.seq, option, name))
    run.journal.put_hook_run(run.id, moment.task_run_id, moment.seq, option, name, text)
    if error is not None:
        who = str(moment.call) if moment.call is not None else str(run)
        rest = _AFTER_FAILURE.get(option, "The run is not affected.")
        _logger.error("The %s hook '%s' of %s failed. %s", option, name, who, rest, exc_info=error)
