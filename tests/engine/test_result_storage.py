"""Results outside of the journal: which go there, that they survive, and what happens when their files do not."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task, use_journal
from wfengine.cache_policies import INPUTS
from wfengine.filesystems import LocalFileSystem, WritableFileSystem
from wfengine.recovery import resume_run
from wfengine.results import ResultStore, get_result_store
from wfengine_journal.errors import NotFoundError, StoredResultError, UsageError, ValueNotStorableError

LARGE = "x" * 5000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


def files(folder: Path) -> list[str]:
    """Return the files below a folder, by their path in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------- what goes where


@pytest.mark.parametrize("option", ["path", "address", "filesystem"])
def test_a_large_result_goes_to_the_folder_and_a_small_one_to_the_journal(folder: Path, rows: Rows, option: str) -> None:
    storage = {"path": folder, "address": folder.as_uri(), "filesystem": LocalFileSystem(basepath=folder)}[option]

    @task(result_storage=storage)
    def make(size: int) -> str:
        return "x" * size

    @flow
    def main() -> list[int]:
        return [len(make(5000)), len(make(5))]

    assert main() == [5000, 5]
    (name,) = files(folder)
    assert json.loads((folder / name).read_text()) == LARGE
    assert rows("SELECT result_codec FROM task_run ORDER BY id") == [("stored",), ("json",)]
    ((reference,),) = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    found = json.loads(str(reference))
    assert (found["at"], found["path"], found["codec"], found["size"]) == (folder.resolve().as_uri(), name, "json", 5002)
    assert rows("SELECT count(*) FROM value WHERE codec <> 'cloudpickle-flow'") == [(0,)]
    assert str(rows("SELECT result FROM tasks WHERE id = 1")[0][0]).startswith('"xxxx')


def test_equal_results_share_one_file_and_different_ones_do_not(folder: Path) -> None:
    @task(result_storage=folder)
    def make(letter: str, number: int) -> str:
        return letter * 5000

    @flow
    def main() -> None:
        make("a", 1), make("a", 2), make("b", 3)

    main(), main()
    assert len(files(folder)) == 2


def test_a_flow_s_storage_serves_its_own_result_its_tasks_and_its_subflows(folder: Path, rows: Rows) -> None:
    @task
    def make(letter: str) -> str:
        return letter * 5000

    @flow
    def child() -> str:
        return make("b")

    @flow(result_storage=folder)
    def parent() -> str:
        return make("a") + child()

    assert parent() == "a" * 5000 + "b" * 5000
    assert len(files(folder)) == 3
    assert rows("SELECT DISTINCT result_codec FROM task_run") == [("stored",)]
    assert rows("SELECT result_codec FROM flow_run") == [("stored",)] * 2


def test_a_task_s_storage_goes_before_its_flow_s(folder: Path, tmp_path: Path) -> None:
    @task(result_storage=tmp_path / "own")
    def make() -> str:
        return LARGE

    @flow(result_storage=folder)
    def main() -> int:
        return len(make())

    main()
    assert len(files(tmp_path / "own")) == 1
    assert not folder.exists()


def test_serializer_and_storage_go_together(folder: Path) -> None:
    @task(result_storage=folder, result_serializer="json", result_storage_key="numbers.json")
    def make() -> object:
        return tuple(range(3))

    @flow
    def main() -> object:
        return make()

    assert main() == [0, 1, 2]
    assert (folder / "numbers.json").read_text() == "[0, 1, 2]"


def test_a_storage_key_names_a_file_also_of_a_small_result(folder: Path, rows: Rows) -> None:
    @task(result_storage=folder, result_storage_key="{flow_run.flow_name}/{task_run.task_name}-{parameters[day]}.json")
    def load(day: str) -> list[str]:
        return [day]

    @flow
    def etl() -> list[list[str]]:
        return [load("monday"), load("tuesday"), load("monday")]

    assert etl() == [["monday"], ["tuesday"], ["monday"]]
    assert (folder / "etl" / "load-monday.json").read_text() == '["monday"]'
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("Completed",), ("Completed",), ("Cached",)]
    assert [key for (key,) in rows("SELECT key FROM cache_entries ORDER BY key")] == [
        "etl/load-monday.json",
        "etl/load-tuesday.json",
    ]


