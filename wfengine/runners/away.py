"""Where code finds the way to its flow's process, if it runs on a worker (`worker`) and not in that process."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from wfengine_journal.errors import UsageError
from wfengine_journal.guarding import POST

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Errand:
    """What stands for the flow's process, for code on a worker."""

    def do(self, fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Have a public function called in the flow's process, in the scope of the code that runs here."""
        raise NotImplementedError

    def tell(self, what: object) -> None:
        """Say something that has no answer: a line of a log."""
        raise NotImplementedError

    async def later(self, ask: Callable[[], T]) -> T:
        """Call a function that asks the flow's process, without stopping the event loop meanwhile."""
        raise NotImplementedError

    @property
    def is_async(self) -> bool:
        """Tell whether the code that runs here is that of an async task or flow."""
        raise NotImplementedError


#: Set in the context of code that runs on a worker.
ERRAND: contextvars.ContextVar[Errand | None] = contextvars.ContextVar("wfengine_errand", default=None)


def asks_the_flow(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function that needs the journal: on a worker, it is called in the flow's process."""

    @functools.wraps(fn)
    def here_or_there(*args: P.args, **kwargs: P.kwargs) -> R:
        errand = ERRAND.get()
        if errand is None:
            return fn(*args, **kwargs)
        return cast(R, errand.do(fn, args, kwargs))

    return here_or_there


_is_worker_process = False


def become_worker_process() -> None:
    """Note that this process does nothing but run the code of tasks: it never opens a journal, whatever calls for one."""
    global _is_worker_process
    _is_worker_process = True
    POST.hides_output = True  # it goes to the terminal or log of the flow's process


def is_worker_process() -> bool:
    """Tell whether `become_worker_process` was called here."""
    return _is_worker_process


def refuse_on_worker(what: str, instead: str) -> None:
    """Raise UsageError in code that runs on a worker, where something does not work."""
    if _is_worker_process or ERRAND.get() is not None:
        raise UsageError(f"{what} does not work in a task whose code runs on a worker, and nothing was done. {instead}")
