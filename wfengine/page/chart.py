"""Drawings as rectangles in numbers: of the calls of a run, and of runs in a time. The templates write them as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wfengine.page.lineage import Link
from wfengine_journal.rows import Bar, TaskGroup

#: Width of a drawing and of its labels, and height of a row, in its own units.
WIDTH = 1000
LABELS = 190
ROW = 18
#: Calls that are drawn one by one; a run with more is drawn by task.
BARS = 500
#: Lines of time.
TICKS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `parts` are (left, width, state) of its rectangles."""

    label: str
    title: str
    top: int
    link: int | None  # id of the task run
    parts: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A drawing. `ticks`: (left, seconds), the last one the end."""

    rows: tuple[Row, ...]
    height: int
    ticks: tuple[tuple[float, float], ...]
    seconds: float
    first: float = 0.0
    arrows: tuple[Arrow, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line from the end of one bar to the beginning of another one. `path`: as SVG writes it, of numbers only."""

    path: str
    title: str


def waterfall_of_bars(
    bars: Sequence[Bar], now_s: float, links: Iterable[Link] = (), window: tuple[float, float] | None = None
) -> Waterfall:  # fmt: skip
    """Draw each call; one that has not ended goes on until now. `window`: only what lies between, in seconds."""
    spans = []
    for bar in bars:
        start = bar.offset_s or 0.0
        spans.append((bar, start, max(now_s, start) if bar.duration_s is None else start + bar.duration_s))
    first, last = window or _extent((start, end) for _, start, end in spans)
    rows = tuple(
        Row(
            bar.task, f"{bar.task} #{bar.task_id} {bar.state.lower()}{_before(end)}", ROW * number, bar.task_id,
            (_part(start, end, first, last, bar.state),),
        )
        for number, (bar, start, end) in enumerate(spans)
    )  # fmt: skip
    return _drawing(rows, first, last, _arrows(rows, links))


def _arrows(rows: Sequence[Row], links: Iterable[Link]) -> tuple[Arrow, ...]:
    """Draw from each call whose result another one was given, an elbow between their rows."""
    places = {row.link: row for row in rows}
    found = []
    for link in links:
        source, target = places.get(link.source), places.get(link.target)
        if source is None or target is None:
            continue
        left, width, _ = source.parts[0]
        x1, x2 = left + width, target.parts[0][0]
        y1, y2 = source.top + ROW / 2, target.top + (2 if target.top > source.top else ROW - 4)
        title = f"{source.label} #{link.source} gave {target.label} #{link.target} its {link.argument}"
        found.append(Arrow(f"M{x1:.1f} {y1:.1f}H{max(x1, x2) + 3:.1f}V{y2:.1f}", title))
    return tuple(found)


def waterfall_of_groups(
    groups: Sequence[TaskGroup], now_s: float, window: tuple[float, float] | None = None
) -> Waterfall:  # fmt: skip
    """Draw the calls of each task as one row, from the start of the first to the end of the last, shares of states in it."""
    shown = [group for group in groups if group.starts_s is not None]
    spans = [
        (group, group.starts_s or 0.0, now_s if group.running or group.waiting or group.ends_s is None else group.ends_s)
        for group in shown
    ]
    if window is not None:
        spans = [(group, start, end) for group, start, end in spans if start <= window[1] and end >= window[0]]
    first, last = window or _extent((start, end) for _, start, end in spans)
    rows = []
    for number, (group, start, end) in enumerate(spans):
        counts = (
            ("COMPLETED", group.completed), ("FAILED", group.failed), ("CRASHED", group.interrupted),
            ("RUNNING", group.running), ("PENDING", group.waiting),
        )  # fmt: skip
        left, width, _ = _part(start, max(start, end), first, last, "")
        total, at, parts = max(1, sum(count for _, count in counts)), left, []
        for state, count in counts:
            if count:
                parts.append((round(at, 2), round(max(1.0, width * count / total), 2), state))
                at += width * count / total
        said = ", ".join(f"{count:,} {state.lower()}" for state, count in counts if count)
        rows.append(Row(f"{group.task} ({group.count:,})", f"{group.task}: {said}", ROW * number, None, tuple(parts)))
    return _drawing(tuple(rows), first, last)


def _before(end: float) -> str:
    return ", before this run began" if end < 0 else ""


def _extent(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    # Calls that a fork brought along took place before it began, maybe days: they stand at its beginning.
    found = [(max(0.0, start), max(0.0, end)) for start, end in spans]
    if not found:
        return 0.0, 1.0
    first, last = min(start for start, _ in found), max(end for _, end in found)
    return first, max(last, first + 1e-6)


def _part(start: float, end: float, first: float, last: float, state: str) -> tuple[float, float, str]:
    room = (WIDTH - LABELS - 10) / (last - first)
    start, end = min(max(start, first), last), min(max(end, first), last)
    return round(LABELS + (start - first) * room, 2), round(max(2.0, (end - start) * room), 2), state


def _drawing(rows: tuple[Row, ...], first: float, last: float, arrows: tuple[Arrow, ...] = ()) -> Waterfall:
    ticks = tuple(
        (round(LABELS + (WIDTH - LABELS - 10) * number / TICKS, 1), first + (last - first) * number / TICKS)
        for number in range(TICKS + 1)
    )  # fmt: skip
    return Waterfall(rows, ROW * len(rows) + 24, ticks, last - first, first, arrows)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of runs over time: heights of what completed, failed, and is neither."""

    left: float
    width: float
    completed: float
    failed: float
    other: float
    title: str


def columns(buckets: Sequence[dict[str, object]], since_seconds: float, now_seconds: float, seconds: int) -> list[Column]:
    """Return the columns of runs in stretches of time; height 60 is the largest."""
    from wfengine_journal.clock import seconds_from_text

    start = since_seconds // seconds * seconds
    count = max(1, int((now_seconds - start) // seconds) + 1)
    largest = max((_sum(each) for each in buckets), default=1) or 1
    width = WIDTH / count
    found = []
    for each in buckets:
        at = str(each["starts_at"])
        place = (seconds_from_text(at.replace("Z", ".000000Z")) - start) // seconds
        completed, failed, other = (60.0 * int(str(each[name])) / largest for name in ("completed", "failed", "other"))
        said = f"{at[:16].replace('T', ' ')}Z: {each['completed']} completed, {each['failed']} failed, {each['other']} other"
        found.append(Column(round(place * width, 2), round(max(1.0, width - 1), 2), completed, failed, other, said))
    return found


def _sum(bucket: dict[str, object]) -> int:
    return sum(int(str(bucket[name])) for name in ("completed", "failed", "other"))
