"""The write path: who shares a commit, who is told when, and what a fault of one change does to the others."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wfengine_journal import schema
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import open_reader, open_writer
from wfengine_journal.errors import JournalError, JournalUnwritableError
from wfengine_journal.flusher import POST_DELAY_SECONDS
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.writer import BATCH_LIMIT, Writer

#: Seconds after which a test counts as hanging.
PATIENCE = 60.0


class Insert:
    """A change that adds one row to table `meta`."""

    def __init__(self, key: str, value: str = "x") -> None:
        self.key = key
        self.value = value

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (self.key, self.value))

    def landed(self, connection: sqlite3.Connection) -> bool:
        return connection.execute("SELECT 1 FROM meta WHERE key = ?", (self.key,)).fetchone() is not None


class Refusing(Insert):
    def apply(self, connection: sqlite3.Connection) -> None:
        raise WriteRefused


class Faulty(Insert):
    """A change that writes a row and then raises."""

    def __init__(self, key: str, fault: BaseException | str) -> None:
        super().__init__(key)
        self.fault = fault

    def apply(self, connection: sqlite3.Connection) -> None:
        super().apply(connection)
        if isinstance(self.fault, str):
            connection.execute(self.fault)
        else:
            raise self.fault


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


class Setup:
    """A writer on a fresh journal, its commits counted, and the rows as another connection sees them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection, _ = open_writer(path)
        schema.create(connection, SystemClock(), "test")
        self.statements: list[str] = []
        connection.set_trace_callback(self.statements.append)
        self.writer = Writer(path, connection, SystemClock(), lambda checkpoint: checkpoint())

    @property
    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def written(self) -> set[str]:
        reader = open_reader(self.path)
        try:
            found = reader.execute("SELECT key FROM meta WHERE key NOT IN ('journal_id', 'created_at', 'created_by')")
            return {row[0] for row in found.fetchall()}
        finally:
            reader.close()


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    made = Setup(tmp_path / "journal.db")
    yield made
    made.writer.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something another thread does."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def behind(setup: Setup, changes: list[Insert], *, synced: bool = True) -> list[BaseException | None]:
    """Write changes from a thread each while the lock is held, so that they form one batch; return how each ended."""
    holding = Holding("holding")
    leader = in_thread(lambda: setup.writer.write(holding, synced=False))
    assert holding.inside.wait(PATIENCE)
    ends: list[BaseException | None] = [None] * len(changes)

    def write(number: int) -> None:
        try:
            setup.writer.write(changes[number], synced=synced)
        except BaseException as error:
            ends[number] = error

    threads = []
    for number in range(len(changes)):  # one after another, so that the order in the queue is that of the list
        threads.append(in_thread(lambda number=number: write(number)))  # type: ignore[misc]
        until(lambda number=number: len(setup.writer._queue) == number + 1)  # type: ignore[misc]
    holding.let_go.set()
    for thread in (leader, *threads):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return ends


def test_changes_of_64_waiting_threads_share_one_commit(setup: Setup) -> None:
    ends = behind(setup, [Insert(f"k{number}") for number in range(64)])
    assert ends == [None] * 64
    assert setup.written() == {"holding", *(f"k{number}" for number in range(64))}
    assert setup.commits == 2  # that of the holding change, and one for all the others


def test_64_threads_writing_at_will_share_commits_where_the_disk_is_slow(setup: Setup) -> None:
    disk = threading.Event()

    def slow(statement: str) -> None:
        setup.statements.append(statement)
        if statement == "COMMIT":
            disk.wait(0.002)

    setup.writer._connection.set_trace_callback(slow)
    together = threading.Barrier(64)

    def write(number: int) -> None:
        together.wait(PATIENCE)
        for turn in range(10):
            setup.writer.write(Insert(f"{number}-{turn}"), synced=True)

    threads = [in_thread(lambda number=number: write(number)) for number in range(64)]  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENCE)
    assert len(setup.written()) == 640
    assert setup.commits < 640 / 4


