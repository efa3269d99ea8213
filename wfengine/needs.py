"""Background runs among the arguments of a background task: each stands there as a mark until its result is known.

So the arguments can be stored before there is a result. Marks are put, and found again, in lists, tuples, sets and the values
of dicts, one in another, and within `allow_failure`; a future anywhere else is waited for where the task is put into its
queue. Nothing here reads or writes the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wfengine.annotations import allow_failure
from wfengine.distributed_futures import PrefectDistributedFuture
from wfengine.futures import TaskFutureList
from wfengine_journal.errors import ParameterError, UsageError

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: A mark is this text and the id of the background run's flow run.
MARK = "$background_run:"
#: Levels of nested containers that are looked through.
DEPTH_LIMIT = 50

_SEQUENCES = frozenset({list, tuple, set, frozenset, TaskFutureList})


def marked(value: object, needs: dict[int, bool], journal: Journal) -> object:
    """Return the value with a mark for each future of a background run.

    `needs` is given the ids of their flow runs, and whether that run has to complete: not within `allow_failure`. Raises
    UsageError for a run of another journal.
    """

    def mark(item: object, failure_allowed: bool) -> object:
        if not isinstance(item, PrefectDistributedFuture):
            return item
        if item.journal is not journal:
            raise UsageError(
                f"The result of a background run of {item.journal.path} was given to one of {journal.path}, whose workers "
                "cannot see it. Wait for it first: future.result()"
            )
        needs[item.flow_run_id] = needs.get(item.flow_run_id, False) or not failure_allowed
        return f"{MARK}{item.flow_run_id}"

    return _Changed(mark).of(value, 0, False)


def filled(value: object, results: Mapping[int, object]) -> object:
    """Return the value with the result of its run in the place of each mark."""
    by_mark = {f"{MARK}{run_id}": result for run_id, result in results.items()}
    return _Changed(lambda item, _: by_mark.get(item, item) if isinstance(item, str) else item).of(value, 0, False)


def refuse_marks(value: object, owner: str) -> None:
    """Raise ParameterError for a text of the user's own that would be taken for a mark."""

    def check(item: object, _: bool) -> object:
        if isinstance(item, str) and item.startswith(MARK):
            raise ParameterError(
                f"{owner[0].upper()}{owner[1:]} was given the text {item[:80]!r} beside futures of background runs, "
                "which are stored in that form. Pass another text, or the results instead of the futures."
            )
        return item

    _Changed(check).of(value, 0, False)


class _Changed:
    """Values with something else for each item that `change` changes. A value in which it changes none stays itself."""

    __slots__ = ("_change", "_done")

    def __init__(self, change: Callable[[object, bool], object]) -> None:
        self._change = change  # of an item, and whether it may have failed
        # By id and whether a failure is allowed there. The container is kept beside what stands for it, so that its id stays
        # its own. Each is looked at once.
        self._done: dict[tuple[int, bool], tuple[object, object]] = {}

    def of(self, value: Any, depth: int, failure_allowed: bool) -> object:
        kind = type(value)
        if kind is allow_failure and depth < DEPTH_LIMIT:
            return value.rewrap(self.of(value.value, depth + 1, True))
        if depth >= DEPTH_LIMIT or (kind not in _SEQUENCES and kind is not dict):
            return self._change(value, failure_allowed)
        place = (id(value), failure_allowed)
        if place in self._done:
            return self._done[place][1]
        self._done[place] = (value, value)  # for a container that holds itself
        items = value.values() if kind is dict else value
        made = [self.of(item, depth + 1, failure_allowed) for item in items]
        if any(new is not old for new, old in zip(made, items, strict=True)):
            like = dict(zip(value, made, strict=True)) if kind is dict else made if kind is TaskFutureList else kind(made)
            self._done[place] = (value, like)
        return self._done[place][1]
