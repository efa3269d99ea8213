"""A journal made by hand: the .sql files executed, and rows inserted, without any code of the engine.

Run 1 'quiet-heron' of flow etl completed on its second attempt, with a subflow (run 2). Run 3 'broken-fox' failed. Run 4
'cut-off-owl' crashed. Run 5 'parked-newt' is parked. Run 6 holds what a hostile writer may put into names and messages.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from xxhash import xxh3_128_digest

from wfengine_journal.connection import APPLICATION_ID, FORMAT_VERSION
from wfengine_journal.schema import _BOOKKEEPING, SCRIPTS, read_sql

#: Text that would recolour, retitle, erase and reorder what a terminal shows.
HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2Jb\rc\x08\u202ed\nforged line"
VIEWS = [
    *("runs", "tasks", "attempts", "failures", "timeline", "history", "stuck", "in_doubt", "orphans", "logs"),
    *(
        "messages",
        "variables",
        "secrets",
        "artifacts",
        "deployments",
        "schedules",
        "ticks",
        "missed",
        "upcoming",
        "queues",
        "limits",
        "events",
        "automations",
        "firings",
        "notifications",
        "notification_targets",
        "daemons",
        "flow_stats",
        "slowest_tasks",
        "cache_uses",
        "cache_entries",
        "disk_usage",
        "help",
    ),
]


def at(seconds: float) -> str:
    """Return the instant so many seconds after the first run began."""
    minute, second = divmod(seconds, 60)
    return f"2026-11-22T15:{int(minute):02d}:{second:09.6f}Z"


def value_hash(codec: str, data: bytes) -> bytes:
    """Return the checksum that the format asks for."""
    return xxh3_128_digest(codec.encode() + b"\0" + data)


def make_journal(path: Path) -> Path:
    """Write the journal to a new file and return its path."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    for script in (*SCRIPTS.values(), "views.sql"):
        connection.executescript(read_sql(script))
    connection.executescript(_BOOKKEEPING)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    _insert_names(connection)
    _insert_completed(connection)
    _insert_failed(connection)
    _insert_unfinished(connection)
    _insert_hostile(connection)
    _insert_cached(connection)
    connection.close()
    path.chmod(0o600)
    return path


