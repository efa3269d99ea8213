"""Flows to be killed, each with tasks that leave a line in the effect file. Run as a script by the harness.

Every flow returns what an uninterrupted run returns, whatever happened on the way, and acknowledges each outcome it is
given right after it got it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee
from typing import Any

from tests.crash.effects import acknowledged, append, has_happened
from tests.crash.nursery import FLAG, serve
from tests.crash.plan import kill_this_process
from wfengine import Flow, State, TaskFuture, ThreadTaskRunner, as_completed, flow, get_run_logger, task
from wfengine.cache_policies import CachePolicy
from wfengine.flow_runs import pause_flow_run, resume_flow_run
from wfengine.messages import get_event, receive, send, set_event
from wfengine.runners.processes import ProcessTaskRunner
from wfengine.runs import current_flow_run
from wfengine.sql import current_connection
from wfengine.states import Cancelled, Completed, Failed
from wfengine.timers import sleep
from wfengine_journal.errors import JournalError, NotPausedError, TaskInterrupted, TooManyInterruptions

# Random kills may hit one task more often than a user's default allows; the limit has a test of its own.
MANY = 1_000_000


# ------------------------------------------------------------------------------------------- tasks


@task(max_interruptions=MANY)
def add(call: str, left: int, right: int) -> int:
    append("run", call)
    return left + right


@task(max_interruptions=MANY)
def speak(call: str) -> str:
    get_run_logger().info("about to do %s", call)
    append("run", call)
    return call


@task(max_interruptions=MANY)
def outer(call: str, number: int) -> int:
    first = acknowledged(f"{call}/a", add(f"{call}/a", number, 1))
    second = acknowledged(f"{call}/b", add(f"{call}/b", first, 1))
    append("run", call)
    return second


@task(max_interruptions=MANY, retries=1, retry_delay_seconds=0.01)
def flaky(call: str) -> str:
    fail_once(call)
    append("run", call)
    return f"{call} at last"


@task(max_interruptions=MANY)
def broken(call: str) -> None:
    append("run", call)
    raise ValueError(f"{call} never works")


@task(max_interruptions=MANY)
def fragile(call: str) -> str:
    fail_once(call)
    append("run", call)
    return call


@task(max_interruptions=MANY)
async def fetch(call: str, turns: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    append("run", call)
    return turns * turns


@task(max_interruptions=MANY)
def runner(call: str, seconds: float) -> str:
    threading.Event().wait(seconds)
    append("run", call)
    return call


@task(max_interruptions=MANY)
def hold(call: str) -> str:
    """Run until the harness says go."""
    print(f"holding {call}", flush=True)
    word = sys.stdin.readline().strip()
    append("run", call)
    return word


def fail_once(call: str) -> None:
    """Raise the first time, over all processes."""
    if not has_happened("fail", call):
        append("fail", call)
        raise ConnectionError(f"{call} fails the first time")


# ------------------------------------------------------------------------------------------- flows


@flow
def chain() -> int:
    value = 0
    for number in range(4):
        value = acknowledged(f"add/{number}", add(f"add/{number}", value, number))
    return value


@flow(task_runner=ThreadTaskRunner(max_workers=3))
def fan_out() -> list[int]:
    calls = [f"map/{number}" for number in range(8)]
    futures = add.map(calls, range(8), list(range(8)))
    return [acknowledged(call, future.result()) for call, future in zip(calls, futures, strict=True)]


@flow(task_runner=ThreadTaskRunner(max_workers=2))
def paced() -> list[int]:
    """A map that is held up, over a generator which calls tasks itself."""

    def items() -> Iterator[tuple[str, int]]:
        for number in range(6):
            yield f"map/{number}", acknowledged(f"item/{number}", add(f"item/{number}", number, 10))

    calls, lefts = tee(items())
    futures = add.map((call for call, _ in calls), (left for _, left in lefts), 1, max_in_flight=2)
    return [acknowledged(f"map/{number}", future.result()) for number, future in enumerate(futures)]


@flow(task_runner=ThreadTaskRunner(max_workers=2))
def nested() -> list[int]:
    direct = acknowledged("direct", outer("direct", 10))
    calls = [f"nested/{number}" for number in range(3)]
    futures = [outer.submit(call, number) for number, call in enumerate(calls)]
    return [direct, *(acknowledged(call, future.result()) for call, future in zip(calls, futures, strict=True))]


@flow
def part(name: str, start: int) -> int:
    first = acknowledged(f"{name}/1", add(f"{name}/1", start, 1))
    return acknowledged(f"{name}/2", add(f"{name}/2", first, 1))


@flow
def with_subflows() -> list[int]:
    before = acknowledged("before", add("before", 1, 1))
    one = acknowledged("flow:one", part("one", before))
    two = acknowledged("flow:two", part("two", one))
    return [before, one, two, acknowledged("after", add("after", two, 1))]


@flow
async def part_async(name: str, turns: int) -> int:
    return acknowledged(f"{name}/1", await fetch(f"{name}/1", turns))


@flow
async def gathered() -> list[int]:
    calls = [f"gather/{number}" for number in range(4)]
    values = await asyncio.gather(*(fetch(call, number) for number, call in enumerate(calls)))
    for call, value in zip(calls, values, strict=True):
        acknowledged(call, value)
    parts = await asyncio.gather(part_async("left", 2), part_async("right", 3))
    acknowledged("flow:left", acknowledged("flow:right", None))
    return [*values, *parts, acknowledged("last", await fetch("last", 1))]


@flow
def retried() -> list[str]:
    return [acknowledged(call, flaky(call)) for call in ("flaky/1", "flaky/2")]


@flow
def caught() -> list[str]:
    heard = [acknowledged("speak/1", speak("speak/1"))]
    try:
        broken("broken")
    except ValueError as error:
        heard.append(acknowledged("broken", str(error)))
    heard.append(acknowledged("speak/2", speak("speak/2")))
    return heard


@task(max_interruptions=MANY)
def tells(call: str, which: str) -> object:
    append("run", call)
    if which == "skipped":
        return Completed(name="Skipped", message="nothing new", data=[call])
    if which == "cancelled":
        return Cancelled(message=f"{call} is not wanted")
    return Failed(name="Invalid", message=f"{call} has no data", data={"rows": 0})


@flow
def part_told(call: str, which: str) -> object:
    state: State[object] = tells(call, which, return_state=True)
    acknowledged(call, None)
    return state


@flow
def told() -> list[object]:
    heard: list[object] = []
    for which in ("skipped", "failed", "cancelled"):
        states: list[State[object]] = [
            tells(f"direct/{which}", which, return_state=True),
            tells.submit(f"submitted/{which}", which, return_state=True),  # type: ignore[list-item]  # a state was asked for
            part_told(f"part/{which}", which, return_state=True),
        ]
        for call in (f"direct/{which}", f"submitted/{which}", f"flow:{which}"):
            acknowledged(call, None)
        for state in states:
            result = state.result(raise_on_failure=False)
            heard.append([state.type.value, state.name, state.message, result if isinstance(result, dict) else str(result)])
    return heard


@flow(retries=2, retry_delay_seconds=0.01)
def flow_retried() -> list[str]:
    words = [acknowledged("speak/1", speak("speak/1"))]
    words.append(acknowledged("fragile/1", fragile("fragile/1")))
    words.append(acknowledged("speak/2", speak("speak/2")))
    words.append(acknowledged("fragile/2", fragile("fragile/2")))
    return words


@task(max_interruptions=MANY, retries=1, retry_delay_seconds=0.01)
def outer_retried(call: str) -> str:
    word = acknowledged(f"{call}/add", add(f"{call}/add", 1, 1))
    text = acknowledged(f"{call}/in", fragile(f"{call}/in"))
    append("run", call)
    return f"{word} {text}"


@flow
def nested_retried() -> list[str]:
    """A task whose inner task fails the first time, and with it the outer one's first attempt."""
    return [acknowledged("outer", outer_retried("outer")), acknowledged("speak/1", speak("speak/1"))]


