"""`wfengine storage`: results that lie in buckets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from wfengine.bucket_orphans import delete_orphans, find_orphans, list_buckets
from wfengine.bucket_storage import checked_address
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path
from wfengine.cli.output import clean, say, write, write_json
from wfengine.stored_files import YOUNG_SECONDS
from wfengine_journal.errors import StoredResultError, UsageError, WfengineError
from wfengine_journal.health import Check, Verdict


@click.group(
    cls=Group,
    name="storage",
    no_args_is_help=True,
    table={"orphans": ("wfengine.cli.storage:orphans", "Find, or delete, objects in buckets that no row names.")},
    epilog=epilog("Example:\n  wfengine storage orphans"),
)
def storage() -> None:
    """Results that lie in buckets (result_storage="s3://..."): what there is that no row names."""


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine storage orphans\n  wfengine storage orphans s3://bucket/results --delete",
        'JSON:\n  {"schema_version", "command", "journal", "deleted", "buckets": [{"address", "orphans": [...], "problem"}]}',
    ),
)
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("--delete", "deletes", is_flag=True, help="Delete them, and say which.")
@click.option(
    "--older-than",
    type=click.FloatRange(0, max_open=False),
    default=YOUNG_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Leave out what was written later: the row that names it may be on its way.",
)
@pass_settings
def orphans(settings: Settings, addresses: tuple[str, ...], deletes: bool, older_than: float) -> int:
    """Find objects in buckets that no row of the journal names: a killed process uploaded them, or a pruning left them.

    ADDRESS is a result_storage, such as s3://bucket/results; without one, all that the journal names are looked at. Give each
    journal a prefix of its own: an object of another journal looks like an orphan. The exit code is 1 where a bucket does not
    answer; the others are looked at all the same.
    """
    if deletes and not addresses:
        # Whoever wrote the journal says which buckets it names, and must not thereby say where something is deleted.
        raise UsageError("--delete needs the address to delete at. See which there are: wfengine storage orphans")
    path = journal_path(settings)
    wanted = [checked_address(address) for address in dict.fromkeys(addresses)] or list_buckets(path)
    found: list[dict[str, object]] = []
    for address, names, problem in _looked(path, wanted, deletes, older_than):
        found.append({"address": address, "orphans": names, "problem": problem})
        if problem is not None:
            say(clean(problem))
        if not settings.as_json:
            for name in names:
                write(f"{clean(address)}/{clean(name)}")
    if settings.as_json:
        write_json("storage orphans", {"journal": str(path), "deleted": deletes, "buckets": found})
    elif not settings.quiet:
        say(_summary(found, deletes))
    return ExitCode.RUN_FAILED if any(each["problem"] for each in found) else ExitCode.OK


def _looked(
    path: Path, addresses: Sequence[str], deletes: bool, age_seconds: float
) -> Iterator[tuple[str, list[str], str | None]]:
    work = delete_orphans if deletes else find_orphans
    for address in addresses:
        try:
            yield address, work(address, journal=path, age_seconds=age_seconds), None
        except (StoredResultError, UsageError) as error:  # a missing package is one bucket's
            yield address, [], str(error)


def _summary(found: Sequence[dict[str, object]], deletes: bool) -> str:
    if not found:
        return "the journal names no bucket"
    number = sum(len(names) for each in found if isinstance(names := each["orphans"], list))
    what = f"{number} object{'s' if number != 1 else ''} that no row names"
    if deletes:
        return f"deleted {what}"
    if not number:
        return "every object is named by a row"
    addresses = " ".join(shlex.quote(str(each["address"])) for each in found if each["orphans"])
    return f"{what}; delete with: wfengine storage orphans {addresses} --delete"


def bucket_checks(path: Path) -> Iterator[Check]:
    """Yield what `wfengine doctor --buckets` says of each bucket that the journal names."""
    for address in list_buckets(path):
        try:
            names = find_orphans(address, journal=path)
        except WfengineError as error:
            yield Check("bucket", Verdict.WARNING, str(error))
            continue
        if names:
            command = f"wfengine storage orphans {shlex.quote(address)} --delete"
            text = f"{address}: {len(names)} objects that no row names; they are harmless. Delete them: {command}"
            yield Check("bucket", Verdict.NOTE, text)
        else:
            yield Check("bucket", Verdict.OK, f"{address}: every object is named by a row")
