"""Tasks on the workers of a Dask cluster. What every runner does is tested in tests/conformance; here is what is Dask's own."""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, Scheduler
from distributed.threadpoolexecutor import ThreadPoolExecutor

from tests.engine.conftest import Program, Rows
from tests.runners.cluster_cases import (
    assert_a_death_costs_one_task,
    assert_a_death_is_retried,
    descend,
    descend_async,
    where,
)
from tests.runners.clusters import DaskCluster
from wfengine import flow, task
from wfengine.exceptions import UsageError
from wfengine.runners.dask import DaskTaskRunner, _be_patient
from wfengine.runners.dask_exchange import Exchange
from wfengine.runners.dask_worker import _Parcels, _Place, carry_out
from wfengine.runners.messages import Names, Order, dump

#: For what another process does, in seconds.
PATIENCE_SECONDS = 20


@pytest.fixture(scope="module")
def runner(dask_cluster: DaskCluster) -> DaskTaskRunner:
    return DaskTaskRunner(dask_cluster.address)


def workers_of(cluster: DaskCluster) -> set[int]:
    return {child.pid for child in psutil.Process(cluster.process.pid).children()}


def test_tasks_run_in_the_processes_of_the_cluster(runner: DaskTaskRunner, dask_cluster: DaskCluster) -> None:
    @flow(task_runner=runner)
    def main() -> list[tuple[int, int]]:
        return where.map(range(40)).result()

    found = main()
    assert [number for number, _pid in found] == list(range(40))
    assert {pid for _number, pid in found} <= workers_of(dask_cluster)


def test_an_order_is_begun_once_however_often_dask_runs_it(dask_cluster: DaskCluster, tmp_path: Path) -> None:
    def append(file: str) -> None:
        with Path(file).open("a") as notes:
            notes.write("begun\n")

    notes = tmp_path / "notes"
    order = Order("append", dump(((str(notes),), {}), Names()), (), False, False)
    data = pickle.dumps((order, {"append": dump(append, Names())}))
    with Client(dask_cluster.address, set_as_default=False) as client:
        client.register_plugin(Exchange())
        first = client.submit(carry_out, "wfengine:one", client.id, data, False, key="wfengine:one")
        first.result()
        again = [client.submit(carry_out, "wfengine:one", client.id, data, False, pure=False) for _ in range(4)]
        assert client.gather(again) == [None] * 4
        late = client.submit(carry_out, "wfengine:other", client.id, data, False, pure=False)  # Dask knows no such task now
        late.result()
    assert notes.read_text() == "begun\n"


def test_a_scheduler_keeps_nothing_of_tasks_that_ended(runner: DaskTaskRunner, dask_cluster: DaskCluster) -> None:
    @flow(task_runner=runner)
    def main() -> None:
        where.map(range(10)).wait()

    def left(dask_scheduler: Scheduler) -> int:
        exchange = dask_scheduler.plugins[Exchange.name]
        return sum(map(len, (exchange._begun, exchange._wanted, exchange._clients, *exchange._running.values())))

    main()
    with Client(dask_cluster.address, set_as_default=False) as client:
        until = time.monotonic() + PATIENCE_SECONDS
        while client.run_on_scheduler(left) and time.monotonic() < until:
            time.sleep(0.02)
        assert client.run_on_scheduler(left) == 0


def test_tasks_that_wait_for_tasks_lend_their_threads(runner: DaskTaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> tuple[int, int]:
        return descend.submit(20).result(), descend_async.submit(20).result()

    assert main() == (20, 20)


def test_a_place_that_is_given_up_while_its_thread_waits_to_have_it_back_is_free_for_others() -> None:
    executor = ThreadPoolExecutor(1)  # Dask's own, as on a worker with one thread
    places: list[_Place] = []
    is_lent, is_busy, may_end = threading.Event(), threading.Event(), threading.Event()

    def lends_and_comes_back() -> None:
        place = _Place("key", None)  # type: ignore[arg-type]  # a worker is told of it from elsewhere only
        places.append(place)
        place.lend()
        is_lent.set()
        is_busy.wait(PATIENCE_SECONDS)
        place.take_back()
        place.end()

    def keeps_the_thread_busy() -> bool:
        is_busy.set()
        return may_end.wait(PATIENCE_SECONDS)

    try:
        executor.submit(lends_and_comes_back)
        assert is_lent.wait(PATIENCE_SECONDS)
        other = executor.submit(keeps_the_thread_busy)
        until = time.monotonic() + PATIENCE_SECONDS
        while not executor._rejoin_list and time.monotonic() < until:  # it waits for the thread of `other`
            time.sleep(0.01)
        places[0].lend()
        may_end.set()
        assert other.result(PATIENCE_SECONDS)
        assert executor.submit(lambda: "done").result(PATIENCE_SECONDS) == "done"
    finally:
        executor.shutdown(wait=False)


def test_a_task_gets_what_it_asks_of_a_worker(runner: DaskTaskRunner) -> None:
    @task(resources={"room": 1})
    def room() -> float:
        from distributed import get_worker

        return get_worker().state.available_resources["room"]

    @flow(task_runner=runner)
    def main() -> list[float]:
        return [room.submit().result() for _ in range(3)]

    assert main() == [0, 0, 0]


def test_a_large_argument_and_result_go_there_and_back(runner: DaskTaskRunner) -> None:
    @task
    def same(number: int, data: bytes) -> bytes:
        return data + bytes([number])

    @flow(task_runner=runner)
    def main() -> bool:
        data = os.urandom(3_000_000)
        futures = [same.submit(number, data) for number in range(4)]
        return [future.result() for future in futures] == [data + bytes([number]) for number in range(4)]

    assert main()


def test_a_worker_fetches_a_parcel_once_for_all_who_want_it_at_the_same_time() -> None:
    parcels, fetched, may_come = _Parcels(), [], threading.Event()

    def fetch() -> bytes:
        may_come.wait()
        fetched.append(1)
        return b"data"

    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(parcels.get("name", fetch))) for _ in range(4)]
    for thread in threads:
        thread.start()
    may_come.set()
    for thread in threads:
        thread.join()
    assert (found, fetched) == ([b"data"] * 4, [1])


