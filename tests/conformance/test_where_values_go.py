"""Arguments, results and exceptions of tasks, on each runner: they come back as themselves, or it is said why they cannot."""

from __future__ import annotations

import datetime
import decimal
import functools
import os
import subprocess
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wfengine
from tests.conformance.runners import Place
from tests.conformance.work import OddError, PlainError, Point, double, double_async, give_back, length
from wfengine import flow, task
from wfengine_journal.errors import UnsendableError, WorkerDiedError


def test_results_come_back_in_the_order_of_the_items(place: Place) -> None:
    @flow(task_runner=place.new())
    def main() -> list[int]:
        return double.map(range(20)).result() + double_async.map(range(20)).result()

    assert main() == [number * 2 for number in range(20)] * 2


def test_values_come_back_equal_and_of_the_same_type(place: Place) -> None:
    values: list[object] = [
        None, True, 3, 2.5, "text\ud800"[:4], b"\x00\xff", [1, [2]], {"a": (1, 2)}, {1, 2}, (1, "b"), uuid.uuid4(), Point(1, 2),
        decimal.Decimal("1.10"), datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(seconds=3),
        Path("/tmp"), range(3), frozenset({4}), 10**40, float("inf"), complex(1, 2),
    ]  # fmt: skip

    @flow(task_runner=place.new())
    def main() -> list[object]:
        return give_back.map(values).result()

    for sent, back in zip(values, main(), strict=True):
        assert back == sent
        assert type(back) is type(sent)


def test_a_result_of_sixty_four_megabytes_comes_back(place: Place) -> None:
    @task
    def make(count: int) -> bytes:
        return b"0123456789abcdef" * (count << 16)

    @flow(task_runner=place.new())
    def main() -> bool:
        return make.submit(64).result() == b"0123456789abcdef" * (64 << 16)

    assert main()


def test_what_all_items_of_a_map_share_is_sent_once_to_each_worker(place: Place) -> None:
    size, tasks = 2 << 20, 12

    @flow(task_runner=place.new())
    def main() -> int:
        @task
        def use(number: int, value: bytes) -> int:
            return number + len(value)

        return sum(use.map(range(tasks), value=wfengine.unmapped(os.urandom(size))).result())

    def bytes_of_a_run() -> int:
        before = _bytes_sent()
        assert main() == sum(range(tasks)) + tasks * size
        return _bytes_sent() - before

    # The network of this machine is also that of others, who can only add to what is counted: one round of five is enough.
    assert any(bytes_of_a_run() < (min(place.workers, 2) + 2.5) * size for _ in range(5))


def _bytes_sent() -> int:
    """Return how much this process wrote, and all processes said to each other by the network of this machine."""
    wrote = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar"))
    network = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(wrote.split()[1]) + int(network.partition(":")[2].split()[0])


def test_an_argument_that_cannot_be_sent_is_named_and_the_others_run(place: Place) -> None:
    @task
    def use(lock: object) -> str:
        return type(lock).__name__

    @flow(task_runner=place.new())
    def main() -> None:
        locked, fine = use.submit(threading.Lock()), use.submit(4)
        if place.is_away:
            with pytest.raises(UnsendableError, match="argument 'lock'"):
                locked.result()
        else:
            assert locked.result() == "lock"
        assert fine.result() == "int"

    main()


def test_a_result_that_cannot_be_sent_is_an_error_that_says_so(place: Place) -> None:
    @task
    def give() -> object:
        return threading.Lock()

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(UnsendableError if place.is_away else wfengine.WfengineError, match="lock"):
            give.submit().result()
        assert double.submit(1).result() == 2

    main()


def test_closures_lambdas_partials_and_methods_are_sent_with_what_they_hold(place: Place) -> None:
    factor = 7
    times: Callable[[int], int] = lambda number: number * factor  # noqa: E731 - a lambda is what is sent

    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        @task
        def apply(self, number: int) -> int:
            return number * self.by

    @task
    def closed_over(number: int) -> int:
        return times(number) + Scale(2).by

    @task
    def call(fn: Callable[..., int], number: int) -> int:
        return fn(number)

    @flow(task_runner=place.new())
    def main() -> list[int]:
        return [
            closed_over.submit(2).result(), call.submit(times, 3).result(), call.submit(functools.partial(pow, 2), 5).result(),
            Scale(4).apply.submit(2).result(), call.submit(lambda number: number - factor, 9).result(),
        ]  # fmt: skip

    assert main() == [16, 21, 32, 8, 2]


def test_generator_tasks_give_all_their_items(place: Place) -> None:
    @task
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    @task
    def outer(to: int) -> int:
        return sum(count(to))

    @flow(task_runner=place.new())
    def main() -> tuple[object, int]:
        return count.submit(4).result(), outer.submit(5).result()

    assert main() == ([0, 1, 2, 3], 10)


