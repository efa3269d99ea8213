"""[retention] and [backup] of wfengine.toml: what they may hold, and where that file is looked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wfengine.upkeep import Backups, Retention
from wfengine_journal.errors import UsageError

#: The name of the file beside the journal, or beside the folder `.wfengine` that holds it.
FILE_NAME = "wfengine.toml"

#: The keys of each table, and what stands there.
_RETENTION: Mapping[str, type] = {"keep": str, "every": str, "keep_runs": int, "keep_failed": bool}
_BACKUP: Mapping[str, type] = {"folder": str, "every": str, "keep": int}


def find_file(journal: Path) -> Path | None:
    """Return the wfengine.toml that belongs to a journal; None: there is none."""
    folder = journal.absolute().parent
    file = (folder.parent if folder.name == ".wfengine" else folder) / FILE_NAME
    return file if file.is_file() else None


def read_tables(file: Path) -> Mapping[str, object]:
    """Return what stands in a TOML file. Raises UsageError."""
    import tomllib  # only a daemon with a configuration needs it

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no TOML: {error}. Correct it, or leave it out: --no-config") from error
    except (OSError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error


def upkeep_of(tables: Mapping[str, object], place: str) -> tuple[Retention | None, Backups | None]:
    """Return what the tables [retention] and [backup] ask for. Raises UsageError, which names the key."""
    retention, backup = tables.get("retention"), tables.get("backup")
    return (
        None if retention is None else Retention(**checked_table(retention, f"{place}: [retention]", _RETENTION, "keep")),
        None if backup is None else Backups(**checked_table(backup, f"{place}: [backup]", _BACKUP, "folder")),
    )


def configured_upkeep(journal: Path) -> tuple[Retention | None, Backups | None]:
    """Return what the wfengine.toml that belongs to a journal asks for. Raises UsageError."""
    file = find_file(journal)
    if file is None:
        return None, None
    retention, backups = upkeep_of(read_tables(file), str(file))
    if backups is not None:  # a relative folder is one beside the file that names it
        backups = replace(backups, folder=file.parent / Path(backups.folder).expanduser())
    return retention, backups


def checked_table(table: object, where: str, types: Mapping[str, type], *needed: str) -> dict[str, Any]:
    """Return a table that has known keys only, each of its type, and those that are needed. Raises UsageError."""
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is a table with keys of its own, not {table!r}.")
    for key, value in table.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"{where} has no key '{key}'.{hint} It has: {', '.join(types)}.")
        if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
            raise UsageError(f"{where} {key} is {_NAMED.get(types[key], 'text in quotes')}, not {value!r}.")
    lacking = [key for key in needed if key not in table]
    if lacking:
        raise UsageError(f"{where} lacks '{lacking[0]}', without which nothing can be done.")
    return dict(table)


_NAMED = {int: "a whole number", float: "a number", bool: "true or false"}