@flow
def fragile_part(name: str) -> str:
    word = acknowledged(f"{name}/add", add(f"{name}/add", 1, 1))
    text = acknowledged(f"{name}/in", fragile(f"{name}/in"))
    return f"{word} {text}"


@flow(retries=1, retry_delay_seconds=0.01)
def subflow_retried() -> list[str]:
    """A flow whose subflow fails the first time, and with it the flow's first attempt."""
    return [acknowledged("flow:sub", fragile_part("sub")), acknowledged("speak/1", speak("speak/1"))]


@flow(task_runner=ThreadTaskRunner(max_workers=4))
def raced() -> int:
    futures = [runner.submit(f"race/{number}", 0.002 * ((number * 5) % 4)) for number in range(10)]
    total = 0
    for place, future in enumerate(as_completed(futures)):
        call = acknowledged(future.result(), future.result())
        # Its argument depends on the order, so another order on resume would be drift.
        total = acknowledged(f"place/{place}", add(f"place/{place}", int(call.removeprefix("race/")), total))
    return total


BY_SIZE = CachePolicy.from_cache_key_fn(lambda context, parameters: f"size {parameters['size']}")


@task(max_interruptions=MANY, cache_policy=BY_SIZE)
def measure(call: str, size: int) -> str:
    append("run", call)
    return "x" * size


