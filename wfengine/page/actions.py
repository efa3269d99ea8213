"""The buttons: each is an operation of the table, sent as a form, so that it works without scripts.

What takes one look first - a resume, an action on many runs - is shown before it is done, with its command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from wfengine.page.api import status_of
from wfengine.page.managing_actions import next_path, shown_after, start_run
from wfengine.page.operations import Operation
from wfengine.page.parameters import Parameter, Typed
from wfengine.page.serving import Serving
from wfengine.page.table import find
from wfengine_journal.errors import UsageError, WfengineError

#: Fields of a form.
FIELDS = 2000

Show = Callable[..., Response]


async def perform(serving: Serving, show: Show, request: Request) -> Response:
    """Do what a form asks for, and show what came of it, or go on to where it can be seen."""
    name = str(request.path_params["operation"])
    try:
        operation = find(name)
    except KeyError:
        return show(request, "message.html", 404, title="Not found", message=f"There is no operation {name!r}.", command=None)
    fields: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    try:
        fields = await _fields(request)
        if name == "deployments.run" and "deployment_id" in fields:
            return await _start_run(serving, show, request, fields)
        values = _values(operation, fields)
        done: Any = await serving.call(lambda: operation.function(serving, values), changes=True)
        path = await serving.call(lambda: next_path(serving, name, values, done), changes=False)
        shown = await serving.call(lambda: shown_after(serving, name, values, done), changes=False)
    except ClientDisconnect:
        return show(request, "message.html", 413, title="Too large", message="The form is too large.", command=None)
    except WfengineError as error:
        if (again := _again(operation, fields, str(error))) is not None:
            return show(request, "again.html", status_of(error), **again, back=_back(values))
        words = _words(operation, values)
        command = None if words is None else serving.commands.shown(words)
        return show(
            request, "message.html", status_of(error), title="Not done", message=str(error), command=command,
            back=_back(values),
        )  # fmt: skip
    if shown is not None:
        template, status, given = shown
        return show(request, template, status, **given)
    if path is not None:
        return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)
    if name == "runs.plan":
        plans = done["answer"].get("plans") or [{}]
        words = find("runs.resume").words(values) or []
        return show(request, "plan.html", 200, run_id=values["run_id"], plan=plans[0], command=serving.commands.shown(words))
    if name == "runs.bulk":
        return show(request, "bulk.html", 200, done=done, values=values, shown_ids=values["run_ids"] or [])
    run_id = values.get("run_id")
    if name == "runs.fork":
        run_id = done["answer"].get("run_id", run_id)
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/runs/{run_id}" if run_id else f"{root}/runs", 303)


async def _start_run(serving: Serving, show: Show, request: Request, fields: dict[str, list[str]]) -> Response:
    path, shown = await serving.call(lambda: start_run(serving, fields), changes=True)
    if shown is not None:
        template, status, given = shown
        return show(request, template, status, **given)
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)


def _again(operation: Operation, fields: dict[str, list[str]], message: str) -> dict[str, Any] | None:
    """Return a form to be sent again, each field as it was typed, beside what is wrong with it; None: it had no such fields.

    Only of operations that are marked so: the value of a secret is typed once, and never shown.
    """
    if not operation.is_typed_again:
        return None
    typed = {name: texts[-1] for name, texts in fields.items() if name.startswith(("param.", "field.")) or name == "value"}
    if not typed:
        return None
    wrong = {name for name in typed if _is_about(message, name.partition(".")[2])}
    return {
        "operation": operation.name,
        "summary": operation.summary,
        "message": message,
        "fields": [(name, name.partition(".")[2] or name, text, name in wrong) for name, text in typed.items()],
        "hidden": [(name, text) for name, texts in fields.items() if name not in typed for text in texts],
    }


def _is_about(message: str, name: str) -> bool:
    """Tell whether a refusal names a parameter or a field: "parameter 'day' ...", "day: ...", "'day' is ..."."""
    return bool(name) and re.search(rf"(?:'{re.escape(name)}'|(?:^|[\s;,.]){re.escape(name)}:)", message) is not None


def _words(operation: Operation, values: dict[str, Any]) -> list[str] | None:
    try:
        return operation.words(values) if values else None
    except (WfengineError, KeyError):
        return None


def _back(values: dict[str, Any]) -> int | None:
    run_id = values.get("run_id")
    return run_id if isinstance(run_id, int) else None


async def _fields(request: Request) -> dict[str, list[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UsageError("A form is sent as application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError as error:
        raise UsageError(f"The form cannot be read: {error}.") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return found


def _values(operation: Operation, fields: dict[str, list[str]]) -> dict[str, Any]:
    """Return the values of an operation out of the fields of a form: empty ones are not given."""
    values: dict[str, Any] = {}
    for each in operation.parameters:
        given = [text for text in fields.get(each.name, []) if text]
        if each.name == "parameters":
            values[each.name] = _changed(fields)
        elif each.name == "value" and any(name.startswith("field.") for name in fields):
            values[each.name] = {
                name.removeprefix("field."): _json_or_text(texts[-1])
                for name, texts in fields.items()
                if name.startswith("field.")
            }
        elif given:
            values[each.name] = _value(each, given)
        elif each.required:
            raise UsageError(f"{each.name} is missing: {each.description}")
        else:
            values[each.name] = each.default
    if fields.get("every"):  # all that match, and not only those that are ticked
        values["run_ids"] = None
        values["search"] = values.get("search") or ""
    elif "run_ids" in values:
        values["search"] = None
    return values


def _value(each: Parameter, given: list[str]) -> object:
    if each.kind == "integers":
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in given):
            raise UsageError(f"{each.name} holds something that is no number.")
        return each.checked([int(text) for text in given])
    if each.kind == "strings":
        return each.checked(given)
    if each.kind == "json":
        return each.checked(_json_or_text(given[-1]))
    return each.of_text(given[-1])


def _changed(fields: dict[str, list[str]]) -> dict[str, object]:
    """Return the parameters whose text was edited: `param.NAME`, beside `was.NAME`, which is how it stood."""
    found: dict[str, object] = {}
    for name, texts in fields.items():
        if name.startswith("param.") and texts != fields.get(f"was.{name.removeprefix('param.')}"):
            parsed = _json_or_text(texts[-1])
            # 5 may be meant as a number or as a text; "5" with its quotes is one.
            found[name.removeprefix("param.")] = parsed if isinstance(parsed, str) else Typed(texts[-1])
    return found


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
