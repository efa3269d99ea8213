"""Background tasks: put into the journal by one process, done by a worker of this or another one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from wfengine import task
from wfengine.task_worker import TaskWorker
from wfengine.tasks import Task


def test_a_background_task_waits_in_the_journal_for_a_worker() -> None:
    done: list[tuple[int, str]] = []

    @task
    def send(number: int, to: str = "all") -> int:
        done.append((number, to))
        return number

    first = send.delay(1)
    second = send.apply_async((2,), {"to": "ada"})
    assert done == []
    assert first.state.is_scheduled()

    with _worker_of(send):
        assert (first.result(timeout=60), second.result(timeout=60)) == (1, 2)
    assert sorted(done) == [(1, "all"), (2, "ada")]
    assert first.state.is_completed()


@contextmanager
def _worker_of(*tasks: Task[..., object]) -> Iterator[None]:
    """Let a worker do what waits, on a thread of its own, until the block ends."""
    worker = TaskWorker(*tasks)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
