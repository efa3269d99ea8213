"""Flows that wait for a person: in their process or parked, over kill -9 and edits; answers are checked and count once."""

from __future__ import annotations

import asyncio
import threading

import pydantic
import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import State, flow, pause_flow_run, resume_flow_run, suspend_flow_run, task, use_journal
from wfengine.input import RunInput
from wfengine.input_requests import InputGiven
from wfengine.journals import default_journal
from wfengine.recovery import resume_run
from wfengine_journal.errors import (
    FlowPauseTimeout,
    InvalidInputError,
    NotPausedError,
    PausedRun,
    UsageError,
)
from wfengine_journal.store import Journal


class Approval(RunInput):
    approved: bool
    note: str = ""


class Strict(pydantic.BaseModel):
    amount: int

    @pydantic.field_validator("amount")
    @classmethod
    def positive(cls, amount: int) -> int:
        if amount <= 0:
            raise ValueError("must be above 0")
        return amount


def give_when_asked(run: int, value: object, key: str | None = None) -> None:
    """Give a run its input as soon as it asks for one, and return when that call has it and asks no more."""
    for _ in range(12_000):
        try:
            given = resume_flow_run(run, value, key=key)
            records = default_journal().records
            while records.get_call(given.flow_run_id, given.task_run_id).state == "RUNNING" and not is_asked_again(given):
                threading.Event().wait(0.005)
            if given.is_new:
                return
        except UsageError as error:
            if isinstance(error, InvalidInputError):
                raise
        except NotPausedError:
            pass
        threading.Event().wait(0.005)


def is_asked_again(given: InputGiven) -> bool:
    """Tell whether the flow refused the answer, so that the call goes on to wait."""
    taken = "SELECT 1 FROM message WHERE flow_run_id = ? AND topic LIKE ? AND received_by IS NOT NULL"
    return default_journal().records.row(taken, (given.flow_run_id, f"%{given.task_run_id}%")) is not None


def answered(flow_call: object, *answers: tuple[int, object]) -> object:
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(flow_call()))  # type: ignore[operator]
    thread.start()
    for run, value in answers:
        give_when_asked(run, value)
    thread.join()
    return got[0]


def test_a_paused_flow_goes_on_with_the_input_that_it_is_given(rows: Rows) -> None:
    @flow
    def asks() -> tuple[object, ...]:
        return pause_flow_run(wait_for_input=Approval), pause_flow_run(wait_for_input=bool), pause_flow_run()

    @flow
    async def asks_async() -> object:
        return await pause_flow_run(wait_for_input=Approval, poll_interval=1)

    first, second, third = answered(asks, (1, {"approved": True}), (1, {"value": False}), (1, None))
    assert (first, second, third) == (Approval(approved=True), False, None)
    assert answered(lambda: asyncio.run(asks_async()), (2, Approval(approved=False, note="no"))) == Approval(
        approved=False, note="no"
    )
    assert rows("SELECT result FROM tasks WHERE run_id = 2") == [('{"approved":false,"note":"no"}',)]


def test_a_suspended_run_is_parked_and_goes_on_when_it_is_resumed(rows: Rows, journal: Journal) -> None:
    ran: list[str] = []

    @task
    def before() -> None:
        ran.append("before")

    @flow
    def asks() -> object:
        before()
        return suspend_flow_run(wait_for_input=Approval)

    with pytest.raises(PausedRun, match=r'waits for input: approved \(boolean\).*--input .\{"approved": true\}') as parked:
        asks()
    assert isinstance(parked.value.state, State)
    assert parked.value.state.name == "Suspended"
    assert rows.state() == ("PAUSED", "Suspended")
    assert rows.value("SELECT wake_at FROM flow_run") is not None
    assert rows("SELECT state, state_name FROM tasks WHERE task = 'wfengine.suspend'") == [("PAUSED", "Suspended")]
    assert rows("SELECT * FROM in_doubt") == []
    given = resume_flow_run(1, {"approved": True})
    again = resume_flow_run(1, {"approved": False})
    assert (given.is_new, given.goes_on, again.is_new) == (True, False, False)
    assert asks.resume(1) == Approval(approved=True)
    assert ran == ["before"]
    with pytest.raises(NotPausedError, match="waits for no input now"):
        resume_flow_run(1, {"approved": True})


