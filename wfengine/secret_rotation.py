"""A new key for the secrets of a journal: `wfengine secrets rotate-key`.

The new key is stored first, before the old ones, and synced; then all secrets are written anew in one transaction. A process
that dies in between leaves secrets that can be read, with the old key or the new one, and the next rotation goes on with the
key that is there. Recorded results that were sealed with an old key stay so: it is kept, until nothing here needs it and
somebody asks to forget it.
"""

from __future__ import annotations

from typing import NamedTuple

from wfengine.secret_keys import EnvironmentKeys, Key, key_source, new_key, require_extra
from wfengine_journal.errors import SecretError
from wfengine_journal.secrets import Reencrypted, RotateKey, SecretRow, count_by_key, list_secrets
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused

#: How often it begins anew because somebody set a secret meanwhile.
MAX_ROUNDS = 20


class Rotated(NamedTuple):
    """What a rotation did."""

    key_id: str
    secrets: int  # that are written under it
    kept_keys: int  # older ones that are still there
    sealed: int  # values of this journal that need one of those


def rotate_key(journal: Journal, *, forget_old: bool = False) -> Rotated:
    """Give the secrets of a journal a new key. Raises SecretError; then nothing is lost, and it can be called again."""
    require_extra()
    source = key_source()
    keys = source.load()
    if not keys:
        raise SecretError(f"There is no key in {source.label} yet. It is made with the first secret: wfengine secrets set NAME")
    _require_readable(journal, keys, source.label)
    used = {row.key_id for row in _rows(journal)}
    is_begun = len(keys) > 1 and used - {keys[0].id}  # an earlier rotation was cut off, or the user put a new key first
    if not is_begun:
        if isinstance(source, EnvironmentKeys):
            if len(keys) == 1 or not forget_old:
                source.store(keys)  # says what to do
        elif not (forget_old and len(keys) > 1):
            keys = [new_key(), *keys]
            source.store(keys)
    count = _write_anew(journal, keys)
    needed = journal.records.read(count_by_key)
    sealed = sum(number for key_id, number in needed.items() if key_id != keys[0].id)
    if forget_old:
        if sealed:
            raise SecretError(
                f"The old keys are kept: {sealed} recorded values in {journal.path} can be read with them only. Delete those "
                "runs first (wfengine prune), or leave the keys."
            )
        if not isinstance(source, EnvironmentKeys):
            keys = keys[:1]
            source.store(keys)
    return Rotated(keys[0].id, count, len(keys) - 1, sealed)


def _rows(journal: Journal) -> list[SecretRow]:
    return [row for row in journal.records.read(list_secrets) if row.ciphertext is not None]


def _require_readable(journal: Journal, keys: list[Key], label: str) -> None:
    known = {key.id for key in keys}
    lost = [row.name for row in _rows(journal) if row.key_id not in known]
    if lost:
        raise SecretError(
            f"The key was not changed: {', '.join(lost[:5])} cannot be read with the keys in {label}. Put their key there, or "
            f"set them anew: wfengine secrets set {lost[0]} --overwrite"
        )


def _write_anew(journal: Journal, keys: list[Key]) -> int:
    known = {key.id: key for key in keys}
    for _ in range(MAX_ROUNDS):
        anew = [
            Reencrypted(name, before, keys[0].encrypt(name, known[key_id].decrypt(name, before)))
            for name, before, key_id, *_ in _rows(journal)
            if before is not None and key_id is not None
        ]
        try:
            journal.write(RotateKey(anew, keys[0].id), synced=True)
        except WriteRefused:
            _require_readable(journal, keys, "the place of the keys")
            continue
        return len(anew)
    raise SecretError("The key was not changed: secrets are set all the time. Type it again when that is over.")
