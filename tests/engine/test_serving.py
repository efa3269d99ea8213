"""`serve`, `flow.serve` and `wfengine serve FILES`: what is served, and what is refused."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program, Rows
from wfengine import aserve, flow, serve
from wfengine.serving import find_served
from wfengine_journal.errors import EntrypointError, MissingFlowError, UsageError


@flow
def etl(day: str = "today") -> str:
    return day


def served(folder: Path, name: str, text: str, *, target: str = "") -> tuple[list[str], list[str]]:
    """Return what a file declares: deployments, and flows without one."""
    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(text))
    found = find_served([f"{file}{target}"])
    return [f"{each.flow_name}/{each.name}" for each in found.declared], [flow.name for flow, _ in found.others]


HEAD = """
from wfengine import flow, serve
from wfengine.deployments import Deployment

@flow
def etl(): ...

@flow
def report(): ...
"""


def test_flows_of_a_file_that_declares_nothing_have_no_deployment_yet(tmp_path: Path) -> None:
    assert served(tmp_path, "nothing", HEAD) == ([], ["etl", "report"])
    assert served(tmp_path, "one", HEAD, target=":report") == ([], ["report"])


def test_calls_of_serve_at_module_level_declare(tmp_path: Path, rows: Rows) -> None:
    text = HEAD + 'etl.serve("nightly", cron="0 3 * * *")\nserve(report.to_deployment("weekly"), etl.to_deployment("hourly"))\n'
    assert served(tmp_path, "calls", text) == (["etl/nightly", "report/weekly", "etl/hourly"], [])
    assert rows("SELECT count(*) FROM deployments") == [(0,)]


def test_variables_and_applied_deployments_declare(tmp_path: Path, rows: Rows) -> None:
    text = HEAD + 'nightly = etl.to_deployment("nightly")\nDeployment.build_from_flow(report, "old form", apply=True)\n'
    assert served(tmp_path, "variables", text) == (["report/old form", "etl/nightly"], [])
    assert rows("SELECT count(*) FROM deployments") == [(0,)]


def test_a_file_that_only_imports_its_flows_may_serve_them(tmp_path: Path) -> None:
    (tmp_path / "flows_apart.py").write_text(textwrap.dedent(HEAD))
    text = 'from flows_apart import etl\nnightly = etl.to_deployment("nightly")\n'
    assert served(tmp_path, "apart", text) == (["etl/nightly"], [])
    with pytest.raises(MissingFlowError):
        served(tmp_path, "neither", "from flows_apart import etl\n")


def test_the_last_of_two_deployments_of_one_name_is_served(tmp_path: Path) -> None:
    text = HEAD + 'etl.serve("x", cron="0 3 * * *")\netl.serve("x", cron="0 4 * * *")\n'
    (tmp_path / "twice.py").write_text(textwrap.dedent(text))
    found = find_served([str(tmp_path / "twice.py")])
    assert [str(each.schedule) for each in found.declared] == [str(etl.to_deployment("x", cron="0 4 * * *").schedule)]


@pytest.mark.parametrize("target", ["nowhere.py", "no.such.module", "nowhere.py:etl", ""])
def test_what_is_not_there_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(EntrypointError):
        find_served([target])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: serve(), "nothing to serve"),
        (lambda: serve(etl), "takes deployments"),  # type: ignore[arg-type]  # as a user without a checker does
        (lambda: serve(etl.to_deployment("x"), port=1), "no option port"),
        (lambda: serve(etl.to_deployment("x"), recover="some"), "recover must be"),
        (lambda: serve(etl.to_deployment("x"), limit=0), "limit must be a number"),
        (lambda: serve(etl.to_deployment("x"), stop_timeout=-1), "time to stop in"),
        (lambda: etl.serve("a/b"), "without '/'"),
        (lambda: etl.serve("x", cron="soon"), "cron"),
        (lambda: etl.serve("x", crom="0 3 * * *"), "crom"),
    ],
)
def test_wrong_usage_is_refused(call: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        call()  # type: ignore[operator]


def test_a_flow_cannot_serve() -> None:
    @flow
    def endless() -> None:
        etl.serve("x")

    with pytest.raises(UsageError, match="would never end"):
        endless()


def test_in_an_event_loop_it_is_awaited_and_cancelled(rows: Rows) -> None:
    async def main() -> None:
        serving = asyncio.ensure_future(aserve(etl.to_deployment("nightly")))
        while rows("SELECT 1 FROM daemons WHERE state = 'running'") == []:
            await asyncio.sleep(0.01)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(main())
    assert rows("SELECT name, state FROM daemons") == [("etl/nightly", "stopped")]


SCRIPT = """
@flow
def etl():
    note("ran")

if __name__ == "__main__":
    etl.serve(__file__, cron="0 3 * * *")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_script_that_serves_is_started_ended_and_started_again(program: Program, rows: Rows, number: int, code: int) -> None:
    program.write(SCRIPT)
    for _ in range(2):
        with DaemonProcess(program.folder, str(program.path), environment=program.environment) as daemon:
            assert daemon.wait_until_ready().stop(number) == code
    assert rows("SELECT full_name, schedule, paused FROM deployments") == [("etl/program", "cron 0 3 * * *, UTC", 0)]
    assert rows("SELECT count(*) FROM daemons") == [(2,)]
    assert program.effects == []


def test_what_is_to_be_paused_at_the_end_is_due_again_when_it_is_served_again(program: Program, rows: Rows) -> None:
    program.write(SCRIPT.replace('* * *")', '* * *", pause_on_shutdown=True)'))
    for _ in range(2):
        with DaemonProcess(program.folder, str(program.path), environment=program.environment) as daemon:
            daemon.wait_until_ready()
            assert rows("SELECT active FROM deployments") == [(1,)]
            daemon.stop()
        assert rows("SELECT active FROM deployments") == [(0,)]


def test_what_was_due_while_nobody_served_a_paused_deployment_is_not_caught_up(program: Program, rows: Rows) -> None:
    script = SCRIPT.replace('cron="0 3 * * *"', 'schedules=[Cron("0 3 * * *", catch_up="all")], pause_on_shutdown=True')
    program.write("from wfengine.schedules import Cron\n" + script)
    for _ in range(2):
        with DaemonProcess(program.folder, str(program.path), environment=program.environment) as daemon:
            daemon.wait_until_ready()
            daemon.stop()
        # As though it had stopped three days earlier than it did.
        with closing(sqlite3.connect(program.folder / "journal.db", isolation_level=None)) as connection:
            connection.execute(
                "UPDATE schedule SET decided_to = strftime('%Y-%m-%dT%H:%M:%f000Z', decided_to, '-3 days'), next_at = NULL"
            )
    assert rows("SELECT DISTINCT outcome, run_id FROM ticks") == [("skipped", None)]
