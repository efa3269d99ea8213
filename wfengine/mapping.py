"""The arguments of each item of a map.

What can be iterated over is taken apart, item by item; text, bytes, files and what is marked `unmapped` go whole to every
item. A future or state itself counts as its result, which is waited for here, so that its items can be counted; futures
inside an iterable are left to the call of their item. An iterator is used up once.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from wfengine.annotations import BaseAnnotation, allow_failure, opaque, quote, unmapped
from wfengine.states import State, result_of
from wfengine.task_future import TaskFuture
from wfengine_journal.errors import MappingLengthMismatch, MappingMissingIterable

#: What is iterable and yet means one thing.
_WHOLE = (str, bytes, io.IOBase, BaseAnnotation, State)


class _Argument(NamedTuple):
    """One argument of a map: its items, or the one value that every item gets."""

    name: str
    items: list[object] | None
    whole: object


def map_items(
    owner: str, names: tuple[str, ...], args: tuple[object, ...], kwargs: dict[str, object]
) -> Iterator[tuple[tuple[object, ...], dict[str, object]]]:
    """Return positional and named arguments for each item of a map, in order.

    `owner` names the task in errors, `names` are its parameters'. Raises MappingMissingIterable and MappingLengthMismatch
    at once, before the first item.
    """
    places = [*itertools.zip_longest(names[: len(args)], args, fillvalue="*args"), *kwargs.items()]
    arguments = [_argument(str(name), value) for name, value in places]
    _check_lengths(owner, arguments)
    rows = zip(*(itertools.repeat(each.whole) if each.items is None else each.items for each in arguments), strict=False)
    count, keywords = len(args), tuple(kwargs)
    if not keywords:
        return ((row, {}) for row in rows)
    return ((row[:count], dict(zip(keywords, row[count:], strict=True))) for row in rows)


def _argument(name: str, value: object) -> _Argument:
    marks: list[BaseAnnotation[object]] = []
    while isinstance(value, allow_failure | quote | opaque):
        marks.append(value)
        value = value.value
    if isinstance(value, unmapped):
        return _Argument(name, None, _marked(value.value, marks))
    if not marks:
        value = value.result() if isinstance(value, TaskFuture) else result_of(value) if isinstance(value, State) else value
    if isinstance(value, TaskFuture) or not _is_iterable(value):
        return _Argument(name, None, _marked(value, marks))
    items = list(cast("Iterable[object]", value))
    return _Argument(name, [_marked(item, marks) for item in items] if marks else items, None)


def _marked(value: object, marks: list[BaseAnnotation[object]]) -> object:
    for mark in reversed(marks):
        value = mark.rewrap(value)
    return value


def _is_iterable(value: object) -> bool:
    if isinstance(value, _WHOLE):
        return False
    try:
        iter(cast("Iterable[object]", value))
    except TypeError:
        return False
    return True


def _check_lengths(owner: str, arguments: list[_Argument]) -> None:
    sizes = [(each.name, len(each.items)) for each in arguments if each.items is not None]
    if not sizes:
        raise MappingMissingIterable(
            f"{owner}: map() was given nothing to iterate over. Give it at least one list or other iterable, or run the task "
            "once with submit()."
        )
    if len({size for _, size in sizes}) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes)
        raise MappingLengthMismatch(
            f"{owner}: the iterables given to map() differ in length ({listed}). Every item takes one from each; mark what is "
            "to go whole to every item with unmapped()."
        )
