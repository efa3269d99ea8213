"""Do what a firing says, action by action. What came of one is recorded before the next begins.

What the action writes into the journal is committed with that record, so it is done exactly once: a run that is started, an
event, a message, a run that is cancelled, paused or resumed, an automation or deployment that is switched. A webhook and a
program cannot be: their attempt is noted before, so that one which a kill cut off counts, and is made again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from wfengine.automations import actions as kinds
from wfengine.automations import templates
from wfengine.automations.definitions import active_change
from wfengine.automations.happenings import RESOURCE_ID
from wfengine.automations.outgoing import ActionFailed, Delivery, post, run_program
from wfengine.cancellation import after_cancel, change_to_wait_again, requested
from wfengine.event_values import event_columns
from wfengine.halts import notice
from wfengine.messages import checked_topic
from wfengine.notifications import put_of_action
from wfengine.notifying.courier import wake_courier
from wfengine.ownership import sweep
from wfengine.plain_json import plain_json
from wfengine.recovery import find_run_id
from wfengine.references import mentions
from wfengine_journal.automations import (
    ActionResult,
    BeginAttempt,
    FiringRow,
    PostponeFiring,
    RecordAction,
    find_automation,
)
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.codec import encode
from wfengine_journal.deployments import find_deployments
from wfengine_journal.errors import JournalError, UsageError, ValueNotStorableError, WfengineError
from wfengine_journal.events import FIRING_KEY, PutEvent
from wfengine_journal.messages import PutMessage
from wfengine_journal.names import new_run_name
from wfengine_journal.notifications import PutNotification
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.requests import RequestCancel, RequestPause
from wfengine_journal.tickets import Change, WriteRefused
from wfengine_journal.ticks import SwitchSchedules
from wfengine_journal.transitions import shown_text, utf8_text
from wfengine_scheduler.pausing import LOOKS, deployment_change, list_schedules_with_slug, schedules_change

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Seconds before the second try of a webhook or program, the third ...; the last one holds for all that follow.
RETRY_SECONDS = (2.0, 8.0, 30.0, 120.0, 600.0)
#: So many tries beside the retries are made of what is cut off by the death of its process.
CUT_OFFS = 4
#: Characters of a reason that are recorded.
REASON_CHARACTERS = 2000

#: What is done with a flow run's state.
OfRun: TypeAlias = kinds.CancelFlowRun | kinds.PauseFlowRun | kinds.SuspendFlowRun | kinds.ResumeFlowRun

_logger = logging.getLogger("wfengine.automations")


class Performer:
    """Does firings of one journal. Any thread may call it; one firing is one thread's at a time."""

    def __init__(self, journal: Journal, stopping: threading.Event) -> None:
        self._journal = journal
        self._stopping = stopping

    def perform(self, firing: FiringRow) -> FiringRow | None:
        """Do the next action; return the firing as it is after that, None where it has ended or has to wait."""
        context, actions = told(firing)
        last = firing.actions_done + 1 >= len(actions)
        name = "unknown"
        try:
            action = kinds.action_from_json(actions[firing.actions_done])
            name = action.type
            if isinstance(action, kinds.CallWebhook | kinds.RunCommand):
                return self._perform_outside(firing, action, context, last)
            return self._perform_inside(firing, action, context, last)
        except ActionFailed as failure:
            return self._fail(firing, name, failure, last)
        except JournalError:
            raise
        except (WfengineError, IndexError) as error:
            return self._fail(firing, name, ActionFailed(str(error)), last)

    def is_outside(self, firing: FiringRow) -> bool:
        """Tell whether the next action may take long."""
        actions = told(firing)[1]
        action = actions[firing.actions_done] if firing.actions_done < len(actions) else None
        return isinstance(action, dict) and action.get("type") in (kinds.CallWebhook.type, kinds.RunCommand.type)

    # ---- what is committed with its record

    def _perform_inside(
        self, firing: FiringRow, action: kinds.Action, context: Mapping[str, object], last: bool
    ) -> FiringRow | None:
        for _ in range(LOOKS):
            result = ActionResult(action.type, "done")
            carried, after = self._change(firing, action, context, result)
            record = RecordAction(firing, result, last=last, at=self._journal.clock.now_text(), carried=carried)
            try:
                self._journal.write(record, synced=True)
            except WriteRefused:
                if not record.was_checked:
                    return None  # somebody else was quicker
                if isinstance(carried, SwitchSchedules) and carried.is_outdated:
                    continue  # a scheduler decided something first
                raise ActionFailed(self._why_refused(carried)) from None
            if after is not None:
                after()
            return _advanced(firing, result, last)
        raise ActionFailed(f"what it is about changed at each of {LOOKS} looks")

    def _change(
        self, firing: FiringRow, action: kinds.Action, context: Mapping[str, object], result: ActionResult
    ) -> tuple[Change | None, Callable[[], None] | None]:
        """Return what an action writes, and what is to be done after the commit."""
        at = self._journal.clock.now_text()
        match action:
            case kinds.DoNothing():
                return None, None
            case kinds.RunDeployment():
                return self._run_deployment(firing, action, context, result), None
            case kinds.EmitEvent():
                return self._emit(firing, action, context, at), None
            case kinds.SendMessage():
                return self._send(firing, action, context, result, at), None
            case kinds.SendNotification():
                return self._notify(firing, action, context, result), lambda: wake_courier(self._journal)
            case kinds.CancelFlowRun():
                return self._cancel(self._run_of(action, context, result), _reason(firing, action, context), at)
            case kinds.PauseFlowRun() | kinds.SuspendFlowRun():
                run_id = self._run_of(action, context, result)
                sweep(self._journal)
                message = requested("paused", _reason(firing, action, context))
                return RequestPause(run_id, message=message, at=at), lambda: notice(self._journal)
            case kinds.ResumeFlowRun():
                run_id = self._run_of(action, context, result)
                change = change_to_wait_again(self._journal, run_id, requested("unpaused", _reason(firing, action, context)))
                if change is None:
                    raise ActionFailed(
                        f"flow run {run_id} was paused while a process executed it that no daemon started. Resume it: "
                        f"wfengine resume {run_id}"
                    )
                return change, None
            case kinds.PauseAutomation() | kinds.ResumeAutomation():
                return self._switch_automation(firing, action, context, result), None
            case kinds.PauseDeployment() | kinds.ResumeDeployment():
                return self._switch_deployment(action, context, result), None
        raise ActionFailed(f"this version does not know the action '{action.type}'")

    def _run_deployment(
        self, firing: FiringRow, action: kinds.RunDeployment, context: Mapping[str, object], result: ActionResult
    ) -> Change:
        deployment_id, full_name = self._deployment_of(action.deployment, context)
        clock = self._journal.clock
        parameters = templates.fill(action.parameters, context, "parameters")
        plain_json(parameters, "parameters")
        if mentions(parameters):  # whoever sends an event must not choose what secret a flow is given
            raise ActionFailed(
                "the parameters hold a reference to a secret or variable, and those are not followed in what comes from an "
                "event; put it into the parameters of the deployment"
            )
        tags = [str(tag) for tag in cast("list[object]", templates.fill(list(action.tags), context, "tags"))]
        shared = templates.fill(action.deduplication_key, context, "deduplication_key")
        due = text_from_seconds(clock.wall_seconds() + action.delay_seconds) if action.delay_seconds else None
        request = RunRequest(
            deployment_id,
            new_run_name(self._journal.records.is_run_name_taken),
            clock.now_text(),
            parameters=cast("Mapping[str, object]", parameters),
            tags=[utf8_text(tag) for tag in tags],
            idempotency_key=_key(firing),
            deduplication_key=None if shared is None else utf8_text(str(shared)),
            priority=action.priority,
            due_at=due,
        )
        result.more.update(deployment=full_name, flow_run=request.name)
        return _Noting(QueueRun(request), result, "flow_run_id")

    def _emit(self, firing: FiringRow, action: kinds.EmitEvent, context: Mapping[str, object], at: str) -> Change:
        if action.resource is not None:
            resource = templates.fill(action.resource, context, "resource")
        else:
            event = templates.find_in_event(context, "event") or {}
            resource = event.get("resource", f"wfengine.automation.{firing.automation}")
        labels = cast("dict[str, object]", templates.fill(action.labels, context, "labels"))
        columns = event_columns(
            templates.fill(action.event, context, "event"),
            {**labels, RESOURCE_ID: resource if isinstance(resource, str) else json.dumps(resource)},
            payload=templates.fill(action.payload, context, "payload"),
            key=_key(firing),
            at=at,
            is_ours=True,
        )
        return PutEvent(columns)

    def _send(
        self, firing: FiringRow, action: kinds.SendMessage, context: Mapping[str, object], result: ActionResult, at: str
    ) -> Change:
        topic = str(templates.fill(action.topic, context, "topic"))
        checked_topic(topic)
        run_id = self._run_of(action, context, result)
        try:
            encoded = encode(templates.fill(action.value, context, "value"), f"the message of firing {firing.id}")
        except ValueNotStorableError as error:
            raise ActionFailed(str(error)) from error
        return PutMessage(run_id, topic, encoded, at=at, idempotency_key=_key(firing))

    def _notify(
        self, firing: FiringRow, action: kinds.SendNotification, context: Mapping[str, object], result: ActionResult
    ) -> Change:
        body, subject = (templates.fill(text, context, "text") for text in (action.body, action.subject))
        run = templates.find_in_event(context, "flow_run") or {}
        run_id = run.get("id")
        result.more["target"] = action.target
        return put_of_action(
            self._journal, action.target, _as_text(body), None if subject is None else _as_text(subject), level=action.level,
            key=_key(firing), run_id=run_id if isinstance(run_id, int) else None,
        )  # fmt: skip

    def _cancel(self, run_id: int, reason: str, at: str) -> tuple[Change, Callable[[], None]]:
        sweep(self._journal)
        request = RequestCancel(run_id, message=requested("cancelled", reason), at=at)
        return request, lambda: after_cancel(self._journal, request)

    def _switch_automation(
        self,
        firing: FiringRow,
        action: kinds.PauseAutomation | kinds.ResumeAutomation,
        context: Mapping[str, object],
        result: ActionResult,
    ) -> Change:
        named = (
            firing.automation if action.automation is None else str(templates.fill(action.automation, context, "automation"))
        )
        row = self._journal.records.read(lambda connection: find_automation(connection, named))
        if row is None:
            raise ActionFailed(f"there is no automation {named!r}")
        result.more["automation"] = row.name
        return active_change(self._journal, row, active=isinstance(action, kinds.ResumeAutomation))

    def _switch_deployment(
        self, action: kinds.PauseDeployment | kinds.ResumeDeployment, context: Mapping[str, object], result: ActionResult
    ) -> SwitchSchedules:
        deployment_id, name = self._deployment_of(action.deployment, context)
        result.more["deployment"] = name
        paused = isinstance(action, kinds.PauseDeployment)
        slug = templates.fill(action.schedule, context, "schedule")
        if slug is None:
            return deployment_change(self._journal, deployment_id, paused=paused)
        schedules = list_schedules_with_slug(self._journal, deployment_id, str(slug))
        if not schedules:
            raise ActionFailed(f"deployment '{name}' has no schedule {slug!r}. See them with: wfengine schedules ls")
        return schedules_change(self._journal, schedules, paused=paused)

    # ---- what they are about

    def _run_of(
        self, action: OfRun | kinds.SendMessage,
        context: Mapping[str, object], result: ActionResult,
    ) -> int:  # fmt: skip
        if action.flow_run is None:
            run = templates.find_in_event(context, "flow_run")
            if run is None or not isinstance(run.get("id"), int):
                raise ActionFailed("the event is of no flow run, so the action has to name one: flow_run = ...")
            result.more["flow_run_id"] = run["id"]
            return cast(int, run["id"])
        named = templates.fill(action.flow_run, context, "flow_run")
        if isinstance(named, str) and named.isdecimal():
            named = int(named)
        if not isinstance(named, int | str) or isinstance(named, bool):
            raise ActionFailed(f"a flow run is named by its id or name, and not by {named!r}")
        run_id = find_run_id(self._journal, named)
        self._journal.records.get_flow_run(run_id)
        result.more["flow_run_id"] = run_id
        return run_id

    def _deployment_of(self, named: str | int | None, context: Mapping[str, object]) -> tuple[int, str]:
        if named is None:
            found = templates.find_in_event(context, "deployment")
            named = cast("str | None", found and found.get("name"))
            if named is None:
                raise ActionFailed("the event is of no deployment's run, so the action has to name one: deployment = ...")
        wanted = str(templates.fill(named, context, "deployment"))
        rows = self._journal.records.read(lambda connection: find_deployments(connection, wanted))
        if not rows:
            raise ActionFailed(f"there is no deployment {wanted!r}. See them with: wfengine deployments ls")
        if len(rows) > 1:
            raise ActionFailed(f"{wanted!r} may be {' or '.join(row.full_name for row in rows)}. Name one in full.")
        return rows[0].id, rows[0].full_name

    def _why_refused(self, carried: Change | None) -> str:
        carried = carried.change if isinstance(carried, _Noting) else carried
        if isinstance(carried, QueueRun):
            return (
                "the deployment was removed" if carried.existing_id is None else f"it is flow run {carried.existing_id} already"
            )
        if isinstance(carried, PutNotification):
            return f"there is no notification target '{carried.columns.target}' any more"
        if isinstance(carried, PutMessage):
            return f"flow run {carried.flow_run_id} has ended and receives nothing more"
        if isinstance(carried, RequestCancel | RequestPause):
            row = self._journal.records.get_flow_run(carried.flow_run_id)
            return f"flow run {row.id} '{row.name}' is {row.state_name or row.state.capitalize()}"
        if isinstance(carried, SwitchSchedules):
            return "there is no such deployment any more"
        return "it changed meanwhile"

    # ---- what cannot be

    def _perform_outside(
        self, firing: FiringRow, action: kinds.CallWebhook | kinds.RunCommand, context: Mapping[str, object], last: bool
    ) -> FiringRow | None:
        if firing.attempts >= action.retries + CUT_OFFS:  # the last try was cut off, or it would have been recorded
            raise ActionFailed(f"the last of {firing.attempts} tries was cut off by the death of its process")
        try:
            self._journal.write(BeginAttempt(firing), synced=True)
        except WriteRefused:
            return None
        firing = firing._replace(attempts=firing.attempts + 1, next_attempt_at=None)
        try:
            if isinstance(action, kinds.CallWebhook):
                more = self._post(firing, action, context)
            else:
                more = self._run_program(firing, action, context)
        except ActionFailed as failure:
            if failure.again and firing.attempts <= action.retries:
                self._postpone(firing, action, failure)
                return None
            failure.more.setdefault("attempts", firing.attempts)
            return self._fail(firing, action.type, failure, last)
        except UsageError as error:
            return self._fail(firing, action.type, ActionFailed(str(error)), last)
        return self._record(firing, ActionResult(action.type, "done", attempts=firing.attempts, **more), last)

    def _post(self, firing: FiringRow, action: kinds.CallWebhook, context: Mapping[str, object]) -> dict[str, object]:
        payload = (
            {"event": context.get("event"), **{key: context[key] for key in _SENT if key in context}}
            if action.payload is None
            else templates.fill(action.payload, context, "payload")
        )
        return post(
            Delivery(
                url=str(templates.fill(action.url, context, "url")),
                body=plain_json(payload, "payload").encode(),
                delivery_id=f"{self._journal.id}-{_key(firing).replace(':', '-')}",
                timestamp=int(self._journal.clock.wall_seconds()),
                headers=cast("dict[str, str]", templates.fill(action.headers, context, "headers")),
                secret=action.secret,
                allow_private=action.allow_private,
                timeout_seconds=action.timeout_seconds,
            )
        )

    def _run_program(self, firing: FiringRow, action: kinds.RunCommand, context: Mapping[str, object]) -> dict[str, object]:
        words = cast("list[object]", templates.fill(list(action.command), context, "command"))
        given = {"event": context.get("event"), **{key: context[key] for key in _SENT if key in context}}
        return run_program(
            [word if isinstance(word, str) else json.dumps(word) for word in words],
            given=plain_json(given, "event").encode(),
            cwd=kinds.expanded_folder(action.cwd),
            timeout_seconds=action.timeout_seconds,
            stopping=self._stopping,
        )

    def _postpone(self, firing: FiringRow, action: kinds.Action, failure: ActionFailed) -> None:
        delay = RETRY_SECONDS[min(firing.attempts, len(RETRY_SECONDS)) - 1]
        _logger.warning(
            "Firing %d of automation '%s': %s was not done and is tried again in %g s: %s",
            firing.id, firing.automation, action.type, delay, failure,
        )  # fmt: skip
        try:
            again = text_from_seconds(self._journal.clock.wall_seconds() + delay)
            self._journal.write(PostponeFiring(firing, again), synced=False)
        except WriteRefused:
            return

    # ---- records

    def _fail(self, firing: FiringRow, name: str, failure: ActionFailed, last: bool) -> FiringRow | None:
        reason = shown_text(str(failure))[:REASON_CHARACTERS]
        _logger.warning("Firing %d of automation '%s': %s failed: %s", firing.id, firing.automation, name, reason)
        return self._record(firing, ActionResult(name, "failed", reason=reason, **failure.more), last)

    def _record(self, firing: FiringRow, result: ActionResult, last: bool) -> FiringRow | None:
        try:
            self._journal.write(RecordAction(firing, result, last=last, at=self._journal.clock.now_text()), synced=True)
        except WriteRefused:
            return None
        return _advanced(firing, result, last)


