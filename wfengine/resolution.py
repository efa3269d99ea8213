"""Futures and states inside arguments: found before a call begins, and replaced by what they stand for.

They are looked for in lists, tuples, named tuples, sets, dicts (keys too), dataclasses, attrs classes and pydantic models,
one in another, and inside the marks of `annotations`. What holds none of them is neither copied nor walked any deeper
than it takes to see that, so that large plain data costs next to nothing. A container is looked at once, however often
it is referred to, from itself too. Nothing is replaced in place: the caller's own objects stay as they are.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path, PosixPath, PurePath, PurePosixPath
from typing import Any, Literal, TypeAlias, cast

from wfengine.annotations import BaseAnnotation, allow_failure, opaque, quote
from wfengine.states import State, result_of
from wfengine.task_future import TaskFuture
from wfengine_journal.errors import UsageError

#: Futures deeper than this in nested containers are not looked for. A level costs two frames of the interpreter's 1000.
DEPTH_LIMIT = 50

#: What holds nothing, by exact class.
_PLAIN = frozenset(
    {int, str, float, bool, bytes, type(None), complex, bytearray, memoryview, range, slice, type, date, datetime, time}
    | {timedelta, timezone, Path, PosixPath, PurePath, PurePosixPath}
)
_SEQUENCES = frozenset({list, tuple, set, frozenset})
_NOTHING = frozenset({int, str, float, bool, bytes, type(None)})

#: What stands for a result.
Found: TypeAlias = TaskFuture[object] | State[object]

_Kind = Literal["sequence", "mapping", "record", "model", "future", "state", "annotation", "plain"]


def is_plain(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Tell at a glance that the arguments of a call hold nothing to look for. The common case, and the hot path."""
    return _PLAIN.issuperset(map(type, args)) and (not kwargs or _PLAIN.issuperset(map(type, kwargs.values())))


class UpstreamFailure(Exception):
    """What a call waits for failed, so that there are no inputs to call it with. For the engine only.

    `source` is what failed, `error` the exception it gives.
    """

    def __init__(self, source: Found, error: Exception) -> None:
        super().__init__(str(error))
        self.source = source
        self.error = error


class Search:
    """What was found in some values: which futures are still to come, and whether anything has to be replaced."""

    __slots__ = ("_seen", "has_annotations", "has_futures", "pending")

    def __init__(self, *values: object) -> None:
        self.pending: list[TaskFuture[object]] = []  # not settled at this moment, each once
        self.has_futures = False  # futures or states
        self.has_annotations = False
        self._seen: dict[int, object] = {}  # the value beside its id, which stays its own that way
        for value in values:
            self._look(value, 0)

    def _look(self, value: object, depth: int) -> None:
        kind = type(value)
        if kind in _PLAIN or depth > DEPTH_LIMIT or (kind in _SEQUENCES and _is_flat(value)):
            return
        what = _kind_of(kind)
        if what == "plain" or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if what == "future":
            self.has_futures = True
            if not cast("TaskFuture[object]", value).done():
                self.pending.append(cast("TaskFuture[object]", value))
        elif what == "state":
            self.has_futures = True
        elif what == "annotation":
            self._look_into_annotation(cast("BaseAnnotation[object]", value), depth)
        else:
            for part in _parts(what, value):
                self._look(part, depth + 1)

    def _look_into_annotation(self, value: BaseAnnotation[object], depth: int) -> None:
        self.has_annotations = True
        if not _is_left_alone(value):
            self._look(value.value, depth + 1)


def resolved(value: object) -> object:
    """Return the value with the result of every future and state in its place, and without annotations.

    Waits for futures. The first one that failed, unless `allow_failure` is around it, raises UpstreamFailure.
    """
    return _Replacement(_result_of).of(value, 0)


def resolved_arguments(arguments: dict[str, object]) -> dict[str, object]:
    """Return the arguments of a call, by name, as the task is to see them; see `resolved`."""
    replacement = _Replacement(_result_of)
    return {name: replacement.of(value, 0) for name, value in arguments.items()}


def replaced(value: object, instead: Callable[[Found], object]) -> object:
    """Return the value with something else in the place of every future and state; annotations stay.

    Of a value that holds none, that value itself.
    """
    return _Replacement(lambda found, _: instead(found), keep_annotations=True).of(value, 0)


def _result_of(found: Found, failure_allowed: bool) -> object:
    try:
        if isinstance(found, TaskFuture):
            return found.result(raise_on_failure=not failure_allowed)
        return result_of(found, raise_on_failure=not failure_allowed)
    except Exception as error:
        raise UpstreamFailure(found, error) from error


