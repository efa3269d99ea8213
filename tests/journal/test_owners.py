"""Who lives: real processes that hold a lock, are killed, fork, or lose their side file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine_journal import owners, store
from wfengine_journal.owners import LockFile, boot_id, is_alive, process_started
from wfengine_journal.run_transitions import CreateFlowRun

HOLDER = """
import os, sys
from pathlib import Path
from wfengine_journal.owners import LockFile
lock_file = LockFile(Path(sys.argv[1]))
print(lock_file.hold(int(sys.argv[2])), flush=True)
{then}
sys.stdin.readline()
"""

OWNER = """
import sys
from pathlib import Path
from wfengine_journal import store
from wfengine_journal.run_transitions import CreateFlowRun
journal = store.open_journal(Path(sys.argv[1]))
create = CreateFlowRun(name="quiet-heron", flow_id=journal.flow_id("etl", None), parent_task_run_id=None,
    owner_id=journal.owner_id, code_id=None, durability="power", parameters="{}", arguments=[], tags=None,
    idempotency_key=None, entrypoint=None, flow_hash=None, at=journal.clock.now_text())
journal.write(create, synced=True)
print(journal.owner_id, flush=True)
sys.stdin.readline()
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program and return it after it printed its first line, which has to be an answer."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() not in ("", "False")
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "journal.db"
    store.close_all()


def alive(lock_file: LockFile, owner_id: int, pid: int) -> bool:
    """Ask by the lock alone, as where the system does not tell boots and start times."""
    return is_alive(lock_file, owner_id, pid, None, None)


def test_a_byte_is_held_by_one_process_and_free_at_once_when_it_is_killed(path: Path) -> None:
    child = start(HOLDER.format(then=""), path, 7)
    lock_file = LockFile(path)
    assert not lock_file.hold(7)
    assert alive(lock_file, 7, child.pid)
    assert not alive(lock_file, 8, child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and its parent has not looked: a zombie
    assert not alive(lock_file, 7, child.pid)
    assert lock_file.hold(7)
    end(child)


def test_a_killed_process_that_nobody_has_looked_after_counts_as_dead(path: Path) -> None:
    child = start(HOLDER.format(then=""), path, 7)
    started = process_started(child.pid)
    assert started is not None
    assert is_alive(LockFile(path), 7, child.pid, boot_id(), started)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_started(child.pid) is None
    assert not is_alive(LockFile(path), 7, child.pid, boot_id(), started)
    end(child)


def test_a_living_owner_is_known_though_the_side_file_was_deleted_under_it(path: Path) -> None:
    child = start(HOLDER.format(then=""), path, 7)
    started = process_started(child.pid)
    Path(f"{path}-lock").unlink()
    lock_file = LockFile(path)  # a new file, on which nobody holds anything
    assert is_alive(lock_file, 7, child.pid, boot_id(), started)
    end(child)
    assert not is_alive(lock_file, 7, child.pid, boot_id(), started)


def test_a_process_that_got_the_pid_of_a_dead_owner_is_not_taken_for_it(path: Path) -> None:
    assert not is_alive(LockFile(path), 7, os.getpid(), boot_id(), "1")


def test_an_owner_of_another_boot_of_the_machine_is_dead(path: Path) -> None:
    assert not is_alive(LockFile(path), 7, os.getpid(), "another boot", process_started(os.getpid()))


def test_a_forked_child_does_not_hold_its_parents_lock(path: Path) -> None:
    fork = """
import time
child = os.fork()
if child == 0:
    sys.stdin.readline()
    os._exit(0)
print(child, flush=True)
"""
    child = start(HOLDER.format(then=fork), path, 7)
    assert child.stdout is not None
    forked = int(child.stdout.readline())
    lock_file = LockFile(path)
    assert alive(lock_file, 7, child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_started(forked) is not None  # the child lives on, with a copy of the descriptor
    assert not alive(lock_file, 7, child.pid)
    os.kill(forked, signal.SIGKILL)
    end(child)


def test_many_who_ask_at_once_do_not_make_a_dead_owner_look_alive(path: Path) -> None:
    asker = """
for _ in range(300):
    for _ in range(20):
        if lock_file.is_free(7):
            break
    else:
        print("held", flush=True)
"""
    program = (
        HOLDER.format(then=asker).replace("lock_file.hold(int(sys.argv[2]))", "'ready'").replace("sys.stdin.readline()", "")
    )
    children = [start(program, path, 7) for _ in range(4)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert outputs == [""] * 4


def test_the_process_start_time_is_read_also_when_the_program_has_a_strange_name(tmp_path: Path) -> None:
    strange = tmp_path / "a) R 1 (b"
    strange.symlink_to(sys.executable)
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    child = subprocess.Popen(
        [str(strange), "-S", "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    started = process_started(child.pid)
    assert started is not None
    assert started.isdigit()
    assert int(started) >= int(process_started(os.getpid()) or 0)
    end(child)
    assert process_started(2**22 + 1) is None


def test_the_boot_id_stays_the_same_and_roles_are_short() -> None:
    assert boot_id() == boot_id()
    assert boot_id()
    assert 0 < len(owners.role()) <= 200
    assert owners.host_name()


def test_the_run_of_a_killed_process_is_marked_as_crashed_with_the_reason(path: Path) -> None:
    child = start(OWNER, path)
    journal = store.open_journal(path)
    assert journal.sweep(lambda _: False) == []  # it lives
    assert journal.is_owner_alive(1)
    end(child)
    assert journal.sweep(lambda _: False) == [1]
    row = journal.records.get_flow_run(1)
    assert row.state == "CRASHED"
    assert f"process {child.pid}" in str(row.state_message)
    assert "died" in str(row.state_message)
    assert journal.sweep(lambda _: False) == []


def test_two_processes_that_sweep_at_once_mark_a_run_once(path: Path) -> None:
    end(start(OWNER, path))
    sweeper = """
import sys
from pathlib import Path
from wfengine_journal import store
journal = store.open_journal(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(journal.sweep(lambda _: False)), flush=True)
"""
    children = [start(sweeper, path) for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    assert sorted(child.communicate(timeout=60)[0].strip() for child in children) == ["0", "0", "0", "1"]
    journal = store.open_journal(path)
    assert journal.records.get_flow_run(1).version == 2


def test_a_process_that_ends_well_says_so(path: Path) -> None:
    child = start(OWNER, path)
    child.communicate("\n", timeout=60)
    journal = store.open_journal(path)
    rows = journal._writer.read(lambda connection: connection.execute("SELECT ended_at FROM owner WHERE id = 1").fetchall())
    assert rows != [(None,)]
    assert not journal.is_owner_alive(1)


def test_a_process_sweeps_runs_of_its_own_that_it_abandoned_and_no_others(path: Path) -> None:
    journal = store.open_journal(path)
    create = CreateFlowRun(
        name="quiet-heron", flow_id=journal.flow_id("etl", None), parent_task_run_id=None, owner_id=journal.owner_id,
        code_id=None, durability="power", parameters="{}", arguments=[], tags=None, idempotency_key=None, entrypoint=None,
        flow_hash=None, at=journal.clock.now_text(),
    )  # fmt: skip
    journal.write(create, synced=False)
    assert journal.sweep(lambda run_id: False) == []
    assert journal.sweep(lambda run_id: run_id == 1) == [1]


def test_an_owner_nobody_knows_is_dead(path: Path) -> None:
    assert not store.open_journal(path).is_owner_alive(99)
