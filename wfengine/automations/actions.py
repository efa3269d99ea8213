"""What an automation does, as data: each action is a class under Prefect's name, or ours where Prefect has none.

`performing` does it. Texts in the values may hold templates, see `templates`. An action without the run, deployment or
automation it is about takes that of the event ("inferred", as Prefect says).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from wfengine.automations import templates
from wfengine.automations.triggers import check_keys, did_you_mean, seconds_of
from wfengine.plain_json import plain_json
from wfengine_journal.errors import UsageError

#: Actions of one automation, and words of a command.
ACTIONS_LIMIT = 20
WORDS_LIMIT = 200
#: How long a webhook and a command may take, in seconds, unless they say so themselves, and at the most.
WEBHOOK_SECONDS = 10.0
COMMAND_SECONDS = 60.0
LONGEST_ACTION_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that an automation does."""

    type: ClassVar[str] = ""

    def __post_init__(self) -> None:
        templates.check({each.name: getattr(self, each.name) for each in fields(self)}, f"action '{self.type}'")

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded: what differs from the defaults."""
        return {"type": self.type, **self._given()}

    def _given(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            if value != default:
                found[each.name] = list(value) if isinstance(value, tuple) else value
        return found


@dataclass(frozen=True, kw_only=True)
class DoNothing(Action):
    """Nothing: the firing is recorded."""

    type: ClassVar[str] = "do-nothing"


@dataclass(frozen=True, kw_only=True, init=False)
class RunDeployment(Action):
    """Run a deployment: 'flow/name', a name, or an id. Done exactly once.

    `deduplication_key`: none where a run of its flow with that key waits or runs in the queue; the action is done with that.
    """

    type: ClassVar[str] = "run-deployment"
    deployment: str | int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: Sequence[str] = ()
    priority: int | None = None
    delay_seconds: float = 0.0
    deduplication_key: str | None = None

    def __init__(
        self, *, deployment: str | int | None = None, parameters: Mapping[str, object] | None = None, tags: Sequence[str] = (),
        priority: int | None = None, delay_seconds: float | timedelta = 0.0, deduplication_key: str | None = None,
        deployment_id: str | int | None = None, source: str | None = None, schedule_after: float | timedelta | None = None,
    ) -> None:  # fmt: skip
        put = object.__setattr__
        put(self, "deployment", _target(deployment, deployment_id, source, "deployment"))
        put(self, "parameters", dict(parameters or {}))
        put(self, "tags", tuple(tags))
        put(self, "priority", priority)
        put(self, "delay_seconds", seconds_of(delay_seconds if schedule_after is None else schedule_after, "delay_seconds"))
        put(self, "deduplication_key", _text(deduplication_key, "deduplication_key"))
        if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
            raise UsageError(f"The priority of action 'run-deployment' is a whole number, and not {priority!r}.")
        if not all(isinstance(tag, str) for tag in self.tags):
            raise UsageError("The tags of action 'run-deployment' are texts.")
        plain_json(self.parameters, "parameters of action 'run-deployment'")
        self.__post_init__()


class _OfDeployment(Action):
    deployment: str | int | None
    schedule: str | None

    def __init__(
        self, *, deployment: str | int | None = None, schedule: str | None = None, deployment_id: str | int | None = None,
        source: str | None = None,
    ) -> None:  # fmt: skip
        object.__setattr__(self, "deployment", _target(deployment, deployment_id, source, "deployment"))
        object.__setattr__(self, "schedule", _text(schedule, "schedule"))
        self.__post_init__()


@dataclass(frozen=True, kw_only=True, init=False)
class PauseDeployment(_OfDeployment):
    """Let nothing be due of a deployment, or of the one schedule of it with that slug."""

    type: ClassVar[str] = "pause-deployment"
    deployment: str | int | None = None
    schedule: str | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class ResumeDeployment(_OfDeployment):
    """Let a paused deployment, or the one schedule of it with that slug, be due again."""

    type: ClassVar[str] = "resume-deployment"
    deployment: str | int | None = None
    schedule: str | None = None


class _OfRun(Action):
    flow_run: str | int | None
    reason: str | None

    def __init__(
        self, *, flow_run: str | int | None = None, reason: str | None = None, flow_run_id: str | int | None = None
    ) -> None:
        object.__setattr__(self, "flow_run", _target(flow_run, flow_run_id, None, "flow_run"))
        object.__setattr__(self, "reason", _text(reason, "reason"))
        self.__post_init__()


@dataclass(frozen=True, kw_only=True, init=False)
class CancelFlowRun(_OfRun):
    """Cancel a flow run, the event's own unless another is named by id or name."""

    type: ClassVar[str] = "cancel-flow-run"
    flow_run: str | int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class PauseFlowRun(_OfRun):
    """Pause a flow run: what runs of it finishes, nothing new begins."""

    type: ClassVar[str] = "pause-flow-run"
    flow_run: str | int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class SuspendFlowRun(_OfRun):
    """Do what PauseFlowRun does: a paused run's process is free here, too."""

    type: ClassVar[str] = "suspend-flow-run"
    flow_run: str | int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class ResumeFlowRun(_OfRun):
    """Let a paused flow run go on: back into its queue."""

    type: ClassVar[str] = "resume-flow-run"
    flow_run: str | int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class EmitEvent(Action):
    """Emit an event. Done exactly once. `resource`: an id; without one, the resource of the event."""

    type: ClassVar[str] = "emit-event"
    event: str
    resource: str | None = None
    labels: Mapping[str, object] = field(default_factory=dict)
    payload: object = None

    def __post_init__(self) -> None:
        _text(self.event, "event", needed=True)
        _text(self.resource, "resource")
        plain_json(dict(self.labels), "labels of action 'emit-event'")
        plain_json(self.payload, "payload of action 'emit-event'")
        Action.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class SendMessage(Action):
    """Send a message to a flow run, as `wfengine.send` does. Done exactly once."""

    type: ClassVar[str] = "send-message"
    flow_run: str | int | None = None
    value: object = None
    topic: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow_run", _target(self.flow_run, None, None, "flow_run"))
        _text(self.topic, "topic", needed=True)
        plain_json(self.value, "value of action 'send-message'")
        Action.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class SendNotification(Action):
    """Tell a notification target, as `notify` does. Put into the outbox exactly once, and sent from there."""

    type: ClassVar[str] = "send-notification"
    target: str
    body: str
    subject: str | None = None
    level: str = "info"

    def __post_init__(self) -> None:
        _text(self.target, "target", needed=True)
        _text(self.body, "body", needed=True)
        _text(self.subject, "subject")
        if self.level not in ("info", "success", "warning", "failure"):
            raise UsageError(f"`level` of action 'send-notification' is info, success, warning or failure, not {self.level!r}.")
        if "{{" in self.target:
            raise UsageError("`target` of action 'send-notification' is no template: an event must not choose who is told.")
        Action.__post_init__(self)