def test_the_time_limit_of_a_task_begins_when_its_code_does(runner: DaskTaskRunner) -> None:
    @task
    def keep_a_thread() -> None:
        time.sleep(2.2)  # on a worker, which is to be busy for longer than the other's limit

    @task(timeout_seconds=2)
    def quick() -> str:
        return "in time"

    @flow(task_runner=runner)
    def main() -> str:
        busy = [keep_a_thread.submit() for _ in range(2)]
        result = quick.submit().result()
        for each in busy:
            each.wait()
        return result

    assert main() == "in time"


def test_code_that_was_given_up_ends_when_it_asks_for_something(runner: DaskTaskRunner, tmp_path: Path) -> None:
    @task(timeout_seconds=0.3)
    def ask_for_ever(folder: Path) -> None:
        try:
            while True:
                where(1)
        finally:
            (folder / "unwound").touch()

    @flow(task_runner=runner)
    def main() -> str:
        with pytest.raises(TimeoutError, match="cannot be stopped while it computes"):
            ask_for_ever.submit(tmp_path).result()
        return "goes on"

    assert main() == "goes on"
    until = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "unwound").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_task_whose_worker_dies_fails_and_dask_does_not_run_it_again(runner: DaskTaskRunner, tmp_path: Path) -> None:
    assert_a_death_costs_one_task(runner, tmp_path, "died, or left the cluster")


def test_a_task_with_retries_is_tried_on_another_worker(runner: DaskTaskRunner, tmp_path: Path) -> None:
    assert_a_death_is_retried(runner, tmp_path)


DRIVER = """
import sys
from wfengine.runners.dask import DaskTaskRunner, _be_patient

SCHEDULER = int(os.environ.get("SCHEDULER", 0))

@task
def work(number):
    note(number)
    return number

@task
def kill_the_scheduler():
    if first_time():
        os.kill(SCHEDULER, 9)

@flow(task_runner=DaskTaskRunner(os.environ["ADDRESS"], client_kwargs={"timeout": 5}))
def main(who):
    first = work.map(range(20)).result()
    if who == "scheduler":
        kill_the_scheduler.submit().result()
    rest = work.map(range(20, 60))
    if who == "driver" and first_time():
        rest[5].wait()
        kill()
    return sum(rest.result()) + sum(first)

if __name__ == "__main__":
    main(sys.argv[1])
"""


def test_a_killed_flow_resumes_on_the_same_cluster(dask_cluster: DaskCluster, program: Program, rows: Rows) -> None:
    program.write(DRIVER)
    program.environment["ADDRESS"] = dask_cluster.address
    assert program.python(str(program.path), "driver").was_killed
    acknowledged = acknowledged_in(rows)
    assert len(acknowledged) >= 20
    assert program.resume()["result"] == str(sum(range(60)))
    effects = Counter(program.effects)
    assert all(effects[number] == 1 for number in acknowledged), (acknowledged, effects)
    assert set(effects) == {str(number) for number in range(60)}


LATE = """
import uuid
from wfengine.runners.dask import DaskTaskRunner, _be_patient

def wait_until(holds):
    while not holds((HERE / "effects.txt").read_text() if (HERE / "effects.txt").exists() else ""):
        time.sleep(0.01)

@task
def slow():
    name = uuid.uuid4().hex
    note(f"begun-{name}")
    wait_until(lambda _: (HERE / "go").exists())
    note(f"ended-{name}")
    return name

@flow(task_runner=DaskTaskRunner(os.environ["ADDRESS"]))
def main():
    future = slow.submit()
    wait_until(lambda effects: "begun-" in effects)
    if first_time():
        kill()
    wait_until(lambda effects: effects.count("begun-") == 2)
    (HERE / "go").touch()
    wait_until(lambda effects: effects.count("ended-") == 2)
    return future.result()

if __name__ == "__main__":
    main()
"""


