"""Nothing of ours is locked while code of the user runs, whichever code it is: another flow of the same process gets by.

In each place where code of the user is called, that code starts a thread that runs a whole flow on the same journal, and
waits for its end. Were a lock held there which that flow needs, or a turn that it waits for, it would never end; nothing
here depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from wfengine import ThreadTaskRunner, flow, task

#: Seconds after which a flow counts as one that never ends.
PATIENCE = 60.0

entered: list[str] = []


@task
def step(number: int) -> int:
    return number


@flow
def other() -> int:
    return step(1) + sum(step.map(range(3)).result())


def another_flow_gets_by(place: str) -> None:
    """Run a flow on a thread of its own while the caller waits, which is code of the user."""
    ends: list[int] = []
    thread = threading.Thread(target=lambda: ends.append(other()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert ends == [4], f"a flow could not run beside {place}"
    entered.append(place)


def in_a_task() -> None:
    @task
    def work() -> None:
        another_flow_gets_by("a task")

    work()


def in_a_submitted_task() -> None:
    @task
    def work() -> None:
        another_flow_gets_by("a submitted task")

    work.submit().result()


def in_an_async_task() -> None:
    @task
    async def work() -> None:
        another_flow_gets_by("an async task")

    work.submit().result()


def in_a_gathered_task() -> None:
    @task
    async def work(number: int) -> None:
        another_flow_gets_by("a gathered task")

    @flow
    async def around() -> None:
        await asyncio.gather(*[work(number) for number in range(3)])

    asyncio.run(around())


def in_a_subflow() -> None:
    @flow
    def inner() -> None:
        another_flow_gets_by("a subflow")

    inner()


def in_a_generator() -> None:
    @task
    def items():  # type: ignore[no-untyped-def]  # what it yields is of no interest
        another_flow_gets_by("a generator")
        yield 1

    assert list(items()) == [1]


def in_a_hook() -> None:
    @task(on_completion=[lambda *_: another_flow_gets_by("a hook")])
    def work() -> None:
        return

    work()


def in_a_call_key() -> None:
    @task(call_key=lambda: another_flow_gets_by("a call key"))
    def work() -> None:
        return

    work()


def in_a_cache_key() -> None:
    @task(cache_key_fn=lambda *_: another_flow_gets_by("a cache key") or "key")  # type: ignore[func-returns-value]
    def work() -> None:
        return

    work()


def in_a_retry_condition() -> None:
    def again(*_: object) -> bool:
        another_flow_gets_by("a retry condition")
        return False

    @task(retries=1, retry_condition_fn=again)
    def work() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        work()


def in_a_run_name() -> None:
    @task(task_run_name=lambda: another_flow_gets_by("a run name") or "name")  # type: ignore[func-returns-value]
    def work() -> None:
        return

    work()


def in_a_done_callback() -> None:
    let_go, called = threading.Event(), threading.Event()

    @task
    def work() -> None:
        let_go.wait(PATIENCE)

    def callback(_: object) -> None:
        another_flow_gets_by("a done callback")
        called.set()

    future = work.submit()
    future.add_done_callback(callback)
    let_go.set()
    assert called.wait(PATIENCE)


def while_a_result_is_pickled() -> None:
    @task
    def work() -> Slow:
        return Slow()

    work()


class Slow:
    def __reduce__(self) -> tuple[type[Slow], tuple[()]]:
        another_flow_gets_by("a result's pickling")
        return Slow, ()


PLACES: dict[str, Callable[[], None]] = {
    name: place for name, place in list(globals().items()) if name.startswith(("in_a", "while_a"))
}


@pytest.mark.parametrize("place", PLACES)
def test_no_lock_is_held_over_code_of_the_user(place: str) -> None:
    entered.clear()

    @flow(task_runner=ThreadTaskRunner(1))
    def main() -> None:
        PLACES[place]()

    if place == "in_a_gathered_task":  # it is a flow itself
        PLACES[place]()
    else:
        main()
    assert entered, "its code was not called"


def test_tasks_begin_in_the_order_in_which_they_were_submitted() -> None:
    began: list[int] = []

    @task
    def work(number: int) -> None:
        began.append(number)

    @flow(task_runner=ThreadTaskRunner(1))
    def main() -> None:
        work.map(range(200)).result()

    main()
    assert began == list(range(200))
