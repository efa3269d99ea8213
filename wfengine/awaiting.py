"""Functions that may be awaited: what they do is done when they are called, and quick; there is nothing to wait for.

Prefect gives such a function two faces: in async code its answer has to be awaited, elsewhere it is the answer itself; and
a second name, with an `a` before it, is always awaited. Here both are thin: the work is written once, without `async`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Generic, NoReturn, ParamSpec, TypeVar, cast

from wfengine.runners.away import ERRAND
from wfengine.scopes import current_scope

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Given(Coroutine[None, None, R_co], Generic[R_co]):
    """An answer that is there already, for who awaits it. Not awaited, nothing is lost but the answer."""

    __slots__ = ("_answer",)

    def __init__(self, answer: R_co) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return f"<await this: {self._answer!r}>"

    def __await__(self) -> Generator[None, None, R_co]:
        yield from ()
        return self._answer

    def send(self, value: None, /) -> NoReturn:
        """See collections.abc.Coroutine."""
        raise StopIteration(self._answer)

    def throw(self, *error: object) -> NoReturn:
        """See collections.abc.Coroutine."""
        raised = error[1] if len(error) > 1 and error[1] is not None else error[0]
        raise cast(BaseException, raised() if isinstance(raised, type) else raised)

    def close(self) -> None:
        """See collections.abc.Coroutine."""


def in_async_code(caller: FrameType | None) -> bool:
    """Tell whether the caller awaits what it calls: it belongs to an async task or flow, or outside of those to a loop."""
    scope = current_scope()
    if scope is not None and scope.closed:  # a hook, or what names a run: nothing but its own code says what it is
        return caller is not None and bool(caller.f_code.co_flags & inspect.CO_COROUTINE)
    if scope is not None:
        return scope.run.flow.is_async if scope.call is None else scope.call.callee.is_async
    errand = ERRAND.get()
    if errand is not None:
        return errand.is_async
    asyncio = sys.modules.get("asyncio")  # not imported: then no loop runs
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


def awaited_in_async_code(fn: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose answer has to be awaited in async code, and nowhere else; `_sync=True` or False says so."""

    @functools.wraps(fn)
    def either(*args: P.args, **kwargs: P.kwargs) -> R:
        is_sync = kwargs.pop("_sync", None)
        frame = inspect.currentframe()
        awaits = in_async_code(frame and frame.f_back) if is_sync is None else not is_sync
        answer = fn(*args, **kwargs)
        return cast(R, Given(answer)) if awaits else answer

    return either


def always_awaited(fn: Callable[P, R]) -> Callable[P, Coroutine[None, None, R]]:
    """Return a function made by `awaited_in_async_code` in the form that is always awaited, its name with an `a` before it."""
    plain = cast("Callable[P, R]", inspect.unwrap(fn))
    answer = cast("Callable[..., R]", fn)

    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return answer(*args, _sync=True, **kwargs)

    functools.update_wrapper(call, plain)
    call.__name__ = f"a{plain.__name__}"
    call.__qualname__ = call.__name__.join(plain.__qualname__.rsplit(plain.__name__, 1))
    call.__doc__ = f"Do what `{plain.__name__}` does; its answer is awaited in any code."
    return cast("Callable[P, Coroutine[None, None, R]]", call)
