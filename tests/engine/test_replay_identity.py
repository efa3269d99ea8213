"""Which call is the same call on resume: task key, call key, occurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.engine.conftest import Rows
from wfengine import flow, task
from wfengine_journal.errors import UsageError

Count = list[object]


class Stop(Exception):
    """What ends the first execution of a run, so that it can be resumed."""


def interrupt(crashed: Count) -> None:
    """Cut the run off, the first time."""
    if not crashed:
        crashed.append(True)
        raise KeyboardInterrupt


def crash_then_resume(body: Callable[[], object], crashed: Count) -> object:
    """Run a flow that is cut off once, and resume it."""
    own_flow = flow(name="identity")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    return own_flow.resume("@last")


def test_equal_calls_are_told_apart_by_their_order(rows: Rows) -> None:
    ran: Count = []
    crashed: Count = []

    @task
    def draw(deck: str) -> int:
        ran.append(deck)
        return len(ran)

    def body() -> list[int]:
        first = [draw("red") for _ in range(3)]
        interrupt(crashed)
        return [*first, draw("red")]

    assert crash_then_resume(body, crashed) == [1, 2, 3, 4]
    assert len(ran) == 4
    assert rows("SELECT occurrence FROM tasks ORDER BY id") == [(0,), (1,), (2,), (3,)]


def test_index_in_a_map_is_not_part_of_the_identity() -> None:
    ran: list[int] = []
    crashed: Count = []
    items = [3, 1, 2]

    @task
    def double(number: int) -> int:
        ran.append(number)
        return number * 2

    def body() -> list[int]:
        doubled = double.map(items).result()
        interrupt(crashed)
        return doubled

    own_flow = flow(name="mapped")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    items[:] = [9, 2, 3, 1]
    ran.clear()
    assert own_flow.resume("@last", on_drift="rerun") == [18, 4, 6, 2]
    assert ran == [9]


def test_future_counts_as_its_value() -> None:
    ran: list[object] = []
    crashed: Count = []
    by_future = [True]

    @task
    def make() -> int:
        return 7

    @task
    def use(number: int) -> int:
        ran.append(number)
        return number + 1

    def body() -> int:
        made = make.submit()
        used = use(made if by_future[0] else made.result())
        interrupt(crashed)
        return used

    own_flow = flow(name="futures")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    by_future[0] = False
    assert own_flow.resume("@last") == 8
    assert ran == [7]


def test_list_counts_by_its_content_at_the_call() -> None:
    ran: list[list[int]] = []
    crashed: Count = []

    @task
    def numbers() -> list[int]:
        return [1]

    @task
    def total(values: list[int]) -> int:
        ran.append(list(values))
        return sum(values)

    def body() -> tuple[int, int]:
        values = numbers()
        before = total(values)
        values.append(10)
        after = total(values)
        interrupt(crashed)
        return before, after

    assert crash_then_resume(body, crashed) == (1, 11)
    assert ran == [[1], [1, 10]]


def test_replayed_list_is_a_fresh_one_whatever_the_flow_did_to_the_first() -> None:
    crashed: Count = []

    @task
    def numbers() -> list[int]:
        return [1, 2]

    def body() -> list[int]:
        values = numbers()
        values.append(3)
        interrupt(crashed)
        return values

    assert crash_then_resume(body, crashed) == [1, 2, 3]


@dataclass
class Box:
    """A value by fields."""

    size: int


class Handle:
    """A value without a canonical form."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[type[Handle], tuple[int]]:
        return Handle, (self.number,)


def test_dataclass_counts_by_its_fields() -> None:
    ran: list[int] = []
    crashed: Count = []

    @task
    def weigh(box: Box) -> int:
        ran.append(box.size)
        return box.size * 10

    def body() -> list[int]:
        weights = [weigh(Box(1)), weigh(Box(2))]
        interrupt(crashed)
        return weights

    assert crash_then_resume(body, crashed) == [10, 20]
    assert ran == [1, 2]


def test_result_without_canonical_form_counts_by_its_stored_hash() -> None:
    ran: list[int] = []
    crashed: Count = []
    order = [1, 2]

    @task
    def open_handle(number: int) -> Handle:
        return Handle(number)

    @task
    def read(handle: Handle) -> int:
        ran.append(handle.number)
        return handle.number * 100

    def body() -> list[int]:
        handles = {number: open_handle(number) for number in (1, 2)}
        read_values = [read(handles[number]) for number in order]
        interrupt(crashed)
        return read_values

    own_flow = flow(name="handles")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    order.reverse()
    assert own_flow.resume("@last") == [200, 100]
    assert ran == [1, 2]


