"""`wfengine runs show`: one run as a tree of its tasks and subflows, and a timeline in text."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.ending import Ending, counts_text, ending_json, read_ending
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import open_swept, shown_path
from wfengine.cli.output import (
    clean,
    clean_lines,
    duration_text,
    instant_text,
    json_value,
    shorten,
    shows_unicode,
    size_text,
    state_color,
    state_mark,
    state_text,
    table_lines,
    terminal_width,
    write,
    write_json,
)
from wfengine_journal.clock import SystemClock
from wfengine_journal.queries import get_run, list_executions, list_history, list_subflow_runs
from wfengine_journal.rows import Execution, Run, TaskGroup, TaskRun, Transition
from wfengine_journal.task_queries import list_bars, list_failures, list_task_groups, list_tasks
from wfengine_journal.waiting_reasons import list_reasons

#: Levels of subflows that the tree opens, and subflow runs that it lists below one run.
TREE_DEPTH = 8
TREE_SUBFLOWS = 10
#: Columns of the timeline at most.
TIMELINE_WIDTH = 60
#: Processes whose bad end is shown, and lines of what each of them printed last.
PROCESSES = 3
OUTPUT_LINES = 40
#: Columns of a parameter or result.
VALUE_WIDTH = 300


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine runs show @last --tasks",
        'JSON:\n  {"schema_version", "command", "journal", "run": {columns of view runs, "replayed", "ran",\n'
        '   "next_command", ...}, "waits_for": [...], "executions": [...], "groups": [...], "subflows": [...],\n'
        '   "failures": [...]}\n'
        "  and, when asked for: tasks, history, timeline",
    ),
)
@click.argument("run")
@click.option("--tasks", is_flag=True, help="Every task run, with inputs and result.")
@click.option("--history", is_flag=True, help="Every state transition.")
@click.option("--timeline", is_flag=True, help="A bar for every task run, not for every task.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Rows of each list.")
@pass_settings
def show(settings: Settings, run: str, tasks: bool, history: bool, timeline: bool, limit: int) -> int:
    """Show RUN: what it is, its tasks as a tree, and when they ran."""
    with open_swept(settings) as (connection, path):
        ending = read_ending(connection, get_run(connection, run).id, settings)
        if settings.as_json:
            fields = {"journal": str(path), **_json(connection, ending, tasks, history, timeline, limit)}
            write_json("runs show", fields)
            return ExitCode.OK
        groups = list_task_groups(connection, ending.run.id)
        for line in [*_head(connection, ending, shown_path(path)), "", *_tree(connection, ending.run, groups, 0)]:
            write(line)
        sections = [
            ("processes that ended badly", _process_lines(list_executions(connection, ending.run.id))),
            ("timeline", _timeline(ending.run, _every_bar(connection, ending.run, limit) if timeline else _group_bars(groups))),
        ]
        if tasks:
            sections.append(("tasks", _task_lines(list_tasks(connection, ending.run.id, limit=limit))))
        if history:
            sections.append(("history", _history_lines(list_history(connection, ending.run.id, limit=limit))))
        for title, lines in sections:
            if lines:
                write()
                write(click.style(title, bold=True))
                for line in lines:
                    write(line)
    return ExitCode.OK


def _json(
    connection: sqlite3.Connection, ending: Ending, tasks: bool, history: bool, timeline: bool, limit: int
) -> dict[str, object]:
    run_id = ending.run.id
    fields: dict[str, object] = {
        "run": ending_json(ending),
        "waits_for": list_reasons(connection, run_id, SystemClock().now_text()),
        "executions": [asdict(execution) for execution in list_executions(connection, run_id)],
        "groups": [asdict(group) for group in list_task_groups(connection, run_id)],
        "subflows": [{"id": run.id, "name": run.name} for run in list_subflow_runs(connection, run_id, limit)],
        "failures": [asdict(failure) for failure in list_failures(connection, run_id, limit=limit)],
    }
    if tasks:
        fields["tasks"] = [_task_json(task) for task in list_tasks(connection, run_id, limit=limit)]
    if history:
        fields["history"] = [asdict(transition) for transition in list_history(connection, run_id, limit=limit)]
    if timeline:
        fields["timeline"] = [asdict(bar) for bar in list_bars(connection, run_id, limit=limit)]
    return fields


def _task_json(task: TaskRun) -> dict[str, object]:
    return {**asdict(task), "inputs": json_value(task.inputs), "result": json_value(task.result)}


# ---------------------------------------------------------------------------------------------------- head and tree


def _head(connection: sqlite3.Connection, ending: Ending, path: str) -> list[str]:
    run = ending.run
    starts = [f"{start.reason} at {instant_text(start.started_at)}" for start in list_executions(connection, run.id)]
    facts = [
        ("parameters", shorten(clean(run.parameters), VALUE_WIDTH) if run.parameters != "{}" else ""),
        ("result", shorten(clean(run.result), VALUE_WIDTH) if run.result is not None else ""),
        ("error", _indented(run.error or "")),
        ("waits", clean("; ".join(list_reasons(connection, run.id, SystemClock().now_text())))),
        ("message", clean(run.message) if run.message and run.message != run.error else ""),
        ("tags", clean(run.tags or "")),
        ("key", clean(run.idempotency_key or "")),
        ("part of", f"run {run.parent_run_id}" if run.parent_run_id else ""),
        ("started", instant_text(run.started_at)),
        ("took", duration_text(run.duration_s)),
        ("attempts", ", then ".join(starts[-5:]) if run.attempt > 1 else ""),
        ("tasks", ", ".join(filter(None, (f"{run.tasks_done}/{run.tasks_total} done", counts_text(ending.counts))))),
        ("process", f"pid {run.pid} on {clean(run.host)}" if run.state == "RUNNING" else ""),
        ("code", clean(run.entrypoint or "")),
        ("journal", path),
        ("next", ending.next_command if run.state in ("CRASHED", "FAILED", "PAUSED") else ""),
    ]
    title = f"{click.style(clean(run.name), bold=True)}  run {run.id}  flow {clean(run.flow)}"
    return [
        f"{title}  {state_text(run.state, run.state_name)}",
        *(f"  {name:<10}  {text}" for name, text in facts if text),
    ]


def _process_lines(executions: Sequence[Execution]) -> list[str]:
    """Return how processes ended that were made for this run alone, as far as something went wrong."""
    lines = []
    for execution in [execution for execution in executions if execution.exit_code][-PROCESSES:]:
        memory = "" if execution.peak_memory_bytes is None else f"  {size_text(execution.peak_memory_bytes)} of memory"
        how = _exit_text(execution.exit_code or 0)
        lines.append(f"  attempt {execution.attempt}  pid {execution.pid}  {how}{memory}")
        output = clean_lines(execution.output or "").strip().splitlines()
        lines.extend(f"    {shorten(line, VALUE_WIDTH)}" for line in output[-OUTPUT_LINES:])
    return lines


def _exit_text(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name} (exit code {code})"
    except ValueError:
        return f"ended by signal {-code} (exit code {code})"


def _indented(text: str) -> str:
    return clean_lines(text).strip().replace("\n", "\n              ")


def _tree(connection: sqlite3.Connection, run: Run, groups: Sequence[TaskGroup], depth: int) -> list[str]:
    """Return the run's tasks in the order of first calls, with the runs of its subflows below their task."""
    subflows = list_subflow_runs(connection, run.id, TREE_SUBFLOWS + 1) if any(g.kind == "flow" for g in groups) else []
    lines = [click.style(clean(run.flow), bold=True)] if depth == 0 else []
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        lines.append(_branch(last) + _group_text(group))
        if group.kind == "flow" and depth < TREE_DEPTH:
            children = [child for child in subflows if child.flow == group.task]
            below = _subflow_lines(connection, children, group, depth)
            lines.extend(_stem(last) + line for line in below)
    return lines


