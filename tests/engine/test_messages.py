"""Messages to flow runs: each is received by one call, or kept; time limits and idempotency keys."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import current_flow_run, flow, get_event, receive, send, set_event, task, use_journal, wait_until
from wfengine.input import RunInput, receive_input, send_input
from wfengine_journal.errors import (
    InvalidValueError,
    MissingContextError,
    NotFoundError,
    ReceiveTimeoutError,
    RunEndedError,
)
from wfengine_journal.store import Journal


def beside(fn: object) -> threading.Thread:
    """Run a function on a thread of its own that belongs to no flow."""
    thread = threading.Thread(target=fn)  # type: ignore[arg-type]
    thread.start()
    return thread


def when(rows: Rows, sql: str) -> None:
    """Wait until a query finds something."""
    for _ in range(12_000):
        if rows(sql):
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"nothing came of {sql}")


WAITING = "SELECT 1 FROM tasks WHERE task = 'wfengine.receive' AND state = 'RUNNING'"


def test_a_flow_receives_what_is_sent_to_it_while_it_waits(rows: Rows) -> None:
    got: list[object] = []

    @flow
    def waiter() -> object:
        return receive("orders")

    thread = beside(lambda: got.append(waiter()))
    when(rows, WAITING)
    message = send("@last", {"order": 7}, topic="orders")
    thread.join()
    assert got == [{"order": 7}]
    assert (message.flow_run_id, message.topic, message.is_new) == (1, "orders", True)
    assert rows("SELECT value, sender_run_id, received_by_task_id FROM messages") == [('{"order":7}', None, 1)]


def test_messages_of_a_topic_are_received_in_the_order_of_sending_and_others_are_left(rows: Rows) -> None:
    @flow
    def mailbox() -> list[object]:
        run = current_flow_run().id
        for number in range(3):
            send(run, number)
        send(run, "elsewhere", topic="other")
        return [receive() for _ in range(3)]

    assert mailbox() == [0, 1, 2]
    assert rows("SELECT topic, sender_run_id FROM messages WHERE received_at IS NULL") == [("other", 1)]


def test_two_receivers_never_get_one_message() -> None:
    @task
    def take(number: int) -> object:
        return receive("shared")

    @flow
    def threads() -> list[object]:
        futures = [take.submit(number) for number in range(4)]
        for number in range(4):
            send(current_flow_run().id, number, topic="shared")
        return sorted(future.result() for future in futures)

    @flow
    async def gathered() -> list[object]:
        run = current_flow_run().id
        for number in range(4):
            await send(run, number, topic="shared")
        return sorted(await asyncio.gather(*(receive("shared") for _ in range(4))))

    assert threads() == [0, 1, 2, 3]
    assert asyncio.run(gathered()) == [0, 1, 2, 3]


def test_an_async_flow_goes_on_with_other_work_while_it_waits() -> None:
    @flow
    async def busy() -> list[object]:
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send(current_flow_run().id, "now")
        return [await waiting]

    assert asyncio.run(busy()) == ["now"]


def test_a_second_message_with_the_same_key_is_not_sent(rows: Rows) -> None:
    answers: list[bool] = []

    @flow
    def mailbox() -> list[object]:
        run = current_flow_run().id
        answers.extend(send(run, value, idempotency_key="k").is_new for value in ("first", "second"))
        answers.append(send(run, "third", topic="other", idempotency_key="k").is_new)
        return [receive(), receive(timeout_seconds=0, default="nothing")]

    assert mailbox() == ["first", "nothing"]
    assert answers == [True, False, True]
    assert send(1, "again", idempotency_key="k").is_new is False  # also when the run has ended
    assert rows.value("SELECT count(*) FROM messages") == 2


def test_a_message_to_an_ended_run_is_an_error_that_says_so(rows: Rows) -> None:
    @flow
    def short() -> None:
        return None

    @flow
    def sends_to_it() -> str:
        try:
            send(1, "late")
        except RunEndedError as error:
            return str(error)
        return "sent"

    short()
    with pytest.raises(RunEndedError, match=r"has ended \(COMPLETED\) and receives nothing more"):
        send(1, "late")
    with pytest.raises(NotFoundError):
        send(99, "nobody")
    assert "has ended" in sends_to_it()
    assert rows("SELECT state FROM tasks WHERE task = 'wfengine.send'") == [("FAILED",)]
    assert rows("SELECT * FROM messages") == []


def test_large_values_and_values_that_are_no_json_arrive_as_they_were_sent(rows: Rows) -> None:
    values = ["x" * 5000, os.urandom(4096), {1, 2}, None]

    @flow
    def mailbox() -> list[object]:
        for value in values:
            send(current_flow_run().id, value)
        return [receive() for _ in values]

    assert mailbox() == values
    assert rows.value("SELECT count(*) FROM message WHERE value IS NULL") == 2


@pytest.mark.parametrize("topic", ["", "x" * 501, "line\nbreak", "\x1b[31mred", "\udcff", "wfengine.input:1:1", 7])
def test_a_topic_that_could_not_be_typed_again_is_refused(topic: object) -> None:
    with pytest.raises(InvalidValueError):
        send(1, "value", topic=topic)  # type: ignore[arg-type]


def test_a_topic_may_hold_quotes_and_sql(rows: Rows) -> None:
    topic = "'; DROP TABLE message; -- \" ü 漢"

    @flow
    def mailbox() -> object:
        send(current_flow_run().id, 1, topic=topic)
        return receive(topic)

    assert mailbox() == 1
    assert rows.value("SELECT topic FROM messages") == topic


def test_receiving_outside_of_a_flow_is_refused() -> None:
    with pytest.raises(MissingContextError, match=r"receive\(\) was called outside"):
        receive()


def test_a_time_limit_is_an_error_that_the_flow_may_catch_or_a_default(rows: Rows) -> None:
    @flow
    def patient() -> list[object]:
        try:
            receive("never", timeout_seconds=0)
        except ReceiveTimeoutError as error:
            caught = isinstance(error, TimeoutError)
        return [caught, receive("never", timeout_seconds=0, default=None)]

    assert patient() == [True, None]
    assert rows("SELECT state FROM tasks ORDER BY id") == [("FAILED",), ("COMPLETED",)]


def test_a_time_limit_counts_over_a_restart_and_what_was_sent_in_time_is_received(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import receive, wait_until
        @flow
        def patient():
            note("began")
            if first_time("killed"):
                import threading
                threading.Timer(0.2, kill).start()
            return receive("a", timeout_seconds=0.5, default="late"), receive("b", timeout_seconds=3600)
        if __name__ == "__main__":
            patient()
    """)
    program.run_and_be_killed()
    use_journal(program.folder / "journal.db")
    ((until,),) = rows("SELECT value FROM item WHERE key = 'deadline'")
    send("@last", 2, topic="b")
    threading.Event().wait(0.6)  # the instant is in the past now
    send("@last", 1, topic="a")  # too late
    assert program.resume(recovery=True)["result"] == "('late', 2)"
    assert rows.value("SELECT value FROM item WHERE key = 'deadline' AND task_run_id = 1") == until
    assert rows("SELECT topic FROM messages WHERE received_at IS NULL") == [("a",)]


