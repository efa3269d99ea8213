"""What every `ls` does with the rows it has read: JSON, a table, or a line that says that there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from wfengine.cli.base import Settings
from wfengine.cli.journal import shown_path
from wfengine.cli.output import say, table_lines, write, write_json

R = TypeVar("R")


def write_list(
    settings: Settings, path: Path, name: str, rows: Sequence[R], header: Sequence[str], *, cells: Callable[[R], list[str]],
    as_json: Callable[[R], object], right: Sequence[int] = (), none: str = "no", more: Mapping[str, object] | None = None,
) -> None:  # fmt: skip
    """Write rows that are called `name`, as `wfengine NAME ls` does.

    `cells` makes a row's line in the table, `as_json` its object; `more`: what JSON says beside; `none`: how it is said that
    there are none.
    """
    if settings.as_json:
        write_json(f"{name} ls", {"journal": str(path), name: [as_json(row) for row in rows], **(more or {})})
    elif rows:
        for line in table_lines(tuple(header), [cells(row) for row in rows], right=tuple(right)):
            write(line)
    elif not settings.quiet:
        say(f"{none} {name} in {shown_path(path)}")
