"""Automations: looked at step by step - what fires, what is done about it, what is refused, and that loops end."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any

import pytest

from tests.engine.conftest import FakeClock, Rows
from wfengine import flow, receive
from wfengine.automations import (
    Action,
    Automation,
    CancelFlowRun,
    CompoundTrigger,
    DoNothing,
    EmitEvent,
    EventTrigger,
    PauseAutomation,
    PauseDeployment,
    PauseFlowRun,
    Posture,
    ResumeAutomation,
    ResumeDeployment,
    ResumeFlowRun,
    RunDeployment,
    SendMessage,
    SequenceTrigger,
    SuspendFlowRun,
    apply_automations,
)
from wfengine.automations import service as service_module
from wfengine.automations.definitions import automation_of
from wfengine.automations.service import Automations
from wfengine.deployments import Deployment
from wfengine.events import emit_event
from wfengine.journals import default_journal
from wfengine.schedules import Cron
from wfengine_journal import store
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_scheduler.loop import Scheduler


@flow(name="ship")
def ship(order: int, note: str = "") -> int:
    return order


def create(trigger: Any, *actions: Action, name: str = "a", **options: Any) -> Automation:
    return Automation(name=name, trigger=trigger, actions=list(actions) or [DoNothing()], **options).create()


def on(*names: str, **options: Any) -> EventTrigger:
    return EventTrigger(expect=names, **options)


def settle(journal: store.Journal | None = None) -> None:
    """Let a service that was just started do all there is to do."""
    service = Automations(journal or use_journal_again())
    for _ in range(200):
        if not service.step():
            return
    raise AssertionError("there is no end to it")


def use_journal_again() -> store.Journal:
    return default_journal()


def results(rows: Rows) -> list[list[dict[str, Any]]]:
    return [json.loads(str(text)) for (text,) in rows("SELECT results FROM firings ORDER BY id")]


def queued(deployment_id: int) -> int:
    journal = use_journal_again()
    name = new_run_name(journal.records.is_run_name_taken)
    change = QueueRun(RunRequest(deployment_id, name, journal.clock.now_text(), parameters={"order": 1}))
    journal.write(change, synced=False)
    return change.flow_run_id


@pytest.fixture
def deployment(clock: FakeClock) -> int:
    """A deployment, with a clock that stands still."""
    found = Deployment.build_from_flow(
        ship, "now", parameters={"note": "usual"}, schedules=[Cron("@daily", slug="daily")]
    ).apply()
    assert isinstance(found, int)
    return found


# ------------------------------------------------------------------------------------------- looking


def test_an_event_that_is_expected_fires_once_and_no_other_does(rows: Rows, clock: FakeClock) -> None:
    emit_event("order.placed", "before")
    create(on("order.*"))
    emit_event("order.placed", "one", payload={"n": 1})
    emit_event("invoice.placed", "two")
    settle()
    settle()
    ((automation, state, event_id, context),) = rows("SELECT automation, state, event_id, context FROM firings")
    assert (automation, state, event_id) == ("a", "done", 2)
    assert json.loads(str(context))["event"]["payload"] == {"n": 1}


def test_a_window_goes_on_over_restarts(rows: Rows, clock: FakeClock) -> None:
    create(on("failed", threshold=3, within=timedelta(seconds=60), for_each={"wfengine.resource.id"}))
    for at in (0, 30, 50, 89, 91):
        clock.now = 1_750_000_000.0 + at
        emit_event("failed", "x")
        emit_event("failed", f"other.{at}")
        settle()
    ((event_id,),) = rows("SELECT event_id FROM firings")
    assert rows("SELECT occurred_at FROM events WHERE id = ?", event_id) == [("2025-06-15T15:07:30.000000Z",)]  # the one at 50


def test_an_absence_fires_when_its_time_has_come_though_nothing_happened(rows: Rows, clock: FakeClock) -> None:
    create(
        EventTrigger(
            after={"begun"}, expect={"ended"}, for_each={"wfengine.resource.id"}, posture=Posture.Proactive, within=60
        ),
        EmitEvent(event="late", payload={"of": "{{ since.resource }}", "by": "{{ deadline }}"}),
    )
    emit_event("begun", "one")
    emit_event("begun", "two")
    settle()
    assert rows("SELECT due_at FROM automations") == [("2025-06-15T15:07:40.000000Z",)]
    emit_event("ended", "two")
    clock.now += 59.999
    settle()
    assert rows("SELECT * FROM firings") == []
    clock.now += 0.001
    settle()
    settle()
    assert rows("SELECT event_id FROM firings") == [(None,)]
    assert rows("SELECT payload FROM events WHERE name = 'late'") == [('{"of":"one","by":"2025-06-15T15:07:40.000000Z"}',)]


def test_an_event_that_came_in_time_counts_though_nobody_looked_until_later(rows: Rows, clock: FakeClock) -> None:
    create(EventTrigger(after={"begun"}, expect={"ended"}, posture="Proactive", within=60))
    emit_event("begun", "one")
    clock.now += 50
    emit_event("ended", "one")
    clock.now += 10_000
    settle()
    assert rows("SELECT * FROM firings") == []


def test_the_service_wakes_by_itself_when_an_absence_is_due(rows: Rows, journal: store.Journal) -> None:
    create(EventTrigger(expect={"beat"}, posture="Proactive", within=1))
    service = Automations(journal)
    service.start()
    while not rows("SELECT 1 FROM firings WHERE state = 'done'"):
        assert service.fault is None
        journal.changes.wait(journal.changes.mark(), 5)
    service.stop(10)
    assert service.fault is None


def test_sequences_and_compounds_fire_over_restarts(rows: Rows, clock: FakeClock) -> None:
    both = [on("a"), on("b")]
    create(SequenceTrigger(triggers=both, within=10), name="sequence")
    create(CompoundTrigger(require="all", triggers=both, within=10), name="compound")
    for name in ("b", "a", "b"):
        emit_event(name, "r")
        settle()
    assert rows("SELECT automation, event_id FROM firings ORDER BY id") == [("compound", 2), ("sequence", 3)]


def test_a_flow_run_is_matched_by_its_flow_and_name(rows: Rows, deployment: int) -> None:
    create(
        EventTrigger(
            expect={"prefect.flow-run.Scheduled"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "deployment", "prefect.resource.name": "ship/now"},
        )
    )
    run_id = queued(deployment)
    settle()
    ((context,),) = rows("SELECT context FROM firings")
    found = json.loads(str(context))["event"]
    assert (found["flow_run"]["id"], found["flow"], found["deployment"]) == (run_id, {"name": "ship"}, {"name": "ship/now"})


def test_task_runs_are_events_only_while_an_automation_wants_them(rows: Rows) -> None:
    from wfengine import task

    @task
    def work() -> int:
        return 1

    @flow
    def main() -> int:
        return work()

    main()
    create(on("wfengine.task-run.Completed", match={"wfengine.resource.name": "work"}))
    main()
    settle()
    assert rows("SELECT count(*) FROM firings") == [(1,)]
    assert Automation.read(name="a").disable()  # type: ignore[attr-defined]
    main()
    assert rows("SELECT count(*) FROM events WHERE name = 'wfengine.task-run.Completed'") == [(1,)]


def test_a_paused_automation_misses_what_happens_meanwhile(rows: Rows, clock: FakeClock) -> None:
    automation = create(on("e"))
    automation.disable()
    emit_event("e", "one")
    settle()
    automation.enable()
    settle()
    emit_event("e", "two")
    settle()
    assert rows("SELECT event_id FROM firings") == [(2,)]


def test_events_without_consequence_are_read_once_and_remembered_now_and_then(rows: Rows, clock: FakeClock) -> None:
    batch = service_module.BATCH_EVENTS
    create(on("wanted"))
    service = Automations(use_journal_again())
    for number in range(2 * batch + 2):
        emit_event("other", f"r.{number}")
    while service.step():
        pass
    assert rows("SELECT seen_to FROM automations") == [(2 * batch,)]
    emit_event("wanted", "r")
    while service.step():
        pass
    assert rows("SELECT seen_to FROM automations") == [(2 * batch + 3,)]
    assert rows("SELECT event_id FROM firings") == [(2 * batch + 3,)]


def test_two_who_look_at_the_same_time_fire_once(rows: Rows, clock: FakeClock) -> None:
    create(on("e"), EmitEvent(event="done"))
    emit_event("e", "r")
    first, second = Automations(use_journal_again()), Automations(use_journal_again())
    row = service_module.list_active(use_journal_again().records)[0]
    assert first._evaluate(row)
    assert second._evaluate(row)  # with the row as it was read before
    (firing,) = service_module.list_pending(use_journal_again().records, use_journal_again().clock.now_text(), 9)
    assert first._performer.perform(firing) is None
    assert second._performer.perform(firing) is None
    settle()
    assert rows("SELECT count(*) FROM firings") == [(1,)]
    assert rows("SELECT count(*) FROM events WHERE name = 'done'") == [(1,)]


# ------------------------------------------------------------------------------------------- doing


def test_a_deployment_is_run_with_what_the_event_says(rows: Rows, deployment: int) -> None:
    create(
        on("order.placed"),
        RunDeployment(
            deployment="ship/now",
            parameters={"order": "{{ event.payload.id }}", "note": "of {{ event.resource }}"},
            tags=["{{ event.labels['region'] }}"],
            priority=3,
            delay_seconds=60,
        ),
    )
    emit_event("order.placed", {"wfengine.resource.id": "order.7", "region": "eu"}, payload={"id": 7})
    settle()
    assert rows("SELECT flow, state, parameters, tags, priority, due_at, idempotency_key, deployment FROM runs") == [
        (
            "ship",
            "SCHEDULED",
            '{"note":"of order.7","order":7}',
            '["eu"]',
            3,
            "2025-06-15T15:07:40.000000Z",
            "firing:1:0",
            "ship/now",
        )
    ]
    ((result,),) = results(rows)
    assert (result["outcome"], result["flow_run_id"], result["deployment"]) == ("done", 1, "ship/now")


def test_what_fails_says_why_and_the_other_actions_are_done(rows: Rows, deployment: int) -> None:
    create(
        on("e"),
        RunDeployment(deployment="ship/gone"),
        RunDeployment(deployment="now", parameters={"order": "{{ event.payload.id }}"}),
        CancelFlowRun(),
        CancelFlowRun(flow_run=99),
        PauseAutomation(automation="gone"),
        SendMessage(value=1),
        ResumeDeployment(deployment="now", schedule="hourly"),
        EmitEvent(event="wfengine.fake"),
        EmitEvent(event="last"),
    )
    emit_event("e", "r")
    settle()
    (found,) = results(rows)
    assert [each["outcome"] for each in found] == ["failed"] * 8 + ["done"]
    reasons = [each.get("reason", "") for each in found]
    for reason, part in zip(
        reasons,
        (
            "no deployment 'ship/gone'", "names 'id'", "of no flow run", "no flow run 99", "no automation 'gone'",
            "of no flow run", "has no schedule 'hourly'", "wfengine's own events",
        ),
        strict=False,
    ):  # fmt: skip
        assert part in reason
    assert rows("SELECT state, actions_done FROM firings") == [("failed", 9)]


def test_runs_are_cancelled_paused_and_resumed(rows: Rows, deployment: int) -> None:
    create(on("cancel"), CancelFlowRun(flow_run="{{ event.payload }}", reason="{{ event.resource }} said so"), name="c")
    create(on("pause"), PauseFlowRun(flow_run="{{ event.payload }}"), name="p")
    create(on("suspend"), SuspendFlowRun(flow_run="{{ event.payload }}"), name="s")
    create(on("resume"), ResumeFlowRun(flow_run="{{ event.payload }}"), name="r")
    runs = [queued(deployment) for _ in range(3)]
    emit_event("cancel", "boss", payload=runs[0])
    emit_event("pause", "boss", payload=runs[1])
    emit_event("suspend", "boss", payload=runs[2])
    settle()
    assert rows("SELECT state FROM runs ORDER BY id") == [("CANCELLED",), ("PAUSED",), ("PAUSED",)]
    message = rows.value("SELECT message FROM history WHERE run_id = 1 AND state = 'CANCELLED'")
    assert "automation 'c', firing 1: boss said so" in str(message)
    emit_event("resume", "boss", payload=runs[1])
    emit_event("resume", "boss", payload=runs[0])
    emit_event("cancel", "boss", payload=runs[0])
    settle()
    assert rows("SELECT state FROM runs ORDER BY id") == [("CANCELLED",), ("SCHEDULED",), ("PAUSED",)]
    assert [each["outcome"] for (each,) in results(rows)] == ["done"] * 3 + ["failed", "done", "failed"]


def test_a_run_that_takes_too_long_is_cancelled(rows: Rows, deployment: int) -> None:
    create(
        EventTrigger(
            after={"wfengine.flow-run.Scheduled"}, expect={"wfengine.flow-run.Completed"}, posture="Proactive", within=3600,
            for_each={"wfengine.resource.id"},
        ),
        CancelFlowRun(),
    )  # fmt: skip
    run_id = queued(deployment)
    settle()
    clock = use_journal_again().clock
    clock.sleep(3600)
    settle()
    assert rows.state(run_id)[0] == "CANCELLED"


def test_a_message_is_sent_and_received(rows: Rows, clock: FakeClock) -> None:
    create(on("answer"), SendMessage(flow_run="{{ event.payload.run }}", topic="t", value={"was": "{{ event.payload.was }}"}))

    @flow
    def main() -> Any:
        emit_event("answer", "r", payload={"run": 1, "was": [1, 2]})
        settle()
        return receive("t")

    assert main() == {"was": [1, 2]}


def test_automations_deployments_and_schedules_are_switched(rows: Rows, deployment: int) -> None:
    create(
        on("off"),
        PauseAutomation(),
        PauseDeployment(deployment="ship/now"),
        PauseDeployment(deployment="now", schedule="daily"),
        name="off",
    )
    create(on("on"), ResumeAutomation(automation="off"), ResumeDeployment(deployment="now"), name="on")
    create(on("on"), ResumeDeployment(deployment="now", schedule="daily"), name="on2")
    emit_event("off", "r")
    settle()
    assert rows("SELECT active FROM automations ORDER BY name") == [(0,), (1,), (1,)]
    assert rows("SELECT paused FROM deployments") == [(1,)]
    assert rows("SELECT active FROM schedules") == [(0,)]
    emit_event("on", "r")
    settle()
    assert rows("SELECT active FROM automations ORDER BY name") == [(1,), (1,), (1,)]
    assert rows("SELECT paused FROM deployments") == [(0,)]
    assert rows("SELECT active FROM schedules") == [(1,)]
    assert {each["outcome"] for found in results(rows) for each in found} == {"done"}


@pytest.mark.parametrize("schedule", [None, "daily"])
def test_what_was_due_while_an_automation_had_paused_it_is_not_caught_up(
    rows: Rows, clock: FakeClock, schedule: str | None
) -> None:
    ship.deploy("now", schedules=[Cron("0 3 * * *", slug="daily", catch_up="all")])
    create(on("off"), PauseDeployment(deployment="now", schedule=schedule), name="off")
    create(on("on"), ResumeDeployment(deployment="now", schedule=schedule), name="on")
    scheduler = Scheduler(use_journal_again())
    scheduler.step()
    emit_event("off", "r")
    settle()
    clock.now += 3 * 86400
    emit_event("on", "r")
    settle()
    scheduler.step()
    assert rows("SELECT outcome FROM ticks") == [("skipped",)] * 3
    clock.now += 86400
    scheduler.step()
    assert rows("SELECT outcome FROM ticks ORDER BY nominal_at") == [*[("skipped",)] * 3, ("started",)]


def test_the_deployment_of_the_events_run_is_inferred(rows: Rows, deployment: int) -> None:
    create(on("wfengine.flow-run.Cancelled"), RunDeployment(source="inferred", parameters={"order": 2}))
    create(on("stop"), CancelFlowRun(flow_run="{{ event.payload }}"), name="b")
    emit_event("stop", "r", payload=queued(deployment))
    settle()
    assert rows("SELECT state, deployment, parameters FROM runs ORDER BY id") == [
        ("CANCELLED", "ship/now", '{"note":"usual","order":1}'),
        ("SCHEDULED", "ship/now", '{"note":"usual","order":2}'),
    ]


def test_a_firing_does_what_its_automation_said_when_it_fired(rows: Rows, clock: FakeClock) -> None:
    create(on("e"), EmitEvent(event="old"))
    emit_event("e", "r")
    service = Automations(use_journal_again())
    (row,) = service_module.list_active(use_journal_again().records)
    service._evaluate(row)
    create(on("e"), EmitEvent(event="new"))
    settle()
    assert rows("SELECT name FROM events ORDER BY id") == [("e",), ("old",)]


# ------------------------------------------------------------------------------------------- loops


def test_an_automation_that_sets_itself_off_is_stopped_and_says_so(
    rows: Rows, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    create(on("e"), EmitEvent(event="e"))
    emit_event("e", "r")
    with caplog.at_level(logging.ERROR):
        settle()
    assert rows("SELECT state, count(*) FROM firings GROUP BY state ORDER BY state") == [("done", 10), ("failed", 1)]
    assert "11th firing in a row" in results(rows)[-1][0]["reason"]
    assert "chain_limit" in caplog.text


def test_the_chain_leads_through_runs_and_its_limit_can_be_set(rows: Rows, deployment: int) -> None:
    create(on("wfengine.flow-run.Scheduled"), RunDeployment(deployment="now", parameters={"order": 1}), chain_limit=3)
    queued(deployment)
    settle()
    assert rows("SELECT count(*) FROM runs") == [(4,)]
    assert rows("SELECT state FROM firings ORDER BY id") == [("done",)] * 3 + [("failed",)]


def test_two_automations_that_switch_a_run_to_and_fro_are_stopped(rows: Rows, deployment: int) -> None:
    create(on("wfengine.flow-run.Paused"), ResumeFlowRun(), name="r")
    create(on("wfengine.flow-run.Scheduled"), PauseFlowRun(), name="p")
    queued(deployment)
    service = Automations(use_journal_again())
    for _ in range(2000):
        if not service.step():
            break
    else:
        raise AssertionError("there is no end to it")
    assert "looks like a loop" in results(rows)[-1][0]["reason"]
    assert int(str(rows.value("SELECT count(*) FROM firings"))) < 250


# ------------------------------------------------------------------------------------------- definitions


def test_creating_the_same_again_changes_nothing_and_another_definition_begins_anew(rows: Rows, clock: FakeClock) -> None:
    def put(threshold: int) -> str:
        return apply_automations(
            [{"name": "a", "trigger": {"expect": ["e"], "threshold": threshold}, "actions": [{"type": "do-nothing"}]}]
        )[0][1]

    assert [put(3), put(3)] == ["created", "unchanged"]
    emit_event("e", "r")
    settle()
    assert "times" in str(rows.value("SELECT state FROM automation"))
    assert put(2) == "updated"
    assert rows.value("SELECT state FROM automation") == "{}"
    emit_event("e", "r")
    settle()
    assert rows("SELECT * FROM firings") == []
    assert Automation.read(name="a").delete()  # type: ignore[attr-defined]
    assert rows("SELECT * FROM automations") == []
    assert put(2) == "created"


def test_a_recorded_automation_is_read_as_it_was_written(rows: Rows) -> None:
    written = create(
        SequenceTrigger(triggers=[on("a", match={"x": 1}), CompoundTrigger(require=1, triggers=[on("b")])], within=5),
        RunDeployment(deployment_id="1", parameters={"a": [1]}), CancelFlowRun(reason="x"), DoNothing(),
        description="d", chain_limit=5,
    )  # fmt: skip
    found = Automation.read(id=written.id)
    assert isinstance(found, Automation)
    assert (found.definition(), found.description, found.active) == (written.definition(), "d", True)
    with pytest.raises(NotFoundError, match="wfengine automations ls"):
        Automation.read(name="gone")
    with pytest.raises(NotFoundError):
        Automation(name="gone", trigger=on("e"), actions=[DoNothing()]).enable()
    assert automation_of(service_module.list_active(use_journal_again().records)[0]).id == written.id


TABLE = {"name": "a", "trigger": {"expect": ["e"]}, "actions": [{"type": "do-nothing"}]}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"name": "a"}, r"\[\[automations\]\]"),
        (["a"], "is no table"),
        ([{**TABLE, "triger": {}}], "did you mean 'trigger'"),
        ([{"name": "a", "trigger": {}}], "has no actions"),
        ([TABLE, TABLE], "Two automations have the name 'a'"),
        ([{**TABLE, "name": ""}], "The name of an automation"),
        ([{**TABLE, "active": "yes"}], "`active` of automation"),
        ([{**TABLE, "actions": []}], "it needs 1 to 20"),
        ([{**TABLE, "actions": [{"type": "run-deploymet"}]}], "did you mean 'run-deployment'"),
        ([{**TABLE, "actions": [{"type": "run-deployment", "parametes": {}}]}], "did you mean 'parameters'"),
        ([{**TABLE, "actions": [{"type": "call-webhook"}]}], "needs url"),
        ([{**TABLE, "actions": [{"type": "run-command", "command": "rm -rf /"}]}], "a list of"),
        ([{**TABLE, "actions": [{"type": "run-command", "command": ["{{ event.name }}"]}]}], "must not choose"),
        ([{**TABLE, "actions": [{"type": "emit-event", "event": "{{ os }}"}]}], "is no place"),
        ([{**TABLE, "chain_limit": 0}], "`chain_limit`"),
        ([{**TABLE, "trigger": {"expct": []}}], "did you mean 'expect'"),
    ],
)
def test_tables_that_make_no_sense_are_refused_before_anything_is_written(rows: Rows, tables: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        apply_automations([{**TABLE, "name": "good"}, *tables] if isinstance(tables, list) else tables)
    assert rows("SELECT * FROM automations") == []


def test_what_a_file_does_not_hold_any_more_is_removed_only_if_asked(rows: Rows) -> None:
    apply_automations([{**TABLE, "name": "one"}, {**TABLE, "name": "two"}], "wf.toml")
    apply_automations([{**TABLE, "name": "other"}])
    assert apply_automations([{**TABLE, "name": "one"}], "wf.toml") == [("one", "unchanged")]
    assert apply_automations([{**TABLE, "name": "one"}], "wf.toml", prune=True) == [("one", "unchanged"), ("two", "removed")]
    assert rows("SELECT name FROM automations ORDER BY name") == [("one",), ("other",)]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"trigger": 1}', '{"trigger": {}, "actions": 7}', "[" * 100_000])
def test_a_record_that_cannot_be_read_is_left_out_and_the_others_go_on(rows: Rows, clock: FakeClock, text: str) -> None:
    create(on("e"), name="bad")
    create(on("e"), name="good")
    journal = use_journal_again()
    journal.write(store._Statement("UPDATE automation SET definition = ? WHERE name = 'bad'", (text,)), synced=False)
    emit_event("e", "r")
    settle()
    assert rows("SELECT automation FROM firings") == [("good",)]


@pytest.mark.parametrize(
    "context", ["", "{", "[]", '{"actions": 7}', '{"actions": []}', '{"actions": [7]}', '{"actions": [{"type": "x"}]}']
)
def test_a_firing_that_cannot_be_read_fails_and_says_so(rows: Rows, clock: FakeClock, context: str) -> None:
    create(on("e"))
    emit_event("e", "r")
    service = Automations(use_journal_again())
    (row,) = service_module.list_active(use_journal_again().records)
    service._evaluate(row)
    use_journal_again().write(store._Statement("UPDATE firing SET context = ?", (context,)), synced=False)
    settle()
    assert rows("SELECT state FROM firings") == [("failed",)]
