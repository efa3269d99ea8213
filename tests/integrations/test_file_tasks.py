"""Tasks for files: whole or not at all, the same again after a kill at any point, and nothing of others overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from tests.integrations.conftest import run_long
from wfengine import flow, task
from wfengine.cache_policies import INPUTS
from wfengine.integrations.files import copy_file, list_files, move_file, write_file
from wfengine_journal.errors import UsageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("journal.db"))


@flow
def listing(folder: Path, options: dict[str, object]) -> list[str]:
    return [Path(str(file["path"])).name for file in list_files(folder, **options)]  # type: ignore[arg-type]


def test_files_are_listed_by_a_pattern_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub" / ".hidden").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "a.txt", ".c.csv", "sub/d.csv", "sub/.hidden/e.csv"):
        (tmp_path / "in" / name).write_text(name)
    os.mkfifo(tmp_path / "in" / "pipe.csv")
    assert listing(tmp_path / "in", {"pattern": "*.csv"}) == ["a.csv", "b.csv"]
    assert listing(tmp_path / "in", {"pattern": "*.csv", "recursive": True}) == ["a.csv", "b.csv", "d.csv"]
    os.utime(tmp_path / "in" / "a.csv", (1, 1))
    assert listing(tmp_path / "in", {"pattern": "*.csv", "rest_seconds": 3600}) == ["a.csv"]
    with pytest.raises(UsageError, match="more than 1 such files"):
        listing(tmp_path / "in", {"max_files": 1})
    with pytest.raises(UsageError, match="is not there"):
        listing(tmp_path / "none", {})


def test_each_new_file_is_done_once_over_all_runs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done: list[str] = []

    @task(cache_policy=INPUTS)
    def load(file: dict[str, object]) -> None:
        done.append(Path(str(file["path"])).read_text())

    @flow
    def arrivals() -> None:
        for file in list_files(tmp_path / "in", "*.csv"):
            load(file)

    (tmp_path / "in" / "a.csv").write_text("a")
    arrivals()
    (tmp_path / "in" / "b.csv").write_text("b")
    arrivals()
    (tmp_path / "in" / "a.csv").write_text("a, changed")
    arrivals()
    arrivals()
    assert done == ["a", "b", "a, changed"]


@flow
def doing(what: str, source: Path, target: Path, options: dict[str, object]) -> str:
    return {"copy": copy_file, "move": move_file}[what](source, target, **options)  # type: ignore[arg-type, operator]


@pytest.mark.parametrize("what", ["copy", "move"])
def test_a_file_goes_to_its_place_and_to_no_other(tmp_path: Path, what: str) -> None:
    source, folder = tmp_path / "a.csv", tmp_path / "done"
    folder.mkdir()
    source.write_text("a")
    assert doing(what, source, folder, {}) == str(folder / "a.csv")
    assert (source.exists(), names(folder)) == (what == "copy", ["a.csv"])
    source.write_text("other")
    with pytest.raises(UsageError, match="is not overwritten"):
        doing(what, source, folder, {})
    assert (folder / "a.csv").read_text() == "a"
    doing(what, source, folder, {"overwrite": True})
    assert (folder / "a.csv").read_text() == "other"
    with pytest.raises(UsageError, match="is not there"):
        doing(what, tmp_path / "none", folder, {})
    with pytest.raises(UsageError, match="is not there"):
        doing(what, folder / "a.csv", tmp_path / "no" / "folder", {})
    assert names(folder) == ["a.csv"]


def test_a_file_that_was_never_there_was_not_moved_whatever_is_at_the_target(tmp_path: Path, rows: Rows) -> None:
    (tmp_path / "there").write_text("of others")

    @flow
    def moving() -> None:
        move_file.with_options(retries=2)(tmp_path / "none", tmp_path / "there")

    with pytest.raises(UsageError, match="none is not there"):
        moving()
    assert rows.value("SELECT attempts FROM tasks") == 3


def test_text_and_bytes_are_written(tmp_path: Path) -> None:
    @flow
    def writing(overwrite: bool) -> list[str]:
        return [write_file(tmp_path / "a", "ä", overwrite=overwrite), write_file(tmp_path / "b", b"\x00", overwrite=overwrite)]

    assert writing(True) == writing(False) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"\xc3\xa4\x00"
    (tmp_path / "b").write_text("other")
    with pytest.raises(UsageError, match="is not overwritten"):
        writing(False)
    assert names(tmp_path) == ["a", "b"]


#: Each step of the file system is a boundary: the process is killed before the n-th, in a forked child, and resumed in another.
PROGRAM = """
import itertools, shutil
from wfengine.integrations.files import copy_file, move_file, write_file
from wfengine.recovery import resume_run

STEPS = ("open", "os.rename", "os.remove", "shutil.copyfile", "shutil.copystat", "os.truncate")
AT, COUNT = 0, itertools.count(1)

def audit(event, words):
    if AT and event in STEPS and words and str(HERE / "work") in str(words[0]) + str(words[1:2]) and next(COUNT) == AT:
        kill()

sys.addaudithook(audit)

@flow
def main(work):
    write_file(f"{work}/a", "text")
    copy_file(f"{work}/a", f"{work}/b")
    move_file(f"{work}/a", f"{work}/c")

def in_a_child(work):
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def start(number):
    global AT
    shutil.copy(HERE / "journal.db", HERE / f"{number}.db")
    use_journal(HERE / f"{number}.db")
    AT = number
    main(str(HERE / "work" / str(number)))

def resume(number):
    resume_run(use_journal(HERE / f"{number}.db"), 1).result()

if __name__ == "__main__":
    for number in range(1, 1000):
        work = HERE / "work" / str(number)
        work.mkdir(parents=True)
        code = in_a_child(lambda: start(number))
        if code == 0:
            break
        assert code == -9, code
        assert in_a_child(lambda: resume(number)) == 0
        print(number, sorted((file.name, file.read_text()) for file in work.iterdir()))
"""


def test_files_are_as_they_should_be_wherever_the_process_is_killed(program: Program) -> None:
    program.write(PROGRAM)
    ended = [line.partition(" ")[2] for line in run_long(program)]
    assert set(ended) == {"[('b', 'text'), ('c', 'text')]"}
    assert len(ended) >= 8
