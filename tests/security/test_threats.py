"""One test for each threat that is not tested beside the code it is about; `SECURITY.md` has the table of all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from tests.damage.child import STEERING, VERBS
from tests.damage.damages import Damage, hostile
from tests.damage.harness import Bench
from tests.damage.hostile_rows import HOSTILE
from tests.damage.rich import environment, make_rich
from wfengine import stored_files
from wfengine_journal.errors import JournalError
from wfengine_journal.queries import reading

FILTERS = ["' OR 1=1 --", "x') UNION SELECT 1 --", '"; DROP TABLE flow_run; --', "%", "_", "\\", "*", "[a-z]*"]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rich(tmp_path_factory.mktemp("rich"))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(folder), text=True, capture_output=True, check=False,
        stdin=subprocess.DEVNULL, timeout=240,
    )  # fmt: skip


def audited(folder: Path) -> dict[str, list[str]]:
    done = python(folder, "-m", "tests.security.audited", str(folder), *map(json.dumps, VERBS))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_t1_no_reading_verb_loads_a_pickle_runs_code_or_programs_uses_the_network_or_writes_elsewhere(
    rich: Path, tmp_path: Path
) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        # Code that is named there is code of a user: no verb that reads imports it. Nor does a pickle that is no bytes tempt.
        connection.execute("UPDATE deployment SET entrypoint = 'module:os:system'")
        connection.execute("UPDATE flow_run SET entrypoint = 'module:os:system'")
        connection.execute("UPDATE task_run SET result_codec = 'pickle', result = x'8004' WHERE result_codec = 'json'")
        connection.commit()
    assert audited(tmp_path) == {}


def test_t1_the_audit_finds_what_is_forbidden(tmp_path: Path) -> None:
    program = """
import io, os, pickle, sys
from pathlib import Path
from tests.security.audited import Watch
watch = Watch(Path.cwd())
sys.addaudithook(watch)
watch.is_on = True
pickle.loads(b"cos\\nsystem\\n.")
eval("1")
open(os.path.join("..", "elsewhere"), "w").close()
open("here", "w").close()
watch.is_on = False
print([text.split()[0] for text in watch.seen])
"""
    (tmp_path / "inside").mkdir()
    done = python(tmp_path / "inside", "-c", program)
    assert done.returncode == 0, done.stderr
    assert {"pickle.find_class", "compile", "exec", "open"} == set(json.loads(done.stdout.replace("'", '"')))


def test_t2_data_of_another_value_under_a_checksum_is_refused_and_found_by_doctor(rich: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, rich)
    bench.judge(hostile(rich, tmp_path, ["swapped results", "swapped values"]), [0])
    bench.close()
    assert bench.tally.violations == []
    assert bench.tally.refused_values > 5
    assert bench.tally.found["hostile"] == 2


def test_t6_no_verb_lets_a_text_of_the_journal_steer_the_terminal(rich: Path, tmp_path: Path) -> None:
    """All texts at once; the programme of damages has each of them alone."""
    journal = tmp_path / "journal.db"
    shutil.copy(rich, journal)
    with closing(sqlite3.connect(journal)) as connection:
        for name, statement in HOSTILE.items():
            if "steer" in name:
                connection.execute(statement)
        connection.commit()
    bench = Bench(tmp_path, rich)
    bench.judge([Damage("hostile", "all texts", journal.read_bytes())])
    bench.close()
    assert bench.tally.violations == []
    assert STEERING.search("\x1b[31m")


def test_t7_pruning_deletes_no_file_that_only_a_hostile_journal_names(tmp_path: Path) -> None:
    ours = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    names = ("hosts", "Makefile", ours, ours.upper(), "..", f"{ours}0")
    for name in names:
        if name != "..":
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, 0))
    at = tmp_path.as_uri()
    references = [json.dumps({"at": at, "path": name, "hash": name, "codec": "json"}) for name in names]
    references += [
        json.dumps({"at": at, "path": f"../{tmp_path.name}/hosts", "hash": f"../{tmp_path.name}/hosts"}),
        "[" * 100_000,
    ]
    assert stored_files.delete(references) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*names} - {ours, ".."})


def test_t7_names_that_are_paths_lead_nowhere(rich: Path, tmp_path: Path) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        for table, column in (("flow_run", "name"), ("artifact", "key"), ("variable", "name"), ("deployment", "name")):
            connection.execute(f"UPDATE {table} SET {column} = '../../../../../../../../tmp/out'")
        connection.commit()
    assert audited(tmp_path) == {}
    made = {path.name for path in tmp_path.iterdir()} - {"journal.db", "journal.db-wal", "journal.db-shm", "journal.db-lock"}
    assert made == {"small.db", "copy.db", "rescued.db"}


def test_t8_what_a_filter_is_given_is_never_part_of_a_statement(rich: Path, tmp_path: Path) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    program = """
import contextlib, io, json, sys
from wfengine.cli import _run
texts = json.loads(sys.argv[1])
verbs = [["runs", "ls", "--flow", "X"], ["runs", "show", "X"], ["runs", "logs", "X"], ["events", "ls", "--name", "X"],
         ["variables", "get", "X"], ["deployments", "show", "X"], ["automations", "show", "X"], ["limits", "show", "X"],
         ["artifacts", "show", "X"], ["schedules", "show", "X"], ["prune", "--keep", "1", "--dry-run", "--flow", "X"],
         ["export", "X"]]
