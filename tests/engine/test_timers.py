"""sleep: its end is an instant in the journal, so that a restart waits only for the rest, or not at all."""

from __future__ import annotations

import asyncio
import datetime
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, now, sleep, task, use_journal
from wfengine.recovery import resumable_runs, resume_run
from wfengine.timers import asleep
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import PausedRun, UsageError

DAY = 86400


def test_a_sleep_is_scheduled_until_its_instant_and_then_completed(clock: FakeClock, rows: Rows) -> None:
    seen: list[tuple[object, ...]] = []
    start = clock.now

    class Watching(FakeClock):
        def sleep(self, seconds: float) -> None:
            seen.extend(rows("SELECT task, state, next_attempt_at, message FROM tasks"))
            FakeClock.sleep(self, seconds)

    clock.__class__ = Watching

    @flow
    def sleeper() -> float:
        sleep(days=1, hours=1, minutes=1, seconds=1)
        return now().timestamp()

    assert sleeper() == start + DAY + 3661
    due = text_from_seconds(start + DAY + 3661)
    assert seen[0] == ("sleep", "SCHEDULED", due, f"sleeps until {due}")
    assert rows("SELECT state, next_attempt_at, message, attempts FROM tasks WHERE task = 'sleep'") == [
        ("COMPLETED", None, f"slept until {due}", 1)
    ]


def test_an_async_sleep_asks_the_clock_and_never_stops_the_loop(clock: FakeClock) -> None:
    @flow
    async def sleeper() -> list[None]:
        return await asyncio.gather(sleep(10), sleep(seconds=20), asleep(5))

    assert asyncio.run(sleeper()) == [None, None, None]
    assert clock.slept


def test_async_sleeps_on_the_machines_clock_go_on_side_by_side(rows: Rows) -> None:
    order: list[float] = []

    @task
    async def late(seconds: float) -> None:
        await sleep(seconds)
        order.append(seconds)

    @flow
    async def sleeper() -> None:
        await asyncio.gather(late(1.0), late(0.001), late(0.5))

    asyncio.run(sleeper())
    assert order == [0.001, 0.5, 1.0]
    assert rows.value("SELECT count(DISTINCT parent_task_id) FROM tasks WHERE task = 'sleep'") == 3


@pytest.mark.parametrize(
    "wish", [{"seconds": 0}, {"seconds": -5}, {"until": datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)}]
)
def test_an_instant_in_the_past_returns_at_once_in_one_commit(wish: dict[str, object], clock: FakeClock, rows: Rows) -> None:
    @flow
    def sleeper() -> None:
        sleep(**wish)  # type: ignore[arg-type]

    sleeper()
    assert clock.slept == []
    assert rows("SELECT state_name FROM history WHERE task = 'sleep' ORDER BY seq") == [("Running",), ("Completed",)]


@pytest.mark.parametrize(
    "wish", [{}, {"seconds": 1, "until": datetime.datetime.now(datetime.UTC)}, {"until": datetime.datetime(2030, 1, 1)},  # noqa: DTZ001
             {"seconds": float("nan")}],
)  # fmt: skip
def test_a_sleep_that_makes_no_sense_is_refused_and_nothing_is_written(wish: dict[str, object], rows: Rows) -> None:
    @flow
    def sleeper() -> None:
        sleep(**wish)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="sleep"):
        sleeper()
    assert rows("SELECT 1 FROM tasks") == []


def test_outside_of_a_flow_it_only_sleeps(rows: Rows) -> None:
    async def both() -> None:
        await sleep(0.001)  # type: ignore[func-returns-value]

    sleep(0.001)
    asyncio.run(both())
    assert rows("SELECT 1 FROM tasks") == []


SLEEPER = """
from wfengine import sleep
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.store import open_journal

class Clock:
    '''It stands still; whoever sleeps on it notes for how long, and is killed the first time.'''
    now = 1_750_000_000.0 + float((HERE / "ahead").read_text() if (HERE / "ahead").exists() else 0)
    def now_text(self):
        return text_from_seconds(self.now)
    def wall_seconds(self):
        return self.now
    def monotonic_seconds(self):
        return self.now
    def sleep(self, seconds):
        note(f"slept-{seconds:.0f}")
        if first_time("killed_asleep"):
            kill()
        self.now += seconds
    async def sleep_async(self, seconds):
        self.sleep(seconds)

open_journal(HERE / "journal.db", Clock())
use_journal(HERE / "journal.db")

@flow
def main():
    note("body")
    sleep(SECONDS)
    return "slept"

if __name__ == "__main__":
    main()
"""
RESUME = "from program import *; import sys; from wfengine.recovery import resume_run; print(resume_run(use_journal(HERE / 'journal.db'), 1, recovery=sys.argv[1] == 'recovery'))"  # noqa: E501


