"""Defects of the write path that were found once and must not come back."""

from __future__ import annotations

import dis
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest

from wfengine_journal import schema, writer
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import open_reader, open_writer
from wfengine_journal.writer import CHECKPOINT_BYTES, CHECKPOINT_LOOK_COMMITS, Writer

#: Seconds after which a test counts as hanging.
PATIENCE = 60.0


class Insert:
    """A change that adds one row to table `meta`."""

    def __init__(self, key: str, value: str = "x") -> None:
        self.key = key
        self.value = value
        self.thread = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        self.thread = threading.get_ident()
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (self.key, self.value))

    def landed(self, connection: sqlite3.Connection) -> bool:
        return connection.execute("SELECT 1 FROM meta WHERE key = ?", (self.key,)).fetchone() is not None


class Holding(Insert):
    """A change that stays inside its transaction until it is let go."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.inside = threading.Event()
        self.let_go = threading.Event()

    def apply(self, connection: sqlite3.Connection) -> None:
        super().apply(connection)
        self.inside.set()
        assert self.let_go.wait(PATIENCE)


def written(path: Path) -> set[str]:
    reader = open_reader(path)
    try:
        return {row[0] for row in reader.execute("SELECT key FROM meta").fetchall()}
    finally:
        reader.close()


def make_writer(path: Path, may_checkpoint: Callable[[Callable[[], None]], None]) -> Writer:
    connection, _ = open_writer(path)
    schema.create(connection, SystemClock(), "test")
    return Writer(path, connection, SystemClock(), may_checkpoint)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def own_writer(path: Path) -> Iterator[Writer]:
    made = make_writer(path, lambda checkpoint: checkpoint())
    yield made
    made.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.0005)):
        if condition():
            return
        pause.wait(0.0005)
    raise AssertionError("it did not happen")


def leads_for_the_post_before_it(path: Path) -> bool:
    """Queue a posted change and then a waiting one behind a leader; tell whether the waiting thread committed both."""
    own_writer = make_writer(path, lambda checkpoint: checkpoint())
    own_writer.post(Insert("first"))  # the first post starts the flusher, for which it needs the lock
    until(lambda: not own_writer._flusher.awake.is_set() and not own_writer._queue)
    holding, posted, waiting = Holding("holding"), Insert("posted"), Insert("waiting")
    leader = threading.Thread(target=lambda: own_writer.write(holding, synced=False))
    leader.start()
    assert holding.inside.wait(PATIENCE)
    own_writer.post(posted)
    waiter = threading.Thread(target=lambda: own_writer.write(waiting, synced=False))
    waiter.start()
    until(lambda: len(own_writer._queue) == 2 and own_writer._queue[1]._awake is not None)
    waiter_id = waiter.ident
    holding.let_go.set()
    for thread in (leader, waiter):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    own_writer.close()
    return posted.thread == waiter_id


def test_a_thread_that_waits_behind_a_posted_change_is_woken_by_the_leader_before_it(tmp_path: Path) -> None:
    # The flusher may be quicker now and then; were nobody woken, it would always be the flusher that commits.
    assert any(leads_for_the_post_before_it(tmp_path / f"{round_}.db") for round_ in range(10))


def test_an_interrupt_in_one_callback_keeps_no_other_from_being_called(own_writer: Writer, path: Path) -> None:
    told: list[str] = []

    def interrupt(error: BaseException | None) -> None:
        told.append("interrupted")
        raise KeyboardInterrupt

    own_writer._flusher.thread = threading.current_thread()  # nobody else leads
    own_writer.post(Insert("a"), on_commit=lambda error: told.append("a"))
    own_writer.post(Insert("b"), on_commit=interrupt)
    own_writer.post(Insert("c"), on_commit=lambda error: told.append("c"))
    with pytest.raises(KeyboardInterrupt):
        own_writer.write(Insert("own"), synced=False)
    assert told == ["a", "interrupted", "c"]
    assert {"a", "b", "c", "own"} <= written(path)


def signal_points(code: CodeType) -> set[int]:
    """Return the offsets at which the interpreter looks for signals: after a call, at a function's start, in a loop."""
    found, before = set(), None
    for instruction in dis.get_instructions(code):
        if before is not None and before.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
            found.add(instruction.offset)
        if instruction.opname != "CACHE":
            before = instruction.opname
    return found


class Interruption:
    """Ctrl-C at the n-th point at which the writer's code can be interrupted."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.points: dict[CodeType, set[int]] = {}

    def trace(self, frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        if frame.f_code.co_filename != writer.__file__:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        points = self.points.setdefault(frame.f_code, signal_points(frame.f_code))
        if event == "opcode" and frame.f_lasti in points:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.trace

    def strike(self, work: Callable[[], None]) -> bool:
        """Do the work; tell whether it was interrupted."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            work()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        return self.left <= 0


def test_an_interrupt_at_any_point_of_the_leader_loses_no_posted_change_and_hinders_no_later_write(
    own_writer: Writer, path: Path
) -> None:
    own_writer._flusher.thread = threading.current_thread()  # nobody else leads: only what this thread does counts
    number, struck = 0, True
    while struck:
        number += 1
        told: list[BaseException | None] = []
        own_writer.post(Insert(f"posted {number}"), on_commit=told.append)
        own = Insert(f"own {number}")
        struck = Interruption(number).strike(lambda own=own: own_writer.write(own, synced=False))  # type: ignore[misc]
        if told:
            assert f"posted {number}" in written(path), number
        own_writer.write(Insert(f"later {number}"), synced=False)
        own_writer.flush()
        assert {f"posted {number}", f"later {number}"} <= written(path), number
        assert told in ([], [None]), number
    # Python 3.12 reports no single operations to a tracer that asks for them in its first call, so there is one point there;
    # 3.13 reports few of them.
    assert number > (8 if sys.version_info < (3, 12) else 0)


def test_a_full_disk_met_while_folding_the_log_does_not_undo_the_commit_before_it(path: Path) -> None:
    tries: list[int] = []

    def full(_: Callable[[], None]) -> None:
        tries.append(1)
        raise sqlite3.OperationalError("database or disk is full")

    own_writer = make_writer(path, full)
    value = "x" * (2 * CHECKPOINT_BYTES // CHECKPOINT_LOOK_COMMITS)
    keys = [f"key {number}" for number in range(2 * CHECKPOINT_LOOK_COMMITS)]
    for key in keys:
        own_writer.write(Insert(key, value), synced=False)
    assert tries
    assert set(keys) <= written(path)
    own_writer.close()
