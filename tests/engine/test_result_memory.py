"""Results that leave memory because the journal has them: how much goes, what comes back, and what must never differ."""

from __future__ import annotations

import gc
import json
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wfengine import TaskFutureList, flow, task
from wfengine.ended_calls import EndedCall
from wfengine.recovery import resume_run
from wfengine.result_memory import KEPT_AT_LEAST, ROOM_BYTES
from wfengine.task_engine import Call
from wfengine_journal.errors import JournalCorruptError, StoredResultError
from wfengine_journal.store import Journal

if TYPE_CHECKING:
    from conftest import Program, Rows

#: A result of so many characters, and so many of them that most find no room.
SIZE = 100_000
MANY = 3 * ROOM_BYTES // SIZE


class Box:
    """What can be seen to be alive, and has no canonical form."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.load = bytes(SIZE)


@task
def make_box(number: int) -> Box:
    return Box(number)


@task
def make_table(number: int) -> dict[str, object]:
    return {"number": number, "load": "x" * SIZE, "rows": [1, 2]}


@task
def make_text(number: int) -> str:
    return f"{number} {'x' * SIZE}"


def number_in(text: str) -> int:
    return int(text.split()[0])


def boxes_alive() -> int:
    gc.collect()
    return sum(type(found) is Box for found in gc.get_objects())


def press(first: int) -> None:
    """Have so many other results that those before find no room, unless they are in use; they are asked for twice."""
    others = make_text.map(range(first, first + MANY))
    for _ in range(2):
        others.result()


# What goes


def test_results_of_futures_that_are_held_leave_memory_and_all_come_back() -> None:
    alive: list[int] = []

    @flow
    def main() -> list[int]:
        futures = make_box.map(range(MANY))
        futures.wait()
        alive.append(boxes_alive())
        numbers = [future.result().number for future in futures]
        alive.append(boxes_alive())
        return numbers

    assert main() == list(range(MANY))
    # Those which are being settled, and asked for, come to those which have room.
    assert all(count <= ROOM_BYTES // SIZE + 40 for count in alive)


def test_what_has_room_stays_the_very_object() -> None:
    @flow
    def main() -> None:
        few, small = make_text.map(range(KEPT_AT_LEAST)), make_small.map(range(500))
        first = [id(future.result()) for future in few]
        assert [id(future.result()) for future in few] == first
        first = [id(future.result()) for future in small]
        make_text.map(range(MANY)).wait()
        assert [id(future.result()) for future in small] == first

    main()


@task
def make_small(number: int) -> list[int]:
    return [number]


def test_nothing_but_a_small_record_is_left_of_a_settled_call() -> None:
    class Argument:
        pass

    @task
    def use(argument: object, number: int) -> int:
        return number

    seen: list[weakref.ref[Argument]] = []

    def arguments() -> Iterator[Argument]:
        for _ in range(200):
            argument = Argument()
            seen.append(weakref.ref(argument))
            yield argument

    @flow
    def main() -> TaskFutureList[int]:
        futures = use.map(arguments(), 7, max_in_flight=10)
        futures.wait()
        assert all(type(future.call) is EndedCall for future in futures)
        assert [future.state.name for future in futures] == ["Completed"] * 200
        assert len({future.task_run_id for future in futures}) == 200
        gc.collect()
        assert sum(reference() is not None for reference in seen) <= 1  # a worker may still have the last one on its stack
        assert not [call for call in gc.get_objects() if type(call) is Call and call.callee.name == "use"]
        return futures

    main()


def test_memory_does_not_grow_with_the_results_of_a_map(program: Program) -> None:
    """Measured: 20 MB more than at the start; 100 MB of results, all asked for while the futures are held."""
    program.write(
        """
        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

        @task
        def make(number):
            return f"{number:010000d}"

        @flow(durability="process")
        def main(tasks):
            futures = make.map(range(tasks))
            futures.wait()
            return sum(int(future.result()) for future in futures)

        if not Path("/proc/self/status").exists():
            sys.exit()
        main(100)
        before = peak()
        assert main(10_000) == sum(range(10_000))
        print(peak() - before)
        """
    )
    printed = program.run().out.strip()
    assert not printed or float(printed) < 60


# What comes back


def test_a_result_that_somebody_holds_stays_the_very_object() -> None:
    @flow
    def main() -> None:
        box, table, text = make_box.submit(1), make_table.submit(1), make_text.submit(1)
        held = box.result(), table.result(), text.result()
        press(100)
        assert (box.result(), table.result(), text.result()) == held
        assert box.result() is held[0]
        assert table.result() is held[1]

    main()


def test_a_result_that_was_changed_in_place_stays_changed() -> None:
    @flow
    def main() -> None:
        at_once, later, boxed, untouched = (
            make_table.submit(1), make_table.submit(2), make_box.submit(3), make_table.submit(4),
        )  # fmt: skip
        at_once.result()["rows"] = "changed"
        boxed.result().number = -3
        press(100)
        later.result()["rows"] = "changed"  # after it had been read again
        press(100 + MANY)
        assert [future.result()["rows"] for future in (at_once, later, untouched)] == ["changed", "changed", [1, 2]]
        assert boxed.result().number == -3

    main()


def test_a_result_with_a_serializer_of_its_own_comes_back_by_it_and_stays_changed() -> None:
    @task(result_serializer="pickle")
    def serialized(number: int) -> dict[str, object]:
        return {"number": number, "load": "x" * SIZE}

    @flow
    def main() -> None:
        kept, changed = serialized.submit(1), serialized.submit(2)
        changed.result()["number"] = -2
        press(100)
        assert (kept.result()["number"], changed.result()["number"]) == (1, -2)

    main()


def test_states_and_tasks_that_are_given_a_future_get_a_result_that_had_gone() -> None:
    @task
    def number_of(table: dict[str, object]) -> object:
        return table["number"]

    @flow
    def main() -> None:
        tables = make_table.map(range(MANY))
        press(1000)
        assert number_of.map(tables).result() == list(range(MANY))
        assert [future.state.result()["number"] for future in tables[:5]] == list(range(5))
        assert number_of(tables[0]) == 0

    main()


def test_what_has_no_canonical_form_is_known_by_its_recorded_hash_when_it_was_read_again(
    journal: Journal, rows: Rows, tmp_path: Path
) -> None:
    marker = tmp_path / "failed"

    @task
    def look(box: Box) -> int:
        return box.number

    @flow
    def main() -> int:
        boxes = make_box.map(range(3))
        first = look(boxes[0])
        press(100)
        total = first + look(boxes[1]) + look(boxes[2])
        if not marker.exists():
            marker.touch()
            raise ValueError
        return total

    with pytest.raises(ValueError):  # noqa: PT011 - ours
        main()
    ran = rows.value("SELECT count(*) FROM tasks")
    assert resume_run(journal, 1).result() == 3
    assert rows.value("SELECT count(*) FROM tasks") == ran


def test_cached_and_replayed_results_leave_memory_too(journal: Journal, tmp_path: Path) -> None:
    marker, counts = tmp_path / "failed", tmp_path / "counts"

    @task(persist_result=True)
    def cached(number: int) -> Box:
        return Box(number)

    @flow
    def main() -> None:
        futures = cached.map(range(MANY))
        futures.wait()
        filler = make_text.map(range(MANY))
        filler.wait()
        with counts.open("a") as file:
            file.write(f"{sum(type(found) is Box for found in gc.get_objects())}\n")
        assert [future.result().number for future in futures] == list(range(MANY))
        if not marker.exists():
            marker.touch()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - ours
        main()
    resume_run(journal, 1).result()
    main()  # from the cache
    alive = list(map(int, counts.read_text().split()))
    assert len(alive) == 3
    assert all(count < MANY / 2 for count in alive)


def test_a_result_that_is_damaged_when_it_is_read_again_stops_the_run_and_is_no_failure_of_the_task(
    journal: Journal, rows: Rows
) -> None:
    @flow
    def main() -> None:
        table = make_table.submit(1)
        table.wait()
        press(100)
        connection = sqlite3.connect(journal.path)
        with connection:
            connection.execute("UPDATE value SET data = replace(data, 'x', 'y')")
        connection.close()
        try:
            table.result()
        except Exception:
            pytest.fail("The flow could catch it.")

    with pytest.raises(JournalCorruptError, match=r"the result of task run 1 of 'make_table'.*damaged"):
        main()
    assert rows.state()[0] == "RUNNING"  # to be resumed when the file was mended
    assert rows.value("SELECT state FROM tasks WHERE id = 1") == "COMPLETED"


# A result storage


def test_large_results_of_processes_go_to_the_storage_by_reference_and_come_back(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.runners.processes import ProcessTaskRunner

        @task(result_storage=HERE / "results")
        def make(number):
            return [f"{number} {'x' * 100_000}", os.getpid()]

        @flow(task_runner=ProcessTaskRunner(1))
        def main():
            futures = make.map(iter(range(100)), max_in_flight=10)
            pids = {pid for _, pid in futures.result()}
            assert len(pids) == 1 and os.getpid() not in pids
            return [int(future.result()[0].split()[0]) for future in futures] == list(range(100))

        if __name__ == "__main__":
            print(main())
        """
    )
    assert program.run().out.strip() == "True"
    references = rows("SELECT result, result_codec FROM task_run")
    assert {codec for _, codec in references} == {"stored"}
    files = {path.name for path in (program.folder / "results").iterdir()}
    assert {json.loads(str(text))["path"] for text, _ in references} <= files
    assert len(files) == 100
    size = rows.value("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    assert int(str(size)) < 1_000_000 < sum(path.stat().st_size for path in (program.folder / "results").iterdir())


def test_a_stored_result_whose_file_is_gone_stops_the_run(tmp_path: Path, rows: Rows) -> None:
    folder = tmp_path / "results"

    @task(result_storage=folder)
    def stored(number: int) -> str:
        return f"{number} {'x' * SIZE}"

    @flow
    def main() -> None:
        futures = stored.map(range(MANY))
        assert [number_in(text) for text in futures.result()] == list(range(MANY))
        for path in folder.iterdir():
            path.unlink()
        futures.result()

    with pytest.raises(StoredResultError, match="missing or damaged"):
        main()
    assert rows.state()[0] == "RUNNING"  # to be resumed when the files are back


def test_a_future_may_be_asked_after_its_run(journal: Journal) -> None:
    leaked: list[TaskFutureList[str]] = []

    @flow
    def main() -> None:
        leaked.append(make_text.map(range(MANY)))

    main()
    assert [number_in(text) for text in leaked[0].result()] == list(range(MANY))
