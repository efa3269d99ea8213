"""Where the value of a secret is read from: the journal, or what its name says.

    Secret("db")                          the journal, by name: `wfengine secrets set db`
    Secret("env:DB_PASSWORD")             an environment variable
    Secret("file:/run/secrets/db")        a file, without the line end after its last line
    Secret("command:pass show db")        what a command prints, without its last line end; no shell
    Secret("keyring:service/user")        the system's keyring

A name may stand for one of the others: `wfengine secrets set db --from env:DB_PASSWORD`; the code then says `Secret("db")`.
Values are read in the process that executes the flow, each time they are asked for, and never on a worker.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import cast

from wfengine.redaction import KEEPER
from wfengine.references import filled_text
from wfengine_journal.errors import SecretError
from wfengine_journal.secrets import SecretRow, find_secret
from wfengine_journal.store import Journal

#: Characters of a name, of where a secret is kept, and of a value: passwords, keys, certificates with their chain.
NAME_LIMIT = 255
SOURCE_LIMIT = 10_000
VALUE_LIMIT = 100_000
#: Seconds that a command has to print a secret: a password manager may ask a server.
COMMAND_SECONDS = 30.0
#: What stands before the colon.
KINDS = ("env", "file", "command", "keyring", "text")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def checked_name(name: object) -> str:
    """Return the name of a secret in the journal. Raises SecretError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise SecretError(
            f"{_shown(name)} cannot name a secret: a name has letters, digits, dashes and underscores, and at most "
            f"{NAME_LIMIT} of them."
        )
    return name


def checked_reference(reference: object, *, is_source: bool = False) -> str:
    """Return what names a secret: a name, or where it is kept. `is_source`: only the latter. Raises SecretError."""
    if isinstance(reference, str):
        kind, colon, rest = reference.partition(":")
        if colon and kind in KINDS and not (is_source and kind == "text"):
            if not rest.strip() or "\0" in rest or len(reference) > SOURCE_LIMIT or (kind == "keyring" and "/" not in rest):
                raise SecretError(
                    f"{_shown(reference)} does not say where the secret is kept. Write env:NAME, file:/path, command:PROGRAM "
                    "ARGUMENTS or keyring:SERVICE/USER."
                )
            return reference
        if not colon and not is_source:
            return checked_name(reference)
    raise SecretError(
        f"{_shown(reference)} names no secret. Write {'' if is_source else 'its name, '}env:NAME, file:/path, command:PROGRAM "
        "ARGUMENTS or keyring:SERVICE/USER."
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_secret(reference: str, journal: Journal) -> object:
    """Return the value of a secret, which this process knows from then on. Raises SecretError."""
    kind, colon, rest = reference.partition(":")
    if colon:
        value: object = filled_text(rest, lambda name: read_secret(name, journal)) if kind == "text" else _READERS[kind](rest)
    else:
        row = journal.records.read(lambda connection: find_secret(connection, reference))
        if row is None:
            raise SecretError(f"There is no secret '{reference}' in {journal.path}. Set it: wfengine secrets set {reference}")
        value = _value_of(row)
    KEEPER.learn(value, reference)
    return value


def _value_of(row: SecretRow) -> object:
    if row.source is not None:
        kind, _, rest = checked_reference(row.source, is_source=True).partition(":")
        return _READERS[kind](rest)
    from wfengine.secret_keys import key_of  # imports what encrypts, which is an extra

    text = key_of(row.key_id or "", f"Secret '{row.name}'").decrypt(row.name, row.ciphertext or b"")
    return cast(object, json.loads(text))


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretError(f"The environment variable {name}, which holds a secret, is not set in this process. Set it.")
    return value


def _from_file(name: str) -> str:
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            raw = file.read(VALUE_LIMIT + 1)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SecretError(f"The file {path}, which holds a secret, cannot be read: {reason}.") from error
    return _text_of(raw, f"the file {path}")


def _from_command(line: str) -> str:
    import subprocess  # slow to import

    try:
        words = shlex.split(line)
    except ValueError as error:
        raise SecretError(f"The command of a secret cannot be read ({error}): {_shown(line)}") from error
    what = f"the command {words[0] if words else line!r}"
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, ValueError, IndexError) as error:
        raise SecretError(f"A secret cannot be read: {what} cannot be started ({error}).") from error
    except subprocess.TimeoutExpired as error:
        raise SecretError(f"A secret cannot be read: {what} took longer than {COMMAND_SECONDS:.0f} s.") from error
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:300]
        raise SecretError(f"A secret cannot be read: {what} ended with exit code {done.returncode}. {said}".rstrip())
    return _text_of(done.stdout, what)


def _from_keyring(place: str) -> str:
    from wfengine.secret_keys import read_keyring  # as above

    service, _, user = place.rpartition("/")
    value = read_keyring(service, user)
    if value is None:
        raise SecretError(
            f"The keyring of the system has nothing under service '{service}', user '{user}'. "
            f"Put it there: keyring set {service} {user}"
        )
    return value


def _text_of(raw: bytes, what: str) -> str:
    if len(raw) > VALUE_LIMIT:
        raise SecretError(f"A secret cannot be read: {what} gives more than {VALUE_LIMIT:,} bytes.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise SecretError(f"A secret cannot be read: what {what} gives is no text in UTF-8.") from error
    return text.removesuffix("\n").removesuffix("\r")


_READERS = {"env": _from_environment, "file": _from_file, "command": _from_command, "keyring": _from_keyring}