def test_call_key_template_replaces_the_inputs() -> None:
    ran: list[int] = []
    crashed: Count = []
    price = [5]

    @task(call_key="{order}")
    def charge(order: str, amount: int) -> str:
        ran.append(amount)
        return f"{order}:{amount}"

    def body() -> str:
        paid = charge("o1", price[0])
        interrupt(crashed)
        return paid

    own_flow = flow(name="keyed")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    price[0] = 6
    assert own_flow.resume("@last") == "o1:5"
    assert ran == [5]


def test_call_key_may_be_a_function_of_the_arguments_or_given_at_the_call() -> None:
    ran: list[int] = []
    crashed: Count = []
    price = [5]

    @task(call_key=lambda order, amount: order)
    def charge(order: str, amount: int) -> int:
        ran.append(amount)
        return amount

    @task
    def ship(order: str, weight: int) -> int:
        ran.append(weight)
        return weight

    def body() -> list[int]:
        given = [charge("o1", price[0]), ship.with_options(call_key="parcel-1")("o1", price[0])]
        interrupt(crashed)
        return given

    own_flow = flow(name="callable-key")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    price[0] = 6
    assert own_flow.resume("@last") == [5, 5]
    assert ran == [5, 5]


def test_call_key_that_names_no_argument_is_refused_before_anything_is_written(rows: Rows) -> None:
    @task(call_key="{oder}")
    def charge(order: str) -> None: ...

    @flow
    def pay() -> None:
        charge("o1")

    with pytest.raises(UsageError, match=r"call_key of task 'charge'.*order"):
        pay()
    assert rows.value("SELECT count(*) FROM tasks") == 0


@pytest.mark.parametrize("options", [{"key_args": ["day"]}, {"ignore_args": ["seen_at"]}])
def test_key_args_and_ignore_args_narrow_the_key(options: dict[str, list[str]]) -> None:
    ran: list[float] = []
    crashed: Count = []
    reading = [1.0]

    @task(**options)  # type: ignore[call-overload]  # one option or the other
    def load(day: str, seen_at: float) -> float:
        ran.append(seen_at)
        return seen_at

    def body() -> float:
        loaded: float = load("monday", reading[0])
        interrupt(crashed)
        return loaded

    own_flow = flow(name="narrowed")(body)
    with pytest.raises(KeyboardInterrupt):
        own_flow()
    reading[0] = 2.0
    assert own_flow.resume("@last") == 1.0
    assert ran == [1.0]


def rename_flow(task_before: Callable[[int], int], task_after: Callable[[int], int]) -> object:
    """Run a flow with one task, which is cut off, and resume it with the task renamed."""

    @flow(name="renamed")
    def before() -> int:
        value = task_before(4)
        raise KeyboardInterrupt(value)

    @flow(name="renamed")
    def after() -> int:
        return task_after(4)

    with pytest.raises(KeyboardInterrupt):
        before()
    return after.resume("@last")


def test_alias_keeps_the_calls_of_a_renamed_task() -> None:
    ran: list[str] = []

    @task(key="fetch")
    def fetch(number: int) -> int:
        ran.append("fetch")
        return number

    @task(key="download", aliases=["fetch"])
    def download(number: int) -> int:
        ran.append("download")
        return number

    assert rename_flow(fetch, download) == 4
    assert ran == ["fetch"]


def test_key_keeps_the_calls_of_a_renamed_task() -> None:
    ran: list[str] = []

    @task(key="the-fetch")
    def fetch(number: int) -> int:
        ran.append("fetch")
        return number

    @task(key="the-fetch")
    def download(number: int) -> int:
        ran.append("download")
        return number

    assert rename_flow(fetch, download) == 4
    assert ran == ["fetch"]


def test_renamed_task_without_key_or_alias_is_a_new_call_and_the_old_one_an_orphan(rows: Rows) -> None:
    ran: list[str] = []

    @task
    def fetch(number: int) -> int:
        ran.append("fetch")
        return number

    @task
    def download(number: int) -> int:
        ran.append("download")
        return number

    assert rename_flow(fetch, download) == 4
    assert ran == ["fetch", "download"]
    assert rows("SELECT task, result FROM orphans") == [("fetch", "4")]


def test_alias_goes_on_counting_equal_calls_over_the_rename() -> None:
    ran: list[str] = []

    @task(key="old")
    def old(number: int) -> int:
        ran.append("old")
        return number

    @task(key="new", aliases=["old"])
    def new(number: int) -> int:
        ran.append("new")
        return number + 100

    @flow(name="counted")
    def before() -> list[int]:
        raise KeyboardInterrupt([old(1), old(1)])

    @flow(name="counted")
    def after() -> list[int]:
        return [new(1), new(1), new(1)]

    with pytest.raises(KeyboardInterrupt):
        before()
    assert after.resume("@last") == [1, 1, 101]
    assert ran == ["old", "old", "new"]
