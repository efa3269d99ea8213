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
    callee = cast(Any, call.callee)  # a task or a flow
    with tags(*call.tags):
        if call.submitted:
            return callee.submit(*call.args, wait_for=call.wait_for, **call.kwargs)
        if callee.is_generator and isinstance(call.callee, Task) and not call.return_state:
            return callee.submit(*call.args, wait_for=call.wait_for, **call.kwargs).result()
        return callee(*call.args, wait_for=call.wait_for, return_state=call.return_state, **call.kwargs)


def begin_call(call: Call) -> Callable[[], object]:
    """Give a direct call of something async its place in the order of calls; return what makes it and gives its value."""
    callee = cast(Any, call.callee)
    with tags(*call.tags):
        if callee.is_generator and isinstance(call.callee, Task) and not call.return_state:
            future = callee.submit(*call.args, wait_for=call.wait_for, **call.kwargs)
            return cast("Callable[[], object]", future.result)
        coroutine = callee(*call.args, wait_for=call.wait_for, return_state=call.return_state, **call.kwargs)

    def finish() -> object:
        with tags(*call.tags):
            return run_coroutine(coroutine)

    weakref.finalize(finish, coroutine.close).atexit = False  # it may never be awaited
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
