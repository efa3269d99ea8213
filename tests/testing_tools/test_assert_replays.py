"""assert_replays: recorded runs are replayed with the code of today, and nothing but the bodies of flows is run."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine import Flow, flow, task, use_journal
from wfengine.testing import VirtualClock, assert_replays, temporary_journal
from wfengine_journal import store
from wfengine_journal.errors import UsageError

RAN: list[str] = []


@pytest.fixture(autouse=True)
def ran() -> Iterator[list[str]]:
    RAN.clear()
    yield RAN
    RAN.clear()


def told(*_: object) -> None:
    RAN.append("hook")


@task(on_completion=[told])
def load(name: str) -> list[int]:
    RAN.append(f"load {name}")
    return [1, 2, len(name)]


@task
def total(numbers: list[int], bonus: int = 0) -> int:
    RAN.append("total")
    return sum(numbers) + bonus


@task
def other(numbers: list[int]) -> int:
    RAN.append("other")
    return sum(numbers)


@task
def fails() -> None:
    RAN.append("fails")
    raise LookupError("no such thing")


@task
async def wait(number: int) -> int:
    RAN.append(f"wait {number}")
    await asyncio.sleep(0)
    return number


@flow(name="report", on_completion=[told], on_running=[told])
def report(name: str) -> int:
    return total(load(name))


@flow(name="report")
def report_with_a_bonus(name: str) -> int:
    return total(load(name), bonus=1)


@flow(name="report")
def report_with_another_task(name: str) -> int:
    return other(load(name))


@flow(name="report")
def report_with_one_more(name: str) -> int:
    numbers = load(name)
    return total(numbers) + other(numbers)


@flow(name="report")
def report_with_one_less(name: str) -> int:
    return sum(load(name))


@flow(name="report")
def report_with_another_result(name: str) -> int:
    return total(load(name)) + 1


@flow(name="report")
def report_that_raises(name: str) -> int:
    raise KeyError(total(load(name)))


@flow(name="report")
def report_with_another_parameter(title: str) -> int:
    return total(load(title))


@flow
async def gathered(count: int) -> list[int]:
    return list(await asyncio.gather(*(wait(number) for number in range(count))))


@flow
def fanned_out(count: int) -> int:
    futures = total.map([[number] for number in range(count)])
    return total(futures.result())


@flow
def failing() -> None:
    try:
        fails()
    except LookupError:
        total([1])
    fails()


@flow
def with_subflow(name: str) -> int:
    return report(name) + 1


def test_unchanged_code_replays_and_nothing_is_executed_called_or_written(ran: list[str]) -> None:
    with temporary_journal() as journal:
        report("ab")
        report("abc")
        asyncio.run(gathered(3))
        fanned_out(4)
        with pytest.raises(LookupError):
            failing()
        with_subflow("ab")
        runs, before = journal.runs(), len(ran)
        assert before > 15
        assert assert_replays(journal.path) == 7
        assert len(ran) == before
        assert journal.runs() == runs


@pytest.mark.parametrize(
    ("edited", "text"),
    [
        (report_with_a_bonus, "bonus: recorded 0, now 1"),
        (report_with_another_task, 'comes to other("numbers":[1,2,2]), which is not recorded, without having called total('),
        (report_with_one_more, 'calls other("numbers":[1,2,2]), which the recorded run did not call'),
        (report_with_one_less, 'ends without calling total("bonus":0,"numbers":[1,2,2]) as the recorded run did'),
        (report_with_another_result, "the result is 6, recorded 5"),
        (report_that_raises, "the run ended as Failed (KeyError: 5), recorded as Completed (5)"),
        (report_with_another_parameter, "does not fit the flow any more"),
    ],
)
def test_each_kind_of_edit_is_found_and_named(edited: Flow[[str], int], text: str, ran: list[str]) -> None:
    with temporary_journal() as journal:
        report("ab")
        before = len(ran)
        with pytest.raises(AssertionError) as caught:
            assert_replays(journal.path, flow=edited)
        assert "1 of 1 recorded runs do not replay with today's code" in str(caught.value)
        assert "of flow 'report' (COMPLETED)" in str(caught.value)
        assert text in str(caught.value)
        assert len(ran) == before
        assert assert_replays(journal.path, flow=report) == 1  # the journal is as it was


def test_runs_are_chosen_by_flow_and_by_id_or_name(ran: list[str]) -> None:
    with temporary_journal() as journal:
        report("ab")
        fanned_out(2)
        report.with_options(flow_run_name="special")("abc")
        assert assert_replays(journal.path, flow="report") == 2
        assert assert_replays(journal.path, flow=[report, "fanned-out"]) == 3
        assert assert_replays(journal.path, runs=["special", 2]) == 2
        with pytest.raises(AssertionError, match="2 of 2"):
            assert_replays(journal.path, flow=report_with_one_less)
        with pytest.raises(AssertionError, match="run 3 'special'"):
            assert_replays(journal.path, flow=report_with_one_less, runs=["special"])
        with pytest.raises(UsageError, match="nothing was replayed"):
            assert_replays(journal.path, flow="no-such-flow")


def test_a_failed_run_has_to_fail_the_same_way(ran: list[str]) -> None:
    @flow(name="failing")
    def mended() -> int:
        try:
            fails()
        except LookupError:
            return total([1])
        return 0

    with temporary_journal() as journal:
        with pytest.raises(LookupError):
            failing()
        assert assert_replays(journal.path, flow=failing) == 1
        with pytest.raises(AssertionError, match=r"the run ended as Completed \(1\), recorded as Failed \(LookupError"):
            assert_replays(journal.path, flow=mended)


def test_retried_calls_and_flows_replay_without_waiting(ran: list[str]) -> None:
    @task(retries=2, retry_delay_seconds=3600)
    def flaky() -> int:
        ran.append("flaky")
        if ran.count("flaky") < 3:
            raise ValueError("not yet")
        return 3

    @flow(retries=1, retry_delay_seconds=86_400)
    def patient() -> int:
        found = flaky()
        ran.append("body")
        if ran.count("body") == 1:
            raise ValueError("not yet")
        return total([found])

    with temporary_journal(clock=VirtualClock()) as journal:
        assert patient() == 3
        assert assert_replays(journal.path, flow=patient) == 1


def test_a_result_whose_bytes_differ_from_process_to_process_is_compared_by_what_it_is() -> None:
    @flow
    def coloured() -> set[str]:
        return {"red", "green", *(f"shade {number}" for number in range(20))}

    with temporary_journal() as journal:
        coloured()
        assert assert_replays(journal.path, flow=coloured) == 1


SCRIPT = """
import os, sys
from pathlib import Path
from wfengine import flow, task, use_journal