found = []
for verb in verbs:
    for text in texts:
        said, talk = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(talk):
            code = _run([text if word == "X" else word for word in verb])
        if code not in (0, 2, 3) or "WF900" in talk.getvalue() or "COMPLETED" in said.getvalue() or "syntax" in talk.getvalue():
            found.append([verb, text, code, said.getvalue()[:200], talk.getvalue()[:200]])
print(json.dumps(found))
"""
    done = python(tmp_path, "-c", program, json.dumps(FILTERS))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_t11_every_file_that_wfengine_makes_is_its_owner_s_alone_under_any_umask(tmp_path: Path) -> None:
    program = """
import os
os.umask(0)
from pathlib import Path
from wfengine import flow, task, use_journal
from wfengine.cli import _run

@task(result_storage=Path("results").absolute())
def big():
    return "x" * 100_000

@flow
def keeps():
    return len(big())

use_journal("made/deep/journal.db")
keeps()
os.environ["WFENGINE_JOURNAL"] = "made/deep/journal.db"
for line in ("backup made/copy.db", "backup made",
             "extract 1 made/small.db", "recover made/deep/journal.db -o made/rescued.db"):
    _run(line.split())
"""
    (tmp_path / "keeps.py").write_text(program, encoding="utf-8")
    done = python(tmp_path, "keeps.py")
    assert done.returncode == 0, done.stderr
    made = [path for path in tmp_path.rglob("*") if path.name != "keeps.py" and "__pycache__" not in path.parts]
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in made}
    assert {"made/copy.db", "made/small.db", "made/rescued.db", "made/deep/journal.db", "results"} <= set(modes)
    assert any(name.startswith("results/") for name in modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_t15_a_huge_log_line_is_cut_and_a_huge_table_is_shown_in_pages(tmp_path: Path) -> None:
    program = """
from wfengine import flow, get_run_logger
@flow
def loud():
    get_run_logger().info("x" * 10_000_000)
loud()
"""
    done = python(tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
    with reading(tmp_path / "journal.db") as connection:
        (length,) = connection.execute("SELECT max(length(message)) FROM log").fetchone()
    assert 65_536 <= length < 66_000


def test_t16_a_value_that_inflates_is_refused_before_it_does(rich: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, rich)
    bench.judge(hostile(rich, tmp_path, ["a bomb that inflates"]), [0])
    bench.close()
    assert bench.tally.violations == []
    assert bench.tally.refused_values > 0


@pytest.mark.parametrize("text", ["trigger = " + "[" * 10_000 + "]" * 10_000, 'name = "twice"', 'name = "\\u0000"', "\ud800"])
def test_t17_a_file_of_settings_that_nests_or_repeats_is_refused(tmp_path: Path, text: str) -> None:
    raw = f'[[automations]]\nname = "x"\n{text}\n'.encode("utf-8", "surrogatepass")
    (tmp_path / "settings.toml").write_bytes(raw)
    (tmp_path / "wfengine.toml").write_bytes(raw)
    for command in (["automations", "apply", "settings.toml"], ["deploy"]):
        done = python(tmp_path, "-m", "wfengine", *command)
        assert done.returncode == 2, (command, done.stderr)
        assert "WF900" not in done.stderr
        assert len(done.stderr) < 2000


def test_t18_a_deployment_of_what_is_no_flow_is_loaded_but_never_called(rich: Path, tmp_path: Path) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("UPDATE flow_run SET entrypoint = 'module:os:system'")
        connection.execute("UPDATE flow_run SET state = 'CRASHED', state_name = NULL WHERE id = 4")
        connection.commit()
    done = python(tmp_path, "-m", "wfengine", "resume", "4")
    assert done.returncode in (2, 5)
    assert "and no flow" in done.stderr


def test_t21_a_flow_whose_tasks_run_in_processes_listens_on_no_port(tmp_path: Path) -> None:
    program = """
