"""Logging as the environment and a file say: JSON lines, levels, loggers of libraries, and bounds of what is kept."""

from __future__ import annotations

import json

import pytest

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program, Rows

LOGGING_FLOW = """
import logging
from wfengine import flow, task, get_run_logger

@task(retries=1)
def load(n):
    get_run_logger(team="blue").info("load %d", n, extra={"rows": 7})
    logging.getLogger("library").warning("slow")
    if not effects():
        effect("failed")
        raise ValueError("once")

@flow(flow_run_name="monday")
def etl(lines=0):
    get_run_logger().info("begin")
    for n in range(lines):
        get_run_logger().info("line %d", n)
    load(5)
    if lines:
        kill_self()

if __name__ == "__main__":
    etl(LINES)
"""
HEAD = """
import os, signal, pathlib
def effects(): return pathlib.Path("failed.txt").exists()
def effect(text): pathlib.Path(f"{text}.txt").write_text("")
def kill_self():
    if not pathlib.Path("killed.txt").exists():
        pathlib.Path("killed.txt").write_text("")
        from wfengine_journal import store
        for journal in store._OPEN.values(): journal.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def write(program: Program, lines: int = 0) -> Program:
    program.write(HEAD + LOGGING_FLOW.replace("LINES", str(lines)))
    return program


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_lines_on_stderr_are_json_with_the_run_the_task_and_the_fields_of_the_call(program: Program) -> None:
    program.environment["WFENGINE_LOGGING_FORMAT"] = "json"
    done = write(program).run()
    assert done.code == 0, done
    first, second, third = [line for line in json_lines(done.err) if line["logger"] != "wfengine"][:3]
    assert {name: first[name] for name in ("level", "message", "run_id", "run", "flow")} == {
        "level": "INFO", "message": "begin", "run_id": 1, "run": "monday", "flow": "etl",
    }  # fmt: skip
    assert "task" not in first
    assert (second["task"], second["task_run_id"], second["attempt"], second["message"]) == ("load", 1, 1, "load 5")
    assert second["fields"] == {"team": "blue", "rows": 7}
    assert third["attempt"] == 2


def test_a_line_of_a_run_of_a_deployment_names_it(program: Program) -> None:
    program.environment["WFENGINE_LOGGING_FORMAT"] = "json"
    write(program)
    with DaemonProcess(program.folder, "-m", "wfengine", "serve", "program.py", environment=program.environment) as daemon:
        daemon.wait_until_ready()
        done = program.python("-m", "wfengine", "deployments", "run", "etl/program", "--watch")
        assert done.code == 0, done
        assert daemon.stop() == 0, daemon.said
    (begin,) = [fact for fact in daemon.facts if fact["message"] == "begin"]
    assert begin["deployment"] == "etl/program"


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_file_configures_logging_as_dict_config_does(program: Program, rows: Rows, suffix: str) -> None:
    file = program.folder / f"logging.{suffix}"
    settings = {
        "formatters": {"json": {"()": "wfengine.logging.JsonFormatter"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "lines.jsonl", "formatter": "json"}},
        "loggers": {"wfengine.task_runs": {"handlers": ["file"], "level": "INFO"}},
    }
    toml = """
[formatters.json]
"()" = "wfengine.logging.JsonFormatter"
[handlers.file]
class = "logging.FileHandler"
filename = "lines.jsonl"
formatter = "json"
[loggers."wfengine.task_runs"]
handlers = ["file"]
level = "INFO"
"""
    file.write_text(toml if suffix == "toml" else json.dumps(settings), encoding="utf-8")
    program.environment["WFENGINE_LOGGING_CONFIG"] = str(file)
    done = write(program).run()
    assert done.code == 0, done
    found = json_lines((program.folder / "lines.jsonl").read_text(encoding="utf-8"))
    assert [line["message"] for line in found] == ["load 5", "load 5"]
    assert rows.value("SELECT count(*) FROM logs WHERE message = 'load 5'") == 2, "the journal has them as well"


def test_lines_of_chosen_libraries_stand_beside_the_run_from_a_chosen_level_on(program: Program, rows: Rows) -> None:
    program.environment |= {"WFENGINE_LOGGING_EXTRA_LOGGERS": "library, other", "WFENGINE_LOGGING_JOURNAL_LEVEL": "warning"}
    done = write(program).run()
    assert done.code == 0, done
    assert rows("SELECT run_id, task, level, logger, message FROM logs ORDER BY id") == [
        (1, "load", "WARNING", "library", "slow"),
        (1, "load", "WARNING", "library", "slow"),
    ]


def test_lines_beyond_the_limit_of_a_run_are_left_out_and_the_journal_says_so_also_after_a_resume(
    program: Program, rows: Rows
) -> None:
    program.environment["WFENGINE_LOGGING_RUN_LIMIT"] = "20"
    write(program, lines=35).run_and_be_killed()
    kept = [str(message) for (message,) in rows("SELECT message FROM logs ORDER BY id")]
    assert kept[:20] == ["begin", *(f"line {n}" for n in range(19))]
    assert [message.partition(" lines")[0] for message in kept[20:]] == ["1", "10"]
    assert "20 lines of a run are kept in the journal, unless WFENGINE_LOGGING_RUN_LIMIT says otherwise" in kept[20]
    program.resume()
    after = [str(message) for (message,) in rows("SELECT message FROM logs ORDER BY id")]
    assert after[:22] == kept
    assert not any(message.startswith(("begin", "line")) for message in after[22:]), "the limit is that of the run"


def test_a_long_line_is_cut_and_says_how_much_was_left_out(program: Program, rows: Rows) -> None:
    program.environment["WFENGINE_LOGGING_LINE_LIMIT"] = "3"
    assert write(program).run().code == 0
    assert rows("SELECT message FROM logs ORDER BY id LIMIT 1") == [("beg ... (2 characters were left out)",)]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WFENGINE_LOGGING_RUN_LIMIT", "-1", "WFENGINE_LOGGING_RUN_LIMIT='-1' is no number from 0 on"),
        ("WFENGINE_LOGGING_JOURNAL_LEVEL", "loud", "WFENGINE_LOGGING_JOURNAL_LEVEL='loud' is no level of logging"),
        ("WFENGINE_LOGGING_FORMAT", "xml", "WFENGINE_LOGGING_FORMAT='xml' is no format of log lines. Set text or json."),
        ("WFENGINE_LOGGING_CONFIG", "gone.toml", "WFENGINE_LOGGING_CONFIG='gone.toml' cannot be read: No such file"),
        ("WFENGINE_LOGGING_CONFIG", "program.py", "WFENGINE_LOGGING_CONFIG='program.py' is no JSON"),
        ("WFENGINE_LOGGING_CONFIG", "bad.toml", "WFENGINE_LOGGING_CONFIG='bad.toml' does not configure logging"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_variable(program: Program, variable: str, value: str, said: str) -> None:
    (program.folder / "bad.toml").write_text("[handlers.x]\nclass = 'nowhere.Nothing'\n[root]\nhandlers = ['x']\n")
    program.environment[variable] = value
    done = write(program).run()
    assert done.code != 0
    assert said in done.err