@task(max_interruptions=MANY, cache_policy=BY_SIZE.configure(isolation_level="SERIALIZABLE"), result_serializer="json")
def measure_alone(call: str, size: int) -> str:
    append("run", call)
    return "x" * size


@flow(task_runner=ThreadTaskRunner(max_workers=2))
def cached() -> list[int]:
    """Calls of which every second one has the result of another, of one row and of several."""
    sizes = []
    for number, size in enumerate([1, 1, 5000, 5000]):
        sizes.append(len(acknowledged(f"measure/{number}", measure(f"measure/{number}", size))))
    calls = [f"alone/{number}" for number in range(4)]
    futures = measure_alone.map(calls, [2, 2, 6000, 6000])
    sizes += [len(acknowledged(call, future.result())) for call, future in zip(calls, futures, strict=True)]
    return sizes


@flow
def logged() -> list[str]:
    return [acknowledged(f"speak/{number}", speak(f"speak/{number}")) for number in range(4)]


@flow(task_runner=ThreadTaskRunner(max_workers=2))
async def mixed() -> list[object]:
    """One of each, for the enumeration of all commit boundaries."""
    one = acknowledged("add/1", add("add/1", 0, 1))
    two = acknowledged("add/2", add("add/2", one, 1))
    calls = [f"map/{number}" for number in range(3)]
    futures = add.map(calls, range(3), [two] * 3)
    mapped = [acknowledged(call, await future) for call, future in zip(calls, futures, strict=True)]
    sub = acknowledged("flow:sub", part("sub", two))
    again = acknowledged("flaky", flaky("flaky"))
    values = await asyncio.gather(fetch("gather/1", 1), fetch("gather/2", 2))
    acknowledged("gather/1", acknowledged("gather/2", None))
    return [one, two, mapped, sub, again, values]


@flow(task_runner=ThreadTaskRunner(max_workers=2))
def long_chain() -> list[object]:
    """Some of everything, many times over, for random kills."""
    heard: list[object] = []
    value = 0
    for turn in range(12):
        value = acknowledged(f"add/{turn}", add(f"add/{turn}", value, turn))
        calls = [f"map/{turn}/{number}" for number in range(4)]
        futures = add.map(calls, range(4), [turn] * 4)
        heard.append([acknowledged(call, future.result()) for call, future in zip(calls, futures, strict=True)])
        heard.append(acknowledged(f"outer/{turn}", outer(f"outer/{turn}", turn)))
        heard.append(acknowledged(f"flow:part/{turn}", part(f"part/{turn}", turn)))
        heard.append(acknowledged(f"flaky/{turn}", flaky(f"flaky/{turn}")))
        try:
            broken(f"broken/{turn}")
        except ValueError as error:
            heard.append(acknowledged(f"broken/{turn}", str(error)))
        heard.append(acknowledged(f"speak/{turn}", speak(f"speak/{turn}")))
    return [value, *heard]