def sleeper_killed(program: Program, seconds: str) -> None:
    program.write(SLEEPER.replace("SECONDS", seconds))
    program.run_and_be_killed()
    assert program.effects == ["body", f"slept-{seconds}"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("ahead", "rest"), [(500, ["slept-2500"]), (10 * 365 * DAY, []), (3000, [])])
def test_a_restart_waits_only_for_the_rest(program: Program, is_async: bool, ahead: int, rest: list[str]) -> None:
    text = SLEEPER.replace("SECONDS", "3000")
    if is_async:
        text = (
            text.replace("def main", "async def main")
            .replace("    sleep(", "    await sleep(")
            .replace("    main()", "    asyncio.run(main())")
        )
    program.write(text)
    program.run_and_be_killed()
    (program.folder / "ahead").write_text(str(ahead))
    done = program.python("-c", RESUME, "recovery")
    assert "Completed" in done.out, done
    assert program.effects == ["body", "slept-3000", "body", *rest]


def test_a_duration_computed_anew_on_each_run_does_not_move_the_recorded_instant(program: Program) -> None:
    sleeper_killed(program, "3000")
    program.write(SLEEPER.replace("SECONDS", "5 if (HERE / 'ahead').exists() else 3000"))
    # Nobody is looking: what a recovery finds as the duration does not count, edited or computed.
    (program.folder / "ahead").write_text("1000")
    done = program.python("-c", RESUME, "recovery")
    assert "Completed" in done.out, done
    assert program.effects[-2:] == ["body", "slept-2000"]


@pytest.mark.parametrize(("edited", "rest"), [("5000", ["slept-3600", "slept-400"]), ("2000", ["slept-1000"]), ("700", [])])
def test_an_edited_duration_counts_from_the_recorded_start_where_a_person_resumes(
    program: Program, rows: Rows, edited: str, rest: list[str]
) -> None:
    sleeper_killed(program, "3000")
    program.write(SLEEPER.replace("SECONDS", edited))
    (program.folder / "ahead").write_text("1000")
    done = program.python("-c", RESUME, "person")
    assert "Completed" in done.out, done
    assert program.effects[2:] == ["body", *rest]
    assert rows.value("SELECT count(*) FROM tasks") == 1
    assert rows.value("SELECT inputs FROM tasks") == f'{{"seconds":{edited}.0}}'


def test_an_edited_duration_of_a_sleep_that_has_ended_waits_no_more(program: Program) -> None:
    program.write(SLEEPER.replace("SECONDS", "30").replace('return "slept"', 'raise ValueError("after")'))
    (program.folder / "killed_asleep").touch()
    assert "ValueError" in program.run().err
    program.write(SLEEPER.replace("SECONDS", "90000"))
    done = program.python("-c", RESUME, "person")
    assert "Completed" in done.out, done
    assert program.effects == ["body", "slept-30", "body"]


# ------------------------------------------------------------------------------------------- suspension


@flow
def suspended(days: int = 30) -> str:
    first = now()
    sleep(days=days, suspend=True)
    return f"slept since {first:%Y}"


@flow
async def suspended_async(days: int = 30) -> str:
    await sleep(days=days, suspend=True)  # type: ignore[func-returns-value]
    return "slept"


@flow
def around() -> str:
    return suspended() + "!"


def parked(which: object) -> None:
    start = (lambda: asyncio.run(suspended_async())) if which is suspended_async else which
    with pytest.raises(PausedRun, match=r"sleeps until .* wfengine resume --all"):
        start()  # type: ignore[operator]


@pytest.mark.parametrize("which", [suspended, suspended_async, around])
def test_a_suspended_run_is_parked_until_its_timer_ends(
    which: object, clock: FakeClock, journal: store.Journal, rows: Rows
) -> None:
    parked(which)
    opened = store.open_journal(rows.path)
    due = text_from_seconds(clock.now + 30 * DAY)
    assert clock.slept == []
    assert rows("SELECT state, state_name, wake_at FROM runs WHERE parent_run_id IS NULL") == [("PAUSED", "Suspended", due)]
    assert resumable_runs(opened) == []
    clock.now += 31 * DAY
    assert resumable_runs(opened) == [1]
    state = resume_run(opened, 1, recovery=True)
    assert state.is_completed()
    assert clock.slept == []
    assert rows("SELECT DISTINCT state, wake_at FROM runs") == [("COMPLETED", None)]
    assert rows.value("SELECT count(*) FROM tasks WHERE task = 'sleep'") == 1


