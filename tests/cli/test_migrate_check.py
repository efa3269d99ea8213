"""`wfengine migrate-check`: what in a Prefect file would not run here, found without running it."""

from __future__ import annotations

import json
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest
from command_line import Cli

from wfengine.migration import FILE_LIMIT, Kind, check_file, check_paths
from wfengine.migration_notes import DIFFERS, LEFT_OUT


@pytest.fixture
def check(tmp_path: Path) -> object:
    """Check a text; give (line, kind, name) of what was found."""

    def run(text: str) -> list[tuple[int, str, str]]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return [(found.line, found.kind.value, found.name) for found in check_file(path)[1]]

    return run


GOOD = """
from __future__ import annotations
import prefect as p
from prefect import flow as f, task, get_run_logger, tags, unmapped
from prefect.states import Completed
if True:
    from prefect import State

@task(retries=3, retry_delay_seconds=60, name="x", tags=["a"])
def load(x): return x

@f(name="etl", log_prints=True, task_runner=None)
def etl(x: int = 1) -> State:
    get_run_logger().info("hi")
    with tags("a"):
        futures = load.map([1, 2], y=unmapped(3))
    future = load.with_options(retries=1).submit(x)
    future.wait()
    return Completed(message=str(future.state.is_completed()))

again = etl.with_options(retries=2)
state = again(return_state=True)
print(state.is_failed(), again.name, again.fn, etl.visualize, load.submit(1).result())
@p.flow
def other(): pass
"""


def test_a_file_that_uses_what_is_there_has_no_findings(check) -> None:  # type: ignore[no-untyped-def]
    assert check(GOOD) == []


