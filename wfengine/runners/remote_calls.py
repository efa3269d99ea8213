"""What is done in the flow's process on behalf of code that runs on a worker. The present scope is that code's."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any, cast

from wfengine.runners.messages import Call, Do
from wfengine.scopes import tags
from wfengine.steps import run_coroutine
from wfengine.tasks import Task


def answer_call(call: Call) -> object:
    """Make the call of a task or flow, or submit it; return its value, its state or its future."""
    made = _make(call)
    return made.result() if _collects_items(call) else made


def _make(call: Call) -> Any:
    """Return what the caller of a task or flow gets here; of one whose items are collected, its future."""
    callee = cast(Any, call.callee)
    with tags(*call.tags):
        if call.submitted or _collects_items(call):
            return callee.submit(*call.args, wait_for=call.wait_for, **call.kwargs)
        return callee(*call.args, wait_for=call.wait_for, return_state=call.return_state, **call.kwargs)


def _collects_items(call: Call) -> bool:
    """Tell whether a task is called for its items: it is run to its end, and they are sent together."""
    is_asked_for_items = not call.submitted and not call.return_state
    return is_asked_for_items and isinstance(call.callee, Task) and call.callee.is_generator


def begin_call(call: Call) -> Callable[[], object]:
    """Give a direct call of something async its place in the order of calls; return what makes it and gives its value."""
    made = _make(call)
    if _collects_items(call):
        return cast("Callable[[], object]", made.result)

    def finish() -> object:
        with tags(*call.tags):
            return run_coroutine(made)

    weakref.finalize(finish, made.close).atexit = False  # it may never be awaited
    return finish


def answer_do(what: Do) -> object:
    """Call a public function, or a method of one of the run's futures."""
    if what.module == "future":
        future = what.args[0]
        found = getattr(future, what.name)
        return found(*what.args[1:], **what.kwargs) if callable(found) else found
    module = importlib.import_module(what.module)
    if not what.name:
        return getattr(module, cast(str, what.args[0]))
    found = functools.reduce(getattr, what.name.split("."), cast(Any, module))
    if inspect.ismethod(found):  # of a class, which is the first of the arguments
        found = found.__func__
    return found(*what.args, **what.kwargs)


def take_log(record: logging.LogRecord) -> None:
    """Let a line that was logged on a worker go where one that is logged here would go."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
