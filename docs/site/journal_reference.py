"""The reference of the journal's tables, made of the files that create them: each column with its comment."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from wfengine_journal import schema

SQL = Path(schema.__file__).parent / "sql"
FILES = ("schema.sql", "format_2.sql", "format_3.sql", "format_4.sql")
CREATE = re.compile(r"CREATE TABLE (\w+) \((.*?)^\) STRICT", re.MULTILINE | re.DOTALL)
ALTER = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+) (\w+)([^;]*);(.*)$", re.MULTILINE)
RENAME = re.compile(r"^ALTER TABLE (\w+) RENAME TO (\w+);", re.MULTILINE)
COLUMN = re.compile(r"^    ([a-z_]+) +(TEXT|INTEGER|REAL|BLOB|ANY)\b([^\n]*)$", re.MULTILINE)


@dataclass
class Table:
    """A table: what it is, and its columns as (name, type, comment)."""

    about: str
    columns: list[tuple[str, str, str]] = field(default_factory=list)


def tables() -> dict[str, Table]:
    """Return the tables as the files make them one after the other."""
    found: dict[str, Table] = {}
    for name in FILES:
        text = (SQL / name).read_text(encoding="utf-8")
        for match in CREATE.finditer(text):
            found[match[1]] = _table(match[2])
        for table, column, kind, _, comment in ALTER.findall(text):
            found[table].columns.append((column, kind, comment.strip().removeprefix("--").strip()))
        for old, new in RENAME.findall(text):
            found[new] = found.pop(old)
    return found


def _table(body: str) -> Table:
    head, _, rest = body.partition("\n")
    columns = [(name, kind, tail.partition("--")[2].strip()) for name, kind, tail in COLUMN.findall(rest)]
    return Table(head.partition("--")[2].strip(), columns)


def page() -> str:
    """Return the page."""
    lines = [
        "# The tables of a journal",
        "",
        "Programs read the [views](../journal-format.md), which stay as they are. The tables may change with the format; they",
        "are here for people who look into a file. Times are ISO-8601 UTC text; a hash is the xxh3_128 of a value's codec and",
        "bytes.",
        "",
    ]
    for name, table in sorted(tables().items()):
        lines += [f"## {name}", ""]
        lines += [f"{_sentence(table.about)}", ""] if table.about else []
        lines += ["| Column | Type | |", "|---|---|---|"]
        lines += [f"| `{column}` | {kind} | {_cell(comment)} |" for column, kind, comment in table.columns]
        lines.append("")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    text = _cell(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
