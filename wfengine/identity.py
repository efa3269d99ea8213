"""The identity of a call: the 128-bit key of its inputs, and what a person is shown when it changed.

The key is the hash of the canonical form (`canonical`) of the arguments by parameter name. Nothing here is allowed to
raise because of what a user's class does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from xxhash import xxh3_128_digest

from wfengine.canonical import (
    KEY_VERSION,
    CanonicalWalk,
    KnownHash,
    arguments_hash,
    canonical_hash,
    encode_json,
    exact_json,
    receiver_hash,
)
from wfengine_journal.codec import preview

__all__ = [
    "INLINE_LIMIT",
    "KEY_VERSION",
    "Inputs",
    "canonical_hash",
    "describe_inputs",
    "differing_arguments",
    "drift_cause",
    "explicit_key",
]

#: Characters of JSON that one argument may have to stand in the journal's row; a longer one is shown as a preview.
INLINE_LIMIT = 1024
#: Characters that all arguments of a call may have together in the row.
INLINE_TOTAL_LIMIT = 4096
#: The parameter that a method's instance is given for.
RECEIVER = "self"
#: Characters of the preview of an argument that does not stand in full.
PREVIEW_LIMIT = 160


class Inputs(NamedTuple):
    """What the journal records of a call's arguments, and the key they give."""

    text: str  # JSON object by parameter name; an argument named in `partial` stands there as a preview
    key: bytes  # 16 bytes
    opaque: tuple[str, ...]  # 'name' or 'name.path' of what has no canonical form and was left out of the key
    partial: tuple[str, ...]  # names of the arguments that do not stand in full in `text`


def describe_inputs(
    arguments: dict[str, object],
    *,
    known_hash: KnownHash | None = None,
    key_args: Collection[str] | None = None,
    ignore_args: Collection[str] = (),
) -> Inputs:
    """Return the text and the key of a call's bound arguments.

    `known_hash` gives the stored hash of an object that a task returned; only values without a canonical form ask it.
    `key_args` and `ignore_args` narrow the key and not the text.
    """
    if key_args is None and not ignore_args:
        exact = exact_json(arguments)
        if exact is not None and len(exact) <= INLINE_LIMIT:
            return Inputs(exact.decode(), xxh3_128_digest(b"J" + exact), (), ())
    counted = {name for name in arguments if (key_args is None or name in key_args) and name not in ignore_args}
    return _describe_each(arguments, counted, CanonicalWalk(known_hash))


def explicit_key(text: str) -> bytes:
    """Return the key of a call_key that the author gave; it never equals the key of inputs."""
    return xxh3_128_digest(b"K" + text.encode("utf-8", "surrogatepass"))


def _describe_each(arguments: dict[str, object], counted: set[str], walk: CanonicalWalk) -> Inputs:
    names = sorted(arguments)
    exact = {name: exact_json(arguments[name]) for name in names}
    hashes: dict[str, bytes] = {}
    for name in names:
        json_bytes = exact[name]
        found = walk.find(arguments[name], name, 1) if json_bytes is None and name in counted else None
        if json_bytes is not None:
            hashes[name] = xxh3_128_digest(b"J" + json_bytes)
        elif found is not None:
            hashes[name] = found
        elif name in counted:
            walk.note(name)
            if name == RECEIVER:
                # An inherited method is called on instances of several classes: those at least are told apart.
                hashes[name] = receiver_hash(arguments[name])
    key = _key({name: hashes[name] for name in names if name in counted and name in hashes}, exact)
    text, partial = _row_text(arguments, exact, hashes)
    return Inputs(text, key, tuple(walk.opaque), partial)


def _key(hashes: dict[str, bytes], exact: Mapping[str, bytes | None]) -> bytes:
    """Return the key; arguments that are all JSON have the same one as their object has on the short way."""
    parts = []
    for name in sorted(hashes):
        json_bytes = exact[name]
        if json_bytes is None:
            return arguments_hash(hashes)
        parts.append(encode_json(name).encode("utf-8", "surrogatepass") + b":" + json_bytes)
    return xxh3_128_digest(b"J{" + b",".join(parts) + b"}")


def _row_text(
    arguments: dict[str, object], exact: Mapping[str, bytes | None], hashes: Mapping[str, bytes]
) -> tuple[str, tuple[str, ...]]:
    """Return the text for the row, and the names of those of which it holds only a preview."""
    texts: dict[str, str] = {}
    partial = set()
    for name, json_bytes in exact.items():
        if json_bytes is not None and len(json_bytes) <= INLINE_LIMIT:
            texts[name] = json_bytes.decode()
        else:
            texts[name] = _preview_text(arguments[name], hashes.get(name))
            partial.add(name)
    size = sum(map(len, texts.values()))
    for name in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        if size > INLINE_TOTAL_LIMIT and name not in partial:
            shorter = _preview_text(arguments[name], hashes[name])
            size += len(shorter) - len(texts[name])
            texts[name] = shorter
            partial.add(name)
    text = "{" + ",".join(f"{encode_json(name)}:{texts[name]}" for name in sorted(texts)) + "}"
    # A lone surrogate cannot be written as UTF-8; its backslash form is what JSON writes for it.
    return text.encode("utf-8", "backslashreplace").decode(), tuple(sorted(partial))


