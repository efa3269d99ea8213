"""A drawing of what depends on what: boxes in columns, each to the right of those whose results it was given.

Numbers only, which the template writes as SVG. Of a few calls each is a box; of many, each task is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wfengine.page.lineage import Link
from wfengine_journal.rows import TaskGroup
from wfengine_journal.run_page_queries import CallValues

#: Calls that are drawn one by one, and of which results are followed at the most; boxes of a drawing.
SINGLE = 60
FOLLOWED = 1_000
BOXES = 300
#: Sizes in units of the drawing.
BOX_WIDTH = 150
BOX_HEIGHT = 34
COLUMN = 200
ROW = 44


@dataclass(frozen=True, slots=True)
class Box:
    """One call, or all calls of one task (`task_run_id` null)."""

    left: int
    top: int
    label: str
    below: str
    state: str
    task: str
    task_run_id: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """Results that were handed on. `path`: as SVG writes it, of numbers only."""

    path: str
    title: str


@dataclass(frozen=True, slots=True)
class Graph:
    """A drawing."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Node:
    label: str
    below: str
    state: str
    task: str
    task_run_id: int | None


def graph_of_calls(calls: Sequence[CallValues], links: Iterable[Link]) -> Graph:
    """Draw each call."""
    nodes = {
        call.id: _Node(call.task, f"#{call.id} {call.state.lower()}", call.state, call.task, call.id) for call in calls[:BOXES]
    }
    edges: dict[tuple[int, int], str] = {}
    for link in links:
        if link.source in nodes and link.target in nodes:
            said = f"{nodes[link.source].label} #{link.source} gave {nodes[link.target].label} #{link.target}"
            edges[link.source, link.target] = f"{said} its {link.argument}"
    return _drawn(nodes, edges)


def graph_of_tasks(groups: Sequence[TaskGroup], calls: Sequence[CallValues], links: Iterable[Link]) -> Graph:
    """Draw each task, with the number of results that calls of one gave to calls of another."""
    numbers = {(group.kind, group.task): number for number, group in enumerate(groups[:BOXES])}
    nodes = {
        number: _Node(group.task, f"{group.completed:,} of {group.count:,}", _worst(group), group.task, None)
        for number, group in enumerate(groups[:BOXES])
    }
    of_call = {call.id: numbers.get((call.kind, call.task)) for call in calls}
    counts: dict[tuple[int, int], int] = {}
    for link in links:
        source, target = of_call.get(link.source), of_call.get(link.target)
        if source is not None and target is not None and source != target:
            counts[source, target] = counts.get((source, target), 0) + 1
    edges = {
        (source, target): f"{nodes[source].label} gave {nodes[target].label} {count:,} result{'s' if count > 1 else ''}"
        for (source, target), count in counts.items()
    }
    return _drawn(nodes, edges)


def _worst(group: TaskGroup) -> str:
    for state, count in (("FAILED", group.failed), ("CRASHED", group.interrupted), ("RUNNING", group.running)):
        if count:
            return state
    return "PENDING" if group.waiting else "COMPLETED"


def _drawn(nodes: Mapping[int, _Node], edges: Mapping[tuple[int, int], str]) -> Graph:
    """Place the boxes. Keys are in the order of the calls, so that an edge backwards is one of a circle of tasks."""
    columns = dict.fromkeys(nodes, 0)
    for source, target in sorted(edges, key=lambda edge: (edge[1], edge[0])):
        if source < target:
            columns[target] = max(columns[target], columns[source] + 1)
    heights: dict[int, int] = {}
    boxes: dict[int, Box] = {}
    for key, node in nodes.items():
        column = columns[key]
        row = heights.get(column, 0)
        heights[column] = row + 1
        boxes[key] = Box(
            column * COLUMN + 4, row * ROW + 4, node.label, node.below, node.state, node.task, node.task_run_id
        )  # fmt: skip
    lines = tuple(Line(_path(boxes[source], boxes[target]), title) for (source, target), title in edges.items())
    width = (max(columns.values(), default=0) + 1) * COLUMN
    return Graph(tuple(boxes.values()), lines, width, max(heights.values(), default=0) * ROW + 8)


def _path(source: Box, target: Box) -> str:
    x1, y1 = source.left + BOX_WIDTH, source.top + BOX_HEIGHT // 2
    x2, y2 = target.left, target.top + BOX_HEIGHT // 2
    bend = max(24, abs(x2 - x1) // 2)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