# ------------------------------------------------------------------------------------------- exceptions


def test_exceptions_come_back_as_themselves(place: Place) -> None:
    class LocalError(PlainError):
        pass

    @task
    def fail(kind: str) -> None:
        if kind == "odd":
            raise OddError(4, 5)
        if kind == "local":
            raise LocalError("here", {"and": 1})
        raise PlainError("there")

    @flow(task_runner=place.new())
    def main() -> None:
        kinds = ("odd", "local", "module")
        odd, local, module = (fail.submit(kind).result(raise_on_failure=False) for kind in kinds)
        assert type(odd) is OddError
        assert (odd.left, str(odd)) == (4, "4 and 5")
        assert type(local) is LocalError
        assert local.args == ("here", {"and": 1})
        assert (type(module), module.args) == (PlainError, ("there",))

    main()


def test_an_exception_keeps_cause_context_notes_group_and_the_lines_of_its_task(place: Place) -> None:
    @task
    def fail() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise OddError(1, 2)  # noqa: B904 - the context is what is looked at
        except OddError as error:
            error.add_note("a note")
            raise ExceptionGroup("both", [PlainError("one"), ExceptionGroup("inner", [OddError(3, 4)])]) from error

    @flow(task_runner=place.new())
    def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            fail.submit().result()
        group = caught.value
        assert group.message == "both"
        assert [type(error) for error in group.exceptions] == [PlainError, ExceptionGroup]
        assert group.exceptions[1].exceptions[0].left == 3  # type: ignore[union-attr]
        cause = group.__cause__
        assert type(cause) is OddError
        assert cause.__notes__ == ["a note"]
        assert type(cause.__context__) is KeyError
        text = "".join(traceback.format_exception(group))
        assert "raise ExceptionGroup(" in text
        assert 'raise KeyError("first")' in text
        assert text.count("wfengine/runners/") == 0 or not place.is_away

    main()


def test_a_recursion_without_end_is_an_error_of_the_task(place: Place) -> None:
    @task
    def descend(depth: int) -> int:
        def deeper(depth: int) -> int:
            return deeper(depth + 1)

        return deeper(depth)

    @flow(task_runner=place.new())
    def main() -> int:
        with pytest.raises(RecursionError):
            descend.submit(0).result()
        return double.submit(3).result()

    assert main() == 6


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_stops_the_flow_as_it_does_on_threads(
    place: Place, kind: type[BaseException], tmp_path: Path
) -> None:
    @task
    def leave() -> None:
        if kind is SystemExit:
            sys.exit(3)
        raise kind("by the task")

    @flow(task_runner=place.new())
    def main() -> None:
        leave.submit().result()

    with pytest.raises(kind) as caught:
        main()
    assert type(caught.value) is kind
    if kind is SystemExit:
        assert caught.value.code == 3  # type: ignore[attr-defined]


def test_what_is_no_exception_can_be_caught_where_a_task_calls_a_task(place: Place) -> None:
    @task
    def leave() -> None:
        sys.exit(4)

    @task
    def catches() -> object:
        try:
            leave()
        except SystemExit as error:
            return error.code

    @flow(task_runner=place.new())
    def main() -> object:
        return catches.submit().result()

    assert main() == 4


SCRIPT = """
import dataclasses, os, sys
from wfengine import flow, task, use_journal
from {module} import *

class ScriptError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{{a}} {{b}}")
        self.b = b

@dataclasses.dataclass
class Value:
    number: int

@task
def work(value):
    assert type(value) is Value
    return Value(value.number + 1)

@task
def fail():
    raise ScriptError(1, 2)

@flow(task_runner={code})
def main():
    values = work.map([Value(n) for n in range(4)]).result()
    assert values == [Value(n + 1) for n in range(4)], values
    assert all(type(value) is Value for value in values)
    try:
        fail.submit().result()
    except ScriptError as error:
        return error.b

if __name__ == "__main__":
    use_journal(sys.argv[1])
    print("answer", main())
"""


def test_classes_and_exceptions_of_a_script_are_those_of_the_script(place: Place, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(module=place.candidate.module, code=place.code()))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "script.db")], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["answer 2"]), done


def test_an_error_of_a_task_is_no_error_of_its_worker(place: Place) -> None:
    @task
    def fail(number: int) -> int:
        if number % 2:
            raise PlainError(number)
        return number

    @flow(task_runner=place.new())
    def main() -> None:
        results = fail.map(range(20)).result(raise_on_failure=False)
        assert [result for result in results if isinstance(result, int)] == list(range(0, 20, 2))
        assert not [result for result in results if isinstance(result, WorkerDiedError)]
        assert length.submit(b"12").result() == 2

    main()
