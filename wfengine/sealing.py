"""Values that hold a secret in the clear, as the journal keeps them: encrypted as a whole, codec `sealed:KEY_ID`.

A result that a task returned, a flow's parameter, an exception: a resumed run is given it again as it was, so it cannot be
blotted out. What is encrypted begins with the secrets that it holds and their names, so that the process that reads it knows
them, and keeps them out of its own lines.
"""

from __future__ import annotations

import json

from wfengine.redaction import KEEPER
from wfengine.secret_keys import key_of, writing_key
from wfengine_journal.codec import load_opened
from wfengine_journal.errors import JournalCorruptError, SecretError, ValueNotStorableError

FAMILY = "sealed"
_LENGTH_BYTES = 4


def seal(codec: str, raw: bytes, known: list[tuple[str, str]], what: str) -> tuple[str, bytes]:
    """Return codec and bytes of a value that holds secrets. Raises ValueNotStorableError where there is no key."""
    try:
        key = writing_key()
    except SecretError as error:
        raise ValueNotStorableError(
            f"{what[:1].upper()}{what[1:]} was not stored: it holds the value of a secret, which is written encrypted or not "
            f"at all. Pass and return the Secret itself, and call get() where it is used. ({error})"
        ) from error
    head = json.dumps({"codec": codec, "known": known}).encode()
    return f"{FAMILY}:{key.id}", key.seal(len(head).to_bytes(_LENGTH_BYTES, "little") + head + raw, FAMILY)


def unseal(codec: str, data: str | bytes, what: str) -> object:
    """Return the value that was sealed. Raises ValueNotStorableError without its key, JournalCorruptError if it was changed."""
    key_id = codec.partition(":")[2]
    if not isinstance(data, bytes):
        raise JournalCorruptError(
            f"{what} is damaged in the journal: it is text, and should be encrypted bytes. See what else is: wfengine doctor"
        )
    try:
        key = key_of(key_id, what[:1].upper() + what[1:])
    except SecretError as error:
        raise ValueNotStorableError(str(error)) from error
    try:
        opened = key.unseal(data, FAMILY, what)
    except SecretError as error:
        raise JournalCorruptError(str(error)) from error
    length = int.from_bytes(opened[:_LENGTH_BYTES], "little")
    head = json.loads(opened[_LENGTH_BYTES : _LENGTH_BYTES + length])
    KEEPER.learn_again((text, name) for text, name in head["known"])
    return load_opened(head["codec"], opened[_LENGTH_BYTES + length :], what)
