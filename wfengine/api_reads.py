"""Operations of the API that read, as methods: written by `python -m tests.page.client_source`, not by hand."""

from __future__ import annotations

from typing import IO, ClassVar

from wfengine.api_calls import Answer, ApiCalls


class Reads(ApiCalls):
    """A method for each operation that read. A refusal is raised as one of wfengine's errors."""

    READS: ClassVar[tuple[str, ...]] = (
        "overview.get",
        "runs.list",
        "runs.get",
        "runs.tasks",
        "runs.groups",
        "runs.failures",
        "runs.history",
        "runs.logs",
        "tasks.get",
        "inputs.list",
        "sql.query",
        "runs.timeline",
        "runs.graph",
        "runs.code",
        "runs.artifacts",
        "flows.list",
        "flows.get",
        "timeline.get",
        "deployments.list",
        "deployments.get",
        "deployments.runs",
        "schedules.list",
        "schedules.get",
        "schedules.ticks",
        "schedules.calendar",
        "queues.list",
        "queues.get",
        "limits.list",
        "limits.get",
        "events.list",
        "events.get",
        "automations.list",
        "automations.get",
        "automations.firings",
        "variables.list",
        "variables.get",
        "secrets.list",
        "artifacts.list",
        "artifacts.get",
        "doctor.get",
        "searches.list",
        "queries.list",
    )

    def overview_get(self, *, since: str = "24h") -> Answer:
        """How things are: counts, what runs, what failed, what is due.

        `since`: From when on: so long ago, or a date or time.
        """
        return self._ask("GET", "/overview", {}, {"since": since}, {})

    def runs_list(self, *, search: str = "", before: int | None = None, limit: int = 50) -> Answer:
        """List runs, newest first.

        `search`: Which runs, as in the search box.
        `before`: Only runs with a smaller id: next_before of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/runs", {}, {"search": search, "before": before, "limit": limit}, {})

    def runs_get(self, run_id: int) -> Answer:
        """One run: its state, parameters, result, and what can be done about it."""
        return self._ask("GET", "/runs/{run_id}", {"run_id": run_id}, {}, {})

    def runs_tasks(
        self, run_id: int, *, after: int = 0, task: str | None = None, state: str | None = None, limit: int = 50
    ) -> Answer:
        """Task runs of a run, in the order of their calls.

        `after`: Only task runs with a larger id: next_after of the page before.
        `task`: Only calls of this task.
        `state`: Only those in this state.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET",
            "/runs/{run_id}/tasks",
            {"run_id": run_id},
            {"after": after, "task": task, "state": state, "limit": limit},
            {},
        )

    def runs_groups(self, run_id: int) -> Answer:
        """The calls of a run, counted by task."""
        return self._ask("GET", "/runs/{run_id}/groups", {"run_id": run_id}, {}, {})

    def runs_failures(self, run_id: int) -> Answer:
        """What failed in a run, with tracebacks."""
        return self._ask("GET", "/runs/{run_id}/failures", {"run_id": run_id}, {}, {})

    def runs_history(self, run_id: int, *, after_task: int = 0, after_seq: int = 0, limit: int = 50) -> Answer:
        """Every state change with its reason: of the run, then of its calls.

        `after_task`: See next of the page before.
        `after_seq`: See next of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET",
            "/runs/{run_id}/history",
            {"run_id": run_id},
            {"after_task": after_task, "after_seq": after_seq, "limit": limit},
            {},
        )

    def runs_logs(
        self,
        run_id: int,
        *,
        after: int | None = None,
        before: int | None = None,
        level: int = 0,
        text: str | None = None,
        limit: int = 200,
    ) -> Answer:
        """What a run logged: the newest lines, or those after one.

        `after`: Only lines with a larger id, oldest first.
        `before`: Only lines with a smaller id.
        `level`: At this level or above, as in Python's logging.
        `text`: Only lines that hold this text.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET",
            "/runs/{run_id}/logs",
            {"run_id": run_id},
            {"after": after, "before": before, "level": level, "text": text, "limit": limit},
            {},
        )

    def tasks_get(self, task_run_id: int) -> Answer:
        """One task run: inputs, result, attempts, why it ran or did not."""
        return self._ask("GET", "/tasks/{task_run_id}", {"task_run_id": task_run_id}, {}, {})

    def inputs_list(self) -> Answer:
        """What runs ask people for."""
        return self._ask("GET", "/inputs", {}, {}, {})

    def sql_query(self, *, q: str, limit: int = 1000) -> Answer:
        """Ask the journal anything, read-only.

        `q`: One statement that reads. SELECT * FROM help lists the views.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/sql", {}, {"q": q, "limit": limit}, {})

    def runs_timeline(self, run_id: int, *, from_: str | None = None, to: str | None = None) -> Answer:
        """When the calls of a run took place, each or by task, and which was given whose result.

        `from_`: Only calls under way after so many seconds from the start of the run.
        `to`: Only calls under way before so many seconds from the start of the run.
        """
        return self._ask("GET", "/runs/{run_id}/timeline", {"run_id": run_id}, {"from": from_, "to": to}, {})

    def runs_graph(self, run_id: int) -> Answer:
        """Which calls of a run were given the results of which, by content."""
        return self._ask("GET", "/runs/{run_id}/graph", {"run_id": run_id}, {}, {})

    def runs_code(self, run_id: int) -> Answer:
        """With which code a run took place, how it was edited, and which calls were not asked for again."""
        return self._ask("GET", "/runs/{run_id}/code", {"run_id": run_id}, {}, {})

    def runs_artifacts(self, run_id: int, *, before: int | None = None) -> Answer:
        """What a run made for people to look at, newest first.

        `before`: Only artifacts with a smaller id.
        """
        return self._ask("GET", "/runs/{run_id}/artifacts", {"run_id": run_id}, {"before": before}, {})

    def flows_list(self) -> Answer:
        """The flows of the journal, with how their newest runs ended."""
        return self._ask("GET", "/flows", {}, {}, {})

    def flows_get(self, flow: str) -> Answer:
        """One flow: its newest runs by what they called, how long they took, its parameters."""
        return self._ask("GET", "/flows/{flow}", {"flow": flow}, {}, {})

    def timeline_get(self, *, since: str = "24h", ahead: str | None = None) -> Answer:
        """Runs that were under way since an instant, and what is due.

        `since`: From when on: so long ago, or a date or time.
        `ahead`: So far ahead: 12h; default a quarter of the time that was.
        """
        return self._ask("GET", "/timeline", {}, {"since": since, "ahead": ahead}, {})

    def runs_log_file(self, run_id: int, *, format: str = "text", level: int = 0, text: str | None = None) -> IO[bytes]:
        """What a run logged, from the first line on, as a file.

        `format`: Text, or one JSON object a line.
        `level`: At this level or above, as in Python's logging.
        `text`: Only lines that hold this text.
        """
        return self._fetch("/runs/{run_id}/logs/file", {"run_id": run_id}, {"format": format, "level": level, "text": text})

    def runs_extract(self, run_id: int) -> IO[bytes]:
        """A run with its subflow runs as a small journal of its own, which is a SQLite file."""
        return self._fetch("/runs/{run_id}/extract", {"run_id": run_id}, {})

    def deployments_list(self, *, text: str | None = None, after: str | None = None, limit: int = 50) -> Answer:
        """List deployments, by flow and name.

        `text`: Only those whose name holds this.
        `after`: Only those after this name: next_after of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/deployments", {}, {"text": text, "after": after, "limit": limit}, {})

    def deployments_get(self, flow: str, deployment: str) -> Answer:
        """One deployment: settings, schedules, and the schema of its parameters."""
        return self._ask("GET", "/deployments/{flow}/{deployment}", {"flow": flow, "deployment": deployment}, {}, {})

    def deployments_runs(self, flow: str, deployment: str, *, before: int | None = None, limit: int = 50) -> Answer:
        """The runs of a deployment, newest first.

        `before`: Only those with a smaller id: next_before of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET",
            "/deployments/{flow}/{deployment}/runs",
            {"flow": flow, "deployment": deployment},
            {"before": before, "limit": limit},
            {},
        )

    def schedules_list(
        self, *, text: str | None = None, after: str | None = None, after_id: int = 0, limit: int = 50
    ) -> Answer:
        """List schedules, by deployment.

        `text`: Only those whose name holds this.
        `after`: See next of the page before.
        `after_id`: See next of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/schedules", {}, {"text": text, "after": after, "after_id": after_id, "limit": limit}, {})

    def schedules_get(self, schedule_id: int, *, count: int = 5) -> Answer:
        """One schedule: its rule in words, and when it is due next.

        `count`: Instants to come.
        """
        return self._ask("GET", "/schedules/{schedule_id}", {"schedule_id": schedule_id}, {"count": count}, {})

    def schedules_ticks(
        self, schedule_id: int, *, before: str | None = None, outcome: str | None = None, limit: int = 50
    ) -> Answer:
        """Every instant at which a schedule was due, newest first, with what became of it and why.

        `before`: Only earlier ones: next_before of the page before.
        `outcome`: Only those with this outcome.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET",
            "/schedules/{schedule_id}/ticks",
            {"schedule_id": schedule_id},
            {"before": before, "outcome": outcome, "limit": limit},
            {},
        )

    def schedules_calendar(
        self, *, schedule_id: int | None = None, month: str | None = None, timezone: str | None = None
    ) -> Answer:
        """A month, day by day: what was due, and what will be.

        `schedule_id`: Only this schedule.
        `month`: As 2026-11; the present one where it is not said.
        `timezone`: Whose days are meant: an IANA name.
        """
        return self._ask(
            "GET", "/schedules/calendar", {}, {"schedule_id": schedule_id, "month": month, "timezone": timezone}, {}
        )

    def queues_list(self) -> Answer:
        """List queues, by name."""
        return self._ask("GET", "/queues", {}, {}, {})

    def queues_get(self, name: str) -> Answer:
        """One queue, with the runs that go on and those that wait."""
        return self._ask("GET", "/queues/{name}", {"name": name}, {}, {})

    def limits_list(self) -> Answer:
        """List limits, by name."""
        return self._ask("GET", "/limits", {}, {}, {})

    def limits_get(self, name: str, *, tag: bool = False) -> Answer:
        """One limit, with who holds its places and who waits.

        `tag`: The name is that of a tag of tasks.
        """
        return self._ask("GET", "/limits/{name}", {"name": name}, {"tag": tag}, {})

    def events_list(
        self,
        *,
        name: str | None = None,
        resource: str | None = None,
        run_id: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Answer:
        """List events, newest first.

        `name`: Only those of this name; * stands for any text.
        `resource`: Only those of this resource; * stands for any text.
        `run_id`: Only those of this run.
        `before`: Only those with a smaller id: next_before of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET", "/events", {}, {"name": name, "resource": resource, "run_id": run_id, "before": before, "limit": limit}, {}
        )

    def events_get(self, event_id: int) -> Answer:
        """One event, and the automations that fired because of it."""
        return self._ask("GET", "/events/{event_id}", {"event_id": event_id}, {}, {})

    def automations_list(self) -> Answer:
        """List automations, by name."""
        return self._ask("GET", "/automations", {}, {}, {})

    def automations_get(self, name: str) -> Answer:
        """One automation: its trigger, its actions, what it keeps in mind."""
        return self._ask("GET", "/automations/{name}", {"name": name}, {}, {})

    def automations_firings(self, name: str, *, before: int | None = None, limit: int = 50) -> Answer:
        """What an automation did, newest first.

        `before`: Only those with a smaller id: next_before of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/automations/{name}/firings", {"name": name}, {"before": before, "limit": limit}, {})

    def variables_list(self, *, text: str | None = None, after: str | None = None, limit: int = 50) -> Answer:
        """List variables, by name.

        `text`: Only those whose name holds this.
        `after`: Only those after this name: next_after of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/variables", {}, {"text": text, "after": after, "limit": limit}, {})

    def variables_get(self, name: str) -> Answer:
        """One variable."""
        return self._ask("GET", "/variables/{name}", {"name": name}, {}, {})

    def secrets_list(self, *, after: str | None = None, limit: int = 50) -> Answer:
        """List secrets, by name; their values are not shown anywhere.

        `after`: Only those after this name: next_after of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask("GET", "/secrets", {}, {"after": after, "limit": limit}, {})

    def artifacts_list(
        self,
        *,
        key: str | None = None,
        type: str | None = None,
        run_id: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Answer:
        """List artifacts, newest first.

        `key`: Only those with this key.
        `type`: Only those of this type.
        `run_id`: Only those of this run.
        `before`: Only those with a smaller id: next_before of the page before.
        `limit`: Rows of the answer at the most.
        """
        return self._ask(
            "GET", "/artifacts", {}, {"key": key, "type": type, "run_id": run_id, "before": before, "limit": limit}, {}
        )

    def artifacts_get(self, artifact_id: int) -> Answer:
        """One artifact."""
        return self._ask("GET", "/artifacts/{artifact_id}", {"artifact_id": artifact_id}, {}, {})

    def doctor_get(self) -> Answer:
        """Whether the journal is sound, and with which command a finding is mended."""
        return self._ask("GET", "/doctor", {}, {}, {})

    def searches_list(self) -> Answer:
        """List the searches for runs that people saved."""
        return self._ask("GET", "/searches", {}, {}, {})

    def queries_list(self) -> Answer:
        """List the SQL queries that people saved."""
        return self._ask("GET", "/queries", {}, {}, {})