def test_a_message_that_is_sent_while_the_receiver_is_dead_is_kept(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import receive
        @flow
        def waiter():
            for _ in range(2):
                note(receive())
                if first_time("killed"):
                    kill()
            return "done"
        if __name__ == "__main__":
            import threading
            from wfengine import send
            threading.Timer(0.3, lambda: send(1, "one")).start()
            waiter()
    """)
    program.run_and_be_killed()
    use_journal(program.folder / "journal.db")
    send(1, "two")
    assert program.resume(recovery=True)["result"] == "'done'"
    assert program.effects == ["one", "one", "two"]  # replayed, then the next
    assert rows.value("SELECT count(*) FROM messages WHERE received_at IS NOT NULL") == 2


def test_a_receive_is_not_given_up_however_often_its_process_dies(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import receive
        @flow
        def waiter():
            if not (HERE / "no-more").exists():
                import threading
                threading.Timer(0.2, kill).start()
            return receive()
        if __name__ == "__main__":
            waiter()
    """)
    program.run_and_be_killed()
    for _ in range(4):
        done = program.python(
            "-c", "from wfengine import use_journal; from wfengine.recovery import *; resume_run(use_journal(None), 1)"
        )
        assert done.was_killed, done
    (program.folder / "no-more").touch()
    use_journal(program.folder / "journal.db")
    send(1, "at last")
    assert program.resume(recovery=True)["result"] == "'at last'"
    assert rows("SELECT count(*) FROM in_doubt") == [(0,)]