def _preview_text(value: object, found: bytes | None) -> str:
    """Return a preview as JSON text; its hash lets a comparison see a difference beyond the preview's end."""
    try:
        shown = preview(value, PREVIEW_LIMIT)
    except Exception:  # a preview may call the repr of a user's class
        shown = f"<{type(value).__qualname__}>"
    return encode_json(shown if found is None else f"{shown} #{found.hex()[:8]}")


# What changed, for people

#: Characters that are shown of one argument in a list of differences.
SHOWN_LIMIT = 100
#: Characters that are shown before the first difference in a longer argument.
SHOWN_BEFORE = 30
_ABSENT = "(absent)"


def differing_arguments(recorded_text: str, present_text: str) -> list[tuple[str, str, str]]:
    """Return (name, recorded, present) of each argument that differs between two `inputs` texts, shortened."""
    try:
        recorded, present = json.loads(recorded_text), json.loads(present_text)
        if not (isinstance(recorded, dict) and isinstance(present, dict)):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError):  # not written by us: still show what there is
        recorded, present = {"inputs": recorded_text}, {"inputs": present_text}
    differences = []
    for name in recorded | present:
        before = repr(recorded[name]) if name in recorded else _ABSENT
        after = repr(present[name]) if name in present else _ABSENT
        if before != after:
            differences.append((name, *_shorten_both(before, after)))
    return differences


def _shorten_both(before: str, after: str) -> tuple[str, str]:
    """Cut two texts to the part around their first difference."""
    same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    first = min(len(before), len(after)) if same is None else same
    return _window(before, first), _window(after, first)


def _window(text: str, first: int) -> str:
    if len(text) <= SHOWN_LIMIT:
        return text
    start = min(max(0, first - SHOWN_BEFORE), len(text) - SHOWN_LIMIT)
    end = start + SHOWN_LIMIT
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


_HASH_SUFFIX = re.compile(r" #[0-9a-f]{8}(?=['\"]?$)")
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_UUID = re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b", re.IGNORECASE)
_MOMENT = re.compile(
    r"datetime\.(?:datetime|date|time)\([^()]*(?:\([^()]*\))?[^()]*\)"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
#: Seconds since 1970 of the years 2001 to 2096: a number that `time.time()` could have given.
_EPOCH_SECONDS = (1e9, 4e9)

_ADVICE = "make it a flow parameter, or leave it out of the key with key_args or ignore_args."


def drift_cause(recorded: str, present: str) -> str | None:
    """Return a sentence with the probable cause of a difference in one argument and what to do, or None."""
    before, after = _HASH_SUFFIX.sub("", recorded), _HASH_SUFFIX.sub("", present)
    if _ADDRESS.search(before) and _ADDRESS.search(after):
        return (
            "The argument shows an object's address in memory, which is another one in every process: pass plain data, "
            "or leave it out of the key with key_args or ignore_args."
        )
    if _differ_only_in(_UUID, before, after):
        return f"The argument looks like a new UUID: make it with wfengine.uuid4(), {_ADVICE}"
    if _differ_only_in(_MOMENT, before, after) or _are_readings(before, after):
        return f"The argument looks like a clock was read: read it with wfengine.now(), {_ADVICE}"
    if _are_fractions(before, after):
        return f"The argument looks like a random number: draw it with wfengine.random(), {_ADVICE}"
    return None


def _differ_only_in(pattern: re.Pattern[str], before: str, after: str) -> bool:
    plain = pattern.sub("\0", before)
    return "\0" in plain and before != after and plain == pattern.sub("\0", after)


def _numbers(*texts: str) -> list[float] | None:
    stripped = [text.strip("'\"") for text in texts]
    return [float(text) for text in stripped] if all(map(_NUMBER.fullmatch, stripped)) else None


def _are_readings(before: str, after: str) -> bool:
    """Tell whether both are numbers that a clock gives, in seconds, milliseconds or nanoseconds, the second later."""
    numbers = _numbers(before, after)
    if numbers is None or numbers[0] >= numbers[1]:
        return False
    low, high = _EPOCH_SECONDS
    return any(all(low <= number / unit < high for number in numbers) for unit in (1, 1e3, 1e6, 1e9))


def _are_fractions(before: str, after: str) -> bool:
    numbers = _numbers(before, after)
    are_floats = ("." in before or "e" in before) and ("." in after or "e" in after)
    return numbers is not None and are_floats and all(0 <= number < 1 for number in numbers)
