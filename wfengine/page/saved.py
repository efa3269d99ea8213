"""Searches and SQL queries that people save under a name: what is read of them, and the operations that save and forget one.

Each is a variable, so that nothing new is needed to keep, read or change one: its name begins with `saved-search-` or
`saved-query-`, its value holds the name that somebody gave and the text. Where a name cannot be that of a variable, the name of
the variable ends with a part of its checksum. A variable that is not made like this is none of these, and is left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from wfengine.page.operations import Operation, Values, told
from wfengine.page.parameters import Parameter
from wfengine.page.readings import json_of
from wfengine.page.search import SEARCH_CHARACTERS, parse
from wfengine.page.serving import Serving
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.variables import list_variables_named

#: Of one kind: how many are kept; characters of a name, and of a query, which has to fit into an address.
SAVED_LIMIT = 100
NAME_CHARACTERS = 80
QUERY_CHARACTERS = 6000
#: Characters of the readable part of a variable's name, and of the checksum behind it.
_READABLE, _CHECKSUM = 40, 10
#: What can be a part of the name of a variable as it is, and does not look as if a checksum stood at its end.
_LEGAL = re.compile(r"(?!(?:.*-)?[0-9a-f]{10}$)[a-z0-9_-]{1,40}")


@dataclass(frozen=True, slots=True)
class Kind:
    """What is saved: `field` names the text in the value and in the API, `address` is the page that takes it as ?q=."""

    field: str
    plural: str
    address: str
    check: Callable[[str], object]

    @property
    def prefix(self) -> str:
        """Return what the names of its variables begin with."""
        return f"saved-{self.field}-"


def _check_query(text: str) -> None:
    if len(text) > QUERY_CHARACTERS:
        raise UsageError(f"A saved query has at most {QUERY_CHARACTERS} characters.")


SEARCHES = Kind("search", "searches", "/runs", parse)
QUERIES = Kind("query", "queries", "/sql", _check_query)


def variable_name(kind: Kind, name: str) -> str:
    """Return the name of the variable that keeps what was saved under a name. Raises UsageError for one that is no name."""
    if not name.strip() or name != name.strip() or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise UsageError(
            f"{name[:100]!r} cannot name a saved {kind.field}: a name is one line of at most {NAME_CHARACTERS} characters, "
            "without a blank at its ends."
        )
    if _LEGAL.fullmatch(name):
        return kind.prefix + name
    readable = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:_READABLE]
    checksum = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_CHECKSUM]
    return kind.prefix + "-".join(part for part in (readable, checksum) if part)


def list_saved(connection: sqlite3.Connection, kind: Kind) -> list[dict[str, str]]:
    """Return what was saved, by the name of its variable: name, text, and the command that forgets it."""
    found = []
    for row in list_variables_named(connection, kind.prefix, limit=2 * SAVED_LIMIT):
        value = json_of(row.value)
        name, text = (value.get("name"), value.get(kind.field)) if isinstance(value, dict) else (None, None)
        if isinstance(name, str) and isinstance(text, str) and _is_of(kind, name, row.name):
            found.append({"name": name, kind.field: text, "variable": row.name})
    return found


def _is_of(kind: Kind, name: str, variable: str) -> bool:
    try:
        return variable_name(kind, name) == variable
    except UsageError:
        return False


def offer(connection: sqlite3.Connection, serving: Serving, kind: Kind, text: str) -> dict[str, object]:
    """Return what a page offers: what was saved, and the commands that forget one, and that would save the present text."""
    own = [
        {**each, "command": serving.commands.shown(_forget_words(kind)(each))} for each in list_saved(connection, kind)
    ]  # fmt: skip
    example = {"name": "name", kind.field: text}
    return {"own": own, "save_command": serving.commands.shown(_save_words(kind)(example)) if text.strip() else None}


# ------------------------------------------------------------------------------------------- the operations


def _save_words(kind: Kind) -> Callable[[Values], list[str]]:
    def words(values: Values) -> list[str]:
        name, text = str(values.get("name") or ""), str(values.get(kind.field) or "")
        kept = json.dumps({"name": name, kind.field: text}, ensure_ascii=False)
        change = ["--overwrite"] if values.get("overwrite") else []
        return ["variables", "set", *change, f"--tag=saved-{kind.field}", "--", variable_name(kind, name), kept]

    return words


def _forget_words(kind: Kind) -> Callable[[Values], list[str]]:
    return lambda values: ["variables", "unset", "--", variable_name(kind, str(values.get("name") or ""))]


def _save(kind: Kind) -> Callable[[Serving, Values], object]:
    words = _save_words(kind)

    def save(serving: Serving, values: Values) -> object:
        text, command = str(values[kind.field]), words(values)
        if not text.strip():
            raise UsageError(f"There is nothing to save: the {kind.field} is empty.")
        kind.check(text)
        saved = {each["name"] for each in serving.read_here(lambda connection: list_saved(connection, kind))}
        name = str(values["name"])
        if name in saved and not values["overwrite"]:
            raise UsageError(
                f"There is a saved {kind.field} {name!r} already. Say that it is to be replaced, or take another name."
            )
        if name not in saved and len(saved) >= SAVED_LIMIT:
            raise UsageError(f"There are {SAVED_LIMIT} saved {kind.plural} already. Forget one first.")
        return told(serving.commands.run(command))

    return save


def _forget(kind: Kind) -> Callable[[Serving, Values], object]:
    words = _forget_words(kind)

    def forget(serving: Serving, values: Values) -> object:
        command, name = words(values), str(values["name"])
        if name not in {each["name"] for each in serving.read_here(lambda connection: list_saved(connection, kind))}:
            raise NotFoundError(f"There is no saved {kind.field} {name!r}.")
        return told(serving.commands.run(command))

    return forget


def _list(kind: Kind) -> Callable[[Serving, Values], object]:
    return lambda serving, values: {kind.plural: serving.read_here(lambda connection: list_saved(connection, kind))}


def _operations(kind: Kind, what: str, text: str) -> tuple[Operation, ...]:
    name = Parameter("name", "string", "path", "The name that it is saved under.", required=True)
    path = f"/{kind.plural}/{{name}}"
    return (
        Operation(f"{kind.plural}.list", "GET", f"/{kind.plural}", f"List the {what} that people saved.", (), _list(kind)),
        Operation(
            f"{kind.plural}.save", "POST", path, f"Save one of the {what} under a name.",
            (
                name, Parameter(kind.field, "string", "body", text, required=True),
                Parameter("overwrite", "boolean", "body", "Replace one of that name.", default=False),
            ),
            _save(kind), _save_words(kind),
        ),
        Operation(
            f"{kind.plural}.forget", "DELETE", path, f"Forget one of the saved {what}.", (name,), _forget(kind),
            _forget_words(kind),
        ),
    )  # fmt: skip


SAVED: tuple[Operation, ...] = (
    *_operations(SEARCHES, "searches for runs", f"As in the search box, at most {SEARCH_CHARACTERS} characters."),
    *_operations(QUERIES, "SQL queries", f"A statement, at most {QUERY_CHARACTERS} characters."),
)


def next_path(kind: Kind, values: Values) -> str:
    """Return where to go on after one was saved or forgotten: to what was saved, else to its page without a text."""
    text = values.get(kind.field)
    return kind.address + (f"?{urlencode({'q': str(text)})}" if text else "")
