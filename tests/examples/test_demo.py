"""`wfengine demo`, end to end: real kills, and the numbers it prints are those of the journal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import EXAMPLES, python, query, shell

from wfengine.demo import example_source

pytestmark = pytest.mark.crash


def _demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return shell(folder, "wfengine demo")


#: A folder, and what was printed there.
Shown = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Run the demo once, for all who only look at what came of it."""
    folder = tmp_path_factory.mktemp("shown")
    return folder, _demo(folder)


def test_the_demo_kills_resumes_and_finds_the_reports_identical(shown: Shown) -> None:
    folder, ended = shown
    assert ended.returncode == 0, ended.stderr
    assert "exit status -9" in ended.stdout
    assert "234 rows against 234: identical" in ended.stdout
    journal = folder / "wfengine-demo" / "journal.db"
    counts = query(journal, "SELECT task, count(*), sum(replayed), sum(NOT replayed) FROM tasks GROUP BY task")
    printed = re.findall(r"^ +(\w+) +(\d+) +(\d+) +(\d+)$", ended.stdout, re.MULTILINE)
    assert sorted(printed) == sorted(tuple(map(str, row)) for row in counts)
    [(replayed,)] = query(journal, "SELECT count(*) FROM tasks WHERE task = 'summarise' AND replayed")
    assert 117 <= int(str(replayed)) < 234


def test_the_demo_can_be_repeated_and_keeps_an_edited_flow_and_the_history(shown: Shown, tmp_path: Path) -> None:
    shutil.copytree(shown[0], tmp_path, dirs_exist_ok=True)
    flow_file = tmp_path / "wfengine-demo" / "airports.py"
    flow_file.write_text(flow_file.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8")

    ended = _demo(tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "was edited; the demo uses it as it is" in ended.stdout
    assert flow_file.read_text(encoding="utf-8").endswith("# mine\n")
    runs = query(tmp_path / "wfengine-demo" / "journal.db", "SELECT state FROM runs WHERE flow = 'airports'")
    assert runs == [("COMPLETED",), ("COMPLETED",)]


def test_the_demo_says_its_verdict_only_when_quiet_and_one_object_with_json(tmp_path: Path) -> None:
    assert shell(tmp_path, "wfengine demo -q").stdout == "234 rows against 234: identical\n"
    found = json.loads(shell(tmp_path, "wfengine demo --json").stdout)
    assert (found["command"], found["identical"], found["rows"]) == ("demo", True, 234)
    assert [task["calls"] for task in found["tasks"] if task["task"] == "summarise"] == [234]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wfengine-demo").write_text("a file is in the way", encoding="utf-8")
    ended = _demo(tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error[WF100]: The demo cannot write its folder")
    assert len(ended.stderr.splitlines()) == 1


def test_the_commands_that_the_demo_recommends_work(shown: Shown) -> None:
    folder, printed = shown[0], shown[1].stdout
    commands = [line.strip() for line in printed.partition("Look at it:")[2].splitlines() if line.strip()]

    assert len(commands) == 3
    assert commands[0].startswith("sqlite3 ")
    statement = re.findall(r'"(.*)"', commands[0])[0]
    assert len(query(folder / "wfengine-demo" / "journal.db", statement)) == 4
    for command in commands[1:]:
        ended = shell(folder, command)
        assert ended.returncode == 0, ended.stderr


def test_the_demo_runs_the_very_file_that_stands_among_the_examples() -> None:
    assert example_source().read_bytes() == (EXAMPLES / "airports.py").read_bytes()


def test_without_the_airports_package_the_demo_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['airportsdata'] = None\n"
        "from pathlib import Path; from wfengine.demo import run_demo\n"
        "try: run_demo(Path('demo'), say=print)\n"
        "except Exception as error: print(error.code, error)"
    )

    ended = python(tmp_path, "-c", program)

    assert ended.stdout.startswith("WF100")
    assert "pip install 'wfengine[examples]'" in ended.stdout
    assert not (tmp_path / "demo").exists()
