"""Tasks on the workers of a Ray. What every runner does is tested in tests/conformance; here is what is Ray's own."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray has no package for this version of Python")

from tests.engine.conftest import Program, Rows  # noqa: E402
from tests.runners.cluster_cases import (  # noqa: E402
    assert_a_death_costs_one_task,
    assert_a_death_is_retried,
    descend,
    descend_async,
    where,
)
from wfengine import flow, task  # noqa: E402
from wfengine.runners import ray_switchboards  # noqa: E402
from wfengine.runners.ray import RayTaskRunner  # noqa: E402
from wfengine_journal.errors import UsageError  # noqa: E402

#: For what another process does, in seconds.
PATIENCE_SECONDS = 30
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@pytest.fixture(scope="module")
def ray_here() -> Iterator[str]:
    """A Ray of two processors that this process is connected to; its address, for others."""
    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        signal.signal(signal.SIGTERM, handler)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def runner(ray_here: str) -> RayTaskRunner:
    return RayTaskRunner()


def eventually(holds: object) -> None:
    """Wait until a condition holds, which another process makes true."""
    until = time.monotonic() + PATIENCE_SECONDS
    assert callable(holds)
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_tasks_run_on_the_ray_that_this_process_is_connected_to_which_stays(runner: RayTaskRunner) -> None:
    @flow(task_runner=runner)
    def main() -> list[tuple[int, int]]:
        return where.map(range(40)).result()

    found = main()
    assert [number for number, _pid in found] == list(range(40))
    assert os.getpid() not in {pid for _number, pid in found}
    assert ray.is_initialized()


def test_tasks_that_wait_for_tasks_lend_their_processors(ray_here: str) -> None:
    @flow(task_runner=RayTaskRunner(max_workers=8))
    def main() -> tuple[int, int]:
        return descend.submit(4).result(), descend_async.submit(4).result()

    assert main() == (4, 4)


def test_a_task_gets_what_it_asks_of_a_worker(runner: RayTaskRunner) -> None:
    @task(resources={"CPU": 2})
    def given() -> dict[str, float]:
        found: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        return found

    @task(resources={"num_gpus": -1})
    def nonsense() -> None:
        """Never run."""

    @flow(task_runner=runner)
    def main() -> dict[str, float]:
        with pytest.raises(UsageError, match="Ray does not take resources"):
            nonsense.submit().result()
        return given.submit().result()

    assert main() == {"CPU": 2.0}


def test_a_large_argument_is_stored_once_and_a_large_result_comes_back(runner: RayTaskRunner) -> None:
    @task
    def same(number: int, data: bytes) -> bytes:
        return data + bytes([number])

    @flow(task_runner=runner)
    def main() -> bool:
        data = os.urandom(3_000_000)
        futures = [same.submit(number, data) for number in range(4)]
        return [future.result() for future in futures] == [data + bytes([number]) for number in range(4)]

    assert main()


def test_a_task_whose_worker_dies_fails_and_ray_does_not_run_it_again(runner: RayTaskRunner, tmp_path: Path) -> None:
    assert_a_death_costs_one_task(runner, tmp_path, "its Ray worker died")


def test_a_task_with_retries_is_tried_on_another_worker(runner: RayTaskRunner, tmp_path: Path) -> None:
    assert_a_death_is_retried(runner, tmp_path)


def test_what_runs_too_long_is_unwound_from_its_sleep_or_killed(runner: RayTaskRunner, tmp_path: Path) -> None:
    @task(timeout_seconds=0.2)
    def sleep(folder: Path) -> None:
        try:
            time.sleep(PATIENCE_SECONDS)
        except BaseException as error:
            (folder / "slept").write_text(type(error).__name__)
            raise

    @task(timeout_seconds=0.2)
    async def sleep_async(folder: Path) -> None:
        import asyncio

        try:
            await asyncio.sleep(PATIENCE_SECONDS)
        finally:
            (folder / "slept async").touch()

    @task(timeout_seconds=0.2)
    def stay(folder: Path) -> None:
        (folder / "stays").write_text(str(os.getpid()))
        while True:
            try:
                time.sleep(PATIENCE_SECONDS)
            except BaseException:
                continue

    @flow(task_runner=runner)
    def main() -> int:
        for each in (sleep, sleep_async, stay):
            with pytest.raises(TimeoutError, match="It was cancelled in Ray"):
                each.submit(tmp_path).result()
        eventually((tmp_path / "slept").exists)
        eventually((tmp_path / "slept async").exists)
        return int((tmp_path / "stays").read_text())

    stubborn = main()
    assert (tmp_path / "slept").read_text() == "_Stopped"
    eventually(lambda: not psutil.pid_exists(stubborn))


def test_the_time_limit_of_a_task_begins_when_its_code_does(ray_here: str) -> None:
    @task
    def keep_a_processor() -> None:
        time.sleep(1.2)  # on a worker, which is to be busy for longer than the other's limit

    @task(timeout_seconds=1)
    def quick() -> str:
        return "in time"

    @flow(task_runner=RayTaskRunner(max_workers=3))
    def main() -> str:
        busy = [keep_a_processor.submit() for _ in range(2)]
        result = quick.submit().result()
        for each in busy:
            each.wait()
        return result

    assert main() == "in time"


def test_lines_of_logs_come_in_order_and_before_the_end(runner: RayTaskRunner, rows: Rows) -> None:
    @task(log_prints=True)
    def talk() -> None:
        for number in range(30):
            print("line", number)
            time.sleep(0.01)  # some go to the switchboard, some with the result

    @flow(task_runner=runner)
    def main() -> None:
        talk.submit().result()

    main()
    found = [text for (text,) in rows("SELECT message FROM logs ORDER BY id")]
    assert found == [f"line {number}" for number in range(30)]


def switchboards() -> list[str]:
    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in names if name.startswith("wfengine-")]


def test_the_death_of_the_switchboard_costs_no_task(runner: RayTaskRunner, tmp_path: Path, rows: Rows) -> None:
    @task
    def call(folder: Path) -> int:
        (folder / f"began {where.submit(1).result()[0]}").touch()
        while not (folder / "killed").exists():
            where(1)
        return 7

    @task(log_prints=True)
    def ask_nothing(folder: Path) -> str:
        print("said before")
        while not (folder / "killed").exists():
            time.sleep(0.01)
        print("said after")
        return "heard nothing of it"

    @flow(task_runner=runner)
    def main() -> tuple[int, str]:
        calls, quiet = call.submit(tmp_path), ask_nothing.submit(tmp_path)
        eventually((tmp_path / "began 1").exists)
        eventually(lambda: rows("SELECT 1 FROM logs WHERE message = 'said before'"))
        (name,) = switchboards()
        ray.kill(ray.get_actor(name), no_restart=False)
        (tmp_path / "killed").touch()
        return calls.result(), quiet.result()

    assert main() == (7, "heard nothing of it")
    assert rows("SELECT message FROM logs ORDER BY id") == [("said before",), ("said after",)]
    assert len(switchboards()) == 1  # it is kept for the next run


def test_runs_one_after_the_other_have_one_switchboard_and_runs_at_a_time_have_their_own(runner: RayTaskRunner) -> None:
    @task
    def ask(depth: int) -> list[str]:
        assert where(1)[0] == 1  # which is asked for there
        return switchboards() if depth == 0 else inner()

    @flow(task_runner=runner)
    def inner() -> list[str]:
        return ask.submit(0).result()

    @flow(task_runner=runner)
    def outer() -> list[str]:
        return ask.submit(1).result()

    first = inner()
    assert len(first) == 1
    assert inner() == first
    assert len(outer()) == 2
    assert inner() == switchboards() != []
    assert len(switchboards()) == 1


def test_who_worked_for_a_run_that_is_over_is_not_heard_in_the_next(ray_here: str) -> None:
    connected, low = ray_switchboards.take(keeps=False), next(ray_switchboards.numbers)
    actor = connected.actor

    def got(what: Any) -> Any:
        return ray.get(what, timeout=PATIENCE_SECONDS)

    def heard() -> list[bytes]:
        life, count, said = got(actor.listen.remote("", 0))
        while not said:
            life, count, said = got(actor.listen.remote(life, count))
        return [each[-1] for each in said]

    asked = actor.ask.remote(low, 0, 0, (), 1, b"waits")
    assert heard() == [b"waits"]
    got(actor.hang_up.remote())
    with pytest.raises(ray.exceptions.RayTaskError, match="is over"):
        got(asked)
    number = next(ray_switchboards.numbers)
    got(actor.renew.remote(number))
    with pytest.raises(ray.exceptions.RayTaskError, match="is over"):
        got(actor.ask.remote(low, 0, 0, (), 2, b"too late"))
    got(actor.tell.remote(low, 0, (b"too late",)))
    asked = actor.ask.remote(number, 0, 0, (), 1, b"in time")
    assert heard() == [b"in time"]
    got(actor.answer.remote(number, 0, b"yes"))
    assert got(asked) == b"yes"
    ray_switchboards.put_back(connected, keeps=False)


DRIVER = """
import threading
from wfengine.runners.ray import RayTaskRunner