import sys
seen = []
def watch(event, arguments):
    if event in ("socket.bind", "socket.connect"):
        seen.append((event, repr(arguments)))
sys.addaudithook(watch)
from wfengine import flow, task
from wfengine.runners.processes import ProcessTaskRunner

@task
def double(number):
    return number * 2

@flow(task_runner=ProcessTaskRunner(max_workers=2))
def doubled():
    return [future.result() for future in double.map([1, 2, 3])]

if __name__ == "__main__":
    assert doubled() == [2, 4, 6]
    assert seen == [], seen
"""
    (tmp_path / "doubled.py").write_text(program, encoding="utf-8")
    done = python(tmp_path, "doubled.py")
    assert done.returncode == 0, done.stderr


def test_a_view_of_a_hostile_writer_can_call_no_function_that_reaches_out(rich: Path, tmp_path: Path) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("DROP VIEW runs")
        connection.execute("CREATE VIEW runs AS SELECT load_extension('./evil') AS id")
        connection.commit()
    done = python(tmp_path, "-m", "wfengine", "sql", "SELECT * FROM runs")
    assert done.returncode in (2, 5)
    with pytest.raises(JournalError, match="load_extension"), reading(tmp_path / "journal.db") as connection:
        connection.execute("SELECT * FROM runs").fetchall()


def test_a_trigger_that_somebody_left_in_the_file_is_found_by_doctor_and_not_taken_along_by_recover(
    rich: Path, tmp_path: Path
) -> None:
    shutil.copy(rich, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute(
            "CREATE TRIGGER evil AFTER UPDATE ON flow_run BEGIN UPDATE flow_run SET entrypoint = 'evil.py:f'; END"
        )
        connection.commit()
    assert "trigger evil on flow_run" in python(tmp_path, "-m", "wfengine", "doctor").stdout
    done = python(tmp_path, "-m", "wfengine", "recover", "journal.db", "-o", "saved.db")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "saved.db")) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'evil'").fetchall() == []
    assert "ok       definitions" in python(tmp_path, "-m", "wfengine", "doctor", "--journal", "saved.db").stdout


def test_t10_neither_the_environment_nor_a_local_variable_of_what_failed_is_recorded(tmp_path: Path) -> None:
    """What is given to a task as `Secret` is searched for, in every form and place, by tests/secrets/test_canary.py."""
    made = hashlib.sha256(os.urandom(16)).hexdigest()
    program = """
import os
from wfengine import flow, task

@task
def connect():
    password = os.environ["CANARY_PASSWORD"]
    def open_it():
        inside = [password]
        raise ConnectionError("refused")
    open_it()

@flow
def main():
    connect()

main()
"""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment(tmp_path) | {"CANARY_PASSWORD": made},
        text=True, capture_output=True, check=False, timeout=240,
    )  # fmt: skip
    assert "ConnectionError: refused" in done.stderr
    assert (tmp_path / "journal.db").exists()
    holding = [path.name for path in tmp_path.rglob("*") if path.is_file() and made.encode() in path.read_bytes()]
    assert holding == []
    assert made not in done.stdout + done.stderr


ROOT = Path(__file__).parents[2]
#: What no release may carry: only text that can be read in the repository is shipped.
READABLE = {".py", ".sql", ".typed", ".html", ".css", ".js", ".svg", ".md", ".txt", ".toml", ".json", ".LICENSE"}


def test_t22_what_is_installed_comes_from_an_index_in_a_range_of_versions_and_nothing_compiled_is_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    everything = [*project["project"]["dependencies"], *(name for extra in extras.values() for name in extra)]
    assert [name for name in everything if "@" in name or "://" in name] == [], "from an index only"
    unbounded = [name for name in everything if not name.startswith("wfengine[") and not re.search(r"[>=]=\d", name)]
    assert unbounded == [], "each has the oldest version that was tested"
    assert project["build-system"]["requires"] == [name for name in project["build-system"]["requires"] if ">=" in name]
    shipped = [ROOT / "wfengine", ROOT / "journal" / "wfengine_journal", ROOT / "scheduler" / "wfengine_scheduler"]
    files = [path for folder in shipped for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [path.name for path in files if path.suffix not in READABLE] == []
    assert [path.name for path in files if path.is_symlink()] == []
