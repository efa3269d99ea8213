"""Background runs among the arguments of a background task: each stands there as a mark until its result is known.

So the arguments can be stored before there is a result. A mark is looked for in lists, tuples, sets and the values of dicts,
one in another. Nothing here reads or writes the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wfengine.distributed_futures import PrefectDistributedFuture
from wfengine.futures import TaskFutureList
from wfengine_journal.errors import ParameterError

#: A mark is this text and the id of the background run's flow run.
MARK = "$background_run:"
#: Levels of nested containers that are looked through.
DEPTH_LIMIT = 50

_SEQUENCES = frozenset({list, tuple, set, frozenset, TaskFutureList})


def marked(value: object, found: list[int]) -> object:
    """Return the value with a mark for each future of a background run; their flow run ids are added to `found`."""

    def mark(item: object) -> object:
        if not isinstance(item, PrefectDistributedFuture):
            return item
        found.append(item.flow_run_id)
        return f"{MARK}{item.flow_run_id}"

    return _Changed(mark).of(value, 0)


def filled(value: object, results: Mapping[int, object]) -> object:
    """Return the value with the result of its run in the place of each mark."""
    by_mark = {f"{MARK}{run_id}": result for run_id, result in results.items()}
    return _Changed(lambda item: by_mark.get(item, item) if isinstance(item, str) else item).of(value, 0)


def refuse_marks(value: object, owner: str) -> None:
    """Raise ParameterError for a text of the user's own that would be taken for a mark."""

    def check(item: object) -> object:
        if isinstance(item, str) and item.startswith(MARK):
            raise ParameterError(
                f"{owner} was given the text {item[:80]!r} beside futures of background runs, which are stored in that form. "
                "Pass another text, or the results instead of the futures."
            )
        return item

    _Changed(check).of(value, 0)


class _Changed:
    """Values with something else for each item that `change` changes. A value in which it changes none stays itself."""

    __slots__ = ("_change", "_done")

    def __init__(self, change: Callable[[object], object]) -> None:
        self._change = change
        # By id; the container is kept beside what stands for it, so that its id stays its own. Each is looked at once.
        self._done: dict[int, tuple[object, object]] = {}

    def of(self, value: Any, depth: int) -> object:
        kind = type(value)
        if depth >= DEPTH_LIMIT or (kind not in _SEQUENCES and kind is not dict):
            return self._change(value)
        if id(value) in self._done:
            return self._done[id(value)][1]
        self._done[id(value)] = (value, value)  # for a container that holds itself
        items = value.values() if kind is dict else value
        made = [self.of(item, depth + 1) for item in items]
        if any(new is not old for new, old in zip(made, items, strict=True)):
            like = dict(zip(value, made, strict=True)) if kind is dict else made if kind is TaskFutureList else kind(made)
            self._done[id(value)] = (value, like)
        return self._done[id(value)][1]
