"""Reads one damaged journal with every reading verb, and with the calls that give values back; notes what came of each.

Runs in a process of its own, forked by a nursery: a verb that does not end is ended by an alarm, and named.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from wfengine.cli import _run
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import WfengineError
from wfengine_journal.records import Records

#: A verb that takes longer hangs, in seconds; the slowest sound one takes a fifth of a second.
VERB_LIMIT_SECONDS = 40
#: The verbs that read, with all kinds of output. `recover` goes by another way than all others, and is judged by itself.
VERBS: tuple[tuple[str, ...], ...] = (
    ("doctor", "--thorough", "--values", "100000", "--json"),
    ("recover", "journal.db", "-o", "rescued.db", "--force", "--json"),
    ("runs", "ls", "--limit", "1000"),
    ("runs", "show", "1", "--tasks", "--history", "--timeline"),
    ("runs", "show", "1", "--tasks", "--history", "--timeline", "--json"),
    ("runs", "show", "@last"),
    ("runs", "logs", "1"),
    ("status",),
    ("info",),
    ("doctor",),
    ("export",),
    ("export", "1", "--format", "html"),
    ("sql", "SELECT * FROM tasks"),
    ("sql", "SELECT * FROM history", "--json"),
    ("diff", "1", "5"),
    ("extract", "1", "small.db", "--force"),
    ("backup", "copy.db", "--force"),
    ("prune", "--older-than", "1d", "--dry-run"),
    ("events", "ls"),
    ("automations", "ls"),
    ("automations", "show", "tell"),
    ("automations", "firings"),
    ("notifications", "ls"),
    ("notifications", "outbox"),
    ("notifications", "show", "1"),
    ("deployments", "ls"),
    ("deployments", "show", "parent/hourly"),
    ("schedules", "ls"),
    ("schedules", "next"),
    ("queues", "ls"),
    ("limits", "ls"),
    ("variables", "ls"),
    ("variables", "get", "colour"),
    ("artifacts", "ls"),
    ("artifacts", "show", "report"),
    ("inputs", "ls"),
    ("tasks", "explain-cache", "1", "1"),
)
#: What may not stand in any output: characters that steer a terminal or reorder text. Line breaks and tabs may.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CODES = frozenset({0, 1, 2, 3, 4, 5, 6, 7})


#: All that a flow, or whoever asks for a result, would be given: whose it is, data, codec, checksum.
_VALUES = {
    "task_run": """
        SELECT format('call %s of %d %d %d %d', hex(call_key), flow_run_id, scope, task_id, occurrence),
               result, result_codec, result_hash FROM task_run WHERE result_hash IS NOT NULL
    """,
    "flow_run": "SELECT 'run ' || id, result, result_codec, result_hash FROM flow_run WHERE result_hash IS NOT NULL",
    "item": "SELECT format('item %s of %d %d', key, flow_run_id, task_run_id), value, codec, hash FROM item",
    "cache": "SELECT 'cache ' || hex(key), result, result_codec, result_hash FROM cache",
}


def judge(arguments: tuple[str, ...], said: str, talk: str, code: int | None) -> list[str]:
    """Return what is wrong with how a verb ended."""
    wrong = []
    if code not in CODES:
        wrong.append(f"exit code {code}")
    if "Traceback (most recent call last)" in talk or "This is a fault in wfengine" in talk or "WF900" in talk:
        wrong.append("a defect: " + talk.strip()[-1500:])
    if code and not talk.strip():
        wrong.append(f"exit code {code} and not a word")
    if steering := STEERING.search(said + talk):
        wrong.append(f"steers the terminal: {(said + talk)[max(0, steering.start() - 40) : steering.end() + 40]!r}")
    if "--json" in arguments:
        try:
            json.loads(said)
        except ValueError as error:
            wrong.append(f"no JSON: {error}")
    return [f"{' '.join(arguments)}: {text}" for text in wrong]


def read_all(verbs: list[int]) -> Iterator[tuple[str, object]]:
    """Yield what came of each verb (its exit code), what is wrong with it, and all values that were given back."""
    for number in verbs:
        arguments = VERBS[number]
        Path("verb.txt").write_text(" ".join(arguments), encoding="utf-8")
        signal.alarm(VERB_LIMIT_SECONDS)
        said, talk = io.StringIO(), io.StringIO()
        code: int | None = None
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(talk):
            try:
                code = _run(list(arguments))
            except BaseException:  # what ends the command line with a traceback
                traceback.print_exc()
        wrong = judge(arguments, said.getvalue(), talk.getvalue(), code)
        yield " ".join(arguments), {"code": code, "wrong": wrong, "err": talk.getvalue()[-300:]}
    Path("verb.txt").write_text("values", encoding="utf-8")
    signal.alarm(VERB_LIMIT_SECONDS)
    yield "values", list(values(Path("journal.db")))
    signal.alarm(0)


def values(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (whose, value or the error that was raised instead) of what a flow would be given: results, items, parameters."""
    try:
        connection = open_reader(path)
    except (sqlite3.Error, WfengineError) as error:
        yield "file", f"refused: {type(error).__name__}"
        return
    with closing(connection):
        connection.row_factory = None
        records = Records(path, lambda ask: ask(connection))
        for table, what in _VALUES.items():
            try:
                for name, data, codec, hash_ in connection.execute(what):
                    yield name, _given(records, data, codec, hash_)
            except (sqlite3.Error, OverflowError, ValueError) as error:
                yield table, f"refused: {type(error).__name__}"


def _given(records: Records, data: object, codec: object, hash_: object) -> str:
    try:
        return repr(records.load_result(data, str(codec), hash_, "a value"))  # type: ignore[arg-type]
    except (WfengineError, sqlite3.Error) as error:
        return f"refused: {type(error).__name__}"
    except Exception as error:  # a defect: neither the value nor an error of ours
        return f"DEFECT {type(error).__name__}: {error}"


def main() -> None:
    """Read the journal of the working directory with the verbs that the command line numbers."""
    os.environ["WFENGINE_JOURNAL"] = str(Path("journal.db").absolute())
    found = dict(read_all([int(text) for text in sys.argv[1].split(",") if text]))
    Path("found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        for name in ("wfengine.files", "wfengine.run_page", *(f"wfengine.cli.{verb[0]}" for verb in VERBS)):
            with contextlib.suppress(ImportError):
                __import__(name)  # so that no child has to
        serve(main)
    else:
        main()
