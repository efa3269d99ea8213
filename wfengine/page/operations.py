"""THE table of operations: everything that can be asked or done over HTTP, each described once.

It serves the REST API and its OpenAPI document (`api`), the buttons of the page (`actions`), and says of each which command
does the same; what changes anything is done by that very command (`commands`). A further operation is one more entry: in
`reading_operations` and `managing_reads` for what only reads, here for what changes runs, in `managing_operations` for what
changes anything else, in `saved` for searches and queries. `table` puts them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wfengine.page.commands import CommandError, Done
from wfengine.page.parameters import Parameter, Typed
from wfengine.page.search import parse
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import match_runs
from wfengine_journal.queries import get_run_head

Values = Mapping[str, object]

#: Runs that one bulk action is about at the most, and that one command names.
BULK_LIMIT = 10_000
BULK_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked or done.

    `function` is called on a thread. `words` returns the command that does the same, without 'wfengine'; None: it has none.
    `changes`: it does more than read. `code`: of the HTTP answer when it went well.
    """

    name: str  # 'runs.cancel': what it is about, and the verb
    method: str
    path: str  # below /api/v1
    summary: str
    parameters: tuple[Parameter, ...]
    function: Callable[[Serving, Values], object]
    words: Callable[[Values], list[str] | None] = lambda values: None
    code: int = 200
    media_types: tuple[str, ...] = ("application/json",)  # of the answer when it went well
    is_typed_again: bool = False  # refused, its form is shown again with what was typed: nothing that was typed is secret

    @property
    def changes(self) -> bool:
        """Tell whether it does more than read."""
        return self.method != "GET"


RUN_ID = Parameter("run_id", "integer", "path", "The run, by its id.", required=True, smallest=1)
_REASON = Parameter("reason", "string", "body", "Why; it is recorded, and told to whoever runs it.")

Words = Callable[[Values], list[str]]  # the command that does what is asked, without 'wfengine'


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value)


def _run(values: Values) -> str:
    return str(int(str(values["run_id"])))


# ------------------------------------------------------------------------------------------- what is done with one run


def _resume_words(values: Values) -> list[str]:
    words = ["resume"]
    if on_drift := _text(values, "on_drift"):
        words.append(f"--on-drift={on_drift}")
    words += [f"--rerun={each}" for each in _strings(values, "rerun")]
    if values.get("takeover"):
        words.append("--takeover")
    return [*words, _run(values)]


def _plan_words(values: Values) -> list[str]:
    verb, *rest = _resume_words(values)
    return [verb, "--plan", *rest]


def _strings(values: Values, name: str) -> list[str]:
    found = values.get(name)
    return [str(each) for each in found] if isinstance(found, list) else []


def _with_reason(verb: str) -> Callable[[Values], list[str]]:
    def words(values: Values) -> list[str]:
        reason = _text(values, "reason")
        return [verb, *([f"--reason={reason}"] if reason else []), _run(values)]

    return words


def _answer_words(values: Values) -> list[str]:
    words = ["resume"]
    if values.get("value") is not None:
        words.append(f"--input={json.dumps(values['value'])}")
    if key := _text(values, "key"):
        words.append(f"--input-key={key}")
    return [*words, _run(values)]


def _resolve_words(values: Values) -> list[str]:
    if bool(values.get("not_done")) == (values.get("result") is not None):
        raise UsageError("Say either that it did not take effect (not_done), or the result of the one that did (result).")
    word = "--not-done" if values.get("not_done") else f"--done={json.dumps(values['result'])}"
    return ["resolve", word, _run(values), str(int(str(values["task_run_id"])))]


def _fork_words(values: Values) -> list[str]:
    words = ["fork"]
    if before := _text(values, "from_task"):
        words.append(f"--from={before}")
    parameters = values.get("parameters")
    exact: dict[str, object] = {}
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if not str(name).isidentifier():
            raise UsageError(f"{str(name)[:100]!r} is no name of a parameter: letters, digits and _ only.")
        if isinstance(value, Typed):
            # A text that begins with @ would be taken for the name of a file; @@ stands for the letter.
            words.append(f"--param={name}={'@' if value.startswith('@') else ''}{value}")
        else:
            exact[str(name)] = value
    if exact:
        words.append(f"--parameters={json.dumps(exact, ensure_ascii=False)}")
    return [*words, _run(values)]


def _send_words(values: Values) -> list[str]:
    words = ["send", f"--topic={_text(values, 'topic') or 'default'}"]
    if key := _text(values, "idempotency_key"):
        words.append(f"--key={key}")
    return [*words, _run(values), "--", json.dumps(values.get("value"))]