@pytest.mark.parametrize("which", [suspended, suspended_async, around])
def test_a_person_who_resumes_before_the_time_waits_for_the_rest(which: object, clock: FakeClock, rows: Rows) -> None:
    parked(which)
    clock.now += 29 * DAY
    assert resume_run(store.open_journal(rows.path), 1).is_completed()
    assert sum(clock.slept) == DAY


def test_a_recovery_before_the_time_suspends_it_again(clock: FakeClock, rows: Rows) -> None:
    parked(suspended)
    clock.now += DAY
    state = resume_run(store.open_journal(rows.path), 1, recovery=True)
    assert state.name == "Suspended"
    assert rows("SELECT state_name, wake_at FROM runs") == [("Suspended", text_from_seconds(clock.now + 29 * DAY))]


def test_what_was_submitted_is_finished_before_the_run_is_parked(clock: FakeClock, rows: Rows) -> None:
    @task
    def work(number: int) -> int:
        return number

    @flow
    def busy() -> None:
        for number in range(5):
            work.submit(number)
        sleep(days=1, suspend=True)

    with pytest.raises(PausedRun):
        busy()
    assert rows("SELECT state, count(*) FROM tasks WHERE task = 'work' GROUP BY 1") == [("COMPLETED", 5)]


def test_only_the_body_of_a_flow_may_be_suspended(rows: Rows) -> None:
    @task
    def inside() -> None:
        sleep(days=1, suspend=True)

    @flow
    def sync() -> None:
        inside()

    @flow
    async def gathered() -> None:
        await asyncio.gather(sleep(days=1, suspend=True))  # type: ignore[func-returns-value]

    with pytest.raises(UsageError, match="Only the body of a flow"):
        sync()
    with pytest.raises(UsageError, match="Only the body of a flow"):
        asyncio.run(gathered())
    assert rows("SELECT 1 FROM tasks WHERE task = 'sleep'") == []


def test_a_sleeping_run_is_not_stuck_before_its_time(rows: Rows) -> None:
    with pytest.raises(PausedRun):
        suspended()
    assert rows("SELECT 1 FROM stuck") == []
    assert str(rows.value("SELECT wake_at FROM runs")) > str(rows.value("SELECT created_at FROM runs"))


def test_a_suspended_run_whose_time_has_come_waits_to_be_taken_up(clock: FakeClock, rows: Rows) -> None:
    parked(suspended)  # by a clock that is behind that of the machine
    assert rows("SELECT id FROM stuck") == [(1,)]


def test_the_command_line_says_until_when_a_run_sleeps_and_takes_it_up(program: Program, rows: Rows) -> None:
    program.write(
        """
        from datetime import datetime, timezone
        from wfengine import sleep

        @flow
        def main(year: int = 2999):
            sleep(until=datetime(year, 1, 1, tzinfo=timezone.utc), suspend=True)
            return "slept"
        """
    )
    done = program.python("-m", "wfengine", "run", "program.py")
    assert "sleeps until 2999-01-01" in done.err + done.out, done
    assert rows.state() == ("PAUSED", "Suspended")
    nothing = program.python("-m", "wfengine", "resume", "--all")
    assert nothing.code == 0, nothing
    assert rows.state() == ("PAUSED", "Suspended")


def test_a_journal_is_opened_with_a_clock_by_its_path(tmp_path: Path) -> None:
    clock = FakeClock()
    store.open_journal(tmp_path / "other.db", clock)
    use_journal(tmp_path / "other.db")

    @flow
    def long() -> None:
        sleep(days=365)

    long()
    assert sum(clock.slept) == 365 * DAY


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(Path(__file__).with_name("timed_child.py"), environment())
    yield nursery
    nursery.close()


@pytest.mark.long
@pytest.mark.crash
def test_killed_at_each_statement_a_value_that_was_given_stays_and_the_sleep_ends_once(
    program: Program, rows: Rows, nursery: Nursery
) -> None:
    def execute(kill: int, what: str) -> int:
        return nursery.run(program.folder, [str(program.folder), str(kill), what], {})

    assert execute(0, "start") == 0
    kills = 0
    for number in range(1, 100):
        before = len(program.effects)
        code = execute(number, "start")
        assert execute(0, "resume") == 0
        assert len({effect[:36] for effect in program.effects[before:]}) <= 1, number
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 20
    assert rows("SELECT DISTINCT state FROM runs") == [("COMPLETED",)]
    assert rows("SELECT DISTINCT state FROM tasks") == [("COMPLETED",)]
    assert rows("SELECT run_id FROM tasks WHERE task = 'sleep' GROUP BY 1 HAVING count(*) <> 1") == []
