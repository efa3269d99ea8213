"""Slots: at most so many holders of a name, and when a holder is none any more; and waiting for the journal to change."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine_journal import store
from wfengine_journal.changes import Mark
from wfengine_journal.run_transitions import ClaimFlowRun, CrashFlowRun, CreateFlowRun
from wfengine_journal.slots import ClaimSlot, ReleaseSlot, look
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, Identity, SettleCall

AT = "2026-11-22T15:30:50.000000Z"

OTHER_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_slots import Scene
scene = Scene(Path(sys.argv[1]))
run = scene.new_run()
scene.claim("tool", run, scene.new_call(run))
print(run, flush=True)
sys.stdin.readline()
scene.release("tool", run, 1) if sys.argv[3:] == ["release"] else None
sys.stdin.readline()
"""


class Scene:
    """A journal with flow runs and task runs of this process, all RUNNING."""

    def __init__(self, path: Path) -> None:
        self.journal = store.open_journal(path)
        self.calls = 0

    def new_run(self) -> int:
        create = CreateFlowRun(
            name="quiet-heron", flow_id=self.journal.flow_id("etl", None), parent_task_run_id=None,
            owner_id=self.journal.owner_id, code_id=None, durability="process", parameters="{}", arguments=[], tags=None,
            idempotency_key=None, entrypoint=None, flow_hash=None, at=AT,
        )  # fmt: skip
        self.journal.write(create, synced=False)
        return create.flow_run_id

    def new_call(self, run: int) -> int:
        self.calls += 1
        identity = Identity(run, 0, self.journal.task_id("task", "load", "load"), bytes([self.calls]) * 16, 0)
        begin = BeginCall(identity, epoch=1, lane=0, inputs="{}", at=AT, running=True)
        self.journal.write(begin, synced=False)
        return begin.task_run_id

    def claim(self, name: str, run: int, call: int = 0, limit: int = 1, **options: frozenset[int]) -> bool:
        found = look(self.journal, name)
        change = ClaimSlot(
            name, limit, owner_id=self.journal.owner_id, flow_run_id=run, task_run_id=call, at=AT,
            dead_owners=found.dead_owners, **options,
        )  # fmt: skip
        try:
            self.journal.write(change, synced=False)
        except WriteRefused:
            return False
        return True

    def release(self, name: str, run: int, call: int) -> None:
        change = ReleaseSlot(name, owner_id=self.journal.owner_id, flow_run_id=run, task_run_id=call)
        self.journal.write(change, synced=False)

    def holders(self, name: str) -> list[tuple[int, int]]:
        return [(holder.flow_run_id, holder.task_run_id) for holder in look(self.journal, name).holders]

    def count(self) -> int:
        rows = self.journal.records.rows("SELECT count(*) FROM slot")
        return int(str(rows[0][0]))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield Scene(tmp_path / "journal.db")
    store.close_all()


def test_at_most_so_many_hold_a_name(scene: Scene) -> None:
    run = scene.new_run()
    one, two, three = (scene.new_call(run) for _ in range(3))
    assert scene.claim("tool", run, one, limit=2)
    assert scene.claim("tool", run, two, limit=2)
    assert not scene.claim("tool", run, three, limit=2)
    assert scene.claim("other", run, three, limit=1)
    assert scene.holders("tool") == [(run, one), (run, two)]
    scene.release("tool", run, one)
    assert scene.claim("tool", run, three, limit=2)
    assert scene.holders("tool") == [(run, two), (run, three)]


def test_a_flow_s_body_holds_a_slot_too(scene: Scene) -> None:
    run, other = scene.new_run(), scene.new_run()
    assert scene.claim("tool", run)
    assert not scene.claim("tool", other)
    scene.release("tool", run, 0)
    assert scene.claim("tool", other)


def test_claiming_again_renews_a_holder_s_own_place(scene: Scene) -> None:
    run = scene.new_run()
    call = scene.new_call(run)
    assert scene.claim("tool", run, call)
    assert scene.claim("tool", run, call)
    assert scene.count() == 1


def test_a_refused_claim_writes_nothing(scene: Scene) -> None:
    run = scene.new_run()
    scene.claim("tool", run, scene.new_call(run))
    before = scene.journal.records.rows("SELECT * FROM slot")
    assert not scene.claim("tool", run, scene.new_call(run))
    assert scene.journal.records.rows("SELECT * FROM slot") == before


def test_places_of_task_runs_that_wait_for_the_claimer_do_not_count(scene: Scene) -> None:
    run = scene.new_run()
    outer, inner, other = (scene.new_call(run) for _ in range(3))
    assert scene.claim("tool", run, outer)
    assert scene.claim("tool", run, inner, enclosing=frozenset({outer}))
    assert not scene.claim("tool", run, other, enclosing=frozenset({outer}))


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "PAUSED", "SCHEDULED", "PENDING"])
def test_a_slot_is_void_when_its_task_run_is_not_running(scene: Scene, state: str) -> None:
    run = scene.new_run()
    call, other = scene.new_call(run), scene.new_call(run)
    scene.claim("tool", run, call)
    scene.journal.read(lambda c: c.execute("UPDATE task_run SET state = ? WHERE id = ?", (state, call)).fetchall())
    assert scene.holders("tool") == []
    assert scene.claim("tool", run, other)
    assert scene.count() == 1