def test_what_a_later_run_writes_under_the_same_key_does_not_change_an_earlier_result(program: Program) -> None:
    program.write("""
        @task(result_storage=HERE / "results", result_storage_key="latest.json", refresh_cache=True)
        def load(number):
            note(f"load-{number}")
            return [number]

        @flow
        def main(number):
            found = load(number)
            if number == 1 and first_time():
                kill()
            return found

        main(int(os.environ["NUMBER"]))
    """)
    program.environment["NUMBER"] = "1"
    program.run_and_be_killed()
    program.environment["NUMBER"] = "2"
    assert program.run().code == 0
    assert (program.folder / "results" / "latest.json").read_text() == "[2]"
    assert program.resume(1, recovery=True)["result"] == "[1]"
    assert program.effects == ["load-1", "load-2"]


# ---------------------------------------------------------------------------------------------------- after a kill

STORED = """
    @task(result_storage=HERE / "results")
    def make(letter):
        note(letter)
        return letter * 5000

    @flow
    def main():
        made = make("a")
        if first_time():
            kill()
        return len(made)

    main()
"""


def test_a_stored_result_replays_after_a_kill(program: Program) -> None:
    program.write(STORED)
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "5000"
    assert program.effects == ["a"]


@pytest.mark.parametrize("damage", ["deleted", "changed", "cut"])
def test_a_missing_or_damaged_file_stops_the_resume_with_its_name_and_runs_nothing(
    program: Program, rows: Rows, damage: str
) -> None:
    program.write(STORED)
    program.run_and_be_killed()
    (name,) = files(program.folder / "results")
    file = program.folder / "results" / name
    content = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content.replace(b"a", b"b"))
    answer = program.resume(recovery=True)
    assert answer["error"] == "StoredResultError"
    assert name in str(answer["text"])
    assert "the result of task run 1 of 'make'" in str(answer["text"])
    assert program.effects == ["a"]
    file.write_bytes(content)
    assert program.resume(recovery=True)["result"] == "5000"
    assert program.effects == ["a"]


def test_a_folder_that_was_moved_is_found_through_the_program_s_option(program: Program) -> None:
    program.write(STORED)
    program.run_and_be_killed()
    (program.folder / "results").rename(program.folder / "elsewhere")
    program.write(STORED.replace('"results"', '"elsewhere"'))
    assert program.resume()["result"] == "5000"
    assert program.effects == ["a"]


# ---------------------------------------------------------------------------------------------------- with the cache


@pytest.mark.parametrize("which", ["content", "key"])
def test_deleting_the_file_of_a_cached_result_means_to_compute_it_again(folder: Path, rows: Rows, which: str) -> None:
    ran: list[int] = []
    options = {"cache_policy": INPUTS} if which == "content" else {"result_storage_key": "{parameters[x]}.json"}

    @task(result_storage=folder, **options)  # type: ignore[call-overload]
    def make(x: int) -> str:
        ran.append(x)
        return "x" * 5000

    @flow
    def main() -> int:
        return len(make(7))

    assert [main(), main()] == [5000, 5000]
    (folder / "7.json" if which == "key" else folder / files(folder)[0]).unlink()
    assert [main(), main()] == [5000, 5000]
    assert ran == [7, 7]
    assert rows("SELECT outcome FROM cache_uses ORDER BY task_id") == [("miss",), ("hit",), ("damaged",), ("hit",)]
    assert "is missing or damaged" in str(rows("SELECT message FROM cache_uses WHERE outcome = 'damaged'"))


# ---------------------------------------------------------------------------------------------------- other storages