def _run_to_its_end(
    name: str, path: str, summary: str, parameters: tuple[Parameter, ...], words: Words, *, is_typed_again: bool = False
) -> Operation:
    """Return an operation on one run that is a command, which is run to its end."""

    def perform(serving: Serving, values: Values) -> object:
        _look_up(serving, values)
        return told(serving.commands.run(words(values)))

    return Operation(name, "POST", path, summary, parameters, perform, words, is_typed_again=is_typed_again)


def _fork(serving: Serving, values: Values) -> object:
    """Make the new run and, where that is asked for too, take it up. A resume that refuses is told, and leaves the new run."""
    _look_up(serving, values)
    done = serving.commands.run(_fork_words(values))
    answer = told(done)
    if values.get("resume"):
        new_id = int(str(done.answer["run_id"]))
        resume = ["resume", str(new_id)]
        answer["command"] = f"{done.command} && {serving.commands.shown(resume)}"
        try:
            answer["is_going_on"] = serving.commands.start(resume, _is_taken_up(serving, new_id)).is_going_on
        except CommandError as error:
            answer["refused"] = str(error)
    return answer


def _started(
    name: str, path: str, summary: str, parameters: tuple[Parameter, ...], words: Words, *, is_typed_again: bool = False
) -> Operation:
    """Return an operation on one run that is a command, which is started and goes on by itself."""

    def perform(serving: Serving, values: Values) -> object:
        return told(serving.commands.start(words(values), _is_taken_up(serving, int(str(values["run_id"])))))

    return Operation(name, "POST", path, summary, parameters, perform, words, 202, is_typed_again=is_typed_again)


def _is_taken_up(serving: Serving, run_id: int) -> Callable[[], bool]:
    """Return what tells whether a run is not as it was now: somebody took it up. Raises NotFoundError."""

    def how_it_is() -> tuple[int, str]:
        run = serving.read_here(lambda connection: get_run_head(connection, run_id))
        return run.attempt, run.state

    before = how_it_is()
    return lambda: how_it_is() != before


def _look_up(serving: Serving, values: Values) -> None:
    """Refuse a run that there is not, before a process is started. Raises NotFoundError."""
    serving.read_here(lambda connection: get_run_head(connection, int(str(values["run_id"]))))


def told(done: Done) -> dict[str, object]:
    """Return what came of a command, as the API answers it."""
    return {"command": done.command, "is_going_on": done.is_going_on, "answer": done.answer}


# ------------------------------------------------------------------------------------------- what is done with many


def _bulk(serving: Serving, values: Values) -> dict[str, object]:
    """Do the same with runs that are named, or with all that a search means; each is authorised by being in the journal."""
    action = str(values["action"])
    ids = [each for each in values["run_ids"] or () if isinstance(each, int)] if isinstance(values["run_ids"], list) else []
    if bool(ids) == (values["search"] is not None):
        raise UsageError("Say which runs: run_ids, or search. Of these one, and not both.")
    if not ids:
        wanted = parse(str(values["search"]))
        ids = serving.read_here(lambda connection: match_runs(connection, wanted, BULK_LIMIT + 1))
        if len(ids) > BULK_LIMIT:
            raise UsageError(f"The search means more than {BULK_LIMIT} runs. Narrow it.")
    for run_id in ids:
        serving.read_here(lambda connection, run_id=run_id: get_run_head(connection, run_id))  # type: ignore[misc]  # bound per turn
    if values["dry_run"]:
        return {"action": action, "matched": len(ids), "run_ids": ids[:1000], "done": 0, "refused": [], "is_going_on": False}
    if action in ("resume", "retry"):
        # They execute: one process, one run after the other.
        going = bool(ids) and serving.commands.start([action, *map(str, ids)]).is_going_on
        return {
            "action": action,
            "matched": len(ids),
            "run_ids": ids[:1000],
            "done": len(ids),
            "refused": [],
            "is_going_on": going,
        }
    done, refused = 0, []
    for run_id, error in _one_after_another(serving, action, ids):
        if error is None:
            done += 1
        else:
            refused.append({"run_id": run_id, "message": error})
    return {
        "action": action,
        "matched": len(ids),
        "run_ids": ids[:1000],
        "done": done,
        "refused": refused[:100],
        "is_going_on": False,
    }


def _one_after_another(serving: Serving, action: str, ids: list[int]) -> list[tuple[int, str | None]]:
    """Ask the same of each run: many in one command, and where it refuses, half as many."""
    results: list[tuple[int, str | None]] = []
    waiting = [ids[start : start + BULK_AT_ONCE] for start in range(0, len(ids), BULK_AT_ONCE)]
    while waiting:
        some = waiting.pop(0)
        try:
            serving.commands.run([action, *map(str, some)])
            results += [(run_id, None) for run_id in some]
        except CommandError as error:
            if len(some) == 1:
                results.append((some[0], str(error)))
            else:
                half = len(some) // 2
                waiting[:0] = [some[:half], some[half:]]
    return results


