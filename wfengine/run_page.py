"""One flow run as one HTML page: its timeline, calls, errors, history and logs.

The page needs nothing else: no script, no request, one inline style. It holds what the views show - previews, never a value
turned back into an object - and every text of the journal is escaped. What does not fit into its limits is counted, not shown.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from wfengine_journal.queries import get_run, list_history, list_logs, list_subflow_runs
from wfengine_journal.rows import Bar, Run, TaskGroup
from wfengine_journal.task_queries import list_bars, list_failures, list_task_groups, list_tasks

#: Rows of each table on a page: as many as a browser lays out at once without a wait.
LIMIT = 1000
#: Calls drawn one by one; a run with more is drawn by task.
BARS = 200
#: Failures whose tracebacks are shown, and characters of a text in a cell.
FAILURES = 50
CELL = 300
#: Width of the timeline in its own units.
WIDTH = 1000

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_COLORS = {"COMPLETED": "good", "FAILED": "bad", "CRASHED": "bad", "CANCELLED": "odd", "PAUSED": "odd", "RUNNING": "now"}

_STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#f3f4f6;--line:#d8dce1;--dim:#5b6470;
--good:#1a7f37;--bad:#c62828;--odd:#9a6700;--now:#0969da}
@media (prefers-color-scheme:dark){:root{--fg:#e6e9ed;--bg:#14171b;--soft:#1e2329;--line:#363d46;--dim:#9aa4b0;
--good:#3fb950;--bad:#ff7b72;--odd:#d29922;--now:#58a6ff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:600}td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
pre,td.c{font:13px/1.4 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;overflow-x:auto;white-space:pre-wrap}
.good{color:var(--good);fill:var(--good)}.bad{color:var(--bad);fill:var(--bad)}.odd{color:var(--odd);fill:var(--odd)}
.now{color:var(--now);fill:var(--now)}.none{fill:var(--dim)}.dim,.left{color:var(--dim)}
svg{width:100%;height:auto;background:var(--soft)}svg text{fill:var(--fg);font:12px system-ui,sans-serif}
"""


def render(connection: sqlite3.Connection, run_id: int) -> Iterator[str]:
    """Yield the parts of the page of one run."""
    run = get_run(connection, run_id)
    title = f"{_text(run.name)} - {_text(run.flow)}"
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>\n"
    )
    yield from _head(run)
    yield from _timeline(connection, run)
    yield from _failures(connection, run)
    yield from _subflows(connection, run)
    yield from _tasks(connection, run)
    yield from _history(connection, run)
    yield from _logs(connection, run)
    yield "</body></html>\n"


def _head(run: Run) -> Iterator[str]:
    yield f"<h1>{_text(run.name)} {_state(run.state, run.state_name)}</h1>\n"
    facts = {
        "flow": run.flow,
        "run": run.id,
        "parameters": run.parameters,
        "result": run.result,
        "message": run.message if run.message != run.error else None,
        "error": run.error,
        "started": run.started_at,
        "took": _seconds(run.duration_s),
        "calls of tasks": f"{run.tasks_done} of {run.tasks_total} completed",
        "attempts": run.attempt,
        "tags": run.tags,
        "code": run.entrypoint,
    }
    rows = [(f"<th>{name}</th>", _cell(value, "c")) for name, value in facts.items() if value not in (None, "")]
    yield f"<table>{''.join(f'<tr>{head}{cell}</tr>' for head, cell in rows)}</table>\n"