@task
def work(number):
    note(number)
    return number

@task
def linger():
    note(f"pid-{os.getpid()}")
    time.sleep(1 if (HERE / "crashed").exists() else 60)

@flow(task_runner=RayTaskRunner(os.environ["ADDRESS"], max_workers=3))
def main(who):
    first = work.map(range(20)).result()
    lingers = linger.submit()
    rest = work.map(range(20, 60))
    rest[5].wait()
    while "pid-" not in (HERE / "effects.txt").read_text():
        time.sleep(0.01)
    if who == "killed" and first_time():
        kill()
    if first_time():
        os.kill(os.getpid(), 2)
    lingers.wait()
    return sum(rest.result()) + sum(first)

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("end", ["killed", "interrupted"])
def test_a_flow_that_was_cut_off_leaves_nothing_running_and_resumes(
    ray_here: str, program: Program, rows: Rows, end: str
) -> None:
    program.write(DRIVER)
    program.environment["ADDRESS"] = ray_here
    done = program.python(str(program.path), end)
    assert done.was_killed if end == "killed" else "Go on with it" in done.err, done
    (lingering,) = [int(effect.removeprefix("pid-")) for effect in program.effects if effect.startswith("pid-")]
    eventually(lambda: not psutil.pid_exists(lingering))
    acknowledged = [
        str(json.loads(str(result)))
        for (result,) in rows("SELECT result FROM tasks WHERE state = 'COMPLETED' AND task = 'work'")
    ]
    assert len(acknowledged) >= 20
    assert program.resume()["result"] == str(sum(range(60)))
    effects = Counter(effect for effect in program.effects if effect.isdigit())
    assert all(effects[number] == 1 for number in acknowledged), (acknowledged, effects)
    assert set(effects) == {str(number) for number in range(60)}


