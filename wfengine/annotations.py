"""Marks on an argument that say how it is to be taken: whole, with a failure in it, as it stands.

A mark is no part of the value. It is taken off before the task or flow sees the argument, and neither the journal nor
the identity of the call knows that it was there. Nothing here waits or looks into a value; `resolution` and `mapping` do.
"""

from __future__ import annotations

import json
from typing import Generic, Self, TypeVar

from wfengine_journal.errors import UsageError

T = TypeVar("T")


class BaseAnnotation(Generic[T]):
    """A value with a mark on it; `value` is what stands inside."""

    __slots__ = ("value",)
    __wfengine_by_name__ = True  # pickled as a call of its class, whose name is public

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """Return the value without the mark."""
        return self.value

    def rewrap(self, value: T) -> Self:
        """Return another value with the same mark."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, BaseAnnotation):
            return False
        return self.value is other.value or bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __reduce__(self) -> tuple[type[Self], tuple[T]]:
        return type(self), (self.value,)


class unmapped(BaseAnnotation[T]):
    """Marks an argument of `.map` that every item gets whole, although it could be iterated over."""

    __slots__ = ()


class allow_failure(BaseAnnotation[T]):
    """Marks futures and states that may have failed: the task runs all the same and gets the exception in their place.

    It holds for everything inside: `allow_failure([first, second])`. In `wait_for` it only waits.
    """

    __slots__ = ()


class quote(BaseAnnotation[T]):
    """Marks a value that is passed on as it stands: nobody waits for a future in it, nor looks for one."""

    __slots__ = ()

    def unquote(self) -> T:
        """Return the value without the mark."""
        return self.value


class Quote(quote[T]):
    """The old name of `quote`."""

    __slots__ = ()


class opaque(BaseAnnotation[T]):
    """Marks a value that is not looked into: a future or state itself is waited for, one inside a container is not."""

    __slots__ = ()


class freeze(BaseAnnotation[T]):
    """Marks a parameter of a deployment that a person who starts a run may not change. Its value has to be JSON."""

    __slots__ = ()

    def __init__(self, value: T) -> None:
        if not _is_json(value):
            raise UsageError(
                f"freeze() keeps a parameter in the deployment as JSON, which a {type(value).__qualname__} is not. "
                "Freeze plain data: numbers, text, lists, dicts, dates, pydantic models."
            )
        super().__init__(value)

    def unfreeze(self) -> T:
        """Return the value without the mark."""
        return self.value


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return _is_json_to_pydantic(value)
    return True


def _is_json_to_pydantic(value: object) -> bool:
    from pydantic_core import to_json  # slow to import, and plain data never needs it

    try:
        to_json(value)
    except Exception:  # the serializers of a user's own types may raise anything
        return False
    return True
