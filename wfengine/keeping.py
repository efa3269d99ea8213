"""How results are written where a task or flow says so: by a serializer of its choice, and the large ones to a storage.

Without such options a result is written by the journal's own codec and this module has no part in it. What the options
need is imported when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from wfengine_journal.codec import Encoded, encode, register_codec

if TYPE_CHECKING:
    from wfengine.result_storage import Storage
    from wfengine.scopes import LiveRun
    from wfengine.serializers import Serializer
    from wfengine.task_engine import Call


class Keeping(NamedTuple):
    """How results are written. None: by the journal's own codec, into the journal."""

    serializer: Serializer | None = None
    storage: Storage | None = None

    def under(self, outer: Keeping | None) -> Keeping:
        """Return these options, completed by those of the run around it."""
        if outer is None:
            return self
        return Keeping(
            outer.serializer if self.serializer is None else self.serializer,
            outer.storage if self.storage is None else self.storage,
        )

    def encode(self, value: object, what: str, key: str | None = None) -> tuple[Encoded, object]:
        """Return a result as it is written, and as the flow is given it. `key` names its file.

        Raises ValueNotStorableError. A file is written and synced when this returns.
        """
        if self.serializer is None:
            encoded, given = encode(value, what), value
        else:
            from wfengine.serializers import serialize

            encoded, given = serialize(self.serializer, value, what)
        if self.storage is not None:
            from wfengine.result_storage import store

            encoded = store(self.storage, encoded, key, what)
        return encoded, given

    def encode_call(self, call: Call, value: object) -> tuple[Encoded, object]:
        """Do it for the result of a call whose task has no such options, but whose flow run has."""
        # What a subflow returned went through its own serializer already.
        keeping = self if call.callee.kind == "task" else Keeping(None, self.storage)
        return keeping.encode(value, f"the result of {call}")


def keeping_in(own: Keeping | None, parent: LiveRun | None) -> Keeping | None:
    """Return how the results of a run are written, by its flow's options and those of the run that called it."""
    outer = None if parent is None else parent.results
    return outer if own is None else own.under(outer)


def encode_kept(keeping: Keeping | None, value: object, what: str) -> tuple[Encoded, object]:
    """Return a result as it is written, and as it is given; see Keeping.encode."""
    return (encode(value, what), value) if keeping is None else keeping.encode(value, what)


def keeping_of(owner: str, options: Mapping[str, object]) -> Keeping | None:
    """Return what the options `result_serializer` and `result_storage` say; None if they are not given."""
    serializer, storage = options["result_serializer"], options["result_storage"]
    if serializer is None and storage is None:
        return None
    from wfengine.result_storage import resolve_storage
    from wfengine.serializers import resolve_serializer

    return Keeping(None if serializer is None else resolve_serializer(serializer, owner), resolve_storage(storage, f"{owner}"))


def _load_serialized(codec: str, data: str | bytes, what: str) -> object:
    from wfengine.serializers import load_serialized

    return load_serialized(codec, data, what)


def _load_stored(codec: str, data: str | bytes, what: str) -> object:
    from wfengine.result_storage import load_stored

    return load_stored(codec, data, what)


register_codec("serializer", _load_serialized)
register_codec("stored", _load_stored)
