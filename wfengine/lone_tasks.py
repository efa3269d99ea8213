"""The flow run around a lone task: one called outside of any flow, or put into the queue of background tasks.

Its body is the one call of the task, so that call needs no arguments to be known again by: its call key is constant.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from wfengine.flow_engine import recorded_end
from wfengine.flows import AnyFlow, Flow
from wfengine.needs import filled
from wfengine.scopes import current_scope
from wfengine_journal.background import list_needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from wfengine.tasks import Task

#: The call key of the one call.
LONE_CALL = "the one call of this run"


def flow_around(task: Task[..., Any]) -> AnyFlow:
    """Return the flow whose body is one call of the task. It is found again by where the task's function stands."""
    called = task.with_options(call_key=LONE_CALL)
    own_code = task.fn

    def alone(**inputs: object) -> object:
        return _call(called, own_code, inputs)

    async def alone_async(**inputs: object) -> object:
        return await cast("Coroutine[object, object, object]", _call(called, own_code, inputs))

    body = alone_async if task.is_async else alone
    body.__wrapped__ = task.fn  # type: ignore[attr-defined]  # by this its name and file are those of the task
    return Flow(body, {"name": task.name, "validate_parameters": False}, is_task=True)


def _call(called: Task[..., Any], _own_code: Callable[..., object], inputs: dict[str, object]) -> object:
    """Call the task. Its function is named by the caller, so that an edit of it counts as an edit of this flow."""
    args, kwargs = called.parameters.unbind(_with_results(inputs))
    return called(*args, **kwargs)


def _with_results(inputs: dict[str, object]) -> dict[str, object]:
    """Return the inputs with the results of the background runs among them. Raises the failure of one that must complete."""
    scope = current_scope()
    if scope is None or scope.run.recorded is None:  # a first execution: it was never in a queue
        return inputs
    journal = scope.run.journal
    results: dict[int, object] = {}
    for needed, must_complete in list_needs(journal.records, scope.run.id).items():
        value, error = recorded_end(journal, journal.records.get_flow_run(needed)).outcome
        if error is not None and must_complete:
            raise error
        results[needed] = value if error is None else error
    return {name: filled(value, results) for name, value in inputs.items()} if results else inputs
