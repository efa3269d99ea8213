"""Runs that another process resumes: wherever the flow's code came from, it is found again."""

from __future__ import annotations

import textwrap

import pytest

from tests.engine.conftest import PROGRAM_HEAD, Program, Rows

#: What these tests are about begins or ends with a process: each of their programs is started anew.
FRESH_PROCESSES = True

BODY = """
@task
def fetch(number):
    note(f"fetch-{number}")
    return number

@flow
def main(start=1):
    first = fetch(start)
    if first_time():
        kill()
    return first + fetch(start + 1)
"""


def test_script_without_main_guard_resumes_and_its_module_level_call_does_nothing(program: Program, rows: Rows) -> None:
    program.write(BODY + "\nprint('loading')\nprint(main(5))\n")
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "11"
    assert program.effects == ["fetch-5", "fetch-6"]
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_async_script_without_main_guard_resumes(program: Program, rows: Rows) -> None:
    text = BODY.replace("def ", "async def ").replace(" fetch(", " await fetch(").replace("def await ", "def ")
    program.write(text + "\nasyncio.run(main(5))\n")
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "11"
    assert rows.value("SELECT count(*) FROM runs") == 1


def test_flow_of_an_imported_module_resumes(program: Program, rows: Rows) -> None:
    package = program.folder / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "flows.py").write_text(PROGRAM_HEAD + BODY)
    (program.folder / "program.py").write_text("from shop.flows import main\nmain(5)\n")
    program.run_and_be_killed()
    assert "shop.flows:main" in str(rows.value("SELECT entrypoint FROM runs"))
    assert program.resume(recovery=True)["result"] == "11"
    assert program.effects == ["fetch-5", "fetch-6"]


def test_module_run_with_dash_m_resumes(program: Program) -> None:
    (program.folder / "job.py").write_text(PROGRAM_HEAD + BODY + "\nmain(5)\n")
    assert program.python("-m", "job").was_killed
    assert program.resume(recovery=True)["result"] == "11"
    assert program.effects == ["fetch-5", "fetch-6"]


def test_flow_nested_in_a_function_resumes_from_its_stored_code(program: Program, rows: Rows) -> None:
    nested = "def make(step):\n" + textwrap.indent(BODY.replace("start + 1", "start + step"), "    ") + "\n    return main\n"
    program.write(nested + "\nmake(10)(5)\n")
    program.run_and_be_killed()
    assert rows.value("SELECT entrypoint FROM runs") is None
    assert program.resume(recovery=True)["result"] == "20"
    assert program.effects == ["fetch-5", "fetch-15"]


def test_flow_of_python_dash_c_resumes_from_its_stored_code(program: Program) -> None:
    assert program.python("-c", PROGRAM_HEAD + BODY + "\nmain(5)\n").was_killed
    assert program.resume(recovery=True)["result"] == "11"
    assert program.effects == ["fetch-5", "fetch-6"]


def test_flow_of_a_script_on_standard_input_resumes_from_its_stored_code(program: Program) -> None:
    assert program.python("-", stdin=PROGRAM_HEAD + BODY + "\nmain(5)\n").was_killed
    assert program.resume(recovery=True)["result"] == "11"
    assert program.effects == ["fetch-5", "fetch-6"]


@pytest.mark.parametrize("is_nested", [False, True])
def test_script_that_was_deleted_is_named_in_the_error(program: Program, rows: Rows, is_nested: bool) -> None:
    program.write(BODY + "\nmain(5)\n")
    program.run_and_be_killed()
    if is_nested:
        program.write("x = 1\n")
    else:
        program.path.unlink()
    answer = program.resume()
    assert answer["error"] == ("MissingFlowError" if is_nested else "EntrypointError")
    assert "program.py" in str(answer["text"])
    assert rows.state()[0] in ("RUNNING", "CRASHED")


CLASSES = """
from dataclasses import dataclass
import enum

class Colour(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: int
    colour: Colour

class Missing(Exception):
    def __init__(self, point):
        super().__init__(point)
        self.point = point

@task
def make():
    note("make")
    return Point(3, Colour.RED)

@task
def fail(point):
    note("fail")
    raise Missing(point)

@flow
def main(start: Point):
    point = make()
    told = []
    try:
        fail(point)
    except Missing as error:
        told.append((type(error) is Missing, error.point == point, isinstance(error.point, Point)))
    if first_time():
        kill()
    told.append((type(point) is Point, point.colour is Colour.RED, type(start) is Point, start.colour is Colour.RED))
    return told
"""