class _OfAutomation(Action):
    automation: str | int | None

    def __init__(
        self, *, automation: str | int | None = None, automation_id: str | int | None = None, source: str | None = None
    ) -> None:
        object.__setattr__(self, "automation", _target(automation, automation_id, source, "automation"))
        self.__post_init__()


@dataclass(frozen=True, kw_only=True, init=False)
class PauseAutomation(_OfAutomation):
    """Pause an automation, this one unless another is named."""

    type: ClassVar[str] = "pause-automation"
    automation: str | int | None = None


@dataclass(frozen=True, kw_only=True, init=False)
class ResumeAutomation(_OfAutomation):
    """Let a paused automation look at events again."""

    type: ClassVar[str] = "resume-automation"
    automation: str | int | None = None


@dataclass(frozen=True, kw_only=True)
class CallWebhook(Action):
    """POST JSON to a URL, at least once: the delivery id stays the same over retries, so that the receiver can tell.

    - `payload`: what is sent; None: the event, the automation and the firing. `headers`: beside ours.
    - `secret`: name of the environment variable with the key of the signature. `allow_private`: addresses of this machine and
      of private networks too. `retries`: tries beside the first.
    """

    type: ClassVar[str] = "call-webhook"
    url: str
    payload: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = None
    allow_private: bool = False
    timeout_seconds: float = WEBHOOK_SECONDS
    retries: int = 5

    def __post_init__(self) -> None:
        _text(self.url, "url", needed=True)
        _text(self.secret, "secret")
        _options(self, self.timeout_seconds, self.retries, self.allow_private)
        plain_json(self.payload, "payload of action 'call-webhook'")
        for name, value in dict(self.headers).items():
            if not isinstance(value, str) or not name.replace("-", "").isalnum() or not name.isascii():
                raise UsageError(f"A header of action 'call-webhook' is a name and a text, and not {name!r}: {value!r}.")
        Action.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class RunCommand(Action):
    """Run a program, at least once: a list of words, no shell. The event is its standard input, as JSON.

    A template fills in one word, or a part of one; the program itself is no template. The last of what it prints is kept.
    """

    type: ClassVar[str] = "run-command"
    command: Sequence[str]
    cwd: str | None = None
    timeout_seconds: float = COMMAND_SECONDS
    retries: int = 0

    def __post_init__(self) -> None:
        words = self.command
        if isinstance(words, str) or not isinstance(words, Sequence) or not 1 <= len(words) <= WORDS_LIMIT:
            raise UsageError(f"`command` of action 'run-command' is a list of 1 to {WORDS_LIMIT} words, and not {words!r}.")
        if not all(isinstance(word, str) and "\0" not in word for word in words) or not words[0]:
            raise UsageError("`command` of action 'run-command' is a list of texts, the first of them a program.")
        if "{{" in words[0]:
            raise UsageError("The program of action 'run-command' is no template: an event must not choose what is run.")
        object.__setattr__(self, "command", tuple(words))
        _text(self.cwd, "cwd")
        _options(self, self.timeout_seconds, self.retries, False)
        Action.__post_init__(self)