def test_the_same_file_after_the_replacement_has_none_either(check) -> None:  # type: ignore[no-untyped-def]
    assert check(GOOD.replace("prefect", "wfengine")) == []
    assert check("from wfengine import get_client") == [(1, "missing", "prefect.get_client")]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from prefect import get_client", "prefect.get_client"),
        ("from prefect import flow, get_client as c", "prefect.get_client"),
        ("import prefect as p; p.get_client()", "prefect.get_client"),
        ("import prefect as p; x = p.server.api", "prefect.server.api"),
        ("import prefect; prefect.flow_engine_of_mine", "prefect.flow_engine_of_mine"),
        ("from prefect.client.orchestration import PrefectClient", "prefect.client.orchestration.PrefectClient"),
        ("from prefect.workers import *", "prefect.workers"),
        ("import prefect.infrastructure as i", "prefect.infrastructure"),
        ("from prefect.states import Complete", "prefect.states.Complete"),
        ("from prefect._internal import x", "prefect._internal.x"),
        ("from prefect import Flow; Flow.from_source('a')", "prefect.Flow.from_source"),
        ("from prefect import task\n@task\ndef f(): ...\nf.nonsense()", "Task.nonsense"),
        ("from prefect import flow\n@flow(name='a')\nasync def f(): ...\nf.from_source('a')", "Flow.from_source"),
        ("import prefect as p\ng = p.flow(len)\ng.from_source('a')", "Flow.from_source"),
        ("from prefect import task\n@task\ndef f(): ...\nx = f.submit()\nx.get_state()", "Future.get_state"),
        ("from prefect import flow\n@flow\ndef f(): ...\nx = f(return_state=True)\nx.is_done()", "State.is_done"),
        ("from prefect import flow\n@flow(work_pool='a')\ndef f(): ...", "@flow(work_pool)"),
        ("import prefect as p\n@p.task(retry=3)\ndef f(): ...", "@task(retry)"),
        ("from prefect import task\n@task(asset_deps=[])\ndef f(): ...", "@task(asset_deps)"),
        ("from prefect import task\n@task\ndef f(): ...\nf.with_options(retry=3)()", "@task(retry)"),
        ("from prefect import flow\n@flow\ndef f(): ...\ng = f.with_options(a=1)", "@flow(a)"),
        ("from prefect import unmapped\nunmapped(1, whole=True)", "prefect.unmapped(whole)"),
        ("import importlib; importlib.import_module('prefect.workers')", "prefect.workers"),
        ("def f():\n    from prefect import get_client", "prefect.get_client"),
        ("from prefect_aws import S3Bucket", "prefect_aws.S3Bucket"),
        ("from prefect_dask import DaskTaskRunner", "prefect_dask.DaskTaskRunner"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_line(check, line: str, name: str) -> None:  # type: ignore[no-untyped-def]
    found = check(line)

    assert [(kind, there) for _, kind, there in found] == [("missing", name)]
    assert found[0][0] == len(line.split("\n")) or "@" in name or "def f" in line.split("\n")[0]


def test_a_name_that_is_bound_to_several_things_is_left_alone(check) -> None:  # type: ignore[no-untyped-def]
    text = """
    from prefect import task
    @task
    def load(): ...
    future = load.submit()
    future = future.result()
    future.append(1)
    def other(load):
        load.anything()
    """
    assert check(text) == []


def test_what_changes_by_itself_in_a_flow_s_own_code_is_named(check) -> None:  # type: ignore[no-untyped-def]
    text = """
    import random, time as clock
    from datetime import datetime as dt
    from prefect import flow, task

    @task
    def load(x):
        return dt.now()

    @flow
    def etl(today=dt.now()):
        load(dt.now())
        x = [random.random(), clock.time()]

        @task
        def inner():
            return dt.now()

    dt.now()
    """
    assert check(text) == [
        (11, "differs", "datetime.datetime.now"), (12, "differs", "datetime.datetime.now"),
        (13, "differs", "random.random"), (13, "differs", "time.time"),
    ]  # fmt: skip


def test_an_import_that_binds_the_name_prefect_is_named(check) -> None:  # type: ignore[no-untyped-def]
    assert check("import prefect.states\nprefect.states.Completed()") == [(1, "differs", "import prefect.states")]


def test_relative_imports_and_other_packages_are_none_of_its_business(check) -> None:  # type: ignore[no-untyped-def]
    assert check("from . import prefect\nfrom .prefect import get_client\nimport prefectural\nfrom os import path") == []


def test_nothing_of_a_checked_file_is_run_or_imported(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "helper.py").write_text("import os; os.mkdir('ran')\n")
    (tmp_path / "etl.py").write_text("import helper\nfrom prefect import flow\nhelper.go()\n__import__('os').mkdir('ran')\n")

    assert cli("migrate-check", "etl.py").code == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"def f(:\n", b"\xff\xfe\x00", b"x = '\x00'", b"flows:\n  - a: [", b"(" * 5000, b"# coding: nonsense\n"]
)
def test_what_is_no_python_is_said_to_be_unreadable(tmp_path: Path, cli: Cli, content: bytes) -> None:
    (tmp_path / "prefect.yaml").write_bytes(content)

    answer = cli("migrate-check", "prefect.yaml")

    assert (answer.code, answer.err) == (1, "")
    assert "unreadable" in answer.out.splitlines()[0]


def test_a_file_too_large_to_be_written_by_hand_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"#" * (FILE_LIMIT + 1))

    assert check_file(tmp_path / "big.py")[1][0].kind is Kind.UNREADABLE


def test_a_file_with_odd_escapes_is_still_python(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "etl.py").write_text("from prefect import flow\nx = '\\d'\n")

    assert (cli("migrate-check", "etl.py").code, cli("migrate-check", "etl.py").err) == (0, "")