def test_a_batch_has_a_limit(setup: Setup) -> None:
    setup.writer.post(Insert("first"))  # starts the flusher
    until(lambda: setup.written() == {"first"})
    holding = Holding("holding")
    leader = in_thread(lambda: setup.writer.write(holding, synced=False))
    assert holding.inside.wait(PATIENCE)
    for number in range(BATCH_LIMIT + 1):
        setup.writer.post(Insert(f"k{number}"))
    holding.let_go.set()
    leader.join(PATIENCE)
    until(lambda: len(setup.written()) == BATCH_LIMIT + 3)
    assert setup.commits == 4


def test_flush_commits_all_that_is_queued_though_it_is_more_than_a_batch(setup: Setup) -> None:
    for number in range(2 * BATCH_LIMIT + 1):
        setup.writer.add(Insert(f"k{number}"))
    setup.writer.flush()
    assert len(setup.written()) == 2 * BATCH_LIMIT + 1
    assert setup.commits == 3


def test_who_came_first_is_written_first_and_nobody_is_passed(setup: Setup) -> None:
    names = [f"k{number}" for number in range(40)]
    applied: list[str] = []

    class Noted(Insert):
        def apply(self, connection: sqlite3.Connection) -> None:
            super().apply(connection)
            applied.append(self.key)

    assert behind(setup, [Noted(name) for name in names]) == [None] * len(names)
    assert applied == names


def test_what_was_written_is_in_the_file_when_write_returns(setup: Setup) -> None:
    for synced in (False, True):
        setup.writer.write(Insert(f"k-{synced}"), synced=synced)
        assert f"k-{synced}" in setup.written()  # through another connection: it is committed, not merely executed


def test_a_read_sees_what_was_written_before(setup: Setup) -> None:
    setup.writer.write(Insert("k", "written"), synced=False)
    rows = setup.writer.read(lambda connection: connection.execute("SELECT value FROM meta WHERE key = 'k'").fetchall())
    assert rows == [("written",)]


def test_a_refused_change_does_not_keep_others_of_its_batch_from_being_written(setup: Setup) -> None:
    ends = behind(setup, [Insert("before"), Refusing("refused"), Insert("after")])
    assert [type(end) for end in ends] == [type(None), WriteRefused, type(None)]
    assert setup.written() == {"holding", "before", "after"}


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("a defect"),
        "INSERT INTO meta (key, value) VALUES ('journal_id', 'again')",
        "INSERT INTO meta (key, value) VALUES ('k', x'00')",
        "SELECT * FROM no_such_table",
    ],
    ids=["python", "constraint", "type", "statement"],
)
def test_a_faulty_change_harms_no_other_change_of_its_batch(setup: Setup, fault: BaseException | str) -> None:
    ends = behind(setup, [Insert("before"), Faulty("faulty", fault), Insert("after")])
    assert ends[0] is None
    assert ends[1] is not None
    assert ends[2] is None
    assert setup.written() == {"holding", "before", "after"}
    setup.writer.write(Insert("later"), synced=True)  # and the writer goes on
    assert "later" in setup.written()


def test_a_faulty_change_alone_leaves_nothing_behind(setup: Setup) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        setup.writer.write(Faulty("faulty", RuntimeError("a defect")), synced=False)
    assert setup.written() == set()
    setup.writer.write(Insert("later"), synced=False)
    assert setup.written() == {"later"}


def test_a_callback_is_called_after_the_commit_and_never_before(setup: Setup) -> None:
    seen: list[tuple[BaseException | None, set[str]]] = []
    told = threading.Event()

    def tell(error: BaseException | None) -> None:
        seen.append((error, setup.written()))  # as another connection sees the file at this moment
        told.set()

    setup.writer.post(Insert("posted"), on_commit=tell)
    assert told.wait(PATIENCE)
    assert seen == [(None, {"posted"})]


def test_a_callback_is_told_of_a_refusal_and_of_an_error(setup: Setup) -> None:
    ends: list[BaseException | None] = []
    for change in (Refusing("a"), Faulty("b", RuntimeError("a defect")), Insert("c")):
        setup.writer.post(change, on_commit=ends.append)
    setup.writer.flush()
    until(lambda: len(ends) == 3)
    assert [type(end) for end in ends] == [WriteRefused, RuntimeError, type(None)]


