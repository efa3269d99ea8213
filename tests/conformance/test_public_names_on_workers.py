"""What each public function does in a task whose code runs on a worker: it works there and is recorded as on threads, or it
refuses with a sentence. A name that stands in none of the lists here fails the last test, so that none is left to chance.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import wfengine
from tests.conformance.work import double
from tests.engine.conftest import Rows
from wfengine import artifacts, flow, runtime, task, variables
from wfengine.cache_policies import INPUTS
from wfengine.concurrency import asyncio as limited_async
from wfengine.concurrency import sync as limited
from wfengine.concurrency.limits import set_limit
from wfengine.context import FlowRunContext, TagsContext, TaskRunContext
from wfengine.events import emit_event
from wfengine.input import send_input
from wfengine.logging import get_logger
from wfengine.runners.processes import ProcessTaskRunner
from wfengine.transactions import get_transaction, transaction

W = wfengine


@task
def _in_background(number: int) -> int:
    return number


@flow
def _deployed() -> None:
    pass


def _places() -> str:
    with limited.concurrency("three", timeout_seconds=5):
        return "inside"


def _own_tags() -> list[str]:
    with W.tags("inner"):
        double.submit(3).result()
        return sorted(TagsContext.get().current_tags)


def _log() -> str:
    logger = W.get_run_logger()
    logger.info("a line")
    return type(logger).__name__


def _send_and_get() -> object:
    W.set_event("ready", {"a": 1})
    W.send(runtime.flow_run.id or 0, "hello", topic="t")
    return W.receive("t", timeout_seconds=20), W.get_event(runtime.flow_run.id or 0, "ready", timeout_seconds=20)


def _progress() -> bool:
    made = artifacts.create_progress_artifact(10.0)
    return artifacts.update_progress_artifact(made, 50.0) == made


#: What is called in a task by the case's name, and gives the same on threads and on a worker. Beside it: the names it covers.
WORKS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "now": (lambda: type(W.now()), ["now"]),
    "today": (lambda: type(W.today("UTC")), ["today"]),
    "uuid4": (lambda: type(W.uuid4()), ["uuid4"]),
    "random": (lambda: type(W.random()), ["random"]),
    "side effect": (lambda: W.side_effect(len, [1, 2]), ["side_effect"]),
    "sleep": (lambda: W.sleep(0.01), ["sleep"]),
    "messages and events": (_send_and_get, ["send", "receive", "set_event", "get_event"]),
    "wait_until": (lambda: W.wait_until(lambda: True, timeout_seconds=20), ["wait_until"]),
    "emit_event": (lambda: emit_event("shipped", "order.1", id="1").is_new, ["events.emit_event"]),
    "variables": (
        lambda: (variables.Variable.set("v", 5).value, variables.Variable.get("v"), variables.Variable.unset("v")),
        ["variables", "variables.Variable"],
    ),
    "secrets": (lambda: (_raised(W.secrets.get, "nobody"), W.secrets.Secret("name").name), ["secrets"]),
    "markdown": (lambda: type(artifacts.create_markdown_artifact("# a")), ["artifacts", "artifacts.create_markdown_artifact"]),
    "table": (lambda: type(artifacts.create_table_artifact([{"a": 1}])), ["artifacts.create_table_artifact"]),
    "link": (lambda: type(artifacts.create_link_artifact("https://a.b")), ["artifacts.create_link_artifact"]),
    "image": (lambda: type(artifacts.create_image_artifact("https://a.b/c.png")), ["artifacts.create_image_artifact"]),
    "progress": (_progress, ["artifacts.create_progress_artifact", "artifacts.update_progress_artifact"]),
    "artifact objects": (
        lambda: artifacts.MarkdownArtifact(markdown="x", key="k").get_or_create(key="k", markdown="x")[1],
        [f"artifacts.{name}Artifact" for name in ("", "Markdown", "Table", "Link", "Image", "Progress")],
    ),
    "cancel another run": (lambda: _raised(W.cancel, "nobody"), ["cancel"]),
    "pause another run": (lambda: _raised(W.pause, "nobody"), ["pause"]),
    "unpause another run": (lambda: _raised(W.unpause, "nobody"), ["unpause"]),
    "resume another run": (lambda: _raised(W.resume_flow_run, "nobody"), ["resume_flow_run", "flow_runs.resume_flow_run"]),
    "run a deployment": (
        lambda: _raised(importlib.import_module("wfengine.deployments").run_deployment, "no/body"),
        ["deployments.run_deployment"],
    ),
    "send input": (lambda: _raised(send_input, 3, "nobody"), ["input.send_input"]),
    "check_cancelled": (W.check_cancelled, ["check_cancelled"]),
    "current runs": (
        lambda: (W.current_flow_run().parameters, W.current_task_run().task_name, W.current_task_run().attempt),
        ["current_flow_run", "current_task_run"],
    ),
    "contexts": (
        lambda: (
            isinstance(W.get_run_context(), TaskRunContext), TaskRunContext.get().parameters,  # type: ignore[union-attr]
            FlowRunContext.get().flow.name, W.get_run_context().start_time is not None,  # type: ignore[union-attr]
            W.get_run_context().flow_run_context.flow_run.flow_name, TaskRunContext.get().task_run.task_key,  # type: ignore[union-attr]
        ),
        ["context", "get_run_context", "context.get_run_context", "context.FlowRunContext", "context.TaskRunContext"],
    ),
    "runtime": (
        lambda: (
            [getattr(runtime.flow_run, name) for name in ("id", "flow_name", "run_count", "tags", "root_flow_run_id")],
            runtime.task_run.task_name, runtime.task_run.parameters, runtime.deployment.id, runtime.deployment.flow_run_id,
        ),
        ["runtime"],
    ),
    "tags": (_own_tags, ["tags", "context.tags", "context.TagsContext"]),
    "run logger": (_log, ["get_run_logger", "logging.get_run_logger"]),
    "logger": (lambda: get_logger("x").name, ["logging.get_logger", "logging.disable_run_logger"]),
    "places": (_places, ["concurrency.sync.concurrency"]),
    "rate": (lambda: limited.rate_limit("ten", timeout_seconds=5), ["concurrency.sync.rate_limit"]),
    "background task": (lambda: type(_in_background.delay(4).task_run_id), []),
    "futures": (
        lambda: (
            [future.result() for future in W.as_completed([double.submit(1)])], len(W.wait([double.submit(2)]).done),
            wfengine.futures.resolve_futures_to_results([double.submit(4)]),
            [state.type.value for state in wfengine.futures.resolve_futures_to_states([double.submit(5)])],  # type: ignore[attr-defined]
        ),
        ["as_completed", "wait", "TaskFuture", "TaskFutureList",
         *(f"futures.{name}" for name in wfengine.futures.__all__)],
    ),
    "states": (lambda: (double(5, return_state=True).result(), double.submit(6, return_state=True).type.value), ["State"]),
    "carry": (lambda: W.carry(double)(4), ["carry"]),
    "cached task": (lambda: double.with_options(cache_policy=INPUTS)(4), ["task", "Task"]),
}  # fmt: skip


def _raised(fn: Callable[..., object], *args: object) -> str:
    """Return which error a call raises, where nothing but an error can come of it."""
    try:
        fn(*args)
    except W.WfengineError as error:
        return type(error).__name__
    return "nothing"


async def _places_async() -> str:
    async with limited_async.concurrency("three", timeout_seconds=5):
        await limited_async.rate_limit("ten", timeout_seconds=5)
        return "inside"


async def _sleeps() -> None:
    await W.sleep(0.01)  # type: ignore[func-returns-value, misc]
    await importlib.import_module("wfengine.timers").asleep(0.01)


async def _messages_async() -> object:
    await W.set_event("ready async", 1)
    await W.send(runtime.flow_run.id or 0, "hello", topic="u")
    return await W.receive("u", timeout_seconds=20), await W.get_event(runtime.flow_run.id or 0, "ready async")


async def _effect() -> int:
    async def effect() -> int:
        return 4

    return await W.side_effect(effect)


async def _variables_async() -> object:
    await variables.Variable.set("w", 5)  # type: ignore[misc]
    return await variables.Variable.get("w"), await variables.Variable.aget("w")  # type: ignore[misc]


async def _artifacts_async() -> object:
    first = await artifacts.create_markdown_artifact("# a")  # type: ignore[misc]
    second = await artifacts.acreate_link_artifact("https://a.b")
    made = await artifacts.acreate_progress_artifact(1.0)
    return type(first), type(second), await artifacts.aupdate_progress_artifact(made, 3.0) == made


WORKS_ASYNC: dict[str, tuple[Callable[[], object], list[str]]] = {
    "places async": (_places_async, ["concurrency.asyncio.concurrency", "concurrency.asyncio.rate_limit"]),
    "sleep async": (_sleeps, []),
    "messages async": (_messages_async, []),
    "side effect async": (_effect, []),
    "variables async": (_variables_async, []),
    "artifacts async": (
        _artifacts_async,
        [f"artifacts.acreate_{name}_artifact" for name in ("markdown", "table", "link", "image", "progress")]
        + ["artifacts.aupdate_progress_artifact"],
    ),
}

#: What refuses on a worker.
REFUSES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "continue_as_new": (lambda: W.continue_as_new(), ["continue_as_new"]),
    "use_journal": (lambda: W.use_journal("elsewhere.db"), ["use_journal"]),
    "follow": (lambda: list(W.follow(1)), ["follow"]),
    "deploy": (lambda: W.deploy(_deployed.to_deployment("a")), ["deploy", "deployments.deploy"]),
    "serve": (lambda: W.serve(_deployed.to_deployment("a")), ["serve"]),
    "aserve": (lambda: asyncio.run(W.aserve(_deployed.to_deployment("a"))), ["aserve"]),
    "transaction": (lambda: transaction().__enter__(), [
        "transactions.transaction", "transactions.atransaction", "transactions.Transaction", "transactions.AsyncTransaction",
    ]),
    "get_transaction": (get_transaction, ["transactions.get_transaction"]),
    "limits": (lambda: set_limit("x", slots=3), [
        f"concurrency.{name}" for name in
        ("find_limit", "list_limits", "pause_queue", "remove_limit", "remove_queue", "resume_queue", "set_limit", "set_queue")
    ]),
    "result store": (lambda: importlib.import_module("wfengine.results").get_result_store(), [
        "results.get_result_store", "results.ResultStore",
    ]),
    "watch a table": (lambda: importlib.import_module("wfengine.events").watch_table("user_t"), [
        "events.watch_table", "events.unwatch_table",
    ]),
    "receive input": (lambda: next(iter(importlib.import_module("wfengine.input").receive_input(int, timeout=0))), [
        "input.receive_input", "input.GetInputHandler", "input.RunInput",
    ]),
}  # fmt: skip

#: What has nothing to do with a journal, or is no function.
NEEDS_NONE = {
    "Flow", "ThreadTaskRunner", "WfengineError", "__version__", "allow_failure", "exponential_backoff", "flow", "unmapped",
    "logging.JsonFormatter",
    "artifacts.StoredArtifact", "artifacts.stored_artifact", "variables.T", "flow_runs.T", "concurrency.Limit",
    "input.receive_input", "results.ResultRecord", "results.ResultRecordMetadata", "results.should_persist_result",
    "deployments.ConcurrencyLimitConfig", "deployments.ConcurrencyLimitStrategy", "deployments.Deployment",
    "deployments.schedules_of",  # what a Deployment does needs the journal, which refuses as it does for `deploy`
    *(f"events.{name}" for name in ("CompoundTrigger", "Event", "EventTrigger", "Posture", "SequenceTrigger")),
    *(f"transactions.{name}" for name in ("CommitMode", "IsolationLevel", "TransactionState")),
    *(f"concurrency.{module}.{name}" for module in ("sync", "asyncio")
      for name in ("AcquireConcurrencySlotTimeoutError", "ConcurrencySlotAcquisitionError")),
}  # fmt: skip

#: Parking is tried in a test of its own.
PARKS = ["pause_flow_run", "suspend_flow_run", "flow_runs.pause_flow_run", "flow_runs.suspend_flow_run"]


@task(tags=["mine"])
def perform(name: str) -> object:
    return WORKS[name][0]()


@task
async def perform_async(name: str) -> object:
    return await WORKS_ASYNC[name][0]()  # type: ignore[misc]


@task
def refuse(name: str) -> str:
    try:
        REFUSES[name][0]()
    except W.WfengineError as error:
        return str(error)
    return "it did not refuse"


JOURNALED = {
    "calls": "SELECT k.key, t.state, t.lane, t.scope > 0, t.tags, count(*) FROM task_run t JOIN task k ON k.id = t.task_id "
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
    "events": "SELECT name, task_run_id IS NULL, count(*) FROM event WHERE name NOT LIKE 'wfengine.%' GROUP BY 1, 2 ORDER BY 1",
    "artifacts": "SELECT type, data, task_run_id IS NULL, count(*) FROM artifact GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    "variables": "SELECT name, value FROM variable ORDER BY 1",
    "logs": "SELECT logger, message, task_run_id IS NULL FROM log ORDER BY message",
    "messages": "SELECT topic, count(*) FROM message GROUP BY 1 ORDER BY 1",
    "places": "SELECT count(*) FROM slot WHERE occupies > 0 AND name NOT LIKE 'queue:%'",
}


def test_what_works_on_a_worker_gives_and_records_what_it_does_on_threads(tmp_path: Path) -> None:
    def run_with(runner: object, name: str) -> tuple[object, dict[str, list[tuple[object, ...]]]]:
        W.use_journal(tmp_path / name, durability="process")
        set_limit("three", slots=3)
        set_limit("ten", rate="10/second")

        @flow(task_runner=runner)  # type: ignore[call-overload]
        def main() -> dict[str, object]:
            found = {case: perform.submit(case).result(raise_on_failure=False) for case in WORKS}
            found |= {case: perform_async.submit(case).result(raise_on_failure=False) for case in WORKS_ASYNC}
            return {case: repr(value) for case, value in found.items()}

        return main(), {what: Rows(tmp_path / name)(sql) for what, sql in JOURNALED.items()}

    here, recorded_here = run_with(W.ThreadTaskRunner(1), "threads.db")
    there, recorded_there = run_with(ProcessTaskRunner(1), "processes.db")
    assert there == here
    assert not [case for case, value in here.items() if "Error(" in value]  # type: ignore[attr-defined]
    for what, rows in recorded_here.items():
        assert recorded_there[what] == rows, what


def test_what_does_not_work_on_a_worker_says_so_and_does_nothing(tmp_path: Path, rows: Rows) -> None:
    @flow(task_runner=ProcessTaskRunner(1))
    def main() -> dict[str, str]:
        return dict(zip(REFUSES, refuse.map(list(REFUSES)).result(), strict=True))

    for case, text in main().items():
        assert text != "it did not refuse", case
        assert "on a worker" in text or case == "continue_as_new", (case, text)
    assert rows("SELECT DISTINCT key FROM task") == [(refuse.key,)]
    assert not list(Path.cwd().glob("elsewhere.db*"))


@pytest.mark.parametrize(("function", "timeout"), [("pause_flow_run", 0.01), ("suspend_flow_run", 3600)])
def test_a_task_on_a_worker_parks_its_run_as_one_on_threads_does(function: str, timeout: float, tmp_path: Path) -> None:
    @task
    def park(function: str) -> None:
        getattr(W, function)(timeout=timeout)

    def run_with(runner: object, name: str) -> tuple[str, object]:
        W.use_journal(tmp_path / name, durability="process")

        @flow(task_runner=runner)  # type: ignore[call-overload]
        def main() -> None:
            park.submit(function).result()

        error = _raised(main)
        return error, Rows(tmp_path / name).state()

    assert run_with(ProcessTaskRunner(1), "processes.db") == run_with(W.ThreadTaskRunner(1), "threads.db")


def test_a_module_that_chooses_a_journal_can_be_imported_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"chooses_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "import wfengine\njournal = wfengine.use_journal('chosen.db')\n@wfengine.task\ndef work():\n    return 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    W.use_journal(tmp_path / "journal.db")

    @flow(task_runner=ProcessTaskRunner(1))
    def main() -> int:
        return int(module.work.submit().result())

    assert main() == 5


def test_a_thread_on_a_worker_that_lost_its_run_is_told_so(tmp_path: Path) -> None:
    @task
    def threaded() -> list[str]:
        found: list[str] = []

        def call() -> None:
            found.extend([_raised(double, 4), _raised(W.now), _raised(artifacts.create_markdown_artifact, "# a")])

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return found

    @flow(task_runner=ProcessTaskRunner(1))
    def main() -> list[str]:
        return threaded.submit().result()

    assert main() == ["MissingContextError", "MissingContextError", "UsageError"]


MODULES = [
    "artifacts", "variables", "events", "concurrency", "concurrency.sync", "concurrency.asyncio", "context", "transactions",
    "input", "results", "deployments", "futures", "logging", "flow_runs",
]  # fmt: skip


def test_it_is_said_of_every_public_name_what_it_does_on_a_worker() -> None:
    names = set(wfengine.__all__)
    for short in MODULES:
        module = importlib.import_module(f"wfengine.{short}")
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        names |= {f"{short}.{name}" for name in getattr(module, "__all__", own) if not name.startswith("_")}
    cases = {**WORKS, **WORKS_ASYNC, **REFUSES}
    known = {name for _, covered in cases.values() for name in covered} | NEEDS_NONE | set(PARKS)
    assert names - known == set()