def test_an_async_flow_and_a_task_may_suspend(rows: Rows) -> None:
    @task
    def asks_inside() -> object:
        return suspend_flow_run(wait_for_input=int, timeout=None)

    @flow
    async def asks() -> object:
        return [await suspend_flow_run(wait_for_input=str), asks_inside()]

    with pytest.raises(PausedRun):
        asyncio.run(asks())
    resume_flow_run(1, "yes")
    with pytest.raises(PausedRun):
        asyncio.run(asks.resume(1))
    assert rows("SELECT wake_at FROM flow_run") == [(None,)]
    resume_flow_run(1, 5)
    assert asyncio.run(asks.resume(1)) == ["yes", 5]


def test_a_suspended_subflow_parks_its_caller_and_is_answered_through_either() -> None:
    @flow
    def child() -> object:
        return suspend_flow_run(wait_for_input=int)

    @flow
    def parent() -> list[object]:
        return [child(), child()]

    with pytest.raises(PausedRun):
        parent()
    assert resume_flow_run(1, 1).flow_run_id == 2
    with pytest.raises(PausedRun):
        parent.resume(1)
    resume_flow_run(3, 2)
    assert parent.resume(1) == [1, 2]


def test_a_suspension_without_input_ends_by_a_person_s_resume_and_not_by_a_recovery(rows: Rows, journal: Journal) -> None:
    @flow
    def asks() -> str:
        suspend_flow_run()
        return "went on"

    with pytest.raises(PausedRun):
        asks()
    assert resume_run(journal, 1, recovery=True).name == "Suspended"
    assert asks.resume(1) == "went on"


def test_resuming_without_the_input_parks_the_run_again_and_says_what_to_type(rows: Rows) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=Approval)

    for call in (asks, lambda: asks.resume(1)):
        with pytest.raises(PausedRun, match=r"wfengine resume .* --input"):
            call()
    assert rows.state() == ("PAUSED", "Suspended")
    resume_flow_run(1, {"approved": True})
    assert asks.resume(1) == Approval(approved=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "approved: is missing"),
        ({"approved": "x"}, 'approved: "x" is not of type boolean'),
        ({"approved": True, "comment": 1}, "comment: there is no such field; there are: approved, note"),
        ({"approved": True, "note": 5}, "note: 5 is not of type string"),
        ([], "is not of type object"),
        ({"approved": {1}}, "must be plain data"),
    ],
)
def test_a_wrong_input_is_refused_with_its_fields_and_the_run_waits_on(rows: Rows, given: object, said: str) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=Approval)

    with pytest.raises(PausedRun):
        asks()
    with pytest.raises(InvalidInputError, match=r"was not given|plain data") as refused:
        resume_flow_run(1, given)
    assert said in str(refused.value)
    assert rows("SELECT * FROM messages") == []


def test_an_input_that_the_model_itself_refuses_is_asked_for_again(rows: Rows) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=Strict)

    with pytest.raises(PausedRun):
        asks()
    resume_flow_run(1, {"amount": -1})  # the recorded schema knows no validators
    with pytest.raises(PausedRun, match="the last was refused: amount: Value error, must be above 0"):
        asks.resume(1)
    resume_flow_run(1, {"amount": 1})
    assert asks.resume(1) == Strict(amount=1)
    assert answered(asks_in_process, (2, {"amount": 0}), (2, {"amount": 3})) == Strict(amount=3)


@flow
def asks_in_process() -> object:
    return pause_flow_run(wait_for_input=Strict)


def test_an_input_for_a_run_that_wants_none_or_several_is_refused(rows: Rows) -> None:
    @flow
    async def several() -> list[object]:
        return list(await asyncio.gather(*(pause_flow_run(wait_for_input=int, key=key) for key in "ab")))

    @flow
    def none() -> None:
        suspend_flow_run()

    with pytest.raises(PausedRun):
        none()
    with pytest.raises(InvalidInputError, match="takes no input"):
        resume_flow_run(1, {"approved": True})
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(asyncio.run(several())))
    thread.start()
    give_when_asked(2, 2, key="b")
    give_when_asked(2, 1, key="a")
    thread.join()
    assert got == [[1, 2]]