def test_a_folder_stands_for_the_python_files_in_it_but_not_for_other_people_s(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.py", "sub/c.txt", ".hidden/d.py", "__pycache__/e.py", "venv/f.py", "venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from prefect import get_client\n")

    report = check_paths([tmp_path])

    assert [finding.path.relative_to(tmp_path).as_posix() for finding in report.findings] == ["a.py", "sub/b.py"]
    assert (report.files, report.prefect_files) == (2, 2)


def test_the_verdict_counts_and_says_what_to_type(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "bad.py").write_text("from prefect import flow, get_client\n")
    (tmp_path / "good.py").write_text("from prefect import flow\n")
    (tmp_path / "other.py").write_text("print(1)\n")

    bad, good, other = (cli("migrate-check", name) for name in ("bad.py", "good.py", "other.py"))

    assert (bad.code, good.code, other.code) == (1, 0, 0)
    assert bad.out.startswith("bad.py:1: missing    prefect.get_client: there is no server")
    assert "1 file checked, 1 of them with Prefect: 1 missing, 0 different." in bad.out
    assert "It runs when the imports are replaced:\n  sed -i.old" in good.out
    assert other.out == "1 file checked: none uses Prefect.\n"
    assert cli("migrate-check", "-q", "bad.py").out == ""


def test_the_line_it_shows_replaces_the_imports(tmp_path: Path, cli: Cli) -> None:
    before = "import prefect\nfrom prefect import flow\nif 1:\n    from prefect.states import State\nimport prefect_aws\n"
    before += "import prefect as p\nprefect.flow('the text prefect')\n"
    (tmp_path / "etl.py").write_text(before)
    line = cli("migrate-check", "etl.py").out.splitlines()[-1].strip()

    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)

    assert shlex.split(line)[-1] == "etl.py"
    assert (tmp_path / "etl.py").read_text() == (
        "import wfengine as prefect\nfrom wfengine import flow\nif 1:\n    from wfengine.states import State\n"
        "import prefect_aws\nimport wfengine as p\nprefect.flow('the text prefect')\n"
    )


def test_json_has_the_counts_and_the_findings(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "etl.py").write_text("from prefect import flow, get_client\n")

    answer = cli("migrate-check", "--json", "etl.py", "etl.py")

    assert answer.code == 1
    assert {**answer.object, "findings": None} == {
        "schema_version": 1, "command": "migrate-check", "files": 2, "prefect_files": 2, "missing": 2, "differs": 0,
        "unreadable": 0, "findings": None,
    }  # fmt: skip
    found = json.loads(answer.out)["findings"][0]
    assert {**found, "text": None} == {
        "path": "etl.py", "line": 1, "kind": "missing", "name": "prefect.get_client", "text": None,
    }  # fmt: skip


def test_wrong_usage_is_said(tmp_path: Path, cli: Cli) -> None:
    assert cli("migrate-check").code == 2
    missing = cli("migrate-check", "nowhere.py")
    assert (missing.code, missing.out) == (2, "")
    assert "There is no file or folder nowhere.py" in missing.err


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path, cli: Cli) -> None:
    name = "a\x1b[31m\u202eb.py"
    (tmp_path / name).write_text("from prefect import get_client\n")

    assert "\x1b" not in cli("migrate-check", name).out
    assert "\u202e" not in cli("migrate-check", ".").out


def test_nothing_that_is_said_to_be_left_out_is_there(tmp_path: Path) -> None:
    for name in LEFT_OUT:
        # Of a package some of which is there, the rest is what is left out.
        text = f"import prefect as p\np.{name}.of_nothing" if "@" not in name else ""
        if text:
            (tmp_path / "a.py").write_text(text)
            assert [finding.kind for finding in check_file(tmp_path / "a.py")[1]] == [Kind.MISSING], name


def test_everything_that_is_said_to_differ_is_there(tmp_path: Path) -> None:
    for name in DIFFERS:
        decorator, _, option = name.rstrip(")").partition("(")
        text = f"import prefect as p\np.{name}" if not option else f"import prefect as p\np.{decorator[1:]}({option}=1)"
        (tmp_path / "a.py").write_text(text)
        assert [finding.kind for finding in check_file(tmp_path / "a.py")[1]] == [Kind.DIFFERS], name