def insert(connection: sqlite3.Connection, table: str, **columns: object) -> None:
    """Insert one row."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))


def insert_run(connection: sqlite3.Connection, run_id: int, name: str, flow_id: int, state: str, **columns: object) -> None:
    """Insert a flow run with its first transition and its start."""
    start = run_id * 10.0
    defaults: dict[str, object] = {
        "version": 2, "epoch": 1, "owner_id": 1, "durability": "power", "parameters": "{}",
        "created_at": at(start), "started_at": at(start),
    }  # fmt: skip
    row = {**defaults, **columns}
    insert(connection, "flow_run", id=run_id, name=name, flow_id=flow_id, state=state, **row)
    for epoch in range(1, int(str(row["epoch"])) + 1):
        reason = "start" if epoch == 1 else "resume"
        insert(
            connection,
            "execution",
            flow_run_id=run_id,
            epoch=epoch,
            owner_id=1,
            reason=reason,
            started_at=at(start + epoch - 1),
        )
    transition(connection, run_id, 0, 1, "RUNNING", at(start))


def insert_task_run(
    connection: sqlite3.Connection, task_run_id: int, run_id: int, task_id: int, state: str, **columns: object
) -> None:
    """Insert a task run and its transition into RUNNING."""
    defaults: dict[str, object] = {
        "scope": 0, "call_key": task_run_id.to_bytes(16, "big"), "occurrence": 0, "lane": 0, "version": 2, "epoch": 1,
        "attempt": 1, "inputs": "{}", "started_at": at(run_id * 10 + task_run_id / 10),
    }  # fmt: skip
    row = {**defaults, **columns}
    insert(connection, "task_run", id=task_run_id, flow_run_id=run_id, task_id=task_id, state=state, **row)
    transition(connection, run_id, task_run_id, 1, "RUNNING", str(row["started_at"]))


def transition(
    connection: sqlite3.Connection, run_id: int, task_run_id: int, seq: int, state: str, instant: str, **columns: object
) -> None:
    """Insert a line of the state history."""
    row = {"epoch": 1, "attempt": 1, **columns}
    insert(
        connection, "transition",
        flow_run_id=run_id, task_run_id=task_run_id, seq=seq, state=state, at=instant, **row,
    )  # fmt: skip


def _insert_names(connection: sqlite3.Connection) -> None:
    insert(connection, "meta", key="journal_id", value="00" * 16)
    insert(connection, "meta", key="created_at", value=at(0))
    insert(connection, "meta", key="created_by", value="a test")
    insert(
        connection, "owner",
        id=1, pid=4242, host="elsewhere", role="wfengine run etl.py", started_at=at(0), ended_at=at(55),
    )  # fmt: skip
    for flow_id, name in enumerate(("etl", "report"), 1):
        insert(connection, "flow", id=flow_id, name=name, first_seen_at=at(0))
    for task_id, (kind, name) in enumerate((("task", "extract"), ("task", "clean"), ("flow", "report")), 1):
        insert(connection, "task", id=task_id, kind=kind, key=name, name=name, first_seen_at=at(0))


def _result(text: str) -> dict[str, object]:
    return {"result": text, "result_codec": "json", "result_hash": value_hash("json", text.encode())}


def _insert_completed(connection: sqlite3.Connection) -> None:
    insert_run(
        connection, 1, "quiet-heron", 1, "COMPLETED",
        epoch=2, version=4, parameters='{"day": "2026-11-22"}', tags='["nightly"]', tasks_done=3, tasks_total=3,
        ended_at=at(14.5), **_result('{"rows": 2}'),
    )  # fmt: skip
    transition(connection, 1, 0, 2, "CRASHED", at(10.9), message="its process died")
    transition(connection, 1, 0, 3, "RUNNING", at(11), state_name="Resuming", epoch=2, attempt=2)
    transition(connection, 1, 0, 4, "COMPLETED", at(14.5), epoch=2, attempt=2)
    insert_task_run(connection, 1, 1, 1, "COMPLETED", inputs='{"day": "2026-11-22"}', ended_at=at(10.2), **_result("[1, 2]"))
    transition(connection, 1, 1, 2, "COMPLETED", at(10.2))
    insert(connection, "error", id=1, type="ValueError", message="not yet", traceback="Traceback ...\nValueError: not yet")
    insert_task_run(
        connection, 2, 1, 2, "COMPLETED",
        inputs='{"row": 1}', version=4, epoch=2, attempt=2, failures=1, ended_at=at(12), **_result("10"),
    )  # fmt: skip
    transition(connection, 1, 2, 2, "SCHEDULED", at(11.2), state_name="AwaitingRetry", error_id=1)
    transition(connection, 1, 2, 3, "RUNNING", at(11.5), attempt=2, epoch=2)
    transition(connection, 1, 2, 4, "COMPLETED", at(12), attempt=2, epoch=2)
    pickled = b"\x80\x05not a real pickle."
    insert(
        connection, "value",
        hash=value_hash("cloudpickle", pickled), codec="cloudpickle", data=pickled, size=len(pickled),
        python_type="tuple", preview="(1, 2)", created_at=at(12),
    )  # fmt: skip
    insert_task_run(
        connection, 3, 1, 2, "COMPLETED",
        inputs='{"row": 2}', epoch=2, ended_at=at(12.5), result_codec="cloudpickle",
        result_hash=value_hash("cloudpickle", pickled), result_preview="(1, 2)",
    )  # fmt: skip
    transition(connection, 1, 3, 2, "COMPLETED", at(12.5), epoch=2)
    insert_task_run(connection, 4, 1, 3, "COMPLETED", epoch=2, ended_at=at(14), **_result("null"))
    transition(connection, 1, 4, 2, "COMPLETED", at(14), epoch=2)
    insert_run(
        connection, 2, "quiet-heron-report", 2, "COMPLETED",
        parent_task_run_id=4, tasks_done=0, tasks_total=0, ended_at=at(21), **_result("null"),
    )  # fmt: skip
    insert_task_run(connection, 5, 1, 2, "COMPLETED", inputs='{"row": 9}', orphaned_in=2, ended_at=at(10.6), **_result("90"))
    transition(connection, 1, 5, 2, "COMPLETED", at(10.6))
    levels = ((20, "two rows", None), (30, "slow", 2), (40, "first line\nsecond line", 2))
    for number, (level, message, task_run_id) in enumerate(levels, 1):
        insert(
            connection, "log",
            id=number, flow_run_id=1, task_run_id=task_run_id, at=at(11), level=level, logger="wfengine", message=message,
        )  # fmt: skip


def _insert_failed(connection: sqlite3.Connection) -> None:
    insert(connection, "error", id=2, type="KeyError", message="'row'", traceback="Traceback ...\nKeyError: 'row'")
    insert_run(connection, 3, "broken-fox", 1, "FAILED", error_id=2, tasks_done=0, tasks_total=1, ended_at=at(31))
    transition(connection, 3, 0, 2, "FAILED", at(31), error_id=2)
    insert_task_run(connection, 6, 3, 2, "FAILED", error_id=2, fatal=1, ended_at=at(30.9))
    transition(connection, 3, 6, 2, "FAILED", at(30.9), error_id=2)


def _insert_unfinished(connection: sqlite3.Connection) -> None:
    insert_run(
        connection, 4, "cut-off-owl", 1, "CRASHED",
        state_message="process 4242 died while running it", tasks_done=0, tasks_total=1, ended_at=at(41),
    )  # fmt: skip
    transition(connection, 4, 0, 2, "CRASHED", at(41), message="process 4242 died while running it")
    insert_task_run(
        connection, 7, 4, 2, "CRASHED", state_name="Interrupted", interruptions=1, inputs='{"row": 3}', ended_at=at(41)
    )
    transition(connection, 4, 7, 2, "CRASHED", at(41), state_name="Interrupted")
    insert_run(
        connection, 5, "parked-newt", 1, "PAUSED",
        state_name="Drifted", state_message="clean(row=4) was clean(row=3)", tasks_done=0, tasks_total=0,
    )  # fmt: skip
    transition(connection, 5, 0, 2, "PAUSED", at(51), state_name="Drifted", message="clean(row=4) was clean(row=3)")


def _insert_hostile(connection: sqlite3.Connection) -> None:
    insert(connection, "error", id=3, type="Evil", message=HOSTILE, traceback=HOSTILE)
    insert(connection, "task", id=4, kind="task", key=HOSTILE, name=HOSTILE, first_seen_at=at(0))
    insert_run(
        connection, 6, HOSTILE, 1, "FAILED",
        state_name=HOSTILE, state_message=HOSTILE, parameters=HOSTILE, tags=HOSTILE, idempotency_key=HOSTILE,
        entrypoint=HOSTILE,
        error_id=3, tasks_done=0, tasks_total=1, ended_at=at(61),
        result_codec="cloudpickle", result_hash=b"0" * 16, result_preview=HOSTILE,
    )  # fmt: skip
    transition(connection, 6, 0, 2, "FAILED", at(61), message=HOSTILE, error_id=3)
    insert_task_run(
        connection, 8, 6, 4, "FAILED",
        name=HOSTILE, inputs=HOSTILE, state_name=HOSTILE, error_id=3, fatal=1, ended_at=at(60.9),
    )  # fmt: skip
    line = {"at": HOSTILE, "level": 20, "logger": "wfengine", "message": HOSTILE}
    insert(connection, "log", id=4, flow_run_id=6, task_run_id=8, **line)


def _insert_cached(connection: sqlite3.Connection) -> None:
    """Let task run 2 have computed what task run 3 got from the cache; a hostile task asked too."""
    entry = {"flow_run_id": 1, "task_run_id": 2, "created_at": at(12), "expires_at": at(3612)}
    row = _result("10")
    insert(
        connection, "cache",
        key="k1", result=row["result"], result_codec=row["result_codec"], result_hash=row["result_hash"], **entry,
    )  # fmt: skip
    asked = {"flow_run_id": 1, "key": "k1", "at": at(12)}
    insert(connection, "cache_use", task_run_id=2, outcome="miss", parts='{"task":"clean","argument row":"aa"}', **asked)
    insert(connection, "cache_use", task_run_id=3, outcome="hit", parts='{"task":"clean"}', source_run=2, **asked)
    hostile = {"key": HOSTILE, "outcome": "no key", "parts": HOSTILE, "message": HOSTILE, "at": HOSTILE}
    insert(connection, "cache_use", flow_run_id=6, task_run_id=8, **hostile)
