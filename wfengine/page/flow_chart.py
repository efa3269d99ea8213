"""Drawings of flows in numbers: how long its runs took, and runs and due instants of all flows on one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wfengine_journal.clock import seconds_from_text, text_from_seconds

Data = dict[str, Any]

#: Sizes in units of the drawing: of the trend, and of the axis with its names and rows.
WIDTH = 1000
HEIGHT = 120
LABELS = 190
ROW = 22
TICKS = 6


@dataclass(frozen=True, slots=True)
class Point:
    """One run: where its column stands, how high it is, and which."""

    left: float
    width: float
    top: float
    height: float
    state: str
    run_id: int
    title: str


@dataclass(frozen=True, slots=True)
class Trend:
    """How long runs took. `median_top`: where the line of the median of those that completed runs; null: none did."""

    points: tuple[Point, ...]
    longest_s: float
    median_s: float | None
    median_top: float | None


def trend(runs: Sequence[Data]) -> Trend | None:
    """Draw how long runs took, oldest first; None: none has ended."""
    ended = [run for run in runs if run["duration_s"] is not None]
    if not ended:
        return None
    longest = max(max(run["duration_s"] for run in ended), 1e-6)
    width = WIDTH / max(len(runs), 30)
    points = []
    for number, run in enumerate(runs):
        if run["duration_s"] is None:
            continue
        height = round(max(2.0, HEIGHT * run["duration_s"] / longest), 1)
        title = f"{run['name']}: {run['duration_s']:.3f} s, {run['state'].lower()}"
        left = round(number * width, 1)
        points.append(Point(left, round(width - 3, 1), round(HEIGHT - height, 1), height, run["state"], run["id"], title))
    completed = sorted(run["duration_s"] for run in ended if run["state"] == "COMPLETED")
    median = completed[len(completed) // 2] if completed else None
    return Trend(tuple(points), longest, median, None if median is None else round(HEIGHT - HEIGHT * median / longest, 1))


@dataclass(frozen=True, slots=True)
class Mark:
    """A run (`run_id`), or an instant that is due."""

    left: float
    width: float
    state: str
    run_id: int | None
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One flow."""

    top: int
    flow: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """The drawing. `ticks`: (left, text)."""

    lanes: tuple[Lane, ...]
    height: int
    now: float
    ticks: tuple[tuple[float, str], ...]
    hidden: int  # flows that are not drawn


def axis(data: Data, limit: int) -> Axis:
    """Draw runs that were, and instants that are due, by flow."""
    start, now, end = (seconds_from_text(data[name]) for name in ("since", "read_at", "until"))
    room = (WIDTH - LABELS - 10) / max(end - start, 1e-6)

    def place(seconds: float) -> float:
        return round(LABELS + (min(max(seconds, start), end) - start) * room, 2)

    lanes: dict[str, list[Mark]] = {}
    for run in data["runs"]:
        left = place(seconds_from_text(run["started_at"]))
        right = place(now if run["ended_at"] is None else seconds_from_text(run["ended_at"]))
        title = f"{run['name']} {run['state'].lower()}, began {run['started_at'][:19].replace('T', ' ')}Z"
        mark = Mark(left, round(max(3.0, right - left), 2), run["state"], run["id"], title)
        lanes.setdefault(run["flow"], []).append(mark)
    for fire in data["fires"]:
        flow = fire["deployment"].partition("/")[0]
        title = f"{fire['deployment']} is due {fire['at'][:19].replace('T', ' ')}Z"
        lanes.setdefault(flow, []).append(Mark(place(seconds_from_text(fire["at"])), 3.0, "SCHEDULED", None, title))
    names = sorted(lanes)[:limit]
    drawn = tuple(Lane(ROW * number, name, tuple(lanes[name])) for number, name in enumerate(names))
    ticks = tuple((place(at), _tick_text(at, end - start)) for at in (start + (end - start) * n / TICKS for n in range(TICKS)))
    return Axis(drawn, ROW * len(drawn) + 24, place(now), ticks, len(lanes) - len(names))


def _tick_text(at: float, seconds: float) -> str:
    text = text_from_seconds(at)
    return f"{text[5:10]} {text[11:16]}Z" if seconds > 86400 else f"{text[11:19]}Z" if seconds < 7200 else f"{text[11:16]}Z"
