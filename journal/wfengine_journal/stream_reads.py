"""The reads of who follows a stream: which stream is meant, how it stands, and its items as text, which runs no code.

A stream is a call of a generator task, or the body of a generator flow. Its items are in table `item`, numbered from 0.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from wfengine_journal.records import Records


class Stream(NamedTuple):
    """Whose items are meant."""

    flow_run_id: int
    task_run_id: int  # 0: of the flow's body


class Standing(NamedTuple):
    """How a stream stands: its own state, and that of the flow run it belongs to."""

    state: str
    state_name: str | None
    error_id: int | None
    run_state: str
    run_error_id: int | None
    is_fatal: int | None  # 1: its failure ended the flow run; in a run that is open again it is about to be run again


def find_stream(records: Records, flow_run_id: int, task: str | int) -> Stream | None:
    """Return the stream of a task run by its id, or of the first call of a task by the task's name; None: no such call yet.

    A call of a generator flow stands for the run that it started.
    """
    column = "t.id" if isinstance(task, int) else "k.name"
    row = records.row(
        "SELECT t.id, k.kind, r.id FROM task_run t JOIN task k ON k.id = t.task_id"
        f" LEFT JOIN flow_run r ON r.parent_task_run_id = t.id WHERE t.flow_run_id = ? AND {column} = ? ORDER BY t.id LIMIT 1",
        (flow_run_id, task),
    )
    if row is None:
        return None
    if row[1] == "flow":
        return None if row[2] is None else Stream(cast(int, row[2]), 0)
    return Stream(flow_run_id, cast(int, row[0]))


def list_streaming_tasks(records: Records, flow_run_id: int) -> list[tuple[int, str]]:
    """Return (task run, task name) of the calls of a flow run that handed out items."""
    rows = records.rows(
        "SELECT DISTINCT t.id, k.name FROM item i JOIN task_run t ON t.id = i.task_run_id JOIN task k ON k.id = t.task_id"
        " WHERE i.flow_run_id = ? AND i.task_run_id <> 0 AND typeof(i.key) = 'integer' ORDER BY t.id",
        (flow_run_id,),
    )
    return [(cast(int, task_run_id), str(name)) for task_run_id, name in rows]


def get_standing(records: Records, stream: Stream) -> Standing:
    """Return how a stream stands. The flow run must exist."""
    if stream.task_run_id == 0:
        sql = "SELECT state, state_name, error_id, state, error_id, 0 FROM flow_run WHERE id = ? AND ? = 0"
    else:
        sql = (
            "SELECT t.state, t.state_name, t.error_id, r.state, r.error_id, t.fatal = 1 FROM flow_run r"
            " JOIN task_run t ON t.flow_run_id = r.id WHERE r.id = ? AND t.id = ?"
        )
    row = records.row(sql, stream)
    assert row is not None
    return Standing._make(row)


def list_item_texts(records: Records, stream: Stream, start: int, limit: int) -> list[tuple[str, bool]]:
    """Return (text, whether it is JSON) of at most `limit` items from number `start` on, in order.

    An item that is not JSON is given by its preview. Nothing is unpickled.
    """
    rows = records.rows(
        "SELECT coalesce(i.value, v.data), i.codec, coalesce(i.preview, v.preview)"
        " FROM item i LEFT JOIN value v ON v.hash = i.hash"
        " WHERE i.flow_run_id = ? AND i.task_run_id = ? AND i.key >= ? AND i.key < ? ORDER BY i.key",
        (*stream, start, start + limit),
    )
    return [(str(value), True) if codec == "json" else (str(preview), False) for value, codec, preview in rows]