@flow
async def long_gather() -> list[object]:
    """The same over asyncio."""
    heard: list[object] = []
    for turn in range(12):
        calls = [f"gather/{turn}/{number}" for number in range(4)]
        values = await asyncio.gather(*(fetch(call, number) for number, call in enumerate(calls)))
        for call in calls:
            acknowledged(call, None)
        heard.append(values)
        heard.append(acknowledged(f"flow:part/{turn}", await part_async(f"part/{turn}", turn)))
    return heard


# ------------------------------------------------------------------------------------------- flows that die by themselves


@task(on_interrupt="fail")
def guarded(call: str) -> str:
    append("run", call)
    return call


@flow
def guarded_flow() -> str:
    try:
        return acknowledged("guarded", guarded("guarded"))
    except TaskInterrupted:
        return acknowledged("guarded", "interrupted")


@task(on_interrupt="ask")
def deadly_ask(call: str) -> str:
    append("run", call)
    kill_this_process()
    return call


@task(once=True)
def deadly_once(call: str) -> str:
    append("run", call)
    kill_this_process()
    return call


@flow
def asking() -> str:
    return deadly_ask("asking")


@flow
def only_once() -> str:
    return deadly_once("once")


@task
def deadly(call: str) -> str:
    append("run", call)
    kill_this_process()
    return call


@flow
def deadly_flow() -> str:
    acknowledged("before", speak("before"))
    try:
        return deadly("deadly")
    except TooManyInterruptions as error:
        return acknowledged("deadly", type(error).__name__)


@task(retries=1, retry_delay_seconds=0.01, max_interruptions=MANY)
def fails_then_dies(call: str) -> str:
    fail_once(call)
    for death in range(3):
        if not has_happened("run", f"{call}/death/{death}"):
            append("run", f"{call}/death/{death}")
            kill_this_process()
    append("run", call)
    return call


@flow
def retried_through_deaths() -> str:
    return acknowledged("patient", fails_then_dies("patient"))


@task(retries=1, retry_delay_seconds=1.0)
def slow_retry(call: str) -> str:
    fail_once(call)
    append("run", call)
    return call


@flow
def waiting_for_retry() -> str:
    return acknowledged("slow", slow_retry("slow"))


@task
def die_once(call: str) -> None:
    if not has_happened("run", call):
        append("run", call)
        kill_this_process()


@flow(task_runner=ThreadTaskRunner(max_workers=8))
def raced_then_killed() -> int:
    """Take many outcomes as they come, and die when all were taken."""
    futures = [runner.submit(f"race/{number}", 0.0005 * (number % 3)) for number in range(300)]
    for future in as_completed(futures):
        acknowledged(future.result(), None)
    die_once("die")
    return len(futures)


@flow
def looked_at_late() -> int:
    """Ask for the order of outcomes that are all there already, in another order than they were asked for."""
    futures = [runner.submit(f"race/{number}", 0.05 * (4 - number)) for number in range(5)]
    for future in futures:
        future.wait()
    for future in as_completed(futures):
        acknowledged(future.result(), None)
    die_once("die")
    return len(futures)


