"""Calls from the command line into the engine that are about secrets. The engine is imported inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfengine.secret_keys import Key
    from wfengine.secret_rotation import Rotated


def set_secret(path: Path, name: str, value: object, *, overwrite: bool) -> None:
    """Keep a value under a name, encrypted. Raises SecretError."""
    from wfengine import journals, secrets

    journals.use_journal(path)
    secrets.set(name, value, overwrite=overwrite)


def set_source(path: Path, name: str, source: str, *, overwrite: bool) -> None:
    """Say where the secret of that name is kept. Raises SecretError."""
    from wfengine import journals, secrets

    journals.use_journal(path)
    secrets.set(name, source=source, overwrite=overwrite)


def unset_secret(path: Path, name: str) -> bool:
    """Delete a secret; tell whether there was one."""
    from wfengine import journals, secrets

    journals.use_journal(path)
    return secrets.unset(name)


def check_secret(path: Path, name: str) -> None:
    """Read a secret. Raises SecretError where that does not work."""
    from wfengine import journals, secrets

    journals.use_journal(path)
    secrets.get(name)


def rotate_key(path: Path, *, forget_old: bool) -> Rotated:
    """Encrypt all secrets with a new key. Raises SecretError."""
    from wfengine import journals, secret_rotation

    return secret_rotation.rotate_key(journals.use_journal(path), forget_old=forget_old)


def new_secrets_key() -> Key:
    """Return a key that nobody has."""
    from wfengine import secret_keys

    return secret_keys.new_key()