def _bulk_words(values: Values) -> list[str] | None:
    ids = values.get("run_ids")
    return [str(values["action"]), *map(str, ids)] if isinstance(ids, list) and ids else None


_PARAMETERS = Parameter(
    "parameters", "object", "body", "Values by name of a parameter, in place of those there are.", default={}
)
_KEY = Parameter("idempotency_key", "string", "body", "What is asked a second time with this key is done once.")
_RESUME = (
    RUN_ID,
    Parameter(
        "on_drift",
        "string",
        "body",
        "When a finished call comes back with other inputs: stop, run it, or take the recorded result.",
        choices=("error", "rerun", "reuse"),
    ),
    Parameter("rerun", "strings", "body", "What to run again though it is recorded: as of `wfengine resume --rerun`."),
    Parameter("takeover", "boolean", "body", "Take the run from a process that does not answer."),
)

CHANGES: tuple[Operation, ...] = (
    _run_to_its_end(
        "runs.plan",
        "/runs/{run_id}/plan",
        "Say what a resume would replay and what it would run; nothing is executed.",
        _RESUME,
        _plan_words,
    ),
    _started(
        "runs.resume",
        "/runs/{run_id}/resume",
        "Take a run up again where it stopped.",
        _RESUME,
        _resume_words,
    ),
    _started(
        "runs.retry",
        "/runs/{run_id}/retry",
        "Take a run up again, and run every failure in it again.",
        (RUN_ID,),
        lambda values: ["retry", _run(values)],
    ),
    _run_to_its_end(
        "runs.cancel",
        "/runs/{run_id}/cancel",
        "Cancel a run, whichever process executes it.",
        (RUN_ID, _REASON),
        _with_reason("cancel"),
    ),
    _run_to_its_end(
        "runs.pause",
        "/runs/{run_id}/pause",
        "Let a run stop before whatever comes next.",
        (RUN_ID, _REASON),
        _with_reason("pause"),
    ),
    _started(
        "runs.unpause",
        "/runs/{run_id}/unpause",
        "Let a paused run go on.",
        (RUN_ID,),
        lambda values: ["unpause", _run(values)],
    ),
    _started(
        "runs.answer",
        "/runs/{run_id}/answer",
        "Give a run the input that it waits for.",
        (
            RUN_ID,
            Parameter("value", "json", "body", "The input, as JSON."),
            Parameter("key", "string", "body", "Which input, where it waits for several."),
        ),
        _answer_words,
        is_typed_again=True,
    ),
    _run_to_its_end(
        "runs.resolve",
        "/runs/{run_id}/resolve",
        "Say of a call in doubt whether it took effect.",
        (
            RUN_ID,
            Parameter("task_run_id", "integer", "body", "The task run in doubt.", required=True, smallest=1),
            Parameter("result", "json", "body", "It took effect; this is its result."),
            Parameter("not_done", "boolean", "body", "It did not take effect; a resume runs it again."),
        ),
        _resolve_words,
    ),
    Operation(
        "runs.fork",
        "POST",
        "/runs/{run_id}/fork",
        "Make a new run that begins with what this one recorded.",
        (
            RUN_ID,
            Parameter("from_task", "string", "body", "Leave out the first call of this task and all after it."),
            _PARAMETERS,
            Parameter("resume", "boolean", "body", "Take the new run up at once."),
        ),
        _fork,
        _fork_words,
        is_typed_again=True,
    ),
    _run_to_its_end(
        "runs.send",
        "/runs/{run_id}/messages",
        "Send a message to a run.",
        (
            RUN_ID,
            Parameter("topic", "string", "body", "What it is about.", default="default"),
            Parameter("value", "json", "body", "The message, as JSON."),
            _KEY,
        ),
        _send_words,
        is_typed_again=True,
    ),
    Operation(
        "runs.bulk",
        "POST",
        "/runs/bulk",
        "Do the same with many runs: those named, or all that a search means.",
        (
            Parameter("action", "string", "body", "What to do.", required=True, choices=("cancel", "pause", "resume", "retry")),
            Parameter("run_ids", "integers", "body", "The runs, by their ids."),
            Parameter("search", "string", "body", "Which runs, as in the search box."),
            Parameter("dry_run", "boolean", "body", "Only say which runs are meant.", default=False),
        ),
        _bulk,
        _bulk_words,
    ),
)
