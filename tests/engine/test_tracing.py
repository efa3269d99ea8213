"""Traces: what a receiver that speaks OTLP is sent of runs, over threads, processes, subflows, and a killed process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program
from tests.otlp import Receiver

OK, ERROR = Status.StatusCode.STATUS_CODE_OK, Status.StatusCode.STATUS_CODE_ERROR
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def traced(program: Program, receiver: Receiver) -> Program:
    program.environment |= {
        "WFENGINE_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_SERVICE_NAME": "orders",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NO_PROXY": "127.0.0.1",
    }
    return program


def named(receiver: Receiver, name: str) -> list[Span]:
    return [span for span in receiver.spans if span.name == name]


def the(receiver: Receiver, name: str) -> Span:
    (found,) = named(receiver, name)
    return found


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def assert_whole(receiver: Receiver) -> None:
    """Each span was sent once, within its parent's trace, and every parent that is named was sent."""
    assert receiver.refused == []
    ids = [span.span_id for span in receiver.spans]
    assert len(set(ids)) == len(ids), "a span was sent twice"
    assert {span.parent_span_id for span in receiver.spans} - {b""} <= set(ids)
    for span in receiver.spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano


def test_a_run_a_task_its_attempts_and_their_commits_are_spans_of_one_trace(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow, task

        calls = []

        @task(retries=1)
        def load():
            calls.append(1)
            if len(calls) == 1:
                raise ValueError("secret-of-the-message")

        @flow
        def etl():
            load()

        if __name__ == "__main__":
            etl()
    """)
    assert program.run().code == 0
    assert_whole(receiver)
    assert receiver.services == {"orders"}
    run, load = the(receiver, "flow etl"), the(receiver, "task load")
    first, second = the(receiver, "attempt 1 of load"), the(receiver, "attempt 2 of load")
    assert {span.trace_id for span in receiver.spans} == {run.trace_id}
    assert (run.parent_span_id, load.parent_span_id) == (b"", run.span_id)
    assert {first.parent_span_id, second.parent_span_id} == {load.span_id}
    assert [span.parent_span_id for span in named(receiver, "commit")] == [first.span_id, second.span_id]
    assert (first.status.code, second.status.code, run.status.code) == (ERROR, OK, OK)
    assert attributes(first)["error.type"] == "ValueError"
    assert attributes(run)["wfengine.flow_run.id"] == 1
    assert b"secret-of-the-message" not in b"".join(span.SerializeToString() for span in receiver.spans)


def test_code_knows_its_span_on_threads_in_processes_and_in_subflows(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow, task
        from wfengine.listeners.tracing import current_context, traceparent
        from wfengine.task_runners import ProcessTaskRunner
        from opentelemetry import trace

        @task
        def on_thread():
            inside = trace.get_current_span(current_context()).get_span_context()
            assert traceparent() == f"00-{inside.trace_id:032x}-{inside.span_id:016x}-01"
            return traceparent()

        @task(runner=ProcessTaskRunner(max_workers=1))
        def in_process():
            return traceparent()

        @flow
        def inner():
            return [traceparent(), on_thread.submit().result()]

        @flow
        def outer():
            return [traceparent(), in_process.submit().result(), *inner()]

        if __name__ == "__main__":
            print("\\n".join(outer()))
    """)
    done = program.run()
    assert done.code == 0, done
    assert_whole(receiver)
    found = TRACEPARENT.findall(done.out)
    outer, inner = the(receiver, "flow outer"), the(receiver, "flow inner")
    assert {trace_id for trace_id, _ in found} == {outer.trace_id.hex()} == {inner.trace_id.hex()}
    spans = [outer, the(receiver, "attempt 1 of in_process"), inner, the(receiver, "attempt 1 of on_thread")]
    assert [span_id for _, span_id in found] == [span.span_id.hex() for span in spans]
    assert inner.parent_span_id == outer.span_id


def test_a_killed_run_and_its_resume_are_one_trace_with_a_link_and_no_span_is_sent_twice(
    program: Program, receiver: Receiver
) -> None:
    traced(program, receiver).write("""
        import os, pathlib, signal
        from wfengine import flow, task

        @task
        def first():
            pass

        @task
        def second():
            if not pathlib.Path("killed").exists():
                pathlib.Path("killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        @flow
        def etl():
            first()
            second()

        if __name__ == "__main__":
            etl()
    """)
    program.run_and_be_killed()
    program.resume()
    ids = [span.span_id for span in receiver.spans]
    assert len(set(ids)) == len(ids)
    died, resumed = sorted(named(receiver, "flow etl"), key=lambda span: span.start_time_unix_nano)
    assert died.trace_id == resumed.trace_id
    assert [link.span_id for link in resumed.links] == [died.span_id]
    assert (died.status.code, resumed.status.code) == (ERROR, OK)
    assert [attributes(span)["wfengine.flow_run.reason"] for span in (died, resumed)] == ["start", "resume"]
    assert the(receiver, "task second").parent_span_id == resumed.span_id
    interrupted = [span for span in receiver.spans if attributes(span).get("wfengine.state") == "INTERRUPTED"]
    assert [span.name for span in interrupted] == ["attempt 1 of second"]
    assert the(receiver, "attempt 2 of second").status.code == OK


def test_an_isolated_run_of_a_daemon_sends_its_spans_before_its_process_ends(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow, serve, task

        @task
        def one():
            return 1

        @flow
        def etl():
            return one()

        if __name__ == "__main__":
            serve(etl.to_deployment("apart", isolate=True), metrics_port=0)
    """)
    with DaemonProcess(program.folder, "program.py", environment=program.environment) as daemon:
        daemon.wait_until_ready()
        done = program.python("-m", "wfengine", "deployments", "run", "etl/apart", "--watch")
        assert done.code == 0, done
        assert "metrics at http://127.0.0.1:" in daemon.said
        assert daemon.stop() == 0, daemon.said
    assert_whole(receiver)
    assert the(receiver, "task one").parent_span_id == the(receiver, "flow etl").span_id
    assert attributes(the(receiver, "flow etl"))["wfengine.deployment.name"] == "etl/apart"


def test_a_receiver_that_is_not_there_stops_no_run(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow

        @flow
        def etl():
            return 1

        if __name__ == "__main__":
            print(etl())
    """)
    program.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = program.run()
    assert (done.code, done.out.strip()) == (0, "1"), done


def test_nothing_is_sent_of_a_trace_that_the_sampler_leaves_out(program: Program, receiver: Receiver) -> None:
    traced(program, receiver).write("""
        from wfengine import flow

        @flow
        def etl(): ...

        if __name__ == "__main__":
            etl()
    """)
    program.environment["OTEL_TRACES_SAMPLER"] = "always_off"
    assert program.run().code == 0
    assert receiver.spans == []


@pytest.mark.parametrize(
    ("packages", "value", "said"),
    [(False, "otlp", "pip install 'wfengine[otel]'"), (True, "zipkin", "WFENGINE_TRACES='zipkin' is no way to send traces")],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    program: Program, receiver: Receiver, packages: bool, value: str, said: str
) -> None:
    traced(program, receiver).write("""
        from wfengine import flow

        @flow
        def etl(): ...

        if __name__ == "__main__":
            etl()
    """)
    program.environment["WFENGINE_TRACES"] = value
    if not packages:
        (program.folder / "opentelemetry.py").write_text("raise ImportError('no')")
    program.environment["PYTHONPATH"] = os.pathsep.join([str(program.folder), program.environment.get("PYTHONPATH", "")])
    done = program.run()
    assert done.code != 0
    assert said in done.err
