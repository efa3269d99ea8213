"""The live view of a run: it reads the journal, so the same code serves `run`, `resume` and `watch`.

`follow` polls a read-only connection of its own and hands snapshots to a view. In a terminal the view is a table that
is redrawn; elsewhere it is plain lines. Both write to stderr. A view never fails a run: trouble here ends the view.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from wfengine.cli.base import Settings, color_choice
from wfengine.cli.journal import shown_path
from wfengine.cli.output import clean, duration_text, say, shows_unicode, state_color, state_mark
from wfengine_journal.clock import SystemClock, seconds_from_text
from wfengine_journal.errors import WfengineError
from wfengine_journal.queries import data_version, get_run_head, list_run_transitions, reading
from wfengine_journal.rows import Run, TaskCount, Transition
from wfengine_journal.task_queries import task_counts
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

#: Seconds between two looks at the journal.
INTERVAL_SECONDS = 1 / 8
#: A look may take this share of the time: looks at a run of a million calls come less often.
COST_FACTOR = 8
#: Seconds between two calls of `idle`.
IDLE_SECONDS = 2.0
#: Seconds over which a rate is measured.
RATE_SECONDS = 10.0
#: Seconds for which a task has to have nothing left before a plain line says so; a loop's next call may follow.
SETTLED_SECONDS = 1.0
#: Seconds between plain lines about tasks that go on.
PROGRESS_SECONDS = 30.0
#: Seconds that the end of a run waits for the view's last look.
LAST_LOOK_SECONDS = 5.0
#: Columns of a progress bar.
BAR_WIDTH = 24

_AT_REST = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED"})
# A call that a crash cut off (CRASHED) is not done: it runs again when the run is resumed.
_DONE = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look at the journal found; `transitions` are those of the run that are new since the last look."""

    run: Run
    counts: tuple[TaskCount, ...]
    transitions: tuple[Transition, ...]


class View(Protocol):
    """Shows snapshots. Entered and left in the thread that began it; the rest is called by `follow`'s thread."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def update(self, snapshot: Snapshot) -> None:
        """Show what was found."""

    def tick(self) -> None:
        """Let time pass: nothing new was found."""


def make_view(settings: Settings, path: Path) -> View:
    """Return the view that suits the terminal and the options."""
    if settings.quiet:
        return QuietView()
    if sys.stderr.isatty() and not settings.as_json:
        return TerminalView(settings, path)
    return PlainView(path)


def follow(
    path: Path,
    find: Callable[[sqlite3.Connection], int | None],
    view: View,
    stop: threading.Event,
    *,
    after_seq: int = 0,
    until_rest: bool = False,
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Look at the run that `find` names, again and again, until `stop` is set or, with `until_rest`, it rests.

    `find` is asked until it knows the run. State changes up to number `after_seq` are old news. `idle` is called every
    two seconds.
    """
    clock = SystemClock()
    version, run_id, seq, cost = -1, None, after_seq, 0.0
    idled_at = clock.monotonic_seconds()
    with reading(path) as connection:
        while True:
            stopped, began_at = stop.is_set(), clock.monotonic_seconds()
            newest = data_version(connection)
            if newest != version or stopped:
                version = newest
                run_id = find(connection) if run_id is None else run_id
                if run_id is not None:
                    snapshot = _look(connection, run_id, seq)
                    seq = snapshot.transitions[-1].seq if snapshot.transitions else seq
                    view.update(snapshot)
                    stopped = stopped or (until_rest and snapshot.run.state in _AT_REST)
                cost = clock.monotonic_seconds() - began_at
            else:
                view.tick()
            if stopped:
                return
            if began_at - idled_at > IDLE_SECONDS:
                idled_at = began_at
                idle()
            stop.wait(max(INTERVAL_SECONDS, COST_FACTOR * cost))


def _look(connection: sqlite3.Connection, run_id: int, seq: int) -> Snapshot:
    # The head is read first: a run that it shows as ended has no calls that the counts could miss.
    run = get_run_head(connection, run_id)
    transitions = list_run_transitions(connection, run_id, after_seq=seq)
    return Snapshot(run, tuple(task_counts(connection, run_id)), tuple(transitions))


@contextmanager
def following(
    path: Path, find: Callable[[sqlite3.Connection], int | None], view: View, *, after_seq: int = 0
) -> Iterator[None]:
    """Follow a run on a thread while the block executes it; leave after a last look."""
    stop = threading.Event()

    def work() -> None:
        try:
            follow(path, find, view, stop, after_seq=after_seq)
        except (WfengineError, sqlite3.Error, OSError) as error:
            say(f"the live view ended: {clean(error)}")

    with view:
        thread = start_thread("wfengine-live-view", work)
        try:
            yield
        finally:
            stop.set()
            thread.join(LAST_LOOK_SECONDS)


