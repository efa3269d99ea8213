"""How a run's own process ended: what is noted where, and what is CRASHED by it, whoever else was quicker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine_journal import store
from wfengine_journal.child_ends import ChildEnd, RecordChildEnd
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.records import FlowRunRow
from wfengine_journal.run_transitions import ClaimFlowRun, CrashFlowRun, EndFlowRun

AT = "2026-11-28T05:00:00.000000Z"
LATER = "2026-11-28T05:00:01.000000Z"
KILLED = ChildEnd(-9, 1000, "its output", "its process was ended by SIGKILL")


class Scene:
    """A queued run, and owners for it: rows of processes that are no more."""

    def __init__(self, path: Path) -> None:
        self.journal = store.open_journal(path)
        columns = DeploymentColumns("nightly", "module:etl:main", None, None, "{}", None)
        put = PutDeployment(self.journal.flow_id("etl", None), columns, [], paused=None, at=AT)
        self.journal.write(put, synced=False)
        queued = QueueRun(RunRequest(put.id, "quiet-heron", AT))
        self.journal.write(queued, synced=False)
        self.id = queued.flow_run_id

    def owner(self) -> int:
        registration = store._RegisterOwner((1, "host", None, None, "child", AT))
        self.journal.write(registration, synced=False)
        return registration.owner_id

    @property
    def row(self) -> FlowRunRow:
        return self.journal.records.get_flow_run(self.id)

    def claim(self, owner_id: int) -> None:
        row = self.row
        claim = ClaimFlowRun(
            row.id, version=row.version, epoch=row.epoch + 1, owner_id=owner_id, code_id=None, reason="start", at=AT
        )
        self.journal.write(claim, synced=False)

    def record(self, before: FlowRunRow, owner_id: int | None, end: ChildEnd = KILLED) -> list[int]:
        change = RecordChildEnd(before, self.id, owner_id, end, at=LATER)
        self.journal.write(change, synced=False)
        assert self.journal.read(change.landed) or not change.crashed
        return change.crashed

    def executions(self) -> list[tuple[object, ...]]:
        return self.journal.records.rows("SELECT epoch, exit_code, peak_memory_bytes, output FROM execution ORDER BY epoch")

    def history(self) -> list[object]:
        rows = self.journal.records.rows("SELECT state FROM transition WHERE task_run_id = 0 ORDER BY seq")
        return [state for (state,) in rows]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield Scene(tmp_path / "journal.db")
    store.close_all()


def test_the_run_is_crashed_and_the_end_noted_in_one_change(scene: Scene) -> None:
    before, owner = scene.row, scene.owner()
    scene.claim(owner)
    assert scene.record(before, owner) == [scene.id]
    assert (scene.row.state, scene.row.state_message, scene.row.crashes) == ("CRASHED", KILLED.message, 1)
    assert scene.executions() == [(1, -9, 1000, "its output")]
    assert scene.history() == ["SCHEDULED", "RUNNING", "CRASHED"]


def test_a_run_that_ended_keeps_its_end(scene: Scene) -> None:
    before, owner = scene.row, scene.owner()
    scene.claim(owner)
    scene.journal.write(EndFlowRun(scene.id, epoch=1, at=AT, state="COMPLETED"), synced=False)
    assert scene.record(before, owner) == []
    assert scene.row.state == "COMPLETED"
    assert scene.executions() == [(1, -9, 1000, "its output")]


def test_where_somebody_was_quicker_only_the_end_is_noted(scene: Scene) -> None:
    before, owner, other = scene.row, scene.owner(), scene.owner()
    scene.claim(owner)
    scene.journal.write(CrashFlowRun(scene.id, version=None, epoch=1, at=AT, message="swept"), synced=False)
    scene.claim(other)
    assert scene.record(before, owner) == []
    assert (scene.row.state, scene.row.epoch, scene.row.owner_id) == ("RUNNING", 2, other)
    assert scene.executions() == [(1, -9, 1000, "its output"), (2, None, None, None)]


@pytest.mark.parametrize("has_owner", [True, False])
def test_a_run_that_was_not_begun_is_crashed_too_and_counted(scene: Scene, has_owner: bool) -> None:
    owner = scene.owner() if has_owner else None
    assert scene.record(scene.row, owner) == [scene.id]
    assert (scene.row.state, scene.row.epoch, scene.row.crashes) == ("CRASHED", 0, 1)
    assert scene.row.state_message == "its process was ended by SIGKILL, before the run began"
    assert scene.record(scene.row, owner) == [scene.id]
    assert (scene.row.state, scene.row.crashes) == ("CRASHED", 2)
    assert scene.history() == ["SCHEDULED", "CRASHED"]


def test_a_run_that_was_not_begun_waits_on_if_its_process_had_to_leave_it_or_was_stopped(scene: Scene) -> None:
    stopped = ChildEnd(-15, None, "", "its daemon was stopped", counts=False)
    refused = ChildEnd(75, None, "", "its process ended with exit code 75", refused=True)
    before = scene.row
    assert scene.record(before, scene.owner(), stopped) == []
    assert scene.record(before, scene.owner(), refused) == []
    assert scene.row == before


def test_a_run_that_moved_on_before_it_was_begun_is_left_as_it_is(scene: Scene) -> None:
    before, owner = scene.row, scene.owner()
    scene.claim(scene.owner())
    assert scene.record(before, owner) == []
    assert (scene.row.state, scene.row.crashes) == ("RUNNING", 0)