def _timeline(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    bars = list_bars(connection, run.id, limit=BARS + 1)
    if len(bars) <= BARS:
        yield from _drawn("Timeline", [_of_call(bar) for bar in bars], "")
        return
    groups = [group for group in list_task_groups(connection, run.id) if group.starts_s is not None]
    note = f"The run has more than {BARS} calls, so they are drawn by task, from the start of the first to the end of the last."
    yield from _drawn("Timeline", [_of_group(group) for group in groups[:BARS]], note)


_Drawn = tuple[str, str, float, float, str]  # label, class, start, end, what is told when one points at it


def _of_call(bar: Bar) -> _Drawn:
    start, took = bar.offset_s or 0.0, bar.duration_s or 0.0
    return (
        bar.task,
        _COLORS.get(bar.state, "none"),
        start,
        start + took,
        f"{bar.task} {bar.task_id}: {bar.state}, {_seconds(took)}",
    )


def _of_group(group: TaskGroup) -> _Drawn:
    color = "bad" if group.failed or group.interrupted else "good" if group.completed == group.count else "now"
    start = group.starts_s or 0.0
    end = start if group.ends_s is None else group.ends_s
    return f"{group.task} ({group.count:,})", color, start, end, f"{group.completed:,} of {group.count:,} completed"


def _drawn(title: str, bars: Sequence[_Drawn], note: str) -> Iterator[str]:
    if not bars:
        return
    first, last = min(bar[2] for bar in bars), max(bar[3] for bar in bars)
    span = max(last - first, 1e-6)
    height = 18 * len(bars) + 22
    yield f'<h2>{title}</h2>{_note(note)}<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline">\n'
    for number, (label, color, start, end, told) in enumerate(bars):
        left = 200 + (start - first) / span * (WIDTH - 210)
        width = max(2.0, (end - start) / span * (WIDTH - 210))
        top = 18 * number + 4
        yield (
            f'<text x="4" y="{top + 11}">{_text(label, 28)}</text>'
            f'<rect class="{color}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="13">'
            f"<title>{_text(told)}</title></rect>\n"
        )
    yield f'<text x="200" y="{height - 4}">0</text><text x="{WIDTH - 70}" y="{height - 4}">{_seconds(span)}</text></svg>\n'


def _failures(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    found = list_failures(connection, run.id, limit=FAILURES + 1)
    if found:
        yield "<h2>Errors</h2>"
    for failure in found[:FAILURES]:
        where = f"{_text(failure.task)} {failure.task_id}" if failure.task else "the run"
        said = _text(failure.message, 2000)
        yield f'<p><b class="bad">{_text(failure.type)}</b>: {said} <span class="dim">in {where}</span></p>'
        if failure.traceback:
            yield f"<details><summary>traceback</summary><pre>{_text(failure.traceback, 20_000, lines=True)}</pre></details>\n"
    yield _left(len(found) > FAILURES, f"the first {FAILURES} errors")


def _subflows(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    found = list_subflow_runs(connection, run.id, LIMIT + 1)
    rows = [
        (child.id, child.name, child.flow, _State(child.state, child.state_name), _seconds(child.duration_s), child.result)
        for child in found[:LIMIT]
    ]
    yield from _table("Subflow runs", ("run", "name", "flow", "state", "took", "result"), rows, len(found) > LIMIT)


def _tasks(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    groups = list_task_groups(connection, run.id)
    if len(groups) > 1 or any(group.count > LIMIT for group in groups):
        counted = [
            (
                group.task,
                f"{group.count:,}",
                f"{group.completed:,}",
                f"{group.failed:,}",
                _seconds(group.median_s),
                _seconds(group.total_s),
            )
            for group in groups[:LIMIT]
        ]
        yield from _table("Tasks", ("task", "calls", "completed", "failed", "median", "in all"), counted, len(groups) > LIMIT)
    found = list_tasks(connection, run.id, limit=LIMIT + 1)
    rows = [
        (
            each.id, each.name, _State(each.state, each.state_name), each.attempts, _seconds(each.duration_s), each.inputs,
            each.result if each.error is None else each.error,
        )
        for each in found[:LIMIT]
    ]  # fmt: skip
    yield from _table("Calls", ("id", "call", "state", "attempts", "took", "inputs", "result"), rows, len(found) > LIMIT)


def _history(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    found = list_history(connection, run.id, limit=LIMIT + 1)
    rows = [
        (
            each.at,
            f"{each.task} {each.task_id}" if each.task else "the run",
            _State(each.state, each.state_name),
            each.message or each.error,
        )
        for each in found[:LIMIT]
    ]
    yield from _table("History", ("at", "what", "state", "why"), rows, len(found) > LIMIT)


def _logs(connection: sqlite3.Connection, run: Run) -> Iterator[str]:
    found = list_logs(connection, run.id, limit=LIMIT + 1)
    rows = [(each.at, each.level, each.task or "the flow", each.message) for each in found[:LIMIT]]
    yield from _table("Log", ("at", "level", "by", "message"), rows, len(found) > LIMIT)


# ---------------------------------------------------------------------------------------------------- pieces


class _State(tuple[str, str]):
    """A state and its name, as a cell."""

    __slots__ = ()

    def __new__(cls, state: str, name: str) -> _State:
        return super().__new__(cls, (state, name))


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], cut: bool) -> Iterator[str]:
    body = list(rows)
    if not body:
        return
    yield f"<h2>{title}</h2><table><thead><tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr></thead><tbody>\n"
    for row in body:
        yield f"<tr>{''.join(_cell(value) for value in row)}</tr>\n"
    yield f"</tbody></table>\n{_left(cut, f'the first {LIMIT:,} rows')}"


def _cell(value: object, kind: str = "") -> str:
    if isinstance(value, _State):
        return f"<td>{_state(*value)}</td>"
    if isinstance(value, int):
        return f'<td class="{kind or "n"}">{value}</td>'
    return f'<td class="{kind}">{_text("" if value is None else value, CELL)}</td>'


def _state(state: str, name: str) -> str:
    return f'<span class="{_COLORS.get(state, "none")}">{_text(name)}</span>'


def _left(cut: bool, shown: str) -> str:
    return f'<p class="left">Only {shown} are shown here. See all with: wfengine export --format jsonl</p>\n' if cut else ""


def _note(text: str) -> str:
    return f'<p class="dim">{text}</p>' if text else ""


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _text(value: object, limit: int = CELL, *, lines: bool = False) -> str:
    """Return a text of the journal, cut and escaped; nothing in it can hide or turn round what stands beside it."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = _CONTROL.sub("\ufffd", text if lines else " ".join(text.split()))
    return escape(text if len(text) <= limit else f"{text[:limit]}…", quote=True)
