"""Logs of flows and tasks: in the journal, in standard logging, and what is printed."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, get_run_logger, task
from wfengine.context import FlowRunContext
from wfengine.logging import disable_run_logger, get_logger, loggers
from wfengine_journal.errors import MissingContextError, UsageError


class Collector(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """The records that reach a handler of the program's own."""
    collector = Collector()
    logging.getLogger("wfengine").addHandler(collector)
    yield collector.records
    logging.getLogger("wfengine").removeHandler(collector)


def lines(rows: Rows) -> list[tuple[object, ...]]:
    return rows("SELECT run_id, task_id, level, logger, message FROM logs ORDER BY id")


def test_a_line_stands_in_the_journal_beside_its_run(rows: Rows) -> None:
    @task
    def load(n: int) -> None:
        get_run_logger().warning("loading %d of %s", n, "users")

    @flow
    def etl() -> None:
        get_run_logger().info("begin")
        load(5)

    etl()
    assert lines(rows) == [
        (1, None, "INFO", "wfengine.flow_runs", "begin"),
        (1, 1, "WARNING", "wfengine.task_runs", "loading 5 of users"),
    ]


def test_records_carry_the_run_and_what_a_call_adds(records: list[logging.LogRecord]) -> None:
    @task(name="load it", task_run_name="load-{n}")
    def load(n: int) -> None:
        get_run_logger(team="blue").info("loading", extra={"rows": 7})

    @flow(name="etl", flow_run_name="monday")
    def etl() -> None:
        get_run_logger().info("begin")
        load(5)

    etl()
    first, second = records
    assert (first.flow_run_id, first.flow_run_name, first.flow_name) == (1, "monday", "etl")  # type: ignore[attr-defined]
    assert not hasattr(first, "task_run_id")
    assert (second.flow_run_name, second.flow_name, second.task_run_id) == ("monday", "etl", 1)  # type: ignore[attr-defined]
    assert (second.task_name, second.task_run_name) == ("load it", "load-5")  # type: ignore[attr-defined]
    assert (second.team, second.rows) == ("blue", 7)  # type: ignore[attr-defined]
    assert second.funcName == "load"


def test_exceptions_are_logged_with_their_traceback(rows: Rows) -> None:
    @flow
    def etl() -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            get_run_logger().exception("it failed")

    etl()
    ((level, message),) = rows("SELECT level, message FROM logs")
    assert level == "ERROR"
    assert str(message).startswith("it failed\nTraceback")
    assert "ValueError: broken" in str(message)


def test_levels_below_the_loggers_are_left_out_and_own_levels_kept(rows: Rows) -> None:
    @flow
    def etl() -> None:
        logger = get_run_logger()
        logger.debug("not shown")
        logger.log(25, "between")
        logger.critical("worst")

    etl()
    assert rows("SELECT level, message FROM logs ORDER BY id") == [("INFO", "between"), ("CRITICAL", "worst")]
    assert rows("SELECT level FROM log ORDER BY id") == [(25,), (50,)]