OWN_RAY = """
import json, psutil, signal, threading
from wfengine.runners.ray import RayTaskRunner

def listening(every):
    found = [each.net_connections("tcp") for each in every]
    return sorted({each.laddr.ip for several in found for each in several if each.status == "LISTEN"})

def ends(pid):
    try:
        psutil.Process(pid).wait(30)  # some end a moment after Ray says that it is down
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True

@task
def length(data):
    print("a line of a task")
    return len(data)

@flow(task_runner=RayTaskRunner("auto"))
def other():
    return length.submit(b"").result()

told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))

@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 1}))
def main():
    found = [length.submit(b"x" * size).result() for size in (1, 1_000_000)]
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        other()
    except Exception as error:
        refused = str(error)
    us = psutil.Process()
    every = [us, *us.children(recursive=True)]
    return found, listening(every), [each.pid for each in every[1:]], refused

found, where, pids, refused = main()
import ray
print(json.dumps({
    "found": found, "listening": where, "refused": refused, "told": told,
    "left": [pid for pid in pids if not ends(pid)],
    "initialised": ray.is_initialized(), "environment": [name for name in os.environ if name.startswith("RAY_USAGE")],
    "print": print.__module__,
}))
"""


def test_a_ray_of_the_runs_own_is_of_this_machine_only_and_gone_with_the_run(program: Program) -> None:
    program.write(OWN_RAY)
    environment = {name: value for name, value in program.environment.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program.path)], cwd=program.folder, env=environment,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    *printed, answer = done.stdout.splitlines()
    said = json.loads(answer)
    assert "cannot connect to another one" in said.pop("refused")
    assert {ip.removeprefix("::ffff:") for ip in said.pop("listening")} == {"127.0.0.1"}
    assert said == {
        "found": [1, 1_000_000], "told": [signal.SIGTERM], "left": [], "initialised": False, "environment": [],
        "print": "builtins",  # Ray would put its own over it, and flows with log_prints would lose theirs
    }  # fmt: skip
    assert sum("a line of a task" in line for line in printed) == len(printed) == 2
    assert done.stderr == ""


def test_what_cannot_be_is_refused_with_what_to_do_instead(program: Program) -> None:
    with pytest.raises(UsageError, match="address must be a string"):
        RayTaskRunner(cast(Any, 7))
    program.write("""
        import socket
        from wfengine.runners.ray import RayTaskRunner
        @task
        def one(): return 1
        def start(runner):
            @flow(task_runner=runner)
            def main(): one.submit().result()
            try:
                main()
            except Exception as error:
                print(type(error).__name__, error)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            start(RayTaskRunner(f"127.0.0.1:{nobody.getsockname()[1]}"))
        sys.modules["ray"] = None
        start(RayTaskRunner())
    """)
    unheard, missing = program.run().out.splitlines()
    assert unheard.startswith("UsageError RayTaskRunner: nothing answers at")
    assert "pip install 'wfengine[ray]'" in missing


def test_the_runner_is_pickled_with_what_it_was_given() -> None:
    made = pickle.loads(pickle.dumps(RayTaskRunner("auto", {"num_cpus": 1}, max_workers=3)))
    assert (made.address, made.init_kwargs, made.max_workers) == ("auto", {"num_cpus": 1}, 3)
