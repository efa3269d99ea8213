"""Operations of the API that change something, as methods: written by `python -m tests.page.client_source`, not by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from wfengine.api_calls import Answer, ApiCalls


class Changes(ApiCalls):
    """A method for each operation that change something. A refusal is raised as one of wfengine's errors."""

    CHANGES: ClassVar[tuple[str, ...]] = (
        "runs.plan",
        "runs.resume",
        "runs.retry",
        "runs.cancel",
        "runs.pause",
        "runs.unpause",
        "runs.answer",
        "runs.resolve",
        "runs.fork",
        "runs.send",
        "runs.bulk",
        "deployments.run",
        "deployments.pause",
        "deployments.resume",
        "deployments.delete",
        "deployments.check",
        "schedules.pause",
        "schedules.resume",
        "schedules.trigger",
        "schedules.backfill",
        "queues.set",
        "queues.pause",
        "queues.resume",
        "queues.delete",
        "limits.set",
        "limits.delete",
        "events.emit",
        "automations.test",
        "automations.pause",
        "automations.resume",
        "automations.delete",
        "variables.set",
        "variables.delete",
        "secrets.set",
        "secrets.check",
        "secrets.delete",
        "searches.save",
        "searches.forget",
        "queries.save",
        "queries.forget",
    )

    def runs_plan(
        self, run_id: int, *, on_drift: str | None = None, rerun: Sequence[str] | None = None, takeover: bool | None = None
    ) -> Answer:
        """Say what a resume would replay and what it would run; nothing is executed.

        `on_drift`: When a finished call comes back with other inputs: stop, run it, or take the recorded result.
        `rerun`: What to run again though it is recorded: as of `wfengine resume --rerun`.
        `takeover`: Take the run from a process that does not answer.
        """
        return self._ask(
            "POST", "/runs/{run_id}/plan", {"run_id": run_id}, {}, {"on_drift": on_drift, "rerun": rerun, "takeover": takeover}
        )

    def runs_resume(
        self, run_id: int, *, on_drift: str | None = None, rerun: Sequence[str] | None = None, takeover: bool | None = None
    ) -> Answer:
        """Take a run up again where it stopped.

        `on_drift`: When a finished call comes back with other inputs: stop, run it, or take the recorded result.
        `rerun`: What to run again though it is recorded: as of `wfengine resume --rerun`.
        `takeover`: Take the run from a process that does not answer.
        """
        return self._ask(
            "POST",
            "/runs/{run_id}/resume",
            {"run_id": run_id},
            {},
            {"on_drift": on_drift, "rerun": rerun, "takeover": takeover},
        )

    def runs_retry(self, run_id: int) -> Answer:
        """Take a run up again, and run every failure in it again."""
        return self._ask("POST", "/runs/{run_id}/retry", {"run_id": run_id}, {}, {})

    def runs_cancel(self, run_id: int, *, reason: str | None = None) -> Answer:
        """Cancel a run, whichever process executes it.

        `reason`: Why; it is recorded, and told to whoever runs it.
        """
        return self._ask("POST", "/runs/{run_id}/cancel", {"run_id": run_id}, {}, {"reason": reason})

    def runs_pause(self, run_id: int, *, reason: str | None = None) -> Answer:
        """Let a run stop before whatever comes next.

        `reason`: Why; it is recorded, and told to whoever runs it.
        """
        return self._ask("POST", "/runs/{run_id}/pause", {"run_id": run_id}, {}, {"reason": reason})

    def runs_unpause(self, run_id: int) -> Answer:
        """Let a paused run go on."""
        return self._ask("POST", "/runs/{run_id}/unpause", {"run_id": run_id}, {}, {})

    def runs_answer(self, run_id: int, *, value: object = None, key: str | None = None) -> Answer:
        """Give a run the input that it waits for.

        `value`: The input, as JSON.
        `key`: Which input, where it waits for several.
        """
        return self._ask("POST", "/runs/{run_id}/answer", {"run_id": run_id}, {}, {"value": value, "key": key})

    def runs_resolve(self, run_id: int, *, task_run_id: int, result: object = None, not_done: bool | None = None) -> Answer:
        """Say of a call in doubt whether it took effect.

        `task_run_id`: The task run in doubt.
        `result`: It took effect; this is its result.
        `not_done`: It did not take effect; a resume runs it again.
        """
        return self._ask(
            "POST",
            "/runs/{run_id}/resolve",
            {"run_id": run_id},
            {},
            {"task_run_id": task_run_id, "result": result, "not_done": not_done},
        )

    def runs_fork(
        self,
        run_id: int,
        *,
        from_task: str | None = None,
        parameters: Mapping[str, object] | None = None,
        resume: bool | None = None,
    ) -> Answer:
        """Make a new run that begins with what this one recorded.

        `from_task`: Leave out the first call of this task and all after it.
        `parameters`: Values by name of a parameter, in place of those there are.
        `resume`: Take the new run up at once.
        """
        return self._ask(
            "POST",
            "/runs/{run_id}/fork",
            {"run_id": run_id},
            {},
            {"from_task": from_task, "parameters": parameters, "resume": resume},
        )

    def runs_send(
        self, run_id: int, *, topic: str = "default", value: object = None, idempotency_key: str | None = None
    ) -> Answer:
        """Send a message to a run.

        `topic`: What it is about.
        `value`: The message, as JSON.
        `idempotency_key`: What is asked a second time with this key is done once.
        """
        return self._ask(
            "POST",
            "/runs/{run_id}/messages",
            {"run_id": run_id},
            {},
            {"topic": topic, "value": value, "idempotency_key": idempotency_key},
        )

    def runs_bulk(
        self, *, action: str, run_ids: Sequence[int] | None = None, search: str | None = None, dry_run: bool = False
    ) -> Answer:
        """Do the same with many runs: those named, or all that a search means.

        `action`: What to do.
        `run_ids`: The runs, by their ids.
        `search`: Which runs, as in the search box.
        `dry_run`: Only say which runs are meant.
        """
        return self._ask(
            "POST", "/runs/bulk", {}, {}, {"action": action, "run_ids": run_ids, "search": search, "dry_run": dry_run}
        )

    def deployments_run(
        self,
        flow: str,
        deployment: str,
        *,
        parameters: Mapping[str, object] | None = None,
        run_name: str | None = None,
        tags: Sequence[str] | None = None,
        at: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Put a run of a deployment into its queue.

        `parameters`: Values by name of a parameter, in place of those there are.
        `run_name`: Name of the run.
        `tags`: Tags.
        `at`: Not taken up before this instant, in ISO 8601; without an offset, UTC.
        `queue`: Another queue than the deployment's.
        `priority`: Another priority than the deployment's.
        `idempotency_key`: What is asked a second time with this key is done once.
        """
        return self._ask(
            "POST",
            "/deployments/{flow}/{deployment}/runs",
            {"flow": flow, "deployment": deployment},
            {},
            {
                "parameters": parameters,
                "run_name": run_name,
                "tags": tags,
                "at": at,
                "queue": queue,
                "priority": priority,
                "idempotency_key": idempotency_key,
            },
        )

    def deployments_pause(self, flow: str, deployment: str) -> Answer:
        """Let its schedules start nothing."""
        return self._ask("POST", "/deployments/{flow}/{deployment}/pause", {"flow": flow, "deployment": deployment}, {}, {})

    def deployments_resume(self, flow: str, deployment: str) -> Answer:
        """Let its schedules start runs again."""
        return self._ask("POST", "/deployments/{flow}/{deployment}/resume", {"flow": flow, "deployment": deployment}, {}, {})

    def deployments_delete(self, flow: str, deployment: str) -> Answer:
        """Remove a deployment; its runs that nobody began are cancelled."""
        return self._ask("DELETE", "/deployments/{flow}/{deployment}", {"flow": flow, "deployment": deployment}, {}, {})

    def deployments_check(self) -> Answer:
        """Load the code of every deployment, as a daemon would, and say which cannot be loaded."""
        return self._ask("POST", "/deployments/check", {}, {}, {})

    def schedules_pause(self, schedule_id: int) -> Answer:
        """Let a schedule start nothing."""
        return self._ask("POST", "/schedules/{schedule_id}/pause", {"schedule_id": schedule_id}, {}, {})

    def schedules_resume(self, schedule_id: int) -> Answer:
        """Let a schedule start runs again."""
        return self._ask("POST", "/schedules/{schedule_id}/resume", {"schedule_id": schedule_id}, {}, {})

    def schedules_trigger(self, schedule_id: int) -> Answer:
        """Start a run now, with the schedule's parameters; when it is due does not change."""
        return self._ask("POST", "/schedules/{schedule_id}/trigger", {"schedule_id": schedule_id}, {}, {})

    def schedules_backfill(self, schedule_id: int, *, start: str, end: str, dry_run: bool = False) -> Answer:
        """Start a run for each instant of the past that started none.

        `start`: The first instant, in ISO 8601; without an offset, UTC.
        `end`: The last instant; both are included.
        `dry_run`: Only say which instants are meant.
        """
        return self._ask(
            "POST",
            "/schedules/{schedule_id}/backfill",
            {"schedule_id": schedule_id},
            {},
            {"start": start, "end": end, "dry_run": dry_run},
        )

    def queues_set(
        self,
        name: str,
        *,
        slots: int | str | None = None,
        per_partition: int | str | None = None,
        rate: str | None = None,
        description: str | None = None,
    ) -> Answer:
        """Limit a queue; what is not said stays as it is.

        `slots`: So many at a time; 'none': any number; 0: nobody.
        `per_partition`: So many runs of one partition key at a time; 'none': any number.
        `rate`: So many starts in a time, such as 10/s or 100/min; 'none': any number.
        `description`: For people.
        """
        return self._ask(
            "POST",
            "/queues/{name}",
            {"name": name},
            {},
            {"slots": slots, "per_partition": per_partition, "rate": rate, "description": description},
        )

    def queues_pause(self, name: str) -> Answer:
        """Let no run out of a queue."""
        return self._ask("POST", "/queues/{name}/pause", {"name": name}, {}, {})

    def queues_resume(self, name: str) -> Answer:
        """Let runs out of a queue again."""
        return self._ask("POST", "/queues/{name}/resume", {"name": name}, {}, {})

    def queues_delete(self, name: str) -> Answer:
        """Take the limits of a queue away; its runs stay."""
        return self._ask("DELETE", "/queues/{name}", {"name": name}, {}, {})

    def limits_set(
        self,
        name: str,
        *,
        slots: int | str | None = None,
        rate: str | None = None,
        tag: bool = False,
        description: str | None = None,
    ) -> Answer:
        """Set a limit, or change what is said; the rest stays as it is.

        `slots`: So many at a time; 'none': any number; 0: nobody.
        `rate`: So many starts in a time, such as 10/s or 100/min; 'none': any number.
        `tag`: The name is that of a tag of tasks.
        `description`: For people.
        """
        return self._ask(
            "POST", "/limits/{name}", {"name": name}, {}, {"slots": slots, "rate": rate, "tag": tag, "description": description}
        )

    def limits_delete(self, name: str, *, tag: bool = False) -> Answer:
        """Remove a limit.

        `tag`: The name is that of a tag of tasks.
        """
        return self._ask("DELETE", "/limits/{name}", {"name": name}, {"tag": tag}, {})

    def events_emit(
        self,
        *,
        name: str,
        resource: str,
        payload: object = None,
        labels: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Emit an event.

        `name`: Its name.
        `resource`: What it is of.
        `payload`: More about it, as JSON.
        `labels`: Labels of the resource, by name.
        `idempotency_key`: What is asked a second time with this key is done once.
        """
        return self._ask(
            "POST",
            "/events",
            {},
            {},
            {"name": name, "resource": resource, "payload": payload, "labels": labels, "idempotency_key": idempotency_key},
        )

    def automations_test(self, name: str, *, event: object = None, then_seconds: int | None = None) -> Answer:
        """Say what an automation would do on events that you make up; nothing is done.

        `event`: An event, or a list of them: name, resource, payload and so on.
        `then_seconds`: Look again so long after the last event: for what does not come.
        """
        return self._ask("POST", "/automations/{name}/test", {"name": name}, {}, {"event": event, "then_seconds": then_seconds})

    def automations_pause(self, name: str) -> Answer:
        """Let an automation look at nothing."""
        return self._ask("POST", "/automations/{name}/pause", {"name": name}, {}, {})

    def automations_resume(self, name: str) -> Answer:
        """Let an automation look at events again."""
        return self._ask("POST", "/automations/{name}/resume", {"name": name}, {}, {})

    def automations_delete(self, name: str) -> Answer:
        """Take an automation away; its firings stay."""
        return self._ask("DELETE", "/automations/{name}", {"name": name}, {}, {})

    def variables_set(self, name: str, *, value: object, tags: Sequence[str] | None = None, overwrite: bool = False) -> Answer:
        """Set a variable.

        `value`: Its value, as JSON.
        `tags`: Tags.
        `overwrite`: Change one that exists.
        """
        return self._ask(
            "POST", "/variables/{name}", {"name": name}, {}, {"value": value, "tags": tags, "overwrite": overwrite}
        )

    def variables_delete(self, name: str) -> Answer:
        """Delete a variable."""
        return self._ask("DELETE", "/variables/{name}", {"name": name}, {}, {})

    def secrets_set(self, name: str, *, value: str, overwrite: bool = False) -> Answer:
        """Set a secret; its value is never shown again.

        `value`: Its value, a text.
        `overwrite`: Change one that exists.
        """
        return self._ask("POST", "/secrets/{name}", {"name": name}, {}, {"value": value, "overwrite": overwrite})

    def secrets_check(self, name: str) -> Answer:
        """Say whether a secret can be read here; its value is not shown."""
        return self._ask("POST", "/secrets/{name}/check", {"name": name}, {}, {})

    def secrets_delete(self, name: str) -> Answer:
        """Delete a secret."""
        return self._ask("DELETE", "/secrets/{name}", {"name": name}, {}, {})

    def searches_save(self, name: str, *, search: str, overwrite: bool = False) -> Answer:
        """Save one of the searches for runs under a name.

        `search`: As in the search box, at most 1000 characters.
        `overwrite`: Replace one of that name.
        """
        return self._ask("POST", "/searches/{name}", {"name": name}, {}, {"search": search, "overwrite": overwrite})

    def searches_forget(self, name: str) -> Answer:
        """Forget one of the saved searches for runs."""
        return self._ask("DELETE", "/searches/{name}", {"name": name}, {}, {})

    def queries_save(self, name: str, *, query: str, overwrite: bool = False) -> Answer:
        """Save one of the SQL queries under a name.

        `query`: A statement, at most 6000 characters.
        `overwrite`: Replace one of that name.
        """
        return self._ask("POST", "/queries/{name}", {"name": name}, {}, {"query": query, "overwrite": overwrite})

    def queries_forget(self, name: str) -> Answer:
        """Forget one of the saved SQL queries."""
        return self._ask("DELETE", "/queries/{name}", {"name": name}, {}, {})
