"""[retention] and [backup] of wfengine.toml: what they may hold, and where that file is looked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from wfengine.upkeep import Backups, Retention
from wfengine_journal.errors import UsageError

#: The name of the file beside the journal, or beside the folder `.wfengine` that holds it.
FILE_NAME = "wfengine.toml"

_TYPES: Mapping[str, tuple[type, ...]] = {
    "keep_runs": (int,),
    "keep_failed": (bool,),
    "folder": (str,),
    "every": (str,),
}

T = TypeVar("T", Retention, Backups)


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
    return _made(Retention, tables, "retention", "keep", place), _made(Backups, tables, "backup", "folder", place)


def configured_upkeep(journal: Path) -> tuple[Retention | None, Backups | None]:
    """Return what the wfengine.toml that belongs to a journal asks for. Raises UsageError."""
    file = find_file(journal)
    if file is None:
        return None, None
    retention, backups = upkeep_of(read_tables(file), str(file))
    if backups is not None:  # a relative folder is one beside the file that names it
        backups = replace(backups, folder=file.parent / Path(backups.folder).expanduser())
    return retention, backups


def _made(kind: type[T], tables: Mapping[str, object], name: str, needed: str, place: str) -> T | None:
    table = tables.get(name)
    if table is None:
        return None
    where = f"{place}: [{name}]"
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is a table with keys of its own, not {table!r}.")
    known = [each.name for each in fields(kind)]
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"{where} has no key '{key}'.{hint} It has: {', '.join(known)}.")
        wanted = (int,) if (name, key) == ("backup", "keep") else _TYPES.get(str(key), (str,))
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise UsageError(f"{where} {key} is {_named(wanted[0])}, not {value!r}.")
    if needed not in table:
        raise UsageError(f"{where} lacks '{needed}', without which nothing is done. Example: {needed} = {_EXAMPLES[needed]}")
    return kind(**table)


_EXAMPLES = {"keep": '"30d"', "folder": '"/mnt/other-disk/backups"'}


def _named(wanted: type) -> str:
    return {int: "a whole number", bool: "true or false"}.get(wanted, "text in quotes")