class Shelf:
    """A storage of the user's own."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write_path(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def read_path(self, path: str) -> bytes:
        return self.files[path]


class AsyncShelf(WritableFileSystem):
    """One whose methods are async, as in Prefect."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def write_path(self, path: str, content: bytes) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.files[path] = content

    async def read_path(self, path: str) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.files[path]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("shelf", [Shelf(), AsyncShelf()], ids=lambda shelf: type(shelf).__name__)
def test_any_object_that_writes_and_reads_paths_is_a_storage(shelf: Shelf | AsyncShelf, is_async: bool, rows: Rows) -> None:
    shelf.files.clear()

    @task(cache_policy=INPUTS, result_storage=shelf, result_storage_key=None)
    def make(x: int) -> str:
        return "x" * x

    @flow
    def sync_main() -> list[int]:
        return [len(make(5000)), len(make(5000)), len(make.submit(6000).result())]

    @flow
    async def async_main() -> list[int]:
        return [len(make(5000)), len(make(5000)), len(await make.submit(6000))]

    assert (asyncio.run(async_main()) if is_async else sync_main()) == [5000, 5000, 6000]
    assert sorted(map(len, shelf.files.values())) == [5002, 6002]
    assert rows("SELECT state_name FROM tasks ORDER BY id") == [("Completed",), ("Cached",), ("Completed",)]


def test_a_storage_that_does_not_take_the_file_fails_the_task(rows: Rows) -> None:
    class Full(Shelf):
        def write_path(self, path: str, content: bytes) -> None:
            raise OSError(28, "No space left on device")

    @task(result_storage=Full())
    def make() -> str:
        return LARGE

    @flow
    def main() -> None:
        make()

    with pytest.raises(ValueNotStorableError, match="No space left on device"):
        main()
    assert rows("SELECT state FROM tasks") == [("FAILED",)]


def test_a_storage_that_gives_other_bytes_back_is_found_out_on_replay_only_as_an_error() -> None:
    shelf = Shelf()

    @task(result_storage=shelf, cache_policy=INPUTS)
    def make() -> str:
        return LARGE

    @flow
    def main() -> int:
        return len(make())

    main()
    shelf.files = dict.fromkeys(shelf.files, b"other")
    assert main() == 5000


# ---------------------------------------------------------------------------------------------------- options and files


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("sftp://host/results", "cannot be kept at sftp://"),
        ("local-file-system/mine", "is no address"),
        ("file://other-host/x", "is no address"),
        (5, "must be a folder"),
        (object(), "must be a folder"),
    ],
)
def test_what_is_no_storage_is_refused_at_decoration(option: object, text: str) -> None:
    for decorator in (task, flow):
        with pytest.raises(UsageError, match=text):
            decorator(result_storage=option)(lambda: None)  # type: ignore[call-overload, operator]


def test_a_storage_key_that_leads_out_of_the_folder_is_not_used(folder: Path, rows: Rows) -> None:
    @task(result_storage=folder, result_storage_key="{parameters[name]}")
    def make(name: str) -> str:
        return LARGE

    @flow
    def main() -> None:
        make("../outside"), make("/etc/outside"), make("inside")

    main()
    assert not (folder.parent / "outside").exists()
    assert "inside" in files(folder)
    assert rows("SELECT outcome FROM cache_uses ORDER BY task_id") == [("no key",), ("no key",), ("miss",)]


def test_a_local_file_system_writes_whole_files_into_its_folder_only(folder: Path) -> None:
    system = LocalFileSystem(basepath=folder)
    assert system.write_path("a/b.txt", b"one") == str((folder / "a" / "b.txt").resolve())
    system.write_path("a/b.txt", b"two")
    assert system.read_path("a/b.txt") == b"two"
    assert asyncio.run(system.aread_path("a/b.txt")) == b"two"
    assert files(folder) == ["a/b.txt"]
    assert (folder / "a" / "b.txt").stat().st_mode & 0o077 == 0
    for path in ("../x", "/x", ".", "a/../../x"):
        with pytest.raises(UsageError, match="leads out of the folder"):
            system.write_path(path, b"")
    (folder / "link").symlink_to(folder.parent)
    with pytest.raises(UsageError, match="leads out of the folder"):
        system.write_path("link/x", b"")


