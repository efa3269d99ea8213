"""now, today, uuid4, random and side_effect: one value, however often the run is resumed."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from concurrent.futures import ThreadPoolExecutor
from zoneinfo import ZoneInfo

import pytest

import wfengine
from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import carry, flow, now, random, side_effect, task, today, uuid4
from wfengine.transactions import transaction
from wfengine_journal import store
from wfengine_journal.errors import UsageError


def test_values_have_the_types_of_the_standard_library(clock: FakeClock) -> None:
    @flow
    def drawn() -> tuple[object, ...]:
        return now(), today("UTC"), uuid4(), random()

    at, date, unique, fraction = drawn()
    expected = datetime.datetime.fromtimestamp(clock.now, datetime.UTC)
    assert at == expected
    assert at.tzinfo is datetime.UTC  # type: ignore[attr-defined]  # a datetime
    assert date == expected.date()
    assert type(date) is datetime.date
    assert isinstance(unique, uuid.UUID)
    assert unique.version == 4
    assert isinstance(fraction, float)
    assert 0 <= fraction < 1


def test_today_is_that_of_the_time_zone(clock: FakeClock) -> None:
    clock.now = datetime.datetime(2026, 3, 1, 23, 30, tzinfo=datetime.UTC).timestamp()

    @flow
    def dates() -> list[datetime.date]:
        return [today("UTC"), today("Asia/Tokyo"), today(ZoneInfo("America/New_York"))]

    assert [date.isoformat() for date in dates()] == ["2026-03-01", "2026-03-02", "2026-03-01"]
    with pytest.raises(UsageError, match="no time zone 'Mars/North'"):
        today("Mars/North")


def test_each_is_a_task_run_whose_result_is_readable_json(clock: FakeClock, rows: Rows) -> None:
    @flow
    def drawn() -> str:
        now()
        return str(uuid4())

    unique = drawn()
    found = rows("SELECT task, state, result, inputs, attempts FROM tasks ORDER BY id")
    assert found == [
        ("now", "COMPLETED", '"2025-06-15T15:06:40.000000Z"', "{}", 1),
        ("uuid4", "COMPLETED", f'"{unique}"', "{}", 1),
    ]


def test_a_value_costs_one_commit(journal: store.Journal) -> None:
    commits: list[int] = []

    @flow
    def drawn() -> None:
        now()  # the first call registers the task's name
        random()
        journal.flush()
        before = journal._writer.commits
        for _ in range(100):
            now()
            random()
        commits.append(journal._writer.commits - before)

    drawn()
    assert commits == [200]


def test_outside_of_a_flow_they_work_and_nothing_is_recorded(journal: store.Journal, rows: Rows) -> None:
    assert now().tzinfo is datetime.UTC
    assert today() in (datetime.datetime.now(datetime.UTC).astimezone().date(), today())
    assert 0 <= random() < 1
    assert uuid4() != uuid4()
    assert side_effect(max, 1, 2) == 2
    assert rows("SELECT 1 FROM runs") == []


BODY = """
from wfengine import now, random, side_effect, today, uuid4

def reading(name):
    note(f"reading-{name}")
    return f"{name} {uuid.uuid4()}"

@task
def inner():
    note(f"inner-{uuid4()}")
    if first_time("in_task"):
        kill()
    return str(random())

@flow
def main():
    values = [str(now()), str(today()), str(uuid4()), str(uuid4()), str(random()), side_effect(reading, "a")]
    note("|".join(values).replace(" ", "_"))
    if first_time():
        kill()
    return values + [inner(), str(now())]

if __name__ == "__main__":
    main()