def test_a_posted_change_is_committed_though_nobody_waits(setup: Setup) -> None:
    setup.writer.post(Insert("posted"))
    until(lambda: setup.written() == {"posted"})


def test_a_posted_change_rides_with_the_next_commit(setup: Setup) -> None:
    setup.writer.post(Insert("posted"))
    setup.writer.write(Insert("written"), synced=True)
    assert setup.written() == {"posted", "written"}
    assert POST_DELAY_SECONDS < 1


def test_closing_commits_what_was_posted_and_refuses_what_comes_later(setup: Setup) -> None:
    setup.writer.post(Insert("posted"))
    setup.writer.close()
    assert setup.written() == {"posted"}
    with pytest.raises(JournalError, match="was closed in this process"):
        setup.writer.write(Insert("later"), synced=False)


def test_the_last_commit_is_synced_once_and_the_flusher_sleeps_again(setup: Setup) -> None:
    flusher = setup.writer._flusher
    setup.writer.write(Insert("synced by its commit"), synced=True)
    assert not flusher.has_tail, "what its commit synced is nobody else's to sync"
    setup.writer.write(Insert("left to the flusher"), synced=False)
    setup.writer.write(Insert("left to it with the other"), synced=False)
    until(lambda: not flusher.has_tail)
    assert not flusher.awake.is_set()
    assert setup.writer.commits == 3, "to sync is no transaction"


def test_a_failed_sync_of_what_was_written_last_stops_the_writer(setup: Setup) -> None:
    setup.writer.write(Insert("first"), synced=False)
    log = Path(f"{setup.path}-wal")
    log.rename(f"{log}-kept")
    log.mkdir()  # what cannot be opened for writing cannot be synced
    setup.writer._flusher.has_tail = True  # whether or not a second has gone by
    setup.writer._flusher.sync_tail()
    until(lambda: setup.writer._broken is not None)
    with pytest.raises(JournalUnwritableError, match="could not be synced"):
        setup.writer.write(Insert("second"), synced=False)
    log.rmdir()
    Path(f"{log}-kept").rename(log)


def test_the_flusher_thread_ends_with_the_writer(setup: Setup) -> None:
    setup.writer.post(Insert("posted"))
    flusher = setup.writer._flusher.thread
    assert flusher is not None
    setup.writer.close()
    flusher.join(PATIENCE)
    assert not flusher.is_alive()


def test_an_interrupt_inside_a_change_rolls_back_and_the_writer_goes_on(setup: Setup) -> None:
    with pytest.raises(KeyboardInterrupt):
        setup.writer.write(Faulty("faulty", KeyboardInterrupt()), synced=False)
    setup.writer.write(Insert("later"), synced=False)
    assert setup.written() == {"later"}


def test_an_interrupt_of_the_leader_loses_no_change_of_others(setup: Setup) -> None:
    class OnceInterrupted(Insert):
        turns = 0

        def apply(self, connection: sqlite3.Connection) -> None:
            super().apply(connection)
            self.turns += 1
            if self.turns == 1:
                raise KeyboardInterrupt

    changes: list[Insert] = [Insert("before"), OnceInterrupted("interrupted"), Insert("after")]
    ends = behind(setup, changes)
    # One thread led and saw Ctrl-C; the others' changes went back into the queue and were committed by the next leader.
    assert sorted(type(end).__name__ for end in ends) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert setup.written() == {"holding", "before", "interrupted", "after"}


def test_an_interrupt_while_changes_are_tried_one_by_one_loses_none(setup: Setup) -> None:
    class OnceInterrupted(Insert):
        turns = 0

        def apply(self, connection: sqlite3.Connection) -> None:
            super().apply(connection)
            self.turns += 1
            if self.turns == 2:  # the first time the whole batch is tried, the second time it is alone
                raise KeyboardInterrupt

    changes: list[Insert] = [OnceInterrupted("a"), Insert("b"), Faulty("c", RuntimeError("a defect")), Insert("d")]
    ends = behind(setup, changes)
    assert {"holding", "b", "d"} <= setup.written()
    assert [type(end).__name__ for end in ends].count("KeyboardInterrupt") == 1


