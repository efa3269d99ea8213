"""A user's own examples, written for Prefect: each runs with only its imports changed, killed half-way and resumed too.

`seed/NAME.txt` is the text as the user wrote it; `seed/NAME.py` is that text with what it speaks of and does not define.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import STEP_LIMIT_SECONDS, environment, query

import wfengine

SEED = Path(__file__).parent / "seed"
EXAMPLES = sorted(path.stem for path in SEED.glob("*.txt"))
FINISHED = "SELECT id, name FROM tasks WHERE state = 'COMPLETED' ORDER BY id"


def _start(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment() | {"WFENGINE_JOURNAL": str(folder / "journal.db"), "PYTHONDONTWRITEBYTECODE": "1"} | changes,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=STEP_LIMIT_SECONDS,
        check=False,
    )


def run(folder: Path, name: str) -> str:
    """Run an example to its end; return what it printed."""
    done = _start(folder, str(SEED / f"{name}.py"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_until_killed(folder: Path, name: str, task: str, limit: int) -> None:
    """Run an example until so many calls of a task are completed; its process then kills itself."""
    done = _start(folder, str(SEED / f"{name}.py"), KILL_AFTER=f"{task}:{limit}")
    assert done.returncode == -signal.SIGKILL, done.stderr


def resume(folder: Path) -> str:
    """Resume the last run in a new process; return what it printed."""
    done = _start(folder, "-m", "wfengine", "resume", "@last")
    assert done.returncode == 0, done.stderr
    return done.stdout


def effects(folder: Path) -> list[str]:
    """Return what the program noted, over all processes."""
    file = folder / "effects.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_text_of_an_example_stands_in_its_program_with_only_the_imports_changed(name: str) -> None:
    example = (SEED / f"{name}.txt").read_text(encoding="utf-8")
    program = (SEED / f"{name}.py").read_text(encoding="utf-8")
    changed = [
        line.replace("from prefect", "from wfengine", 1) if line.startswith("from ") else line for line in example.splitlines()
    ]

    assert "\n".join(changed) in program
    assert "prefect" not in program.replace("Prefect", "")


def test_there_is_a_program_for_each_of_the_eight_examples() -> None:
    assert EXAMPLES == ["critical", "deployment", "dynamic", "etl", "events", "hello", "training", "warehouse"]


def test_the_etl_pipeline_loads_what_it_transformed(tmp_path: Path) -> None:
    assert run(tmp_path, "etl").splitlines() == [
        "Loading data: {'transformed_data': [10, 20, 30, 40, 50]}",
        "Data loaded successfully",
    ]
    assert query(tmp_path / "journal.db", "SELECT flow, state FROM runs") == [("Simple ETL Pipeline", "COMPLETED")]


def test_the_dynamic_flow_takes_another_way_for_a_special_source(tmp_path: Path) -> None:
    assert run(tmp_path, "dynamic") == f"{6 + 7 * 100 + 5}\n"
    assert effects(tmp_path) == [
        "extract orders", "standard orders", "extract returns", "special returns", "extract stock", "standard stock",
        "aggregate",
    ]  # fmt: skip


def test_the_critical_task_runs_once_and_is_used_three_times(tmp_path: Path) -> None:
    """It asks for caching by its inputs, so the second and third call are answered from the cache."""
    assert run(tmp_path, "critical") == "[0, 1, 2]\n"
    names = query(tmp_path / "journal.db", "SELECT state_name FROM tasks WHERE task = 'process_critical_data' ORDER BY id")
    assert names == [("Completed",), ("Cached",), ("Cached",)]


def test_the_warehouse_is_loaded_in_batches(tmp_path: Path) -> None:
    run(tmp_path, "warehouse")

    counted = Counter(line.split()[0] for line in effects(tmp_path))
    assert counted == {"extract": 12, "transform": 12, "load": 3, "validate": 1, "report": 1}
    in_order = [line for line in effects(tmp_path) if not line.startswith(("extract", "transform"))]
    assert in_order == ["load SOURCE-00", "load SOURCE-05", "load SOURCE-10", "validate", "report valid"]


def test_the_best_model_is_deployed(tmp_path: Path) -> None:
    assert run(tmp_path, "training") == "depth 2 is deployed\n"


def test_the_stream_goes_on_until_it_is_told_to_stop(tmp_path: Path) -> None:
    run(tmp_path, "events")

    noted = effects(tmp_path)
    assert [line for line in noted if line.startswith("update")] == ["update [10, 20]", "update [30]", "update [40, 50, 60]"]
    assert sorted(line for line in noted if line.startswith("process")) == [f"process {event}" for event in range(1, 7)]
    assert noted[-1] == "exit after 6"


def test_hello_says_hello(tmp_path: Path) -> None:
    assert run(tmp_path, "hello") == "Hello, world!\n"
    assert query(tmp_path / "journal.db", "SELECT flow, result FROM runs") == [("Hello Flow", '"Hello, world!"')]


def test_the_deployment_is_in_the_journal_with_its_schedule(tmp_path: Path) -> None:
    run(tmp_path, "deployment")
    run(tmp_path, "deployment")  # applied again, it is still one

    ((name, flow, tags),) = query(
        tmp_path / "journal.db", "SELECT d.name, f.name, d.tags FROM deployment d JOIN flow f ON f.id = d.flow_id"
    )
    assert (name, flow, json.loads(str(tags))) == ("scheduled-hello", "Hello Flow", ["demo"])
    ((kind, rule),) = query(tmp_path / "journal.db", "SELECT kind, rule FROM schedule")
    assert (kind, float(str(rule))) == ("interval", 3600)
    assert query(tmp_path / "journal.db", "SELECT count(*) FROM flow_run") == [(0,)]


CUTS = [
    ("etl", "extract_data", 1),
    ("etl", "transform_data", 1),
    ("etl", "load_data", 1),
    ("dynamic", "extract_data", 2),
    ("dynamic", "special_processing", 1),
    ("dynamic", "aggregate_results", 1),
    ("critical", "process_critical_data", 1),
    ("critical", "save", 2),
    ("warehouse", "extract_from_multiple_sources", 5),
    ("warehouse", "transform_for_warehouse", 7),
    ("warehouse", "load_to_warehouse", 2),
    ("warehouse", "validate_warehouse_data", 1),
    ("training", "extract_features", 1),
    ("training", "train_model_with_params", 2),
    ("training", "select_best_model", 1),
    ("events", "look", 3),
    ("events", "process_events", 4),
    ("events", "should_exit", 2),
    ("hello", "say_hello", 1),
]


@pytest.mark.crash
@pytest.mark.parametrize(("name", "task", "limit"), CUTS)
def test_an_example_killed_half_way_is_resumed_and_no_finished_task_runs_again(
    tmp_path: Path, name: str, task: str, limit: int
) -> None:
    journal, unharmed = tmp_path / "journal.db", tmp_path / "unharmed"
    unharmed.mkdir()
    run(unharmed, name)

    run_until_killed(tmp_path, name, task, limit)
    finished, noted = query(journal, FINISHED), effects(tmp_path)
    resume(tmp_path)

    assert len(finished) >= limit
    assert query(journal, "SELECT id, name FROM tasks WHERE replayed ORDER BY id") == finished
    assert _outcomes(journal) == _outcomes(unharmed / "journal.db")
    again = Counter(effects(tmp_path)) - Counter(effects(unharmed))
    assert set(again) <= _cut_off(journal), "only what was cut off in the middle may be done twice"
    assert effects(tmp_path)[: len(noted)] == noted


def _outcomes(journal: Path) -> list[tuple[object, ...]]:
    """Return how every task and run ended. A class of a script has another module name in the process that resumes."""
    tasks = "SELECT task, state, replace(result, '__wfengine_main__', '__main__') FROM tasks ORDER BY task, inputs, id"
    return [*query(journal, tasks), *query(journal, "SELECT flow, state, result FROM runs ORDER BY id")]


def _cut_off(journal: Path) -> set[str]:
    """Return the effects of the calls that were being made when the kill came, as their programs word them."""
    words = {"extract_from_multiple_sources": "extract", "transform_for_warehouse": "transform", "process_events": "process"}
    rows = query(journal, "SELECT task, inputs FROM tasks WHERE attempts > 1")
    return {f"{words.get(str(task), task)} {next(iter(json.loads(str(inputs)).values()))}" for task, inputs in rows}


# ------------------------------------------------------------------------------------------- on a clock that is moved by hand


def _program_in_process(name: str, without: str = "") -> dict[str, object]:
    """Execute an example in this process, without one of the names that its surroundings supply."""
    sys.path.insert(0, str(SEED))
    try:
        text = (SEED / f"{name}.py").read_text(encoding="utf-8")
        names: dict[str, object] = {"__name__": f"seed_{name}", "__file__": str(SEED / f"{name}.py")}
        exec(compile(text, str(SEED / f"{name}.py"), "exec"), names)
    finally:
        sys.path.remove(str(SEED))
    names.pop(without, None)
    return names


@pytest.fixture
def critical(virtual_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The example of the critical task, in this process, where what it returns is not there yet."""
    monkeypatch.chdir(tmp_path)
    return _program_in_process("critical", without="processed_result")