def test_a_pause_that_nobody_answers_is_a_recorded_failure_and_a_resume_asks_again(rows: Rows) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=int, timeout=0)

    @flow
    def catches() -> str:
        try:
            pause_flow_run(timeout=0)
        except FlowPauseTimeout:
            return "nobody came"
        return "went on"

    with pytest.raises(FlowPauseTimeout, match="nobody came"):
        asks()
    assert catches() == "nobody came"
    with pytest.raises(FlowPauseTimeout):
        asks.resume(1)
    assert rows.value("SELECT json_extract(value, '$.number') FROM item WHERE flow_run_id = 1 AND key = 'input_request'") == 2


def test_a_time_limit_of_a_suspended_run_counts_while_nothing_runs(clock: FakeClock, rows: Rows) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=int, timeout=60)

    with pytest.raises(PausedRun):
        asks()
    clock.now += 59
    with pytest.raises(PausedRun):
        asks.resume(1)
    clock.now += 2
    with pytest.raises(NotPausedError, match="its time is over"):
        resume_flow_run(1, 5)
    with pytest.raises(FlowPauseTimeout):
        asks.resume(1)


PROGRAM = """
    from pydantic import BaseModel
    from wfengine import pause_flow_run, suspend_flow_run
    class Approval(BaseModel):
        approved: bool
        comment: str = ""
    @task
    def prepare():
        note("prepared")
    @flow
    def release():
        prepare()
        {before}
        found = {call}(wait_for_input=Approval)
        {after}
        return repr(found)
    if __name__ == "__main__":
        release()
"""


def edited(**changes: str) -> str:
    text = PROGRAM
    for name, value in {"before": "pass", "call": "pause_flow_run", "after": "pass", **changes}.items():
        text = text.replace("{" + name + "}", value)
    return text


def test_an_approval_waits_over_a_kill_and_a_code_edit(program: Program, rows: Rows) -> None:
    program.write(edited(before="import threading; threading.Timer(0.3, kill).start()"))
    program.run_and_be_killed()
    program.write(edited(after='note("edited")').replace('comment: str = ""', 'comment: str = ""\n        by: str = "me"'))
    use_journal(program.folder / "journal.db")
    resume_flow_run(1, {"approved": True, "comment": "fine"})
    answer = program.resume(1)
    assert answer["result"] == "\"Approval(approved=True, comment='fine', by='me')\""
    assert program.effects == ["prepared", "edited"]


def test_a_recorded_input_is_replayed_through_the_model_as_it_is_now(program: Program, rows: Rows) -> None:
    program.write(edited(call="suspend_flow_run", after="if first_time(): kill()"))
    program.run()
    use_journal(program.folder / "journal.db")
    resume_flow_run(1, {"approved": True, "comment": "fine"})
    killed = program.python(
        "-c", "from wfengine import use_journal; from wfengine.recovery import *; resume_run(use_journal(None), 1)"
    )
    assert killed.was_killed, killed
    new_required = edited(call="suspend_flow_run").replace("approved: bool", "approved: bool\n        reason: str")
    program.write(new_required)
    answer = program.resume(1)
    assert "does not fit Approval as the code has it now: reason: Field required" in str(answer)
    program.write(edited(call="suspend_flow_run").replace('        comment: str = ""\n', ""))  # a field less
    assert program.resume(1)["result"] == "'Approval(approved=True)'"
    assert program.effects == ["prepared"]


def test_initial_data_and_a_description_stand_in_the_request(rows: Rows) -> None:
    @flow
    def asks() -> object:
        return suspend_flow_run(wait_for_input=Approval.with_initial_data(description="Release 7?", approved=True))

    with pytest.raises(PausedRun):
        asks()
    assert rows.value("SELECT json_extract(value, '$.description') FROM item WHERE key = 'input_request'") == "Release 7?"
    resume_flow_run(1, {})
    got = asks.resume(1)
    assert isinstance(got, Approval)
    assert got.approved is True
    with pytest.raises(UsageError, match="has no field 'nope'"):
        Approval.with_initial_data(nope=1)


def test_what_pydantic_cannot_describe_is_refused() -> None:
    class Opaque:
        pass

    @flow
    def asks() -> object:
        return pause_flow_run(wait_for_input=Opaque)

    with pytest.raises(UsageError, match="wait_for_input takes a pydantic model"):
        asks()