class _Replacement:
    """One pass over some values that puts something else in the place of futures and states."""

    __slots__ = ("_done", "_instead", "_keep_annotations")

    def __init__(self, instead: Callable[[Found, bool], object], *, keep_annotations: bool = False) -> None:
        self._instead = instead
        self._keep_annotations = keep_annotations
        # By id and whether a failure is allowed there. The value is kept beside its replacement, so that its id stays its own.
        self._done: dict[tuple[int, bool], tuple[object, object]] = {}

    def of(self, value: object, depth: int, failure_allowed: bool = False) -> object:
        kind = type(value)
        if kind in _PLAIN or depth > DEPTH_LIMIT or (kind in _SEQUENCES and _is_flat(value)):
            return value
        what = _kind_of(kind)
        if what == "plain":
            return value
        if what == "future" or what == "state":
            return self._instead(cast("Found", value), failure_allowed)
        if what == "annotation":
            return self._of_annotation(cast("BaseAnnotation[object]", value), depth, failure_allowed)
        marker = (id(value), failure_allowed)
        known = self._done.get(marker)
        if known is not None:
            return known[1]
        self._done[marker] = (value, value)  # for a container that holds itself
        made = self._of_container(what, value, depth, failure_allowed)
        self._done[marker] = (value, made)
        return made

    def _of_annotation(self, value: BaseAnnotation[object], depth: int, failure_allowed: bool) -> object:
        inner = value.value
        allowed = failure_allowed or isinstance(value, allow_failure)
        made = inner if _is_left_alone(value) else self.of(inner, depth + 1, allowed)
        if not self._keep_annotations:
            return made
        return value if made is inner else value.rewrap(made)

    def _of_container(self, what: _Kind, value: Any, depth: int, failure_allowed: bool) -> object:
        if what == "sequence":
            made = self._of_each(value, depth, failure_allowed)
            return value if made is None else _made_anew(value, lambda: _sequence_like(value, made))
        if what == "mapping":
            keys, items = (self._of_each(part, depth, failure_allowed) for part in (value, value.values()))
            if keys is None and items is None:
                return value
            pairs = list(zip(keys or value, items or value.values(), strict=True))
            return _made_anew(value, lambda: _mapping_like(value, pairs))
        names = _field_names(type(value)) if what == "record" else tuple(_model_fields(value))
        fields = [getattr(value, name, None) for name in names]
        items = self._of_each(fields, depth, failure_allowed)
        if items is None:
            return value
        changed = {name: new for name, old, new in zip(names, fields, items, strict=True) if new is not old}
        return _made_anew(value, lambda: _record_like(value, changed) if what == "record" else value.model_copy(update=changed))

    def _of_each(self, parts: Collection[object], depth: int, failure_allowed: bool) -> list[object] | None:
        """Return what stands for each part; None if all stay as they are."""
        made = [self.of(part, depth + 1, failure_allowed) for part in parts]
        return None if all(map(operator.is_, made, parts)) else made


# What is looked into, and how


def _is_left_alone(annotation: BaseAnnotation[object]) -> bool:
    """Tell whether what stands inside the annotation is not looked into."""
    if isinstance(annotation, quote):
        return True
    return isinstance(annotation, opaque) and not isinstance(annotation.value, TaskFuture | State | BaseAnnotation)


def _is_flat(value: Any) -> bool:
    return _NOTHING.issuperset(map(type, value))


def _find_kind(kind: type) -> _Kind:
    """Return how values of a class are looked into. The answer depends on the class only."""
    if issubclass(kind, TaskFuture):
        return "future"
    if issubclass(kind, State):
        return "state"
    if issubclass(kind, BaseAnnotation):
        return "annotation"
    if issubclass(kind, str | bytes | int | float | enum.Enum | type):
        return "plain"
    if issubclass(kind, list | tuple | set | frozenset | collections.deque):
        return "sequence"
    if issubclass(kind, dict):
        return "mapping"
    if _field_names(kind):
        return "record"
    # pydantic is not imported to find out: whoever made a model has imported it.
    is_model = any(base.__module__ == "pydantic.main" and base.__name__ == "BaseModel" for base in kind.__mro__)
    return "model" if is_model else "plain"


def _find_field_names(kind: type) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass or attrs class; nothing for any other class."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return tuple(attribute.name for attribute in attributes) if isinstance(attributes, tuple) else ()


#: Both are asked again and again for the same classes. Bounded, since a program may make classes as it goes.
_kind_of: Callable[[type], _Kind] = functools.lru_cache(maxsize=1000)(_find_kind)
_field_names: Callable[[type], tuple[str, ...]] = functools.lru_cache(maxsize=1000)(_find_field_names)


def _model_fields(value: object) -> dict[str, object]:
    """Return what a pydantic model holds: its fields, and what else it was given where it allows that."""
    extra = getattr(value, "__pydantic_extra__", None)
    return {**vars(value), **extra} if extra else vars(value)


def _parts(what: _Kind, value: Any) -> Iterable[object]:
    if what == "sequence":
        return cast("Iterable[object]", value)
    if what == "mapping":
        if _is_flat(value) and _is_flat(value.values()):
            return ()
        return itertools.chain(value, value.values())
    if what == "record":
        return [getattr(value, name, None) for name in _field_names(type(value))]
    return _model_fields(value).values()


def _made_anew(value: object, make: Callable[[], object]) -> object:
    """Return what `make` makes in the place of a container whose contents changed. Raises UsageError where it cannot."""
    try:
        return make()
    except Exception as error:  # a user's class may demand anything of its instances
        raise UsageError(
            f"An argument holds futures inside a {type(value).__qualname__}, which cannot be made anew with their results in "
            f"it ({type(error).__name__}: {error}). Pass the futures in a list, tuple or dict, or wait for them first."
        ) from error


def _sequence_like(value: Any, items: list[object]) -> object:
    """Return a sequence of the same class with other items; a list of futures becomes a plain list."""
    kind = type(value)
    if hasattr(kind, "_make"):  # a named tuple
        return kind._make(items)
    if isinstance(value, collections.deque):
        return kind(items, value.maxlen)
    return items if getattr(kind, "__wfengine_futures__", False) else kind(items)


def _mapping_like(value: dict[object, object], pairs: list[tuple[object, object]]) -> object:
    if type(value) is dict:
        return dict(pairs)
    made = copy.copy(value)  # keeps what a defaultdict or a class of the user's own holds besides
    made.clear()
    made.update(pairs)
    return made


def _record_like(value: object, changed: Mapping[str, object]) -> object:
    """Return a copy with other fields. `__init__` does not run again; it may check, count or refuse."""
    made = copy.copy(value)
    for name, item in changed.items():
        object.__setattr__(made, name, item)  # a frozen one lets nobody else
    return made