def _subflow_lines(connection: sqlite3.Connection, children: Sequence[Run], group: TaskGroup, depth: int) -> list[str]:
    lines = []
    shown = children[:TREE_SUBFLOWS]
    hidden = group.count - len(shown)
    for number, child in enumerate(shown):
        last = number == len(shown) - 1 and not hidden
        state = state_text(child.state, child.state_name)
        lines.append(f"{_branch(last)}{clean(child.name)}  run {child.id}  {state}  {duration_text(child.duration_s)}".rstrip())
        lines.extend(_stem(last) + line for line in _tree(connection, child, list_task_groups(connection, child.id), depth + 1))
    if hidden:
        lines.append(f"{_branch(True)}{hidden} more")
    return lines


def _group_text(group: TaskGroup) -> str:
    state = _group_state(group)
    mark = click.style(f"{state_mark(state)} {clean(group.task)}", fg=state_color(state))
    parts = [mark + (" (subflow)" if group.kind == "flow" else "")]
    if group.count > 1:
        parts.append(f"{group.completed:,}/{group.count:,}")
    if group.median_s is not None:
        parts.append(f"p50 {duration_text(group.median_s)}" if group.count > 1 else duration_text(group.median_s))
    counts = (
        (group.failed, "failed"),
        (group.interrupted, "interrupted"),
        (group.running, "running"),
        (group.waiting, "waiting"),
        (group.replayed, "replayed"),
    )
    parts.extend(f"{number:,} {word}" for number, word in counts if number)
    return "  ".join(parts)