#: What a webhook and a program are told beside the event.
_SENT = ("automation", "firing", "key", "missed", "deadline", "since", "events")


class _Noting:
    """A change whose id goes into the record that carries it."""

    def __init__(self, change: QueueRun, result: ActionResult, name: str) -> None:
        self.change = change
        self._result = result
        self._name = name

    def apply(self, connection: object) -> None:
        try:
            self.change.apply(connection)  # type: ignore[arg-type]  # the writer's connection
        except WriteRefused:
            if not self.change.is_duplicate:
                raise
            self._result.more.update(flow_run_id=self.change.existing_id, is_new=False)  # nothing was written
            self._result.more.pop("flow_run", None)
        else:
            self._result.more[self._name] = self.change.flow_run_id

    def landed(self, connection: object) -> bool:
        return self.change.landed(connection)  # type: ignore[arg-type]


def told(firing: FiringRow) -> tuple[dict[str, object], list[object]]:
    """Return what the actions of a firing are told, and the actions. Nothing, where the file holds no such thing."""
    try:
        context = json.loads(firing.context)
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict):
        return {}, []
    actions = context.pop("actions", None)
    return in_context(context, firing.automation, firing.id, firing.fired_at), actions if isinstance(actions, list) else []


def in_context(told: dict[str, object], automation: str, firing_id: int, fired_at: str) -> dict[str, object]:
    """Return what actions are told: what is recorded of a firing, and shortcuts to the run of its event."""
    event = told.get("event") or told.get("since")
    shortcuts = (
        {key: event[key] for key in ("flow_run", "flow", "deployment") if key in event} if isinstance(event, dict) else {}
    )
    return {
        **shortcuts, **told, "firing": {"id": firing_id, "fired": fired_at}, "automation": {"name": automation},
    }  # fmt: skip


def _advanced(firing: FiringRow, result: ActionResult, last: bool) -> FiringRow | None:
    if last:
        return None
    results = json.dumps([*json.loads(firing.results), result.as_json()], ensure_ascii=False)
    return firing._replace(actions_done=firing.actions_done + 1, attempts=0, next_attempt_at=None, results=results)


def _key(firing: FiringRow) -> str:
    return f"{FIRING_KEY}{firing.id}:{firing.actions_done}"


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _reason(
    firing: FiringRow,
    action: OfRun,
    context: Mapping[str, object],
) -> str:
    said = "" if action.reason is None else f": {templates.fill(action.reason, context, 'reason')}"
    return f"automation '{firing.automation}', firing {firing.id}{said}"
