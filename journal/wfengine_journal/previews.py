"""Short texts for people about any Python value: what it is, how large, the beginning of it.

A preview is written beside a value that is not readable as JSON, so that listing a journal never needs to unpickle.
Nothing here raises, runs long on a large value, or lets a control character through. The attributes of an object whose
class did not choose to show them (no __repr__ of its own) are not shown either: they may hold a password.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from wfengine_journal import guarding

#: Characters of a preview: one line of a wide terminal, and cheap to keep inline in a row.
PREVIEW_LIMIT = 200

#: Levels of containers that are opened; deeper ones show as "...". People do not read further.
MAX_DEPTH = 5

#: Bits up to which an int is written out. Longer ones cost quadratic time to convert.
MAX_INT_BITS = 1000

#: Packages whose objects are described by shape: their repr is long, and slow for what lies on another device.
_SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch", "jax", "jaxlib", "tensorflow", "scipy", "xarray"})

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def type_name(cls: type) -> str:
    """Return the qualified name of a class as a user would import it: 'int', 'datetime.date', 'pandas.DataFrame'.

    A class that its top package offers under the same name is named there, wherever it is defined.
    """
    try:
        module, name = str(cls.__module__), str(cls.__qualname__)
        root = module.partition(".")[0]
        if module == "builtins":
            return name
        if module != root and vars(sys.modules[root]).get(name) is cls:
            return f"{root}.{name}"
        return f"{module}.{name}"
    except Exception:
        # A metaclass may break its own names; the names that type itself keeps cannot be broken.
        return str(type.__dict__["__name__"].__get__(cls))


def clean(text: str, limit: int) -> str:
    """Return `text` on one line of printable characters, cut to `limit` characters with an ellipsis."""
    # More than the limit is taken first, since control characters and runs of blanks fall out.
    line = " ".join(text[: limit * 4 + 16].split())
    line = "".join(character for character in line if character.isprintable())
    if len(line) > limit:
        return line[: max(limit - 1, 0)] + "…"
    return line


def preview(value: object, limit: int = PREVIEW_LIMIT) -> str:
    """Return a bounded, repr-like, printable text of any value. Never raises; a broken repr is said to be one."""
    try:
        return clean(guarding.hide(_describe(value, limit, MAX_DEPTH)), limit)
    except Exception:
        return clean(_failed(value), limit)


def _failed(value: object) -> str:
    return f"<{type_name(type(value))} (repr failed)>"


def _describe(value: object, room: int, depth: int) -> str:
    """Return text of `value`; stops near `room` characters, which bounds the work as well."""
    kind = type(value)
    if depth <= 0 or room <= 0:
        return "..."
    try:
        if isinstance(value, Enum):
            return f"{kind.__qualname__}.{value.name}"
        if isinstance(value, str | bytes | bytearray):
            return _wrapped(kind, (str, bytes, bytearray), _text(value, room))
        if isinstance(value, list | tuple | set | frozenset | dict):
            return _container(value, kind, room, depth)
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > MAX_INT_BITS:
            return f"<{type_name(kind)} of {value.bit_length()} bits>"
        return _object(value, kind, room, depth)
    except Exception:
        return _failed(value)


def _wrapped(kind: type, plain: tuple[type, ...], text: str) -> str:
    """Return `text`, within the class's name unless the class is a plain builtin."""
    return text if kind in plain else f"{kind.__qualname__}({text})"


def _text(value: str | bytes | bytearray, room: int) -> str:
    head: str | bytes
    if isinstance(value, str):
        head = str.__getitem__(value, slice(room))
    else:
        head = bytes(memoryview(value)[:room])
    return repr(head) + ("..." if len(value) > room else "")