def test_the_critical_task_is_tried_three_more_times_a_minute_apart_and_then_tells_its_handler(
    critical: dict[str, object], virtual_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = critical["critical"]

    with pytest.raises(NameError):
        flow("orders")  # type: ignore[operator]

    assert virtual_clock.slept == [60, 60, 60]  # type: ignore[attr-defined]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("Task process_critical_data failed with error: ")
    assert "name 'processed_result' is not defined" in printed[0]


def test_the_critical_task_that_succeeds_at_last_tells_its_handler_nothing(
    critical: dict[str, object], virtual_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    def after_two_minutes(slept: list[float]) -> None:
        if len(slept) == 2:
            critical["processed_result"] = {"rows": 4}

    virtual_clock.on_sleep = after_two_minutes  # type: ignore[attr-defined]

    assert critical["critical"]("orders") == [0, 1, 2]  # type: ignore[operator]
    assert virtual_clock.slept == [60, 60]  # type: ignore[attr-defined]
    assert capsys.readouterr().out == ""


def test_the_critical_task_is_cached_for_an_hour(critical: dict[str, object], virtual_clock: object, tmp_path: Path) -> None:
    critical["processed_result"] = {"rows": 3}
    task: Callable[[str], object] = critical["process_critical_data"]  # type: ignore[assignment]
    flow = wfengine.flow(name="one")(lambda: task("orders"))

    def names() -> list[object]:
        sql = "SELECT state_name FROM tasks WHERE task = 'process_critical_data' ORDER BY id"
        return [name for (name,) in query(tmp_path / "journal.db", sql)]

    flow()
    virtual_clock.now += 3500  # type: ignore[attr-defined]
    flow()
    assert names() == ["Completed", "Cached"]
    virtual_clock.now += 200  # type: ignore[attr-defined]
    flow()
    assert names() == ["Completed", "Cached", "Completed"]