# ---------------------------------------------------------------------------------------------------- progress


@dataclass(slots=True)
class Progress:
    """All calls of one task, added up over their states."""

    kind: str
    task: str
    total: int = 0
    done: int = 0
    failed: int = 0
    interrupted: int = 0
    running: int = 0
    waiting: int = 0  # for their next attempt
    replayed: int = 0


def progress_of(counts: Sequence[TaskCount]) -> list[Progress]:
    """Return the counts added up by task, in the order of first calls."""
    found: dict[tuple[str, str], Progress] = {}
    for count in counts:
        progress = found.setdefault((count.kind, count.task), Progress(count.kind, count.task))
        progress.total += count.count
        progress.replayed += count.replayed
        progress.done += count.count if count.state in _DONE else 0
        progress.failed += count.count if count.state == "FAILED" else 0
        progress.interrupted += count.count if count.state == "CRASHED" else 0
        progress.running += count.count if count.state == "RUNNING" else 0
        progress.waiting += count.count if count.state in ("SCHEDULED", "PAUSED") else 0
    return list(found.values())


class Rates:
    """Calls per second of each task over the last seconds, from what successive looks found."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def add(self, now: float, items: Sequence[Progress]) -> None:
        """Note how many calls are done at a reading of the monotonic clock."""
        for item in items:
            samples = self._samples.setdefault((item.kind, item.task), deque(maxlen=256))
            samples.append((now, item.done))
            while len(samples) > 2 and now - samples[0][0] > RATE_SECONDS:
                samples.popleft()

    def of(self, item: Progress) -> float:
        """Return the calls per second of a task; 0 while that is not known."""
        samples = self._samples.get((item.kind, item.task))
        if not samples or samples[-1][0] - samples[0][0] < 2 * INTERVAL_SECONDS:
            return 0.0
        (first_at, first_done), (last_at, last_done) = samples[0], samples[-1]
        return max(0, last_done - first_done) / (last_at - first_at)


def notes_of(item: Progress) -> str:
    """Return what else is to be said of a task: replayed, failed, waiting for a retry."""
    parts = [
        f"{number} {word}"
        for number, word in (
            (item.replayed, "replayed"),
            (item.failed, "failed"),
            (item.interrupted, "interrupted"),
            (item.waiting, "waiting"),
        )
        if number
    ]
    return ", ".join(parts)


def task_label(item: Progress) -> str:
    """Return the name of a task for people; subflows are said to be such."""
    return clean(item.task) + (" (subflow)" if item.kind == "flow" else "")


# ---------------------------------------------------------------------------------------------------- views


class QuietView(AbstractContextManager["QuietView"]):
    """Shows nothing."""

    def __exit__(self, *error: object) -> None:
        """Do nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""


