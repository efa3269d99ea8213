"""Which journal a flow run goes to, and how durable its results are unless the flow says so itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from wfengine.loading import is_loading
from wfengine.redaction import KEEPER
from wfengine.runners.away import ERRAND, is_worker_process, refuse_on_worker
from wfengine_journal.errors import UsageError
from wfengine_journal.guarding import post_guard
from wfengine_journal.location import find_path
from wfengine_journal.store import Journal, open_journal

if TYPE_CHECKING:
    from wfengine.scopes import Scope

#: "power": a result the flow was given survives a pulled plug. "process": it survives any crash of the process; a power cut
#: may take what is younger than the last synced commit, of which there is one a second while there are writes.
Durability = Literal["power", "process"]

ENVIRONMENT_VARIABLE = "WFENGINE_DURABILITY"
#: 'otlp': runs are traced, see `wfengine.listeners.tracing`. Nothing (default): they are not.
TRACES_VARIABLE = "WFENGINE_TRACES"

post_guard(KEEPER)  # whoever can write into a journal keeps secrets out of it

_chosen: Path | None = None
_durability: dict[Path, Durability] = {}


def use_journal(path: str | os.PathLike[str] | None, *, durability: Durability | None = None) -> Journal:
    """Use this journal file for every run started in this process from now on; open (and create) it.

    None goes back to the usual search: WFENGINE_JOURNAL, then `.wfengine/journal.db` here or above, else made here.
    `durability` is that of flows which do not name their own (default: WFENGINE_DURABILITY, else "power").
    """
    if is_loading() and (is_worker_process() or ERRAND.get() is not None):
        return cast(Journal, _NoJournal())  # a module of the flow's is imported by a worker
    global _chosen  # the one setting of a process, like the working directory
    _chosen = None if path is None else find_path(path)
    journal = default_journal()
    if durability is not None:
        _durability[journal.path] = _checked(durability)
    return journal


class _NoJournal:
    """What `use_journal` gives on a worker."""

    def __getattr__(self, name: str) -> NoReturn:
        raise UsageError(f"Journal.{name} cannot be used on a worker: the journal is the flow's. Do it in the flow.")


def default_path() -> Path:
    """Return the path of the journal that a run started now goes to; the file need not exist."""
    return _chosen if _chosen is not None else find_path()


def default_journal() -> Journal:
    """Return the open journal that a run started now goes to. Raises UsageError in a task whose code runs on a worker."""
    refuse_on_worker("Something that needs the journal", "Do it in the flow, and give the task what came of it.")
    journal = open_journal(default_path())
    if os.environ.get(TRACES_VARIABLE):
        _trace(journal)
    return journal


def _trace(journal: Journal) -> None:
    """Let the runs of this process be traced, as the environment says."""
    wanted = os.environ[TRACES_VARIABLE]
    if wanted != "otlp":
        raise UsageError(f"{TRACES_VARIABLE}={wanted!r} is no way to send traces. Set otlp, or nothing.")
    from wfengine.listeners.tracing import start_tracing  # needs an extra

    start_tracing(journal)


@contextmanager
def journal_in_use(path: Path, durability: Durability) -> Iterator[Journal]:
    """Use a journal for the runs started in the block, and then the one that was used before, whatever the block chose."""
    global _chosen
    before = _chosen
    try:
        yield use_journal(path, durability=durability)
    finally:
        _chosen = before
        _durability.pop(path, None)


def default_durability(journal: Journal) -> Durability:
    """Return the durability of flows that do not name their own."""
    return _durability.get(journal.path) or _checked(os.environ.get(ENVIRONMENT_VARIABLE) or "power")


def _checked(durability: str) -> Durability:
    if durability not in ("power", "process"):
        raise UsageError(f"durability must be 'power' or 'process', not {durability!r} (see {ENVIRONMENT_VARIABLE}).")
    return cast(Durability, durability)


# ---- for what may be called inside a run and outside of any


def journal_of(scope: Scope | None) -> Journal:
    """Return the journal of the run, or outside of any that of the process."""
    return default_journal() if scope is None else scope.run.journal


def waits_for_disk(journal: Journal, scope: Scope | None) -> bool:
    """Tell whether to wait for the disk; in a run the outcome of the enclosing call does, and takes this along."""
    return scope is None and default_durability(journal) == "power"


def is_executed_again(scope: Scope | None) -> bool:
    """Tell whether this is not the first execution of the enclosing run, nor of the task that calls."""
    return scope is not None and (scope.run.epoch > 1 or (scope.call is not None and scope.call.attempt > 1))
