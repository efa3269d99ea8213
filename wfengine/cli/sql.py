"""`wfengine sql`: read-only SQL, once or at a prompt."""

from __future__ import annotations

import csv
import itertools
import sqlite3
import sys
from contextlib import suppress

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings, report
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path
from wfengine.cli.output import clean, say, table_lines, write, write_json
from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.read_only_sql import LIST_OF_VIEWS, Selection, sandbox, select

#: Rows that a table shows; --json and --csv show all.
TABLE_ROWS = 1000
#: Columns of a cell in a table.
CELL_WIDTH = 80

_PROMPT_HELP = "Statements end with ;  .help lists the views, .quit (or Ctrl-D) leaves. Nothing can be changed from here."


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine sql 'SELECT name, state, error FROM runs ORDER BY id DESC LIMIT 5'\n"
        "  wfengine sql 'SELECT * FROM tasks WHERE run_id = 1' --csv > tasks.csv",
        'JSON:\n  {"schema_version", "command", "columns": [...], "rows": [[...], ...]}; a BLOB is hex text',
    ),
)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@pass_settings
def sql(settings: Settings, query: str | None, as_csv: bool) -> int:
    """Run one read-only QUERY on the journal; without one, a prompt (or standard input) takes them.

    The views are listed by: SELECT * FROM help. Nothing can be written or attached.
    """
    path = journal_path(settings)
    with sandbox(path) as connection:
        if query is None and sys.stdin.isatty():
            if not settings.quiet:
                say(f"{shown_path(path)}, read-only. {_PROMPT_HELP}")
            _write_selection(select(connection, LIST_OF_VIEWS), settings, as_csv)
            return _prompt(connection, settings, as_csv)
        text = query if query is not None else sys.stdin.read()
        if not text.strip():
            raise UsageError("There is no statement to run. Try: wfengine sql 'SELECT * FROM help'")
        _write_selection(select(connection, text), settings, as_csv)
    return ExitCode.OK


def _prompt(connection: sqlite3.Connection, settings: Settings, as_csv: bool) -> int:
    with suppress(ImportError):  # Python may be built without it
        import readline  # noqa: F401  # line editing and history for input()
    pending = ""
    while True:
        try:
            line = input("   ...> " if pending else "wfengine> ")
        except EOFError:
            write()
            return ExitCode.OK
        except KeyboardInterrupt:
            write()
            pending = ""
            continue
        if not pending and line.strip().startswith("."):
            if line.strip() in (".quit", ".exit"):
                return ExitCode.OK
            say(_PROMPT_HELP)
            _answer(connection, LIST_OF_VIEWS, settings, as_csv)
            continue
        pending = f"{pending}{line}\n" if pending or line.strip() else ""
        if sqlite3.complete_statement(pending):
            _answer(connection, pending, settings, as_csv)
            pending = ""


def _answer(connection: sqlite3.Connection, statement: str, settings: Settings, as_csv: bool) -> None:
    """Run a statement of the prompt; what is wrong with it is said and does not end the prompt."""
    try:
        _write_selection(select(connection, statement), settings, as_csv)
    except WfengineError as error:
        report(error, "sql", Settings(verbose=settings.verbose))
    except KeyboardInterrupt:
        say("interrupted")


def _write_selection(selection: Selection, settings: Settings, as_csv: bool) -> None:
    if settings.as_json:
        write_json("sql", {"columns": selection.columns, "rows": list(selection.rows)})
    elif as_csv:
        _write_csv(selection)
    elif selection.columns:
        _write_table(selection, settings)


def _write_csv(selection: Selection) -> None:
    # Raw text for programs; a person at a terminal gets it without what steers a terminal.
    show = _cell if sys.stdout.isatty() else _raw
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(selection.columns)
    for row in selection.rows:
        writer.writerow([show(value) for value in row])


def _write_table(selection: Selection, settings: Settings) -> None:
    rows = list(itertools.islice(selection.rows, TABLE_ROWS + 1))
    numbers = [i for i in range(len(selection.columns)) if rows and all(isinstance(row[i], int | float | None) for row in rows)]
    columns = [clean(column) for column in selection.columns]
    for line in table_lines(columns, [[_cell(value) for value in row] for row in rows[:TABLE_ROWS]], right=numbers):
        write(line)
    if len(rows) > TABLE_ROWS and not settings.quiet:
        say(f"only the first {TABLE_ROWS:,} rows are shown; --csv and --json print all")


def _cell(value: object) -> str:
    text = clean(_raw(value))
    return text if len(text) <= CELL_WIDTH or not sys.stdout.isatty() else text[: CELL_WIDTH - 1] + "…"


def _raw(value: object) -> str:
    if value is None:
        return ""
    return value.hex() if isinstance(value, bytes) else str(value)
