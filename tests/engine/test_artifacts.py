"""Artifacts: what runs make for people to look at, made once whatever happens to the run."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task
from wfengine.artifacts import (
    Artifact,
    ImageArtifact,
    LinkArtifact,
    MarkdownArtifact,
    ProgressArtifact,
    TableArtifact,
    acreate_image_artifact,
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from wfengine_journal.errors import InvalidValueError, NotFoundError


def made(rows: Rows) -> list[tuple[object, ...]]:
    return rows("SELECT id, type, key, data, description, run_id, task_id FROM artifacts ORDER BY id")


def test_each_kind_stands_in_the_journal_beside_the_run_that_made_it(rows: Rows) -> None:
    @task
    def report() -> list[int]:
        return [
            create_markdown_artifact("## Done", key="report", description="the report"),
            create_table_artifact([{"a": 1, "b": None}], key="table"),
            create_link_artifact("https://example.com", "an example"),
            create_link_artifact("https://example.com"),
            create_image_artifact("https://example.com/a.png"),
        ]

    @flow
    def etl() -> list[int]:
        return [create_progress_artifact(12.5, key="progress"), *report()]

    assert etl() == [1, 2, 3, 4, 5, 6]
    assert made(rows) == [
        (1, "progress", "progress", "12.5", None, 1, None),
        (2, "markdown", "report", "## Done", "the report", 1, 1),
        (3, "table", "table", '[{"a":1,"b":null}]', None, 1, 1),
        (4, "link", None, '{"link":"https://example.com","text":"an example"}', None, 1, 1),
        (5, "link", None, '{"link":"https://example.com","text":"https://example.com"}', None, 1, 1),
        (6, "image", None, '"https://example.com/a.png"', None, 1, 1),
    ]


def test_outside_of_a_run_an_artifact_belongs_to_none(rows: Rows) -> None:
    assert create_markdown_artifact("hello") == 1
    assert create_markdown_artifact("hello") == 2
    assert [row[5:] for row in made(rows)] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    ("table", "stored"),
    [
        ([{"a": 1}, {"a": float("nan")}], [{"a": 1}, {"a": None}]),
        ({"a": [1, 2], "b": ["x", float("nan")]}, {"a": [1, 2], "b": ["x", None]}),
        ([["x", 1], ["y", float("nan")]], [["x", 1], ["y", None]]),
        ({0: [1], 1: [2]}, {"0": [1], "1": [2]}),
        ([], []),
    ],
)
def test_a_table_may_have_any_of_its_forms_and_missing_cells_become_null(rows: Rows, table: object, stored: object) -> None:
    create_table_artifact(table)  # type: ignore[arg-type]
    assert json.loads(str(rows.value("SELECT data FROM artifacts"))) == stored


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([{"a": object()}], r"the table\[0\]\['a'\] is a builtins.object, which JSON does not have"),
        ([{"a": float("inf")}], "is inf"),
        ([1, 2], "a list of dicts, a list of lists or a dict of lists"),
        ({"a": 1}, "a list of dicts, a list of lists or a dict of lists"),
        ("text", "not a str"),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused_and_the_cell_named(rows: Rows, table: object, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        create_table_artifact(table)  # type: ignore[arg-type]
    assert made(rows) == []


@pytest.mark.parametrize("key", ["Upper", "under_score", "", "a b", "x" * 256])
def test_a_key_that_is_not_allowed_is_refused(rows: Rows, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key of an artifact"):
        create_markdown_artifact("hello", key=key)
    assert made(rows) == []


def test_a_progress_is_updated_in_place(clock: FakeClock, rows: Rows) -> None:
    @flow
    def etl() -> None:
        number = create_progress_artifact(0.0, key="load", description="loading")
        clock.sleep(5)
        assert update_progress_artifact(number, 50) == number
        update_progress_artifact(number, 100.0, description="done")

    etl()
    assert made(rows) == [(1, "progress", "load", "100.0", "done", 1, None)]
    ((created, updated),) = rows("SELECT created_at, updated_at FROM artifacts")
    assert str(created) < str(updated)
    with pytest.raises(NotFoundError, match="no progress artifact 7"):
        update_progress_artifact(7, 1.0)
    create_markdown_artifact("no progress")
    with pytest.raises(NotFoundError, match="no progress artifact 2"):
        update_progress_artifact(2, 1.0)


def test_a_progress_outside_of_its_bounds_is_taken_for_the_nearer_one(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        create_progress_artifact(120)
        create_progress_artifact(-3.0)
    assert [row[3] for row in made(rows)] == ["100.0", "0.0"]
    assert "120 % lies outside of 0 to 100" in caplog.text
    with pytest.raises(InvalidValueError, match="a number from 0 to 100"):
        create_progress_artifact(float("nan"))


def test_get_returns_the_artifact_of_a_key_that_was_changed_last(clock: FakeClock) -> None:
    create_markdown_artifact("first", key="report")
    clock.sleep(1)
    create_markdown_artifact("second", key="report")
    clock.sleep(1)
    number = create_progress_artifact(1.0, key="other")
    found = Artifact.get("report")
    assert found is not None
    assert (found.id, found.data, found.key, found.type, found.flow_run_id, found.task_run_id) == (
        2, "second", "report", "markdown", None, None,
    )  # fmt: skip
    assert found.created == found.updated
    newest = Artifact.get()
    assert newest is not None
    assert (newest.id, newest.data) == (number, 1.0)
    assert Artifact.get("missing") is None


def test_the_classes_make_what_the_functions_make(rows: Rows) -> None:
    found = MarkdownArtifact(key="report", markdown="text", description="why").create()
    assert (found.id, found.data, found.description) == (1, "text", "why")
    assert json.loads(str(TableArtifact(table=[{"a": 1}]).create().data)) == [{"a": 1}]
    assert LinkArtifact(link="https://example.com", link_text="here").create().data == "[here](https://example.com)"
    assert ImageArtifact(image_url="https://example.com/a.png").create().data == "https://example.com/a.png"
    assert ProgressArtifact(progress=5.0).create().data == 5.0
    assert Artifact(type="markdown", data="plain").create().data == "plain"
    with pytest.raises(InvalidValueError, match="'result' is no type of artifact"):
        Artifact(type="result", data={})
    assert len(made(rows)) == 6


def test_get_or_create_makes_what_is_not_there() -> None:
    first, is_new = MarkdownArtifact.get_or_create(key="report", markdown="text")
    assert (first.data, is_new) == ("text", True)
    again, is_new = MarkdownArtifact.get_or_create(key="report", markdown="other")
    assert (again, is_new) == (first, False)


def test_in_async_code_the_functions_are_awaited(rows: Rows) -> None:
    @task
    async def report(n: int) -> int:
        return await create_markdown_artifact(f"text {n}")  # type: ignore[misc]

    @flow
    async def etl() -> list[int]:
        numbers = [
            await acreate_markdown_artifact("a"),
            await acreate_table_artifact([]),
            await acreate_link_artifact("b"),
            await acreate_image_artifact("c"),
            await acreate_progress_artifact(1),
        ]
        await aupdate_progress_artifact(numbers[-1], 2)
        assert (await Artifact.aget("missing")) is None
        stored = await MarkdownArtifact(markdown="d").acreate()
        found, is_new = await MarkdownArtifact.aget_or_create(key="e", markdown="e")
        assert is_new
        return [*numbers, stored.id, found.id, *await asyncio.gather(report(1), report(2))]

    assert sorted(asyncio.run(etl())) == list(range(1, 10))
    assert acreate_link_artifact.__name__ == "acreate_link_artifact"


def test_hooks_add_to_what_the_run_made(rows: Rows) -> None:
    def on_task(task: object, task_run: object, state: object) -> None:
        create_markdown_artifact("of the task's hook")

    def on_flow(flow: object, flow_run: object, state: object) -> None:
        create_markdown_artifact("of the flow's hook")

    @task(on_completion=[on_task])
    def step() -> None:
        create_markdown_artifact("of the task")

    @flow(on_completion=[on_flow])
    def etl() -> None:
        create_markdown_artifact("of the flow")
        step()

    etl()
    assert rows("SELECT data, run_id, task_id FROM artifacts ORDER BY id") == [
        ("of the flow", 1, None),
        ("of the task", 1, 1),
        ("of the task's hook", 1, 1),
        ("of the flow's hook", 1, None),
    ]


def test_a_retried_attempt_overwrites_what_the_failed_one_made(rows: Rows) -> None:
    attempts: list[int] = []

    @task(retries=1)
    def step() -> None:
        attempts.append(1)
        create_markdown_artifact(f"attempt {len(attempts)}", key="report")
        if len(attempts) == 1:
            raise ValueError
        create_markdown_artifact("more")

    @flow
    def etl() -> None:
        step()

    etl()
    assert rows("SELECT id, data FROM artifacts") == [(1, "attempt 2"), (2, "more")]


def test_a_retried_flow_makes_none_twice(rows: Rows, clock: FakeClock) -> None:
    attempts: list[int] = []

    @flow(retries=1, retry_delay_seconds=60)
    def etl() -> None:
        attempts.append(1)
        create_markdown_artifact("the same")
        create_markdown_artifact(f"attempt {len(attempts)}")
        if len(attempts) == 1:
            raise ValueError

    etl()
    assert rows("SELECT id, data FROM artifacts") == [(1, "the same"), (2, "attempt 2")]
    same, changed = rows("SELECT created_at, updated_at FROM artifacts ORDER BY id")
    assert same[0] == same[1]
    assert changed[0] != changed[1]


def test_calls_of_one_task_and_subflows_have_artifacts_of_their_own(rows: Rows) -> None:
    @task
    def step(n: int) -> None:
        create_markdown_artifact(f"step {n}")

    @flow
    def inner() -> None:
        create_markdown_artifact("inner")

    @flow
    def outer() -> None:
        step.map([1, 2, 3]).wait()
        inner()
        create_markdown_artifact("outer")

    outer()
    assert sorted(rows("SELECT data, run_id FROM artifacts")) == [
        ("inner", 2), ("outer", 1), ("step 1", 1), ("step 2", 1), ("step 3", 1),
    ]  # fmt: skip


def test_a_killed_flow_that_is_resumed_makes_no_artifact_twice(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

        @task
        def step(n):
            create_markdown_artifact(f"step {n} of process {first_time(f'step-{n}')}")
            if n == 2 and first_time():
                kill()
            return n

        @flow
        def etl():
            number = create_progress_artifact(0, key="progress")
            for n in (1, 2, 3):
                step(n)
                update_progress_artifact(number, 33 * n)
            create_markdown_artifact("end")

        if __name__ == "__main__":
            etl()
    """)
    program.run_and_be_killed()
    assert rows("SELECT data FROM artifacts ORDER BY id") == [
        ("33.0",),
        ("step 1 of process True",),
        ("step 2 of process True",),
    ]
    assert program.resume()["state"] == "COMPLETED"
    assert rows("SELECT type, data, run_id FROM artifacts ORDER BY id") == [
        ("progress", "99.0", 1),
        ("markdown", "step 1 of process True", 1),  # the task was replayed, so it made nothing
        ("markdown", "step 2 of process False", 1),  # cut off, so it ran again
        ("markdown", "step 3 of process True", 1),
        ("markdown", "end", 1),
    ]


def test_a_process_that_lost_the_run_makes_no_artifact(program: Program, rows: Rows) -> None:
    program.write("""
        import subprocess, json
        from wfengine.artifacts import create_markdown_artifact

        RESUME = Path(sys.argv[0]).with_name("resume.py")

        @flow
        def etl():
            if first_time():
                subprocess.run([sys.executable, str(RESUME)], check=True)
                create_markdown_artifact("too late")
            else:
                create_markdown_artifact("in time")

        if __name__ == "__main__":
            etl()
    """)
    (program.folder / "resume.py").write_text(
        "from wfengine import use_journal\nfrom wfengine.recovery import resume_run\n"
        "resume_run(use_journal(None), 1, takeover=True)\n"
    )
    done = program.run()
    assert "OwnershipLostError" in done.err, done
    assert rows("SELECT data FROM artifacts") == [("in time",)]
