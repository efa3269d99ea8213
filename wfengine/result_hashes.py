"""Under which hash the results of tasks are stored, for as long as the program holds the very objects.

A value of a type without a canonical form counts, as an argument, by the hash it was stored under.
"""

from __future__ import annotations

import weakref

_result_hashes: dict[int, tuple[object, bytes]] = {}


def remember_result_hash(value: object, result_hash: bytes) -> None:
    """Note under which hash this very object is stored."""
    number = id(value)
    try:
        reference = weakref.ref(value, lambda _: _result_hashes.pop(number, None))
    except TypeError:
        return  # tuples, bytes and the like: they have a canonical form
    _result_hashes[number] = (reference, result_hash)


def known_result_hash(value: object) -> bytes | None:
    """Return the hash under which this very object is stored as a task's result."""
    known = _result_hashes.get(id(value))
    if known is None or known[0]() is not value:  # type: ignore[operator]  # a weak reference
        return None
    return known[1]
