"""`wfengine secrets`: list, set, check and delete secrets, and give them a new key. Nothing here prints a value."""

from __future__ import annotations

import json
import sys

import click

from wfengine.cli import secret_execution as execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path
from wfengine.cli.listing import write_list
from wfengine.cli.output import ago_text, clean, say, write, write_json
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.queries import reading
from wfengine_journal.secrets import SecretListing, list_names

#: Characters that are read from standard input: more than a secret may have, and an end.
INPUT_LIMIT = 2_000_000
_JSON_OF_ONE = '{"name", "version", "key_id", "source", "created_at", "updated_at"}'


@click.group(
    cls=Group,
    name="secrets",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.secrets:ls", "List secrets, by name."),
        "set": ("wfengine.cli.secrets:set_", "Set one."),
        "check": ("wfengine.cli.secrets:check", "Tell whether one can be read here."),
        "unset": ("wfengine.cli.secrets:unset", "Delete one."),
        "rotate-key": ("wfengine.cli.secrets:rotate_key", "Encrypt all of them with a new key."),
        "new-key": ("wfengine.cli.secrets:new_key", "Print a new key."),
    },
    epilog=epilog("Example:\n  wfengine secrets set db_password", "A value is typed, or read from standard input."),
)
def secrets() -> None:
    """Secrets that flows use: in code, Secret("name").get()."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "secrets": [{_JSON_OF_ONE}]}}'),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, limit: int) -> int:
    """List secrets, by name. Their values are not shown anywhere."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_names(connection, limit=limit)
    header = ("NAME", "VERSION", "SET", "KEPT")
    write_list(settings, path, "secrets", found, header, cells=_cells, as_json=SecretListing._asdict)
    return ExitCode.OK


def _cells(row: SecretListing) -> list[str]:
    kept = row.source if row.source is not None else f"here, key {row.key_id}"
    return [clean(row.name), str(row.version), ago_text(row.updated_at), clean(kept)]


@click.command(
    "set",
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine secrets set db_password\n"
        "  pass show db | wfengine secrets set db_password --overwrite\n"
        "  wfengine secrets set db_password --from env:DB_PASSWORD\n"
        "  wfengine secrets set db_password --from 'command:pass show db'",
        'JSON:\n  {"schema_version", "command", "name"}',
    ),
)
@click.argument("name")
@click.option("--from", "source", metavar="SOURCE", help="Where it is kept: env:, file:, command: or keyring:.")
@click.option("--overwrite", is_flag=True, help="Change a secret that exists.")
@click.option("--value-json", is_flag=True, help="The value is JSON, and not text.")
@pass_settings
def set_(settings: Settings, name: str, source: str | None, overwrite: bool, value_json: bool) -> int:
    """Set the secret NAME: to what is typed, or read from standard input; or say where it is kept."""
    from wfengine.secret_sources import checked_name

    checked_name(name)
    path = journal_path(settings)
    if source is not None:
        execution.set_source(path, name, source, overwrite=overwrite)
    else:
        text = _typed(name)
        execution.set_secret(path, name, _json(text) if value_json else text, overwrite=overwrite)
    if settings.as_json:
        write_json("secrets set", {"name": name})
    elif not settings.quiet:
        say(f"Secret '{name}' is set.")
    return ExitCode.OK


def _typed(name: str) -> str:
    if sys.stdin.isatty():
        found: str = click.prompt(f"Value of secret '{name}'", hide_input=True, confirmation_prompt=True, err=True)
        return found
    raw = sys.stdin.buffer.read(INPUT_LIMIT)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UsageError("A secret is text in UTF-8, and standard input gives something else. Encode it, as base64.") from None
    return text.removesuffix("\n").removesuffix("\r")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("The value is no JSON, and was not set. Leave --value-json out to set it as text.") from None


@click.command(cls=Command, epilog=epilog('JSON:\n  {"schema_version", "command", "name", "readable": true}'))
@click.argument("name")
@pass_settings
def check(settings: Settings, name: str) -> int:
    """Tell whether the secret NAME can be read by this user on this machine; its value is not shown."""
    path = existing_path(settings)
    execution.check_secret(path, name)
    if settings.as_json:
        write_json("secrets check", {"name": name, "readable": True})
    elif not settings.quiet:
        say(f"Secret '{clean(name)}' can be read.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine secrets unset db_password", 'JSON:\n  {"schema_version", "command", "name", "existed": true}'
    ),
)
@click.argument("name")
@pass_settings
def unset(settings: Settings, name: str) -> int:
    """Delete the secret NAME."""
    path = existing_path(settings)
    if not execution.unset_secret(path, name):
        raise NotFoundError(f"There is no secret {name!r}. See them with: wfengine secrets ls")
    if settings.as_json:
        write_json("secrets unset", {"name": name, "existed": True})
    elif not settings.quiet:
        say(f"Secret '{clean(name)}' is deleted.")
    return ExitCode.OK


@click.command(
    "rotate-key",
    cls=Command,
    epilog=epilog(
        "A new key is made in the key file or keyring, and all secrets of the journal are encrypted with it, in one "
        "transaction. Older keys stay below it, as other journals and recorded results may need them.",
        'JSON:\n  {"schema_version", "command", "key_id", "secrets", "kept_keys", "sealed"}',
    ),
)
@click.option("--forget-old", is_flag=True, help="Drop older keys, if nothing in this journal needs them.")
@pass_settings
def rotate_key(settings: Settings, forget_old: bool) -> int:
    """Encrypt all secrets with a new key."""
    path = existing_path(settings)
    done = execution.rotate_key(path, forget_old=forget_old)
    if settings.as_json:
        write_json("secrets rotate-key", done._asdict())
    elif not settings.quiet:
        say(f"{done.secrets} secrets are encrypted with key {done.key_id}; older keys kept: {done.kept_keys}.")
    return ExitCode.OK


@click.command("new-key", cls=Command, epilog=epilog('JSON:\n  {"schema_version", "command", "key", "key_id"}'))
@pass_settings
def new_key(settings: Settings) -> int:
    """Print a new key, for WFENGINE_SECRETS_KEY or a key file of your own. Nothing is changed."""
    key = execution.new_secrets_key()
    if settings.as_json:
        write_json("secrets new-key", {"key": key.text(), "key_id": key.id})
    else:
        write(key.text())
    return ExitCode.OK