def test_a_slot_is_void_when_its_run_is_over_or_executed_by_another_process(scene: Scene) -> None:
    run, other = scene.new_run(), scene.new_run()
    scene.claim("tool", run)
    scene.journal.write(CrashFlowRun(run, version=1, epoch=1, at=AT, message="gone"), synced=False)
    assert scene.claim("tool", other)
    scene.release("tool", other, 0)
    scene.journal.read(
        lambda c: c.execute("INSERT INTO owner (id, pid, host, role, started_at) VALUES (99, 1, 'h', 'r', '')").fetchall()
    )
    taken_over = ClaimFlowRun(run, version=2, epoch=2, owner_id=99, code_id=None, reason="resume", at=AT)
    scene.journal.write(taken_over, synced=False)
    assert scene.holders("tool") == []


def test_a_call_that_was_cut_off_holds_nothing(scene: Scene) -> None:
    run = scene.new_run()
    call = scene.new_call(run)
    scene.claim("tool", run, call)
    cut = SettleCall(run, call, seq=2, epoch=1, attempt=1, at=AT, state="CRASHED", state_name="Interrupted", message="Ctrl-C")
    scene.journal.write(cut, synced=False)
    assert scene.claim("tool", run, scene.new_call(run))


@pytest.fixture
def other(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the slot 'tool'."""
    arguments = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "journal.db"), str(Path(__file__).parent)]
    arguments += getattr(request, "param", [])
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "1"
    yield process
    process.kill()
    process.communicate()


def test_a_slot_of_a_living_process_is_held_and_that_of_a_killed_one_is_void_at_once(
    other: subprocess.Popen[str], scene: Scene
) -> None:
    run = scene.new_run()
    assert not scene.claim("tool", run)
    other.kill()
    other.wait()
    assert scene.holders("tool") == []
    assert scene.claim("tool", run)
    assert scene.count() == 1


def test_a_slot_of_a_process_that_ended_in_order_is_void(other: subprocess.Popen[str], scene: Scene) -> None:
    other.communicate("\n\n")
    assert scene.holders("tool") == []


# ---------------------------------------------------------------------------------------------------- waiting for changes


#: Seconds after which a wait that should end at once counts as hanging.
LONG = 60.0


def test_a_waiter_is_told_of_a_commit_of_its_own_process(scene: Scene) -> None:
    changes, told = scene.journal.changes, threading.Event()
    changes.call(changes.mark(), told.set)
    scene.new_run()
    assert told.wait(LONG)


def test_a_commit_between_the_mark_and_the_wait_is_not_missed(scene: Scene) -> None:
    mark, told = scene.journal.changes.mark(), threading.Event()
    scene.new_run()
    scene.journal.changes.call(mark, told.set)
    assert told.is_set()


@pytest.mark.parametrize("other", [["release"]], indirect=True)
def test_a_waiter_is_told_of_a_commit_of_another_process(other: subprocess.Popen[str], scene: Scene) -> None:
    changes, told = scene.journal.changes, threading.Event()
    changes.call(changes.mark(), told.set)
    assert other.stdin is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert told.wait(LONG)
    assert scene.holders("tool") == []


def test_a_wait_ends_after_its_time_though_nothing_changed(scene: Scene) -> None:
    mark = scene.journal.changes.mark()
    scene.journal.changes.wait(mark, 0.01)
    assert scene.journal.changes.mark() == mark


def test_a_waiter_that_took_back_its_call_is_not_told(scene: Scene) -> None:
    changes, told = scene.journal.changes, threading.Event()
    changes.call(changes.mark(), told.set)()
    scene.new_run()
    assert not told.is_set()


def test_nobody_watches_when_nobody_waits(scene: Scene) -> None:
    changes = scene.journal.changes
    changes.wait(changes.mark(), 0.001)
    watcher = changes._watcher
    if watcher is not None:
        watcher.join(LONG)
    assert changes._watch is None
    assert scene.journal._writer.after_commit is None


def test_waiters_are_told_when_the_journal_is_closed(scene: Scene) -> None:
    changes, told = scene.journal.changes, threading.Event()
    changes.call(changes.mark(), told.set)
    scene.journal.close()
    assert told.wait(LONG)


def test_many_threads_wait_at_once(scene: Scene) -> None:
    changes = scene.journal.changes
    mark: Mark = changes.mark()
    ready, done = threading.Barrier(21), threading.Barrier(21)

    def wait() -> None:
        ready.wait()
        changes.wait(mark, LONG)
        done.wait(LONG)

    threads = [threading.Thread(target=wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    ready.wait()
    scene.new_run()
    done.wait(LONG)
    for thread in threads:
        thread.join(LONG)