def _group_state(group: TaskGroup) -> str:
    if group.failed:
        return "FAILED"
    if group.interrupted:
        return "CRASHED"
    if group.running:
        return "RUNNING"
    return "COMPLETED" if group.completed == group.count else "PENDING"


def _branch(last: bool) -> str:
    if not shows_unicode(sys.stdout):
        return "`- " if last else "|- "
    return "└─ " if last else "├─ "


def _stem(last: bool) -> str:
    return "   " if last else "│  " if shows_unicode(sys.stdout) else "|  "


# ---------------------------------------------------------------------------------------------------- lists


#: Name, state, seconds from the run's start, and seconds it took (None: goes on).
_Bar = tuple[str, str, float, float | None]


def _every_bar(connection: sqlite3.Connection, run: Run, limit: int) -> list[_Bar]:
    return [(bar.task, bar.state, bar.offset_s, bar.duration_s) for bar in list_bars(connection, run.id, limit=limit)]


def _group_bars(groups: Sequence[TaskGroup]) -> list[_Bar]:
    """Return a bar for each task, from its first start to its last end."""
    return [
        (group.task, _group_state(group), group.starts_s, None if group.ends_s is None else group.ends_s - group.starts_s)
        for group in groups
        if group.starts_s is not None
    ]


def _timeline(run: Run, bars: Sequence[_Bar]) -> list[str]:
    if not bars:
        return []
    end = max([offset + (duration or 0) for _, _, offset, duration in bars] + [run.duration_s or 0, 0.001])
    names = [shorten(clean(name), 30) for name, *_ in bars]
    name_width = max(len(name) for name in names)
    width = max(10, min(TIMELINE_WIDTH, terminal_width() - name_width - 14))
    lines = [f"  {'':<{name_width}}  0{duration_text(end):>{width - 1}}"]
    for name, (_, state, offset, duration) in zip(names, bars, strict=True):
        drawn = click.style(_bar_text(offset, duration, end, width), fg=state_color(state))
        lines.append(f"  {name:<{name_width}}  {drawn}  {duration_text(duration) or 'goes on'}")
    return lines


def _bar_text(offset: float, duration: float | None, end: float, width: int) -> str:
    first = min(width - 1, int(width * offset / end))
    length = width - first if duration is None else max(1, min(width - first, round(width * duration / end)))
    block = "█" if shows_unicode(sys.stdout) else "#"
    return " " * first + block * length + " " * (width - first - length)


def _task_lines(tasks: Sequence[TaskRun]) -> list[str]:
    rows = [
        [
            str(task.id),
            clean(task.name),
            state_text(task.state, task.state_name),
            str(task.attempts),
            "replayed" if task.replayed else "orphan" if task.orphan else "",
            duration_text(task.duration_s),
            shorten(clean(task.inputs), 60),
            clean(task.error or task.result or ""),
        ]
        for task in tasks
    ]
    columns = ("ID", "TASK", "STATE", "ATTEMPTS", "", "TOOK", "INPUTS", "RESULT")
    return table_lines(columns, rows, right=(0, 3, 5)) if rows else []


def _history_lines(history: Sequence[Transition]) -> list[str]:
    rows = [
        [
            clean(item.at),
            f"{clean(item.task)} {item.task_id}" if item.task else "(run)",
            state_text(item.state, item.state_name),
            str(item.attempt),
            clean(item.message or item.error or ""),
        ]
        for item in history
    ]
    return table_lines(("AT", "TASK", "STATE", "ATTEMPT", "MESSAGE"), rows, right=(3,))
