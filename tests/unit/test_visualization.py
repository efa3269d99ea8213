"""Drawing a flow: its function runs, no task does, and what is passed from call to call becomes an edge."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from wfengine import as_completed, flow, get_run_logger, task, unmapped, use_journal, wait
from wfengine.artifacts import Artifact, create_progress_artifact, update_progress_artifact
from wfengine.transactions import transaction
from wfengine.variables import Variable
from wfengine.visualization import Graph, Node, trace
from wfengine_journal import store
from wfengine_journal.errors import (
    FlowVisualizationError,
    GraphvizExecutableNotFoundError,
    GraphvizImportError,
    MissingContextError,
    ParameterError,
)

ran: list[str] = []


@pytest.fixture(autouse=True)
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    use_journal(tmp_path / "journal.db")
    ran.clear()
    yield
    assert ran == []
    store.close_all()


@task
def extract(source: str = "a") -> list[int]:
    ran.append("extract")
    return [1, 2]


@task
def transform(data: object, factor: object = 1) -> int:
    ran.append("transform")
    return 1


@task
def load(*data: object) -> None:
    ran.append("load")


def edges(graph: Graph) -> list[tuple[str, ...]]:
    """Return each node with what it depends on."""
    return [(node.label, *node.upstream) for node in graph.nodes]


def drawn(fn: object, *args: object, **kwargs: object) -> list[tuple[str, ...]]:
    return edges(trace(flow(fn), args, kwargs))  # type: ignore[call-overload]


def test_a_chain_of_calls_is_drawn_without_running_a_task() -> None:
    def etl() -> object:
        return load(transform(extract()))

    assert drawn(etl) == [("extract-0",), ("transform-0", "extract-0"), ("load-0", "transform-0")]


def test_nothing_is_journaled(tmp_path: Path) -> None:
    def etl() -> None:
        load(extract.submit())

    drawn(etl)

    assert store.open_journal(tmp_path / "journal.db").list_open_runs("etl") == []


def test_futures_keyword_arguments_and_containers_are_dependencies() -> None:
    def etl() -> None:
        first = extract.submit("a")
        second = transform.submit(data=first)
        load([first, {"second": second}], (first.result(), second.state))

    assert drawn(etl) == [("extract-0",), ("transform-0", "extract-0"), ("load-0", "extract-0", "transform-0")]


def test_wait_for_is_a_dependency() -> None:
    def etl() -> None:
        first = extract.submit()
        transform(1, wait_for=[first])
        transform.submit(2, wait_for=[first])

    assert drawn(etl) == [("extract-0",), ("transform-0", "extract-0"), ("transform-1", "extract-0")]


def test_map_is_drawn_item_by_item_and_an_unknown_collection_as_one_item() -> None:
    def etl() -> None:
        mapped = transform.map([1, 2], unmapped(extract()))
        load(mapped)
        load(transform.map(extract()))

    assert drawn(etl) == [
        ("extract-0",), ("transform-0", "extract-0"), ("transform-1", "extract-0"), ("load-0", "transform-0", "transform-1"),
        ("extract-1",), ("transform-2", "extract-1"), ("load-1", "transform-2"),
    ]  # fmt: skip


def test_waiting_for_futures_goes_on_at_once() -> None:
    def etl() -> None:
        futures = [extract.submit("a"), extract.submit("b")]
        wait(futures)
        for future in as_completed(futures):
            transform(future.result())

    assert drawn(etl)[2:] == [("transform-0", "extract-0"), ("transform-1", "extract-1")]


def test_what_is_taken_out_of_an_unknown_result_depends_on_it() -> None:
    def etl() -> None:
        data = extract()
        transform(data["rows"])  # type: ignore[call-overload]
        transform(data.total * 2 + transform(1))  # type: ignore[attr-defined]
        for row in data:
            transform(row)

    assert drawn(etl) == [
        ("extract-0",), ("transform-0", "extract-0"), ("transform-1",), ("transform-2", "extract-0", "transform-1"),
        ("transform-3", "extract-0"),
    ]  # fmt: skip


def test_a_given_value_decides_the_way_and_is_followed_by_its_identity() -> None:
    @task(viz_return_value=["north", 4000])
    def regions() -> list[object]:
        raise AssertionError

    @task(viz_return_value=False)
    def is_late() -> bool:
        raise AssertionError

    def etl() -> None:
        for region in regions():
            transform(region)
        if not is_late():
            load("on time")

    assert drawn(etl) == [
        ("regions-0",), ("transform-0", "regions-0"), ("transform-1", "regions-0"), ("is_late-0",), ("load-0",),
    ]  # fmt: skip


def test_values_that_everybody_has_in_common_are_nobody_s_result() -> None:
    @task(viz_return_value=[1, None, True])
    def numbers() -> list[object]:
        raise AssertionError

    def etl() -> None:
        numbers()
        transform(1, factor=True)

    assert drawn(etl) == [("numbers-0",), ("transform-0",)]


def test_equal_given_values_of_two_calls_are_told_apart() -> None:
    @task(viz_return_value=[4000])
    def numbers(_: int) -> list[int]:
        raise AssertionError

    def etl() -> None:
        first, second = numbers(1), numbers(2)
        transform(first)
        transform(second)

    assert drawn(etl)[2:] == [("transform-0", "numbers-0"), ("transform-1", "numbers-1")]


@pytest.mark.parametrize(
    "look", ["1 if result else 0", "result == 5", "len(result)", "result < 5", "[0][result]", "int(result)"]
)
def test_code_that_needs_a_result_is_told_to_give_one(look: str) -> None:
    def etl() -> None:
        eval(look, {"result": extract()})

    with pytest.raises(FlowVisualizationError, match=r"viz_return_value=\["):
        drawn(etl)


def test_a_loop_without_end_is_refused() -> None:
    def etl() -> None:
        while True:
            extract()

    with pytest.raises(FlowVisualizationError, match="more than 10000 calls"):
        drawn(etl)


def test_subflows_are_nodes_and_do_not_run() -> None:
    @flow
    def child(data: object) -> int:
        ran.append("child")
        return 1

    def parent() -> None:
        load(child(extract()))

    graph = trace(flow(parent), (), {})

    assert edges(graph) == [("extract-0",), ("child-0", "extract-0"), ("load-0", "child-0")]
    assert [node.kind for node in graph.nodes] == ["task", "flow", "task"]


def test_async_flows_and_tasks_are_drawn() -> None:
    @task
    async def fetch(number: int) -> int:
        raise AssertionError

    @flow
    async def gathered() -> None:
        load(*await asyncio.gather(fetch(1), fetch(2)))
        assert (await fetch(3, return_state=True)).is_completed()
        load(await fetch.submit(4))

    shown = [
        ("fetch-0",), ("fetch-1",), ("load-0", "fetch-0", "fetch-1"), ("fetch-2",), ("fetch-3",), ("load-1", "fetch-3"),
    ]  # fmt: skip

    async def in_a_loop() -> object:
        assert await gathered.agenerate_mermaid_graph() == await gathered.generate_mermaid_graph()  # type: ignore[misc]
        return await gathered.generate_mermaid_graph()  # type: ignore[misc]

    assert edges(trace(gathered, (), {})) == shown
    assert asyncio.run(in_a_loop()) == gathered.generate_mermaid_graph()


def test_generators_are_drawn_as_one_call_that_gives_one_item() -> None:
    @task
    def pages(count: int) -> Iterator[int]:
        raise AssertionError
        yield 1

    @task
    async def ticks() -> AsyncIterator[int]:
        raise AssertionError
        yield 1

    @task(viz_return_value=["north", "south"])
    async def regions() -> AsyncIterator[str]:
        raise AssertionError
        yield ""

    @flow
    async def etl() -> AsyncIterator[object]:
        for page in pages(3):
            yield transform(page)
        async for tick in ticks():
            transform(tick)
        async for region in regions():
            transform(region)
        with transaction(key="load"):
            load(next(pages(1)))

    assert edges(trace(etl, (), {})) == [
        ("pages-0",), ("transform-0", "pages-0"), ("ticks-0",), ("transform-1", "ticks-0"), ("regions-0",),
        ("transform-2", "regions-0"), ("transform-3", "regions-0"), ("pages-1",), ("load-0", "pages-1"),
    ]  # fmt: skip


class Warehouse:
    @task
    def convert(self, amount: object) -> int:
        raise AssertionError

    @classmethod
    @task
    def name_of(cls, amount: object) -> str:
        raise AssertionError

    @flow
    def load(self, amounts: list[int]) -> None:
        for amount in amounts:
            self.name_of(self.convert(amount))
        self.convert.map(amounts)


def test_methods_are_drawn() -> None:
    assert edges(trace(Warehouse().load, ([5],), {})) == [("convert-0",), ("name_of-0", "convert-0"), ("convert-1",)]


def test_background_calls_are_drawn_and_put_into_no_queue() -> None:
    def etl() -> None:
        first = extract.delay()
        transform.apply_async((first,), wait_for=[extract.submit()])

    assert drawn(etl) == [("extract-0",), ("extract-1",), ("transform-0", "extract-0", "extract-1")]


def test_a_drawn_flow_makes_no_artifact_and_sets_no_variable(tmp_path: Path) -> None:
    @flow
    def etl() -> None:
        Variable.set("limit", 5)
        progress = create_progress_artifact(0.0, key="progress")
        update_progress_artifact(progress, 50.0)

    etl.generate_mermaid_graph()

    assert Variable.get("limit") is None
    assert Artifact.get("progress") is None


def test_a_drawn_transaction_commits_no_key() -> None:
    done: list[bool] = []

    @flow
    def etl() -> None:
        with transaction(key="load") as txn:
            done.append(txn.is_committed())
            txn.stage("loaded")

    etl.generate_mermaid_graph()
    etl()

    assert done == [False, False]


def test_arguments_are_checked_as_in_a_run() -> None:
    @flow
    def etl(day: int) -> None:
        assert day == 3
        extract("a", "b", "c")

    with pytest.raises(ParameterError):
        etl.generate_mermaid_graph()  # type: ignore[call-arg]
    with pytest.raises(ParameterError, match="extract"):
        etl.generate_mermaid_graph("3")  # type: ignore[arg-type]


def test_a_flow_that_logs_is_drawn_and_a_run_after_it_is_a_run() -> None:
    done: list[int] = []

    @task
    def note(number: int) -> int:
        done.append(number)
        return number

    @flow
    def etl() -> int:
        get_run_logger().info("hello")
        return note(5)

    assert "note-0" in str(etl.generate_mermaid_graph())
    assert done == []
    assert etl() == 5
    with pytest.raises(MissingContextError):
        get_run_logger()


def test_a_flow_drawn_inside_a_run_leaves_that_run_alone() -> None:
    @flow
    def inner() -> None:
        extract()

    @flow
    def outer() -> object:
        return inner.generate_mermaid_graph()

    assert "extract-0" in str(outer())


GRAPH = Graph('Daily "ETL"', (Node("extract-0", "extract", "task", ()), Node('say "hi"-0', "hi", "flow", ("extract-0",))))


def test_a_graph_is_text_for_mermaid_and_for_dot() -> None:
    assert GRAPH.to_mermaid() == 'flowchart TD\n    n0["extract-0"]\n    n1[["say #quot;hi#quot;-0"]]\n    n0 --> n1'
    assert GRAPH.to_dot() == (
        'digraph "Daily \\"ETL\\"" {\n    "extract-0"\n    "say \\"hi\\"-0" [shape=box, peripheries=2]\n'
        '    "extract-0" -> "say \\"hi\\"-0"\n}\n'
    )


@flow(name="a/b etl")
def drawable() -> None:
    load(extract())


def test_a_picture_is_made_by_the_program_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the program writes what it was given, so that this runs where Graphviz is not installed."""
    program = tmp_path / "bin" / "dot"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:], file=open('said', 'w'))\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))

    path = drawable.visualize()

    assert path == tmp_path / "a_b etl.png"
    assert "-Tpng" in (tmp_path / "said").read_text()


def test_a_picture_is_a_png_where_the_program_is_there(tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        with pytest.raises(GraphvizExecutableNotFoundError):
            asyncio.run(drawable.avisualize())
        return
    path = asyncio.run(drawable.avisualize())

    assert Path(str(path)).read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.glob("a_b*")] == ["a_b etl.png"]


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(GraphvizExecutableNotFoundError, match="apt install graphviz"):
        drawable.visualize()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)

    with pytest.raises(GraphvizImportError, match=r"pip install 'wfengine\[viz\]'"):
        drawable.visualize()


def test_drawing_works_in_a_program_without_the_package(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["graphviz"] = None
        from wfengine import flow, task
        @task
        def extract(): print("ran")
        @flow
        def etl(): extract()
        print(etl.generate_mermaid_graph())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "WFENGINE_JOURNAL": str(tmp_path / "other.db")},
    )  # fmt: skip

    assert done.stdout == 'flowchart TD\n    n0["extract-0"]\n'
    assert not (tmp_path / "other.db").exists()
