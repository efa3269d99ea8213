"""The flow run around a lone task: one called outside of any flow, or put into the queue of background tasks.

Its body is the one call of the task, so that call needs no arguments to be known again by: its call key is constant.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast

from wfengine.endings import recorded_end
from wfengine.flows import AnyFlow, Flow
from wfengine.needs import filled
from wfengine.scopes import current_scope
from wfengine_journal.background import list_needs

if TYPE_CHECKING:
    from wfengine.tasks import Task

#: The call key of the one call.
LONE_CALL = "the one call of this run"


def flow_around(task: Task[..., Any], *, background: bool = False) -> AnyFlow:
    """Return the flow whose body is one call of the task. It is found again by where the task's function stands.

    In background nobody consumes the items of a generator, so the list of them is the result, as of a submitted one.
    """
    called = task.with_options(call_key=LONE_CALL).with_bound(())  # what it is bound to is among the arguments
    own_code = task.fn  # named in each body, so that an edit of it counts as an edit of this flow

    # The state of the task is that of the run around it, with its name and message.
    def alone(**inputs: object) -> object:
        return _call(called, own_code, inputs, return_state=True)

    async def alone_async(**inputs: object) -> object:
        return await cast("Coroutine[object, object, object]", _call(called, own_code, inputs, return_state=True))

    def items_alone(**inputs: object) -> Generator[object, None, object]:
        return (yield from cast("Generator[object, None, object]", _call(called, own_code, inputs)))

    async def items_alone_async(**inputs: object) -> AsyncGenerator[object, None]:
        async for item in cast("AsyncGenerator[object, None]", _call(called, own_code, inputs)):
            yield item

    bodies = {(False, False): alone, (True, False): alone_async, (False, True): items_alone, (True, True): items_alone_async}
    body = cast("Callable[..., object]", bodies[task.is_async, task.is_generator and not background])
    body.__wrapped__ = task.fn  # type: ignore[attr-defined]  # by this its name and file are those of the task
    if task.is_transactional:
        body.__signature__ = called.parameters.signature  # type: ignore[attr-defined]  # without what the engine fills in
    flow: AnyFlow = Flow(body, {"name": task.name, "validate_parameters": False}, is_task=True)
    flow.is_generator = task.is_generator and not background  # not what the function below it is
    return flow


def _call(called: Task[..., Any], _own_code: Callable[..., object], inputs: dict[str, object], **options: bool) -> object:
    args, kwargs = called.parameters.unbind(_with_results(inputs))
    return called(*args, **kwargs, **options)


def _with_results(inputs: dict[str, object]) -> dict[str, object]:
    """Return the inputs with the results of the background runs among them. Raises the failure of one that must complete."""
    scope = current_scope()
    if scope is None or scope.run.recorded is None:  # a first execution: it was never in a queue
        return inputs
    journal = scope.run.journal
    results: dict[int, object] = {}
    for needed, must_complete in list_needs(journal.records, scope.run.id).items():
        outcome = recorded_end(journal.records, journal.records.get_flow_run(needed)).outcome
        value, error = outcome.value, outcome.error
        if error is not None and must_complete:
            raise error
        results[needed] = value if error is None else error
    return {name: filled(value, results) for name, value in inputs.items()} if results else inputs