class SlowToStore:
    """A value that takes long to be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        threading.Event().wait(0.3)
        return SlowToStore, ()


@task
def returns_slow_value(call: str) -> SlowToStore:
    append("run", call)
    return SlowToStore()


@flow
def stored_slowly() -> int:
    """The first outcome to come takes so long to be stored that the second is handed out before it."""
    calls: dict[TaskFuture[Any], str] = {returns_slow_value.submit("slow"): "slow", runner.submit("quick", 0.1): "quick"}
    for future in as_completed(calls):
        acknowledged(calls[future], future.result())
    die_once("die")
    return len(calls)


@flow
def held() -> list[str]:
    """Runs a task that lasts until the harness says go, between two that do not."""
    before = acknowledged("before", speak("before"))
    word = acknowledged("hold", hold("hold"))
    return [before, word, acknowledged("after", speak("after"))]


@flow
def posted() -> list[object]:
    """Sends itself messages and receives them, sets an event, and waits for an input that a thread of its own gives."""
    run = current_flow_run().id
    send(run, "one", topic="post")
    send(run, "x" * 3000, topic="post")
    sent = [send(run, 3, topic="post", idempotency_key="third").is_new for _ in range(2)]
    set_event("posted", sent)
    got = [acknowledged(f"message-{number}", receive("post")) for number in range(3)]
    none = receive("post", timeout_seconds=0, default="none")
    over = threading.Event()
    answering = threading.Thread(target=answer, args=(run, over))
    answering.start()
    try:
        amount = acknowledged("input", pause_flow_run(wait_for_input=int))
    finally:
        over.set()
        answering.join()
    return [len(str(each)) for each in got] + [sent, none, amount, get_event(run, "posted")]


def answer(run: int, over: threading.Event) -> None:
    while not over.wait(0.002):
        try:
            resume_flow_run(run, 7)
        except (NotPausedError, JournalError):  # it does not wait yet, or no more
            continue
        return


@task(max_interruptions=MANY)
def receipt(amount: int) -> int:
    return amount


@task(transaction=True, max_interruptions=MANY)
def book(call: str, amount: int) -> int:
    """Write a row that can be written once, and queue a task, in the transaction of the result."""
    own = current_connection()
    own.execute("CREATE TABLE IF NOT EXISTS user_booked (call TEXT PRIMARY KEY, amount INTEGER)")
    own.execute("INSERT INTO user_booked VALUES (?, ?)", (call, amount))
    receipt.delay(amount)
    append("run", call)
    return amount


@flow(task_runner=ThreadTaskRunner(max_workers=4))
def long_crossing() -> list[object]:
    """All that takes a lock, side by side: transactions that queue, nested tasks, messages, sleeps, subflows."""
    heard: list[object] = []
    for turn in range(6):
        calls = [f"book/{turn}/{number}" for number in range(2)]
        booked = [book.submit(call, turn) for call in calls]
        nested = outer.submit(f"outer/{turn}", turn)
        send(current_flow_run().id, turn, topic="post")
        heard.append(acknowledged(f"add/{turn}", add(f"add/{turn}", turn, 1)))
        heard.append(acknowledged(f"flow:part/{turn}", part(f"part/{turn}", turn)))
        sleep(0.001)
        heard.append(acknowledged(f"message/{turn}", receive("post")))
        heard += [acknowledged(call, future.result()) for call, future in zip(calls, booked, strict=True)]
        heard.append(acknowledged(f"outer/{turn}", nested.result()))
    return heard


@flow(task_runner=ProcessTaskRunner(max_workers=2))
def in_processes() -> list[int]:
    """Tasks whose code runs in processes that die with the flow's."""
    calls = [f"map/{number}" for number in range(4)]
    futures = add.map(calls, range(4), 1)
    return [acknowledged(call, future.result()) for call, future in zip(calls, futures, strict=True)]


@dataclass(frozen=True, slots=True)
class Animal:
    """A flow, and how many calls of it can be in flight at once: so many may run again after a kill."""

    flow: Flow[[], Any]
    in_flight: int = 1
    is_ordered: bool = False


ZOO = {
    animal.flow.fn.__name__: animal
    for animal in (
        Animal(chain), Animal(fan_out, 3), Animal(paced, 3), Animal(nested, 2), Animal(with_subflows), Animal(gathered, 4),
        Animal(retried), Animal(caught), Animal(told), Animal(flow_retried), Animal(nested_retried), Animal(subflow_retried),
        Animal(raced, 5, is_ordered=True), Animal(logged), Animal(cached, 2), Animal(mixed, 2), Animal(long_chain, 2),
        Animal(long_gather, 4), Animal(guarded_flow), Animal(asking), Animal(only_once), Animal(deadly_flow),
        Animal(retried_through_deaths), Animal(waiting_for_retry), Animal(held), Animal(raced_then_killed, 8),
        Animal(looked_at_late, 5), Animal(stored_slowly, 2), Animal(posted), Animal(long_crossing, 4), Animal(in_processes, 2),
    )
}  # fmt: skip


def execute() -> None:
    """Be a child of the harness."""
    from tests.crash.child import main

    append("start", str(os.getpid()))
    main({name: animal.flow for name, animal in ZOO.items()})


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
