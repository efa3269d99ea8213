"""What a decorator was put on: a function, a method in one of its forms, or an object that can be called.

An instance is an argument like any other: the function is recorded as a plain one, and what it is bound to is given to
each call as its first argument. So two instances are two inputs, and a class that inherits a method is told from another.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class Binds(Enum):
    """What a function that stands in a class is given when it is looked up there."""

    INSTANCE = "instance"
    CLASS = "class"
    NOTHING = "nothing"


class Decorated(NamedTuple):
    """A decorated callable, taken apart."""

    fn: Callable[..., object]
    name: str  # as people call it
    qualified_name: str
    binds: Binds
    bound: tuple[object, ...]  # what the callable is bound to already: nothing, or the one instance


def take_apart(decorated: object) -> Decorated | None:
    """Return the plain function of what was decorated, and what it is bound to; None for what cannot be called."""
    if isinstance(decorated, classmethod):
        return _function(decorated.__func__, Binds.CLASS)
    if isinstance(decorated, staticmethod):
        return _function(decorated.__func__, Binds.NOTHING)
    if isinstance(decorated, types.MethodType):
        return _function(decorated.__func__, Binds.NOTHING, (decorated.__self__,))
    if not callable(decorated):
        return None
    kind = type(decorated)
    call = getattr(kind, "__call__", None)  # noqa: B004 - its function is wanted, not whether there is one
    if isinstance(call, types.FunctionType) and not hasattr(decorated, "__name__") and not hasattr(decorated, "__wrapped__"):
        # An object with __call__. One that stands for a function, as a decorator makes it, is taken for that function.
        return Decorated(call, kind.__name__, kind.__name__, Binds.NOTHING, (decorated,))
    return _function(decorated, Binds.INSTANCE)


def _function(fn: Callable[..., object], binds: Binds, bound: tuple[object, ...] = ()) -> Decorated:
    name = str(getattr(fn, "__name__", type(fn).__name__))
    return Decorated(fn, name, str(getattr(fn, "__qualname__", name)), binds, bound)


def bound_place(binds: Binds, bound: tuple[object, ...]) -> tuple[object, type]:
    """Return the instance and class to look a bound task up with again."""
    receiver = bound[0]
    return (None, receiver) if binds is Binds.CLASS and isinstance(receiver, type) else (receiver, type(receiver))


def class_part(qualified_name: str) -> str:
    """Return the name of the class that a function stands in, 'Shop' of 'Shop.sell'; '' if it stands in none."""
    outer = qualified_name.rpartition(".")[0]
    return "" if outer.endswith("<locals>") else outer


def lost_class(decorated: Decorated, names: tuple[str, ...]) -> bool:
    """Tell whether the function looks like a class method that does not know it is one: @classmethod above, not below.

    From Python 3.13 on `classmethod` does not tell what it wraps which class it was looked up in.
    """
    return decorated.binds is Binds.INSTANCE and names[:1] == ("cls",) and bool(class_part(decorated.qualified_name))


def lost_class_text(what: str, decorator: str, name: str) -> str:
    """Return the text of the error for a call that would be made without its class."""
    return (
        f"{what} cannot know the class: @classmethod stands above @{decorator}, where Python does not pass the class on. Write "
        f"them the other way round:\n    @{decorator}\n    @classmethod\n    def {name}(cls, ...)"
    )


def origin_of(fn: Callable[..., object]) -> str:
    """Return where a function stands, for people and for telling two functions of one name apart."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{fn.__module__}:{code.co_firstlineno}" if code is not None else f"{type(fn).__module__}.{type(fn).__qualname__}"