@task
def step(number):
    if number == 3:
        os.kill(os.getpid(), 9)
    return number

@flow
def steps(count):
    total = 0
    for number in range(count):
        total += step({argument})
    return total

if __name__ == "__main__":
    use_journal("golden.db")
    steps(5)
"""


def test_a_run_that_was_cut_off_is_replayed_as_far_as_it_came(tmp_path: Path) -> None:
    script = tmp_path / "cut.py"
    script.write_text(SCRIPT.format(argument="number"))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == -9, done
    check = f"from wfengine.testing import assert_replays; print(assert_replays({str(tmp_path / 'golden.db')!r}))"

    def replayed() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=False)

    def files() -> dict[str, str]:
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in tmp_path.glob("golden*")
            if "-shm" not in file.name
        }

    before = files()
    assert replayed().stdout == "1\n"
    script.write_text(SCRIPT.format(argument="number + 1"))
    failed = replayed()
    assert failed.returncode == 1
    assert "of flow 'steps' (RUNNING)" in failed.stderr
    assert 'comes to step("number":3) without having called step("number":0) as the recorded run did before' in failed.stderr
    script.write_text(SCRIPT.format(argument="-number"))
    assert "number: recorded 1, now -1" in replayed().stderr
    assert files() == before


def test_a_golden_journal_that_may_not_be_written_is_replayed(tmp_path: Path, own_journal: store.Journal) -> None:
    use_journal(tmp_path / "golden.db")
    report("ab")
    store.close_all()
    (tmp_path / "golden.db").chmod(0o400)
    assert assert_replays(tmp_path / "golden.db", flow=report) == 1


def test_a_flow_that_cannot_be_found_is_asked_for(tmp_path: Path) -> None:
    script = tmp_path / "gone.py"
    script.write_text(SCRIPT.format(argument="0"))
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, check=True)
    script.unlink()
    with pytest.raises(AssertionError, match=r"its flow cannot be found, so give it as flow=\.\.\."):
        assert_replays(tmp_path / "golden.db")


@pytest.mark.parametrize("repeat", range(3))
def test_fan_out_replays_whatever_order_the_threads_took(repeat: int, ran: list[str]) -> None:
    with temporary_journal() as journal:
        fanned_out(30)
        assert assert_replays(journal.path) == 1