def test_the_late_result_of_a_flow_that_was_killed_goes_nowhere(
    dask_cluster: DaskCluster, program: Program, rows: Rows
) -> None:
    program.write(LATE)
    program.environment["ADDRESS"] = dask_cluster.address
    program.run_and_be_killed()
    answer = program.resume()
    late, wanted = (effect.removeprefix("begun-") for effect in program.effects if effect.startswith("begun-"))
    assert {f"ended-{late}", f"ended-{wanted}"} <= set(program.effects)
    assert answer["result"] == repr(wanted)
    assert rows("SELECT json_extract(result, '$') FROM tasks WHERE task = 'slow'") == [(wanted,)]
    outcomes = rows("SELECT count(*) FROM history WHERE task IS NOT NULL AND state = 'COMPLETED'")
    assert outcomes == [(1,)]


def test_a_flow_whose_scheduler_was_killed_fails_and_resumes_on_another_cluster(
    dask_cluster: DaskCluster, program: Program, rows: Rows
) -> None:
    program.write(DRIVER)
    cluster = DaskCluster(1)
    try:
        program.environment |= {"ADDRESS": cluster.address, "SCHEDULER": str(cluster.process.pid)}
        done = program.python(str(program.path), "scheduler")
    finally:
        cluster.kill()
    assert done.code == 1
    assert "WorkerDiedError" in done.err
    acknowledged = acknowledged_in(rows)
    assert len(acknowledged) >= 20
    program.environment["ADDRESS"] = dask_cluster.address
    assert program.resume()["result"] == str(sum(range(60)))
    effects = Counter(program.effects)
    assert all(effects[number] == 1 for number in acknowledged)


def acknowledged_in(rows: Rows) -> list[str]:
    found = rows("SELECT result FROM tasks WHERE state = 'COMPLETED' AND task = 'work'")
    return [str(json.loads(str(result))) for (result,) in found]


OWN_CLUSTER = """
import json, psutil
from wfengine.runners.dask import DaskTaskRunner, _be_patient

def listening():
    us = psutil.Process()
    found = [each.net_connections("tcp") for each in (us, *us.children(recursive=True))]
    return sorted({each.laddr.ip for several in found for each in several if each.status == "LISTEN"})

@task
def length(data):
    return len(data)

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 0, "threads_per_worker": 1}, adapt_kwargs={"maximum": 1}))
def main():
    return length.submit(b"x" * 1_000_000).result(), listening()

print(json.dumps([main(), listening(), [each.name() for each in psutil.Process().children()]]))
"""


def test_a_cluster_of_the_runs_own_is_of_this_machine_only_and_gone_with_the_run(program: Program) -> None:
    program.write(OWN_CLUSTER)
    done = program.run()
    assert done.code == 0, done
    lines = [json.loads(line) for line in done.out.splitlines()]
    # The script has no main guard: the workers, which are started with it, come past the flow's call and do nothing there.
    ((result, during), after, _children), *_from_workers = [line for line in lines if line[0] is not None]
    assert (result, during, after) == (1_000_000, ["127.0.0.1"], [])


def test_a_cluster_of_the_runs_own_gives_up_no_worker_that_is_started_again_unless_somebody_said_when() -> None:
    place = "distributed.deploy.lost-worker-timeout"
    for before, after in (("15s", "10000 days"), ("20s", "20s")):
        with dask.config.set({place: before}):
            _be_patient()
            assert dask.config.get(place) == after


def test_what_cannot_be_is_refused_with_what_to_do_instead(program: Program) -> None:
    with pytest.raises(UsageError, match="give one of address, cluster and cluster_class"):
        DaskTaskRunner("tcp://here:1", cluster_class="a.b")
    with pytest.raises(UsageError, match="for a cluster that the runner itself makes"):
        DaskTaskRunner("tcp://here:1", adapt_kwargs={"maximum": 3})
    with pytest.raises(UsageError, match="Leave it out"):
        DaskTaskRunner(cluster_kwargs={"asynchronous": True})

    def start(runner: DaskTaskRunner) -> None:
        @flow(task_runner=runner)
        def main() -> object:
            return where.submit(1).result()

        main()

    with pytest.raises(UsageError, match=r"there is no cluster_class 'nobody\.Knows'"):
        start(DaskTaskRunner(cluster_class="nobody.Knows"))
    with pytest.raises(UsageError, match="use ThreadTaskRunner"):
        start(DaskTaskRunner(cluster_kwargs={"processes": False, "n_workers": 1}))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(UsageError, match="cannot be reached"):
            start(DaskTaskRunner(address, client_kwargs={"timeout": 0.2}))
    program.write("""
        sys.modules["distributed"] = None
        from wfengine.runners.dask import DaskTaskRunner, _be_patient
        @task
        def one(): return 1
        @flow(task_runner=DaskTaskRunner())
        def main(): one.submit().result()
        main()
    """)
    assert "pip install 'wfengine[dask]'" in program.run().err
