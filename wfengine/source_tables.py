"""[[watch]] and [webhooks] of wfengine.toml: where events come from that nobody of this machine's flows emits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.upkeep_tables import checked_table, find_file, read_tables
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from wfengine_journal.store import Journal
    from wfengine_scheduler.services import Service

_FOLDER: Mapping[str, type] = {"path": str, "pattern": str, "recursive": bool}
_WEBHOOKS: Mapping[str, type] = {"host": str, "port": int, "hooks": list}
_HOOK: Mapping[str, type] = {"name": str, "secret": str, "event": str}
#: Folders, and webhooks, that one file may name.
MOST_SOURCES = 1000


@dataclass(frozen=True, slots=True)
class Sources:
    """What a configuration says of where events come from: tables that were checked."""

    folders: tuple[Mapping[str, object], ...] = ()
    hooks: tuple[Mapping[str, object], ...] = ()
    listening: Mapping[str, object] | None = None  # host and port; null: nothing listens


def configured_sources(journal: Path) -> Sources:
    """Return what the wfengine.toml that belongs to a journal asks for. Raises UsageError."""
    file = find_file(journal)
    if file is None:
        return Sources()
    sources = sources_of(read_tables(file), str(file))
    # A relative folder is one beside the file that names it.
    folders = [{**each, "path": str(file.parent / Path(str(each["path"])).expanduser())} for each in sources.folders]
    return Sources(tuple(folders), sources.hooks, sources.listening)


def sources_of(tables: Mapping[str, object], place: str) -> Sources:
    """Return what the tables [[watch]] and [webhooks] ask for. Raises UsageError, which names the key."""
    folders = [
        checked_table(each, f"{place}: [[watch]] number {number}", _FOLDER, "path")
        for number, each in enumerate(_list(tables.get("watch"), f"{place}: [[watch]]"), 1)
    ]
    if tables.get("webhooks") is None:
        return Sources(tuple(folders))
    webhooks = checked_table(tables["webhooks"], f"{place}: [webhooks]", _WEBHOOKS, "hooks")
    if not 0 < webhooks.get("port", 1) < 65536:
        raise UsageError(f"{place}: [webhooks] port is a number from 1 to 65535, not {webhooks['port']}.")
    hooks = [
        checked_table(each, f"{place}: [[webhooks.hooks]] number {number}", _HOOK, "name", "secret")
        for number, each in enumerate(_list(webhooks.pop("hooks"), f"{place}: [[webhooks.hooks]]"), 1)
    ]
    return Sources(tuple(folders), tuple(hooks), webhooks)


def _list(found: object, where: str) -> list[object]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise UsageError(f"{where} is a list of tables: write it with two brackets.")
    if len(found) > MOST_SOURCES:
        raise UsageError(f"{where}: there are {len(found)}, and at most {MOST_SOURCES} are allowed.")
    return found


def services_of(journal: Journal, sources: Sources) -> list[Service]:
    """Return the services that make events of what a configuration names. Raises UsageError for what is not there."""
    services: list[Service] = []
    if sources.folders:
        from wfengine.file_watch import FileWatch, Folder  # needs an extra

        services.append(FileWatch(journal, [Folder(**each) for each in sources.folders]))  # type: ignore[arg-type]  # checked above
    if sources.listening is not None:
        from wfengine.webhook_receiver import Hook, WebhookReceiver  # needs an extra

        hooks = [Hook(**each) for each in sources.hooks]  # type: ignore[arg-type]  # checked above
        services.append(WebhookReceiver(journal, hooks, **sources.listening))  # type: ignore[arg-type]  # checked above
    return services