"""


def test_a_killed_flow_is_given_the_values_it_was_given_before(program: Program, rows: Rows) -> None:
    program.write(BODY)
    program.run_and_be_killed()
    killed = program.python("-c", "from program import *; from wfengine.recovery import resume_run; "
                            "resume_run(use_journal(None), 1, recovery=True)")  # fmt: skip
    assert killed.was_killed
    program.resume(recovery=True)
    values = [effect for effect in program.effects if "|" in effect]
    assert len(values) == 3
    assert len(set(values)) == 1
    assert [effect for effect in program.effects if effect.startswith("reading")] == ["reading-a"]
    inside = [effect for effect in program.effects if effect.startswith("inner")]
    assert len(inside) == 2  # the task ran twice, in a scope of its own: with one value
    assert len(set(inside)) == 1
    assert rows.value("SELECT count(*) FROM tasks WHERE task = 'uuid4'") == 3


def test_a_side_effect_cut_off_in_the_middle_is_made_again(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine import side_effect

        def send():
            note("sent")
            if first_time():
                kill()
            return 7

        @flow
        def main():
            return side_effect(send)

        if __name__ == "__main__":
            main()
        """
    )
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "7"
    assert program.effects == ["sent", "sent"]
    assert rows("SELECT interruptions, state FROM tasks") == [(1, "COMPLETED")]


def test_a_side_effect_that_fails_is_recorded_as_a_task_is(rows: Rows) -> None:
    def broken() -> None:
        raise ValueError("no")

    @flow
    def caught() -> str:
        try:
            side_effect(broken)
        except ValueError as error:
            return str(error)
        return ""

    assert caught() == "no"
    assert rows("SELECT task, state, error FROM tasks") == [("side_effect", "FAILED", "ValueError: no")]


def test_a_side_effect_shows_its_function_and_arguments(rows: Rows) -> None:
    @flow
    def shown() -> int:
        return side_effect(pow, 2, 5, mod=7)

    assert shown() == 4
    assert rows("SELECT inputs FROM tasks") == [('{"args":[2,5],"fn":"pow","kwargs":{"mod":7}}',)]


def test_in_async_flows_values_are_there_at_once_and_an_async_side_effect_is_awaited(rows: Rows) -> None:
    async def fetch(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    @task
    async def stamped(number: int) -> tuple[int, uuid.UUID]:
        await asyncio.sleep(0)
        return number, uuid4()

    seen: list[list[object]] = []

    @flow(retries=1)
    async def many() -> object:
        values = [uuid4(), *await asyncio.gather(*(stamped(number) for number in range(5))), await side_effect(fetch, 4)]
        seen.append([*values, now(), random()])
        if len(seen) == 1:
            raise ValueError("again")
        return values[-1]

    assert asyncio.run(many()) == 8
    assert seen[0] == seen[1]
    assert rows.value("SELECT count(*) FROM tasks WHERE task = 'uuid4'") == 6


def test_in_threads_with_carry_each_call_has_its_own_recorded_value(rows: Rows) -> None:
    seen: list[set[uuid.UUID]] = []

    @flow(retries=1)
    def threaded() -> None:
        with ThreadPoolExecutor(3) as pool:
            seen.append({future.result() for future in [pool.submit(carry(uuid4)) for _ in range(6)]})
        if len(seen) == 1:
            raise ValueError("again")

    threaded()
    assert len(seen[0]) == 6
    assert seen[0] == seen[1]
    assert rows.value("SELECT count(*) FROM tasks") == 6


def test_a_rolled_back_transaction_leaves_the_values_as_they_were() -> None:
    seen: list[uuid.UUID] = []

    @task
    def write() -> None:
        """Something that is undone."""

    @write.on_rollback
    def undo(_: object) -> None:
        """Undo it."""

    @flow(retries=1)
    def undone() -> None:
        with transaction():
            seen.append(uuid4())
            write()
            if len(seen) == 1:
                raise ValueError("again")

    undone()
    assert seen[0] == seen[1]


def test_drift_says_which_block_to_use(program: Program) -> None:
    program.write(
        """
        @task
        def load(stamp):
            return stamp

        @flow
        def main():
            load(str(uuid.uuid4()))
            kill()

        if __name__ == "__main__":
            main()
        """
    )
    program.run_and_be_killed()
    answer = program.resume()
    assert answer["error"] == "DriftError"
    assert "make it with wfengine.uuid4()" in str(answer["text"])


def test_a_task_of_the_user_with_the_key_of_a_block_is_refused() -> None:
    @task(key="wfengine.now")
    def mine() -> int:
        return 1

    @flow
    def both() -> int:
        now()
        return mine()

    with pytest.raises(UsageError, match=r"Two tasks have the key 'wfengine\.now'"):
        both()


def test_they_are_names_of_the_package() -> None:
    assert wfengine.now.__module__ == "wfengine"