def test_linking_replaces_the_name_and_keeps_the_content(folder: Path) -> None:
    system = LocalFileSystem(folder)
    system.write_path("one", b"1")
    system.write_path("two", b"2")
    for content in ("one", "one", "two"):
        system.link_path("named/it", content)
    assert (folder / "named" / "it").read_bytes() == b"2"
    assert files(folder) == ["named/it", "one", "two"]
    assert system.read_path("one") == b"1"


def test_a_write_that_fails_leaves_nothing_behind(folder: Path) -> None:
    system = LocalFileSystem(folder)
    system.write_path("there", b"1")
    with pytest.raises(TypeError):
        system.write_path("there", None)  # type: ignore[arg-type]
    assert files(folder) == ["there"]
    assert system.read_path("there") == b"1"


def test_an_empty_base_path_is_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.chdir(folder)
    LocalFileSystem().write_path("here", b"1")
    assert files(folder) == ["here"]


def test_reading_and_listing_a_journal_opens_no_stored_file(folder: Path, rows: Rows) -> None:
    @task(result_storage=folder)
    def make() -> str:
        return "only here" * 5000

    @flow(result_storage=folder)
    def main() -> str:
        return make()

    main()
    for file in folder.iterdir():
        file.unlink()
    assert rows("SELECT count(*) FROM runs JOIN tasks ON tasks.run_id = runs.id") == [(1,)]
    with pytest.raises(StoredResultError, match="the result of flow run 1"):
        resume_run(use_journal(rows.path), 1)


def test_a_folder_that_cannot_be_made_fails_the_task_with_its_name(folder: Path) -> None:
    folder.write_text("a file")

    @task(result_storage=folder / "inside")
    def make() -> str:
        return LARGE

    @flow
    def main() -> None:
        make()

    with pytest.raises(ValueNotStorableError, match="did not take the file"):
        main()


# ---------------------------------------------------------------------------------------------------- keys of one's own


def test_a_result_store_keeps_values_under_keys(folder: Path, clock: FakeClock, rows: Rows) -> None:
    store = ResultStore(result_storage=folder, serializer="json")
    assert not store.exists("report")
    with pytest.raises(NotFoundError, match="no result under the key 'report'"):
        store.read("report")
    store.write((1, 2), key="report", expiration=datetime.fromtimestamp(clock.now + 60, UTC))
    store.write(LARGE, key="large")
    assert store.exists("report")
    assert store.read("report").result == [1, 2]
    assert store.read("report").expiration == datetime.fromtimestamp(clock.now + 60, UTC)
    assert asyncio.run(store.aread("large")).result == LARGE
    assert len(files(folder)) == 1
    clock.now += 60
    assert not store.exists("report")
    assert rows("SELECT key, task, run_id FROM cache_entries ORDER BY key") == [("large", None, 0), ("report", None, 0)]
    with pytest.raises(UsageError, match="time zone"):
        store.write(1, key="naive", expiration=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_a_result_store_and_a_cached_task_share_their_keys(rows: Rows) -> None:
    ran: list[int] = []

    @task(cache_key_fn=lambda context, parameters: f"square of {parameters['x']}")
    def square(x: int) -> int:
        ran.append(x)
        return x * x

    @flow(result_serializer="json")
    def main() -> list[object]:
        get_result_store().write(100, key="square of 10")
        return [square(10), square(3), get_result_store().read("square of 3").result]

    assert main() == [100, 9, 9]
    assert ran == [3]
    assert rows("SELECT message FROM tasks WHERE state_name = 'Cached'") == [
        ("the cached value that was kept under the key 'square of 10' by hand",)
    ]