def test_a_task_that_timed_out_takes_no_message_with_its_thread_that_is_left_behind(rows: Rows) -> None:
    @task(timeout_seconds=0.1)
    def impatient() -> object:
        return receive("work")

    @flow
    def tries() -> list[object]:
        state = impatient(return_state=True)
        send(current_flow_run().id, "for the flow", topic="work")
        return [state.name, receive("work", timeout_seconds=5)]

    assert tries() == ["TimedOut", "for the flow"]


def test_a_cancelled_receive_leaves_the_message_to_the_next(rows: Rows) -> None:
    @flow
    async def hasty() -> object:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive("work"), 0.02)
        await send(current_flow_run().id, "kept", topic="work")
        return await receive("work", timeout_seconds=5)

    assert asyncio.run(hasty()) == "kept"


def test_replayed_sends_and_receives_do_nothing_again(program: Program, rows: Rows) -> None:
    program.write("""
        from wfengine import send, receive, set_event, get_event, wait_until, current_flow_run
        @flow
        def talker():
            run = current_flow_run().id
            sent = send(run, 1)
            set_event("e", 1)
            found = [receive(), get_event(run, "e"), wait_until(lambda: note("asked") or 5), sent.is_new]
            if first_time():
                kill()
            return found
        if __name__ == "__main__":
            talker()
    """)
    program.run_and_be_killed()
    assert program.resume(recovery=True)["result"] == "[1, 1, 5, True]"
    assert program.effects == ["asked"]
    assert rows.value("SELECT count(*) FROM messages") == 1


def test_a_message_arrives_within_milliseconds_in_one_process(journal: Journal) -> None:
    @flow
    def pong(other: int) -> None:
        for number in range(20):
            receive("ping")
            send(other, number, topic="pong")

    @flow
    def ping() -> float:
        thread = beside(lambda: pong(current_id[0]))
        wait_until(lambda: journal.records.row("SELECT 1 FROM flow_run WHERE id = 2", ()))
        begun = journal.clock.monotonic_seconds()
        for number in range(20):
            send(2, number, topic="ping")
            receive("pong")
        thread.join()
        return (journal.clock.monotonic_seconds() - begun) / 20

    current_id = [1]
    assert ping() < 0.09  # a wait that only looked again now and then would take longer: LOOK_AGAIN_SECONDS


class Greeting(RunInput):
    name: str


def test_run_inputs_are_sent_received_and_responded_to() -> None:
    @flow
    def greeted() -> list[object]:
        run = current_flow_run().id
        Greeting(name="Ada").send_to(run)
        send_input("plain", run)
        got = Greeting.receive(timeout=60).next()
        got.respond(Greeting(name="back"))
        rest = [each.name for each in Greeting.receive(timeout=0)]
        return [got.name, got.sender == run, rest, receive_input(str, timeout=60).next()]

    @flow
    async def greeted_async() -> list[object]:
        run = current_flow_run().id
        await Greeting(name="Bob").send_to(run)
        return [each.name async for each in Greeting.receive(timeout=0)]

    assert greeted() == ["Ada", True, ["back"], "plain"]
    assert asyncio.run(greeted_async()) == ["Bob"]


def test_a_wrong_run_input_is_refused_with_its_fields(tmp_path: Path) -> None:
    @flow
    def greeted() -> object:
        run = current_flow_run().id
        send_input({"nome": "Ada"}, run, key_prefix="greeting-auto")
        return Greeting.receive(timeout=60).next()

    with pytest.raises(ValueError, match="no Greeting: name: Field required"):
        greeted()


def test_events_and_time_do_not_need_the_machine_s_clock(clock: FakeClock) -> None:
    @flow
    def instant() -> object:
        set_event("e", 1)
        return get_event(1, "e", timeout_seconds=0), receive(timeout_seconds=0, default="no")

    assert instant() == (1, "no")