class PlainView(AbstractContextManager["PlainView"]):
    """Lines for log files: the run's state changes, and one line for each task when it has finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = SystemClock()
        self._last: Snapshot | None = None
        self._said: dict[tuple[str, str], int] = {}
        self._complete_since: dict[tuple[str, str], float] = {}
        self._progress_at = self._clock.monotonic_seconds()

    def __exit__(self, *error: object) -> None:
        """Say the lines of tasks that were not settled yet."""
        for item in progress_of(self._last.counts) if self._last else ():
            if self._said.get((item.kind, item.task)) != item.total:
                self._say_task(item)

    def update(self, snapshot: Snapshot) -> None:
        """Say what changed."""
        if self._last is None:
            run = snapshot.run
            say(f"{clean(run.name)} · flow {clean(run.flow)} · run {run.id} · journal {shown_path(self._path)}")
        for transition in snapshot.transitions:
            # Why a run is parked is said once, by what ends the command.
            message = f": {clean(transition.message)}" if transition.message and transition.state != "PAUSED" else ""
            say(f"{clean(snapshot.run.name)} is {clean(transition.state_name)} (attempt {transition.attempt}){message}")
        self._last = snapshot
        self.tick()

    def tick(self) -> None:
        """Say which tasks have settled, and from time to time how far the others are."""
        now = self._clock.monotonic_seconds()
        items = progress_of(self._last.counts) if self._last else []
        for item in items:
            key = (item.kind, item.task)
            if item.done < item.total or key in self._said:
                self._complete_since.pop(key, None)
            elif now - self._complete_since.setdefault(key, now) >= SETTLED_SECONDS:
                self._said[key] = item.total
                self._say_task(item)
        if now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            for item in items:
                if item.done < item.total:
                    self._say_task(item)

    def _say_task(self, item: Progress) -> None:
        notes = notes_of(item)
        say(f"  {task_label(item)} {item.done}/{item.total}" + (f" ({notes})" if notes else ""))


class TerminalView(AbstractContextManager["TerminalView"]):
    """A table that is redrawn: tasks by name with counts and rate; for maps a bar and the time left.

    A task is mapped if several of its calls were open at once. How often a loop goes on to call a task nobody knows.
    """

    def __init__(self, settings: Settings, path: Path) -> None:
        from rich.console import Console
        from rich.live import Live

        self._path = path
        self._clock = SystemClock()
        self._rates = Rates()
        self._snapshot: Snapshot | None = None
        self._mapped: set[tuple[str, str]] = set()
        plain = color_choice(settings) is False
        self._console = Console(stderr=True, no_color=plain or None, highlight=False)
        self._unicode = shows_unicode(sys.stderr)
        # What the flow prints goes above the table, but only if it would reach the same terminal.
        self._live: Live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=sys.stdout.isatty(), redirect_stderr=True
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last table on the screen."""
        self.tick()
        self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        """Draw what was found."""
        self._snapshot = snapshot
        items = progress_of(snapshot.counts)
        self._rates.add(self._clock.monotonic_seconds(), items)
        # Calls that a crash cut off are left out: each of them may have been the only one of its time.
        self._mapped |= {(item.kind, item.task) for item in items if item.total - item.done - item.interrupted > 1}
        self.tick()

    def tick(self) -> None:
        """Draw again, with the time that has passed."""
        if self._snapshot is not None:
            self._live.update(self._drawn(self._snapshot), refresh=True)

    def _drawn(self, snapshot: Snapshot) -> Group:
        from rich.console import Group
        from rich.table import Table

        items = progress_of(snapshot.counts)
        room = max(3, self._console.size.height - 4)
        shown = _most_telling(items, room)
        table = Table.grid(padding=(0, 2))
        for _ in range(5):
            table.add_column(no_wrap=True)
        for item in shown:
            table.add_row(*self._row(item))
        lines: list[Text | Table] = [self._head(snapshot.run), table]
        if len(shown) < len(items):
            lines.append(_text(f"  and {len(items) - len(shown)} more tasks", "dim"))
        return Group(*lines)

    def _head(self, run: Run) -> Text:
        line = _text(f"{state_mark(run.state, self._unicode)} {clean(run.state_name)}", state_color(run.state))
        parts = ["", clean(run.name), f"flow {clean(run.flow)}", f"run {run.id}", _elapsed(run, self._clock)]
        if run.attempt > 1:
            parts.append(f"attempt {run.attempt}")
        if run.message and run.state != "PAUSED":  # that is said in full below the table
            parts.append(clean(run.message))
        line.append(" · ".join(parts))
        line.truncate(max(20, self._console.size.width - 1), overflow="ellipsis")
        return line

    def _row(self, item: Progress) -> list[Text]:
        state = "FAILED" if item.failed else "RUNNING" if item.done < item.total else "COMPLETED"
        label = _text(f"  {state_mark(state, self._unicode)} {task_label(item)}", state_color(state))
        label.truncate(max(20, self._console.size.width // 3), overflow="ellipsis")
        rate = self._rates.of(item)
        left = item.total - item.done
        pace = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate > 0 else ""
        mapped = (item.kind, item.task) in self._mapped
        time_left = f"{duration_text(left / rate)} left" if mapped and rate > 0 and left else ""
        return [
            label,
            _text(f"{item.done:,}/{item.total:,}" if mapped or item.total == 1 else f"{item.done:,}", ""),
            _text(self._bar(item) if mapped else "", state_color(state)),
            _text("  ".join(part for part in (pace, time_left) if part) if left or not mapped else "", "dim"),
            _text(notes_of(item), "dim"),
        ]

    def _bar(self, item: Progress) -> str:
        filled = BAR_WIDTH * item.done // item.total
        full, empty = ("━", "╌") if self._unicode else ("#", "-")
        return full * filled + empty * (BAR_WIDTH - filled)


def _text(content: str, style: str) -> Text:
    from rich.text import Text

    return Text(content, style=style)


def _elapsed(run: Run, clock: SystemClock) -> str:
    if run.started_at is None:
        return ""
    if run.ended_at is not None:
        return duration_text(run.duration_s)
    try:
        seconds = max(0, int(clock.wall_seconds() - seconds_from_text(run.started_at)))
    except ValueError:  # an instant that is none, in a damaged file
        return ""
    return f"{seconds} s" if seconds < 60 else duration_text(seconds)


def _most_telling(items: list[Progress], room: int) -> list[Progress]:
    """Return the tasks to show when there is not room for all: those that go on or failed, then the latest."""
    if len(items) <= room:
        return items
    order = sorted(range(len(items)), key=lambda i: (items[i].done == items[i].total, not items[i].failed, -i))
    chosen = set(order[:room])
    return [item for i, item in enumerate(items) if i in chosen]