def _container(value: object, kind: type, room: int, depth: int) -> str:
    # The methods of the builtin class are called, as a subclass may have replaced its own by anything.
    if isinstance(value, dict):
        pairs = dict.items(value)
        return _wrapped(kind, (dict,), f"{{{_joined((_pair(k, v, depth) for k, v in pairs), room)}}}")
    if isinstance(value, tuple):
        names = getattr(kind, "_fields", None)
        if isinstance(names, tuple):
            return _fields(kind, zip(names, tuple.__iter__(value), strict=False), room, depth)
        tail = "," if len(value) == 1 else ""
        return _wrapped(kind, (tuple,), f"({_joined(_each(tuple.__iter__(value), depth), room)}{tail})")
    if isinstance(value, list):
        return _wrapped(kind, (list,), f"[{_joined(_each(list.__iter__(value), depth), room)}]")
    items = _joined(_each(iter(value), depth), room)  # type: ignore[call-overload]  # only sets are left
    if not items:
        return f"{kind.__qualname__}()"
    return _wrapped(kind, (set,), f"{{{items}}}")


_Part = Callable[[int], str]


def _pair(key: object, value: object, depth: int) -> _Part:
    def part(room: int) -> str:
        name = _describe(key, room, depth - 1)
        return f"{name}: {_describe(value, room - len(name), depth - 1)}"

    return part


def _each(items: Iterator[object], depth: int) -> Iterator[_Part]:
    for item in items:
        yield lambda room, item=item: _describe(item, room, depth - 1)  # type: ignore[misc]  # item is bound per turn


def _joined(parts: Iterable[_Part], room: int) -> str:
    """Join parts with commas until the room is used up."""
    texts: list[str] = []
    for part in parts:
        if room <= 0:
            texts.append("...")
            break
        texts.append(part(room))
        room -= len(texts[-1]) + 2
    return ", ".join(texts)


def _fields(kind: type, pairs: Iterable[tuple[str, object]], room: int, depth: int) -> str:
    def part(name: str, value: object) -> _Part:
        return lambda room: f"{name}={_describe(value, room - len(name), depth - 1)}"

    return f"{kind.__qualname__}({_joined((part(name, value) for name, value in pairs), room)})"


def _object(value: object, kind: type, room: int, depth: int) -> str:
    if type_name(kind).partition(".")[0] in _SHAPED:
        shaped = _shape(value, kind)
        if shaped:
            return shaped
    names = _shown_fields(kind)
    if names is not None:
        return _fields(kind, ((name, getattr(value, name, "?")) for name in names), room, depth)
    if vars(object)["__repr__"] is kind.__repr__:
        return f"<{type_name(kind)} object>"
    return _ADDRESS.sub("", repr(value))


def _shown_fields(kind: type) -> list[str] | None:
    """Return the fields that the repr of a dataclass, attrs or pydantic class shows; None for any other class.

    Their generated __repr__ writes out everything there is, however large, so they are described field by field.
    Fields that are kept out of the repr stay out, and a __repr__ that the author wrote is used: that is how secrets
    are hidden.
    """
    written = getattr(kind.__repr__, "__wrapped__", kind.__repr__)
    source = getattr(getattr(written, "__code__", None), "co_filename", "")
    if dataclasses.is_dataclass(kind) and written is not kind.__repr__ and source == "<string>":
        return [field.name for field in dataclasses.fields(kind) if field.repr]
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple) and source.startswith("<attrs generated"):
        return [attribute.name for attribute in attributes if attribute.repr is True]
    model_fields = getattr(kind, "__pydantic_fields__", None)
    if isinstance(model_fields, dict) and getattr(written, "__module__", "").startswith("pydantic."):
        return [name for name, field in model_fields.items() if field.repr]
    return None


def _shape(value: object, kind: type) -> str | None:
    """Return the shape of an array or table, or None for what has none (a numpy scalar, a Timestamp)."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not shape:
        return None
    columns = getattr(value, "columns", None)
    if columns is not None and len(shape) == 2:
        names = ", ".join(str(name)[:40] for _, name in zip(range(20), columns, strict=False))
        return f"{type_name(kind)}, {shape[0]} rows x {shape[1]} columns: {names}"
    dtype = getattr(value, "dtype", None)
    of = f" of {dtype}" if dtype is not None else ""
    return f"{type_name(kind)}{of}, shape {tuple(shape)}"


def text_of(what: str | Callable[[], str]) -> str:
    """Return what names something in errors, which need not be made as long as all goes well."""
    return what if isinstance(what, str) else what()