KINDS: dict[str, type[Action]] = {
    kind.type: kind
    for kind in (
        DoNothing, RunDeployment, PauseDeployment, ResumeDeployment, CancelFlowRun, PauseFlowRun, SuspendFlowRun, ResumeFlowRun,
        EmitEvent, SendMessage, SendNotification, PauseAutomation, ResumeAutomation, CallWebhook, RunCommand,
    )
}  # fmt: skip


def action_from_json(value: object) -> Action:
    """Return the action that a mapping describes. Raises UsageError, with what was meant where that can be guessed."""
    if not isinstance(value, Mapping):
        raise UsageError(
            f"An action is a table such as {{type = 'run-deployment', deployment = 'etl/nightly'}}, not {value!r}."
        )
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"There is no action of type {kind!r}{did_you_mean(kind, KINDS)}. Types: {', '.join(KINDS)}.")
    made = KINDS[kind]
    given = {str(key): each for key, each in value.items() if key != "type"}
    check_keys(given, [each.name for each in fields(made)], f"An action of type '{kind}'")
    missing = [each.name for each in fields(made) if _is_needed(each) and each.name not in given]
    if missing:
        raise UsageError(f"An action of type '{kind}' needs {' and '.join(missing)}.")
    try:
        return made(**given)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"An action of type '{kind}' cannot be made of {given!r}: {error}") from error


def _is_needed(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _target(named: object, by_id: object, source: object, what: str) -> str | int | None:
    if source not in (None, "inferred", "selected"):
        raise UsageError(f"`source` is 'inferred' or 'selected', and not {source!r}.")
    found = by_id if named is None else named
    if source == "selected" and found is None:
        raise UsageError(f"`source` is 'selected', and no {what} is named.")
    if found is None or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    if hasattr(found, "hex") and not isinstance(found, str):  # a UUID
        found = str(found)
    return _text(found, what, needed=True)


def _text(value: object, what: str, *, needed: bool = False) -> str | None:
    if value is None and not needed:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > 10_000 or "\0" in value:
        raise UsageError(f"`{what}` of an action is a text, and not {value!r}.")
    return value


def _options(action: Action, timeout: object, retries: object, allow: object) -> None:
    what = f"of action '{action.type}'"
    if not 0 < seconds_of(timeout, f"timeout_seconds {what}") <= LONGEST_ACTION_SECONDS:
        raise UsageError(f"`timeout_seconds` {what} is more than 0 and at most {LONGEST_ACTION_SECONDS:g}, not {timeout!r}.")
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 20:
        raise UsageError(f"`retries` {what} is a whole number from 0 to 20, and not {retries!r}.")
    if not isinstance(allow, bool):
        raise UsageError(f"`allow_private` {what} is true or false, and not {allow!r}.")


def expanded_folder(cwd: str | None) -> str | None:
    """Return the working directory of a command."""
    return None if cwd is None else str(Path(cwd).expanduser())
