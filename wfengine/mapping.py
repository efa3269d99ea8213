"""The arguments of each item of a map.

What can be iterated over is taken apart, item by item; text, bytes, files and what is marked `unmapped` go whole to every
item. A future or state itself counts as its result, which is waited for here, so that its items can be counted; futures
inside an iterable are left to the call of their item. An iterator is used up once, and where all there is to take apart are
iterators, they are read item by item, as tasks are settled (`in_flight`): there may be more of them than memory, or no end.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias, cast

from wfengine.annotations import BaseAnnotation, allow_failure, opaque, quote, unmapped
from wfengine.states import State, result_of
from wfengine.task_future import TaskFuture
from wfengine_journal.errors import MappingLengthMismatch, MappingMissingIterable

_END = object()
#: What is iterable and yet means one thing.
_WHOLE = (str, bytes, io.IOBase, BaseAnnotation, State)


#: The arguments of one item, positional and named.
Item: TypeAlias = tuple[tuple[object, ...], dict[str, object]]


class MapItems(NamedTuple):
    """The items of a map, in order."""

    items: Iterator[Item]
    is_open: bool  # they come from iterators, which are read as they are asked for, and nobody knows how many there are


class _Argument(NamedTuple):
    """One argument of a map: its items, or the one value that every item gets."""

    name: str
    items: list[object] | Iterator[object] | None
    whole: object


def map_items(owner: str, names: tuple[str, ...], args: tuple[object, ...], kwargs: dict[str, object]) -> MapItems:
    """Return positional and named arguments for each item of a map, in order.

    `owner` names the task in errors, `names` are its parameters'. Raises MappingMissingIterable and MappingLengthMismatch
    at once, before the first item; where all items come from iterators, MappingLengthMismatch when the first of them ends.
    """
    places = [*itertools.zip_longest(names[: len(args)], args, fillvalue="*args"), *kwargs.items()]
    arguments = [_argument(str(name), value) for name, value in places]
    mapped = [each for each in arguments if each.items is not None]
    is_open = bool(mapped) and all(isinstance(each.items, Iterator) for each in mapped)
    rows = _open_rows(owner, arguments) if is_open else _closed_rows(owner, arguments)
    count, keywords = len(args), tuple(kwargs)
    if not keywords:
        return MapItems(((row, {}) for row in rows), is_open)
    return MapItems(((row[:count], dict(zip(keywords, row[count:], strict=True))) for row in rows), is_open)


def _closed_rows(owner: str, arguments: list[_Argument]) -> Iterator[tuple[object, ...]]:
    """Return the values of all arguments for each item, once it is known that the lengths are equal.

    An iterator beside a list is read no farther than it takes to see that: to one item more.
    """
    longest = max((len(each.items) for each in arguments if isinstance(each.items, list)), default=0)
    columns: list[Iterable[object]] = []
    lengths: dict[str, int] = {}
    for each in arguments:
        if each.items is None:
            columns.append(itertools.repeat(each.whole))
            continue
        items = each.items if isinstance(each.items, list) else list(itertools.islice(each.items, longest + 1))
        columns.append(items)
        lengths[each.name] = len(items)
    if not lengths:
        raise MappingMissingIterable(
            f"{owner}: map() was given nothing to iterate over. Give it at least one list or other iterable, or run the task "
            "once with submit()."
        )
    if len(set(lengths.values())) > 1:
        shown = [f"{name}: {f'more than {longest}' if size > longest else size}" for name, size in lengths.items()]
        raise _length_mismatch(owner, ", ".join(shown))
    return zip(*columns, strict=False)


def _open_rows(owner: str, arguments: list[_Argument]) -> Iterator[tuple[object, ...]]:
    """Yield the values of all arguments for each item; all iterators have to end with the same one."""
    sources = [itertools.repeat(each.whole) if each.items is None else iter(each.items) for each in arguments]
    mapped = [place for place, each in enumerate(arguments) if each.items is not None]
    for number in itertools.count():
        row = [next(source, _END) for source in sources]
        ended = [place for place in mapped if row[place] is _END]
        if len(ended) == len(mapped):
            return
        if ended:
            shown = [f"{arguments[place].name}: {number if place in ended else f'more than {number}'}" for place in mapped]
            done = f" The first {number} were submitted." if number else ""
            raise _length_mismatch(owner, ", ".join(shown), done)
        yield tuple(row)


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
    if isinstance(value, Iterator):
        return _Argument(name, (_marked(item, marks) for item in value) if marks else value, None)
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


def _length_mismatch(owner: str, listed: str, done: str = "") -> MappingLengthMismatch:
    return MappingLengthMismatch(
        f"{owner}: the iterables given to map() differ in length ({listed}).{done} Every item takes one from each; mark what "
        "is to go whole to every item with unmapped()."
    )
