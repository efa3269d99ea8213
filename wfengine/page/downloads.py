"""What is taken away as a file: the log of a run, and a run as a small journal of its own. Sent piece by piece."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from logging import getLevelName
from pathlib import Path
from typing import IO

from wfengine.page.operations import RUN_ID, Operation, Values
from wfengine.page.parameters import Parameter
from wfengine.page.rendering import text
from wfengine.page.serving import Serving
from wfengine_journal.extraction import extract_run
from wfengine_journal.page_queries import newest_logs
from wfengine_journal.queries import get_run_head, list_logs
from wfengine_journal.rows import LogLine

#: Lines that are read, and bytes that are sent, at a time: no more of a log or file is in memory.
LINES = 1_000
BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Download:
    """A file, as it is sent. `pieces` is gone through once, on a thread, as far as it is asked for; then `close` is called."""

    name: str
    media_type: str
    pieces: Iterator[bytes]
    close: Callable[[], None] = lambda: None


def _number(values: Values, name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _log(serving: Serving, values: Values) -> Download:
    run_id, wanted, level = _number(values, "run_id"), values.get("text"), _number(values, "level")
    is_text = values.get("format") != "jsonl"
    serving.read_here(lambda connection: get_run_head(connection, run_id))
    newest = serving.read_here(lambda connection: newest_logs(connection, run_id, limit=1))
    last = newest[-1].id if newest else 0  # a run may log faster than it is read, for ever
    pieces = _pieces(serving, run_id, level, None if wanted is None else str(wanted).lower(), last, is_text=is_text)
    if is_text:
        return Download(f"run-{run_id}.log", "text/plain", pieces)
    return Download(f"run-{run_id}.jsonl", "application/jsonl", pieces)


def _pieces(
    serving: Serving, run_id: int, level: int, wanted: str | None, last: int, *, is_text: bool
) -> Iterator[bytes]:  # fmt: skip
    after, write = 0, _text_line if is_text else _json_line
    while after < last:
        lines = serving.read_here(
            lambda connection, after=after: list_logs(connection, run_id, after_id=after, level=level, limit=LINES)  # type: ignore[misc]  # bound per turn
        )
        if not lines:
            return
        after = lines[-1].id
        chosen = [line for line in lines if line.id <= last and (wanted is None or wanted in line.message.lower())]
        if chosen:
            yield "".join(map(write, chosen)).encode("utf-8", "replace")


def _text_line(line: LogLine) -> str:
    task = f" {text(line.task)}#{line.task_id}" if line.task_id else ""
    return f"{line.at} {getLevelName(line.level):<8}{task} {text(line.message)}\n"


def _json_line(line: LogLine) -> str:
    return json.dumps(asdict(line)) + "\n"


def _extract(serving: Serving, values: Values) -> Download:
    run_id = _number(values, "run_id")
    serving.read_here(lambda connection: get_run_head(connection, run_id))
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # it lives until it is sent; without a name, so that nothing stays behind
    with tempfile.TemporaryDirectory(prefix="wfengine-extract-") as folder:
        target = Path(folder) / "run.db"
        extract_run(serving.path, run_id, target, synced=False)
        with target.open("rb") as made:
            while piece := made.read(BYTES):
                copy.write(piece)
    copy.seek(0)
    return Download(f"run-{run_id}.db", "application/vnd.sqlite3", _pieces_of(copy), copy.close)


def _pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(BYTES):
        yield piece


DOWNLOADS: tuple[Operation, ...] = (
    Operation(
        "runs.log_file",
        "GET",
        "/runs/{run_id}/logs/file",
        "What a run logged, from the first line on, as a file.",
        (
            RUN_ID,
            Parameter(
                "format", "string", "query", "Text, or one JSON object a line.", default="text", choices=("text", "jsonl")
            ),
            Parameter("level", "integer", "query", "At this level or above, as in Python's logging.", default=0, largest=100),
            Parameter("text", "string", "query", "Only lines that hold this text."),
        ),
        _log,
        lambda values: ["runs", "logs", str(_number(values, "run_id"))],
        media_types=("text/plain", "application/jsonl"),
    ),
    Operation(
        "runs.extract",
        "GET",
        "/runs/{run_id}/extract",
        "A run with its subflow runs as a small journal of its own, which is a SQLite file.",
        (RUN_ID,),
        _extract,
        lambda values: ["extract", str(_number(values, "run_id"))],
        media_types=("application/vnd.sqlite3",),
    ),
)