@pytest.mark.parametrize("place", ["script", "module", "nested"])
def test_class_of_the_script_is_the_same_class_on_resume(program: Program, place: str) -> None:
    call = "main(Point(1, Colour.RED))\n"
    if place == "script":
        program.write(CLASSES + call)
    elif place == "module":
        (program.folder / "shapes.py").write_text(PROGRAM_HEAD + CLASSES)
        program.path.write_text("from shapes import *\n" + call)
    else:
        program.write("def run():\n" + textwrap.indent(CLASSES + call, "    ") + "\nrun()\n")
    program.run_and_be_killed()
    answer = program.resume(recovery=True)
    assert answer["result"] == str([(True, True, True), (True, True, True, True)])
    assert program.effects == ["make", "fail"]


def test_helper_module_beside_the_script_is_found_again(program: Program) -> None:
    (program.folder / "helpers.py").write_text("class Box:\n    def __init__(self, size):\n        self.size = size\n")
    program.write(
        """
        from helpers import Box

        @task
        def make():
            note("make")
            return Box(4)

        @flow
        def main():
            box = make()
            if first_time():
                kill()
            return type(box) is Box and box.size

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "4"
    assert program.effects == ["make"]


def test_run_killed_during_its_recovery_is_recovered_again(program: Program, rows: Rows) -> None:
    program.write(
        """
        @task
        def fetch(number):
            note(f"fetch-{number}")
            return number

        @flow
        def main():
            total = 0
            for number in range(4):
                total += fetch(number)
                if first_time(f"crash-{number}"):
                    kill()
            return total

        main()
        """
    )
    program.run_and_be_killed()
    for _ in range(3):
        assert program.python("-m", "wfengine", "resume", "--all").was_killed
    assert program.resume(recovery=True)["result"] == "6"
    assert program.effects == [f"fetch-{number}" for number in range(4)]
    assert rows.value("SELECT attempt FROM runs") == 5


def test_flow_retry_that_was_killed_runs_the_failed_task_again_on_recovery(program: Program) -> None:
    program.write(
        """
        @task
        def fetch(name):
            note(name)
            if name == "flaky" and first_time("flaky"):
                raise ValueError("flaky")
            return name

        @flow(retries=1)
        def main():
            first = fetch("sound")
            if (HERE / "flaky").exists() and first_time():
                kill()  # in the second attempt, before it comes to the call that failed
            return first + fetch("flaky")

        main()
        """
    )
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "'soundflaky'"
    assert program.effects == ["sound", "flaky", "flaky"]


def test_resume_by_a_person_that_was_killed_still_runs_the_fatal_failure_again_on_recovery(program: Program) -> None:
    program.write(
        """
        @task
        def fetch(name):
            note(name)
            if name == "bad" and first_time("bad"):
                raise ValueError("bad")
            return name

        @flow
        def main():
            first = fetch("sound")
            if (HERE / "bad").exists() and first_time():
                kill()  # while it is being resumed, before it comes to the call that failed
            return first + fetch("bad")

        main()
        """
    )
    assert "ValueError: bad" in program.run().err
    assert program.python("-m", "wfengine", "resume", "@last").was_killed
    assert program.resume(recovery=True)["result"] == "'soundbad'"
    assert program.effects == ["sound", "bad", "bad"]


def test_map_killed_in_the_middle_runs_no_finished_item_again(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine import ThreadTaskRunner

        @task
        def double(number):
            note(f"double-{number}")
            if number == 12 and first_time():
                kill()
            return number * 2

        @flow(task_runner=ThreadTaskRunner(max_workers=3))
        def main():
            return sum(double.map(range(20)).result())

        main()
        """
    )
    program.run_and_be_killed()
    finished = {
        str(number) for (number,) in rows("SELECT json_extract(inputs, '$.number') FROM tasks WHERE state = 'COMPLETED'")
    }
    assert program.resume(recovery=True)["result"] == "380"
    for number in range(20):
        times = program.effects.count(f"double-{number}")
        assert times == 1 if str(number) in finished else times in (1, 2)
    assert rows("SELECT count(*), count(DISTINCT inputs) FROM tasks WHERE state = 'COMPLETED'") == [(20, 20)]
