"""Following a stream: each item once, from any thread, event loop or process, to the stream's end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, follow, task
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.store import Journal


@task
def read(count: int) -> Iterator[int]:
    yield from range(count)


@flow
def consume(count: int) -> int:
    return sum(read(count))


@flow
def source(count: int) -> Iterator[object]:
    for number in read(count):
        yield {"number": number}


def test_a_stream_that_has_ended_is_given_whole_and_from_any_place_on() -> None:
    consume(1200)
    assert list(follow("@last", "read")) == list(range(1200))
    follower = follow(1, 1, start=1197)
    assert next(follower) == 1197
    assert follower.position == 1198
    assert list(follower) == [1198, 1199]
    assert list(follower) == []


def test_a_flows_own_items_need_no_task_and_a_subflows_are_found_by_its_name() -> None:
    @flow
    def outer() -> int:
        return len(list(source(3)))

    assert len(list(source(2))) == 2
    assert list(follow(1)) == [{"number": 0}, {"number": 1}]
    outer()
    assert list(follow(2, "source")) == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_items_are_given_as_they_come_to_a_thread_and_to_an_event_loop(journal: Journal) -> None:
    items = source(5)
    got: list[object] = []
    more = threading.Semaphore(0)

    def reader() -> None:
        for item in follow(1):
            got.append(item)
            more.release()

    first = next(items)
    thread = threading.Thread(target=reader)
    thread.start()
    assert more.acquire(timeout=30)
    assert got == [first]
    for expected in range(2, 6):
        next(items)
        assert more.acquire(timeout=30)
        assert len(got) == expected
    assert list(items) == []
    thread.join(30)
    assert not thread.is_alive()

    async def collect() -> list[object]:
        return [item async for item in follow(1)]

    assert asyncio.run(collect()) == got


def test_an_event_loop_goes_on_while_it_waits_for_an_item() -> None:
    items = source(2)
    next(items)

    async def produce() -> None:
        assert len(list(items)) == 1

    async def both() -> list[object]:
        follower = follow(1)
        got = [await anext(follower)]
        late = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        await produce()
        return [*got, await late]

    assert asyncio.run(both()) == [{"number": 0}, {"number": 1}]


def test_the_error_of_a_stream_comes_after_its_last_item_though_the_flow_handled_it() -> None:
    @task
    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    @flow
    def work() -> str:
        try:
            list(breaks())
        except ValueError:
            return "handled"
        return ""

    work()
    follower = follow("@last", "breaks")
    assert next(follower) == 1
    with pytest.raises(ValueError, match="no more"):
        next(follower)


def test_a_closed_stream_ends_for_its_followers() -> None:
    @flow
    def work() -> None:
        for number in read(100):
            if number == 2:
                break

    work()
    assert list(follow("@last", "read")) == [0, 1, 2]


def test_a_wait_that_takes_too_long_says_so_and_the_follower_can_be_asked_again() -> None:
    items = source(2)
    next(items)
    follower = follow(1, timeout_seconds=0.01)
    assert next(follower) == {"number": 0}
    with pytest.raises(TimeoutError, match="no item 1 within"):
        next(follower)

    async def ask() -> object:
        return await anext(follower)

    with pytest.raises(TimeoutError, match="no item 1 within"):
        asyncio.run(ask())
    assert list(items) == [{"number": 1}]
    assert list(follower) == [{"number": 1}]


def test_what_is_no_stream_is_refused_with_the_names_of_those_that_are(rows: Rows) -> None:
    consume(2)
    with pytest.raises(UsageError, match=r"tasks of it do: read \(task run 1\).*wfengine follow 1 read"):
        list(follow(1))
    with pytest.raises(UsageError, match="did not call a task 'raed'"):
        list(follow(1, "raed"))
    with pytest.raises(UsageError, match="did not call task run 77"):
        list(follow(1, 77))
    with pytest.raises(UsageError, match="not -1"):
        follow(1, start=-1)
    with pytest.raises(NotFoundError):
        list(follow(99))


PROGRAM = """
@task
def read(count):
    for number in range(count):
        yield {"number": number}
        if number == 3 and first_time():
            kill()
    yield {1, 2}

@flow
def work():
    return len(list(read(6)))

if __name__ == "__main__":
    work()
"""


def test_the_command_line_prints_an_item_a_line_over_a_crash_and_loads_none(program: Program) -> None:
    program.write(PROGRAM)
    program.run_and_be_killed()
    follower = subprocess.Popen(
        [sys.executable, "-m", "wfengine", "follow", "@last", "read"], cwd=program.folder, env=program.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    before = [json.loads(follower.stdout.readline()) for _ in range(4)]
    assert program.resume()["result"] == "7"
    out, said = follower.communicate(timeout=60)
    assert follower.returncode == 0, said
    assert before + [json.loads(line) for line in out.splitlines()] == [
        *[{"number": number} for number in range(6)], {"preview": "{1, 2}"},
    ]  # fmt: skip
    assert "was cut off. Its stream goes on with: wfengine resume" in said


def test_the_command_line_says_what_a_stream_failed_with_and_when_nothing_comes(program: Program) -> None:
    program.write(PROGRAM.replace("kill()", "raise ValueError('mend me')"))
    assert program.run().code == 1
    done = program.python("-m", "wfengine", "follow", "@last", "1", "--start", "3")
    assert (done.code, done.out) == (1, '{"number": 3}\n')
    assert "The stream failed: ValueError: mend me" in done.err
    assert program.resume()["result"] == "7"
    assert len(program.python("-m", "wfengine", "follow", "@last", "read").out.splitlines()) == 7