def test_a_line_that_cannot_be_formatted_breaks_nothing(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import get_run_logger

        @flow
        def etl():
            get_run_logger().info("%d", "not a number")

        if __name__ == "__main__":
            etl()
    """)
    done = program.run()
    assert done.code == 0
    assert "not a number" in done.err
    assert rows("SELECT state FROM runs") == [("COMPLETED",)]
    assert lines(rows) == []


def test_outside_of_a_run_there_is_no_run_logger() -> None:
    with pytest.raises(MissingContextError, match="outside of a flow run"):
        get_run_logger()


def test_a_context_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="takes a FlowRunContext or TaskRunContext, not int"):
        get_run_logger(5)  # type: ignore[arg-type]


def test_disabled_run_loggers_let_a_task_s_function_be_tested(rows: Rows) -> None:
    @task
    def load() -> int:
        get_run_logger().info("loading")
        return 5

    @flow
    def etl() -> int:
        return load()

    with disable_run_logger():
        assert load.fn() == 5
        assert etl() == 5
    assert lines(rows) == []
    etl()
    assert len(lines(rows)) == 1
    with pytest.raises(MissingContextError):
        load.fn()


def test_the_context_of_the_flow_makes_a_task_speak_for_the_flow(rows: Rows) -> None:
    @task
    def load() -> None:
        get_run_logger(FlowRunContext.get()).info("from the task")

    @flow
    def etl() -> None:
        load()

    etl()
    assert lines(rows) == [(1, None, "INFO", "wfengine.flow_runs", "from the task")]


def test_a_logger_of_the_run_works_in_a_thread_that_does_not_know_it(rows: Rows) -> None:
    @task
    def load() -> None:
        logger = get_run_logger()
        thread = threading.Thread(target=lambda: logger.info("from the thread"))
        thread.start()
        thread.join()

    @flow
    def etl() -> None:
        load()

    etl()
    assert lines(rows) == [(1, 1, "INFO", "wfengine.task_runs", "from the thread")]


def test_a_line_whose_fields_name_another_run_stands_beside_the_run_that_wrote_it(rows: Rows) -> None:
    @task
    def load() -> None:
        get_run_logger().info("hello", extra={"flow_run_id": "of another system"})

    @flow
    def etl() -> None:
        load()

    etl()
    assert lines(rows) == [(1, 1, "INFO", "wfengine.task_runs", "hello")]


def test_async_tasks_log_beside_their_own_runs(rows: Rows) -> None:
    @task
    async def step(n: int) -> None:
        logger = get_run_logger()
        await asyncio.sleep(0)
        logger.info("step %d", n)

    @flow
    async def etl() -> None:
        await asyncio.gather(*(step(n) for n in range(3)))

    asyncio.run(etl())
    found = rows("SELECT l.message, t.inputs FROM logs l JOIN tasks t ON t.id = l.task_id ORDER BY 1")
    assert found == [(f"step {n}", f'{{"n":{n}}}') for n in range(3)]


def test_hooks_log_beside_the_run_they_are_called_for(rows: Rows) -> None:
    def on_flow(flow: object, flow_run: object, state: object) -> None:
        get_run_logger().info("flow ended")
        loggers.flow_run_logger(flow_run, flow).info("said of %s", flow_run.id)  # type: ignore[arg-type, attr-defined]

    def on_task(task: object, task_run: object, state: object) -> None:
        get_run_logger().info("task ended")
        loggers.task_run_logger(task_run, task).info("said of %s", task_run.id)  # type: ignore[arg-type, attr-defined]

    @task(on_completion=[on_task])
    def load() -> None: ...

    @flow(on_completion=[on_flow])
    def etl() -> None:
        load()

    etl()
    assert lines(rows) == [
        (1, 1, "INFO", "wfengine.task_runs", "task ended"),
        (1, 1, "INFO", "wfengine.task_runs", "said of 1"),
        (1, None, "INFO", "wfengine.flow_runs", "flow ended"),
        (1, None, "INFO", "wfengine.flow_runs", "said of 1"),
    ]


def test_a_child_logger_speaks_for_the_same_run(rows: Rows) -> None:
    @flow
    def etl() -> None:
        child = get_run_logger().getChild("parser", {"part": 1})  # type: ignore[call-arg]
        child.info("hello")

    etl()
    assert lines(rows) == [(1, None, "INFO", "wfengine.flow_runs.parser", "hello")]


def test_plain_loggers_stay_out_of_the_journal(rows: Rows) -> None:
    @flow
    def etl() -> None:
        get_logger("mine").info("hello")

    etl()
    assert lines(rows) == []
    assert get_logger("mine").name == get_logger("wfengine.mine").name == "wfengine.mine"
    assert get_logger().name == "wfengine"


def test_a_naming_function_may_log(rows: Rows, records: list[logging.LogRecord]) -> None:
    def name() -> str:
        get_run_logger().info("naming")
        return "named"

    @flow(flow_run_name=name)
    def etl() -> None: ...

    etl()
    assert [record.getMessage() for record in records] == ["naming"]
    assert lines(rows) == []


def test_lines_are_shown_on_stderr_unless_the_program_configured_logging(program: Program) -> None:
    body = """
        from wfengine import get_run_logger
        import logging

        @flow
        def etl():
            get_run_logger().info("hello")
            get_run_logger().debug("details")

        if __name__ == "__main__":
            {setup}
            etl()
    """
    program.write(body.format(setup="pass"))
    assert "INFO wfengine.flow_runs: hello" in program.run().err
    program.write(body.format(setup='logging.basicConfig(format="mine: %(message)s", stream=sys.stdout)'))
    done = program.run()
    assert (done.out, done.err) == ("mine: hello\n", "")
    program.environment["WFENGINE_LOGGING_LEVEL"] = "debug"
    assert program.run().out == "mine: hello\nmine: details\n"
    program.environment["WFENGINE_LOGGING_LEVEL"] = "loud"
    assert "WFENGINE_LOGGING_LEVEL='loud' is no level of logging" in program.run().err


# ---------------------------------------------------------------------------------------------------- print


def test_what_a_flow_with_log_prints_prints_is_shown_and_logged(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    @flow(log_prints=True)
    def etl() -> None:
        print("hello", 5, sep="-")
        print("to stderr", file=sys.stderr)

    etl()
    print("after the run")
    assert lines(rows) == [
        (1, None, "INFO", "wfengine.flow_runs", "hello-5"),
        (1, None, "INFO", "wfengine.flow_runs", "to stderr"),
    ]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("hello-5\nafter the run\n", "to stderr\n")


def test_what_is_printed_into_a_file_is_not_logged(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> None:
    @flow(log_prints=True)
    def etl() -> None:
        with (tmp_path_factory.mktemp("out") / "file").open("w") as file:
            print("hello", file=file)

    etl()
    assert lines(rows) == []


@pytest.mark.parametrize(
    ("of_flow", "of_task", "logged"),
    [(None, None, False), (True, None, True), (True, False, False), (None, True, True), (False, True, True)],
)
def test_a_task_inherits_log_prints_from_its_flow(rows: Rows, of_flow: bool | None, of_task: bool | None, logged: bool) -> None:
    @task(log_prints=of_task)
    def load() -> None:
        print("hello")

    @flow(log_prints=of_flow)
    def etl() -> None:
        load()

    etl()
    assert lines(rows) == ([(1, 1, "INFO", "wfengine.task_runs", "hello")] if logged else [])


def test_a_subflow_inherits_log_prints_from_the_run_that_calls_it(rows: Rows) -> None:
    @flow
    def inherits() -> None:
        print("inherited")

    @flow(log_prints=False)
    def silent() -> None:
        print("not logged")

    @flow(log_prints=True)
    def outer() -> None:
        inherits()
        silent()

    outer()
    assert rows("SELECT run_id, message FROM logs") == [(2, "inherited")]


def test_the_environment_turns_log_prints_on(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def etl() -> None:
        print("hello")

    monkeypatch.setenv("WFENGINE_LOGGING_LOG_PRINTS", "true")
    etl()
    assert rows("SELECT message FROM logs") == [("hello",)]


def test_prints_reach_the_program_s_handlers_with_the_line_that_printed(records: list[logging.LogRecord]) -> None:
    @flow(log_prints=True)
    def etl() -> None:
        print("100%")

    etl()
    (record,) = records
    assert record.getMessage() == "100%"
    assert record.funcName == "etl"


def test_a_handler_that_prints_does_not_go_round_in_circles(rows: Rows) -> None:
    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("handled", record.getMessage())

    handler = Printing()
    logging.getLogger("wfengine.flow_runs").addHandler(handler)
    try:

        @flow(log_prints=True)
        def etl() -> None:
            print("hello")

        etl()
    finally:
        logging.getLogger("wfengine.flow_runs").removeHandler(handler)
    assert rows("SELECT message FROM logs") == [("hello",)]


def test_disabled_run_loggers_leave_print_as_it_is(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    @flow(log_prints=True)
    def etl() -> None:
        print("hello")

    with disable_run_logger():
        etl()
    assert lines(rows) == []
    assert capsys.readouterr().out == "hello\n"