class PageLimit(Insert):
    """Lets the file grow no further: from the next page on, SQLite reports that the disk is full."""

    def __init__(self) -> None:
        super().__init__("limit")

    def apply(self, connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_stops_the_writer_in_plain_words_and_loses_nothing_acknowledged(setup: Setup) -> None:
    setup.writer.write(Insert("acknowledged"), synced=True)
    setup.writer.write(PageLimit(), synced=True)
    with pytest.raises(JournalUnwritableError, match=r"is full \([\d,]+ bytes free\)") as caught:
        setup.writer.write(Insert("large", "x" * 100_000), synced=True)
    assert str(setup.path) in str(caught.value)
    assert "wfengine resume" in str(caught.value)
    with pytest.raises(JournalUnwritableError):  # nothing more is tried: the outcome would be anybody's guess
        setup.writer.write(Insert("small"), synced=True)
    assert setup.written() == {"acknowledged"}


def test_changes_that_wait_when_the_disk_is_full_are_all_told(setup: Setup) -> None:
    setup.writer.write(PageLimit(), synced=True)
    ends = behind(setup, [Insert(f"k{number}", "x" * 10_000) for number in range(20)])
    assert {type(end) for end in ends} == {JournalUnwritableError}
    posted: list[BaseException | None] = []
    setup.writer.post(Insert("posted"), on_commit=posted.append)
    setup.writer.flush()
    until(lambda: len(posted) == 1)
    assert isinstance(posted[0], JournalUnwritableError)


class FailingCommit(Insert):
    """A change whose COMMIT raises: a deferred foreign key is broken, which SQLite only sees at the end."""

    def apply(self, connection: sqlite3.Connection) -> None:
        super().apply(connection)
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute(
            "INSERT INTO execution (flow_run_id, epoch, owner_id, reason, started_at) VALUES (1, 1, 1, 'start', 'now')"
        )


def test_an_error_from_commit_is_looked_up_in_the_file_before_anybody_is_told(setup: Setup) -> None:
    setup.writer.write(Insert("acknowledged"), synced=True)
    with pytest.raises(JournalError):
        setup.writer.write(FailingCommit("unknown"), synced=True)
    assert setup.written() == {"acknowledged"}
    with pytest.raises(JournalError):
        setup.writer.write(Insert("later"), synced=True)


def test_a_commit_is_synced_when_asked_and_at_least_every_second_while_there_are_writes(tmp_path: Path) -> None:
    class Hand(SystemClock):
        now = 0.0

        def monotonic_seconds(self) -> float:
            return self.now

    clock = Hand()
    connection, _ = open_writer(tmp_path / "journal.db")
    schema.create(connection, clock, "test")
    writer = Writer(tmp_path / "journal.db", connection, clock, lambda checkpoint: checkpoint())

    def is_full_after(key: str, synced: bool) -> bool:
        writer.write(Insert(key), synced=synced)
        return int(connection.execute("PRAGMA synchronous").fetchone()[0]) == 2

    assert not is_full_after("a", False)
    assert is_full_after("b", True)
    assert not is_full_after("c", False)
    clock.now = 1.5
    assert is_full_after("d", False)
    assert not is_full_after("e", False)
    writer.close()


def test_the_log_is_folded_into_the_file_while_writing(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "journal.db")
    for number in range(1100):
        setup.writer.write(Insert(f"k{number}", "x" * 10_000), synced=False)
    # 11 MB were written; without checkpoints the log would hold more than 20 MB (whole pages, some more than once).
    assert (tmp_path / "journal.db").stat().st_size > 4_000_000
    assert any(statement.startswith("PRAGMA wal_checkpoint") for statement in setup.statements)
    setup.writer.close()
