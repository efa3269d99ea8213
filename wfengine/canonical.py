"""The canonical form of a value: what two values have in common exactly when a task cannot tell them apart.

Equal values have equal forms in every process, on every platform and under every hash seed. The form is structural.
It is never pickle bytes, whose order of sets and line numbers differ without cause.

A value that JSON gives back type-exactly has the form `J` + its JSON text with sorted keys. Every other value is a tag
and a type name followed by the 16-byte hashes of its parts, so parts need no separators. Classes count by their
qualified name without the module: a script keeps its keys whether it runs as `__main__` or is loaded by name. A value
of any other type is opaque: it is left out, and named.

The rules here are version `KEY_VERSION` of the form and stand in journals: a change to any of them, however small,
needs a new version. For that reason this module decides for itself what is JSON, and does not ask the codec.
Nothing here raises because of what a user's class does; such a value is opaque.
"""

from __future__ import annotations

import collections
import dataclasses
import dis
import enum
import functools
import json
import math
import operator
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path, PurePath
from typing import Any

from xxhash import xxh3_128_digest

from wfengine_journal.guarding import hidden_form, named

KEY_VERSION = 1

#: Levels of nesting that are followed. A level costs up to nine frames, of which the interpreter allows 1000.
MAX_DEPTH = 50
#: Opaque parts that are named for one call; one warning cannot usefully hold more.
MAX_OPAQUE_NAMES = 20
#: Characters of the name of one opaque part.
MAX_PATH_LENGTH = 120

KnownHash = Callable[[object], bytes | None]

#: Write compact JSON with sorted keys.
encode_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_EXACT_SCALARS = frozenset({str, int, bool, type(None)})


def _prepare_encoder() -> Callable[[object, int], Iterable[str]]:
    # JSONEncoder.encode builds the C encoder anew at each call, which takes longer than a small value. This one is built
    # once, gives the same text, and keeps no record of cycles: what it is given was walked to a bounded depth before.
    make = getattr(json.encoder, "c_make_encoder", None)
    escape = getattr(json.encoder, "encode_basestring", None)
    if make is None or escape is None:
        return lambda value, _level: encode_json(value)
    return typing.cast("Callable[[object, int], Iterable[str]]", make(None, None, escape, None, ":", ",", True, False, False))


_encode_walked = _prepare_encoder()


def canonical_hash(value: object, known_hash: KnownHash | None = None) -> bytes:
    """Return the 16-byte hash of the canonical form of one value; an opaque value counts by its type only."""
    return CanonicalWalk(known_hash).hash(value, "value", 0)


def receiver_hash(value: object) -> bytes:
    """Return the hash by which the instance of a method counts if it has no canonical form: that of its class's name."""
    return _leaf(b"O", type_name(type(value)))


def type_name(cls: type) -> str:
    """Return the name by which a class counts: qualified, without the module."""
    if "<locals>" in cls.__qualname__:
        return cls.__name__  # a class stored by value, with the flow it is nested in, comes back without the rest
    return f"builtins.{cls.__qualname__}" if cls.__module__ == "builtins" else cls.__qualname__


def is_user_file(filename: str) -> bool:
    """Tell whether code from this file is the user's own: not of Python, of an installed package, or of wfengine."""
    if "site-packages" in filename or "dist-packages" in filename:
        return False
    return not filename.startswith(("<frozen", _STANDARD_LIBRARY, _OWN_FOLDER))


_STANDARD_LIBRARY = str(Path(os.__file__).parent) + os.sep
_OWN_FOLDER = str(Path(__file__).parent) + os.sep


def exact_json(value: object) -> bytes | None:
    """Return compact JSON with sorted keys, or None if JSON does not give this value back type-exactly.

    A secret that is known stands there by its name: no hash of it is written, and a new value of it is no new input.
    """
    try:
        return named("".join(_encode_walked(value, 0)).encode()) if _is_exact(value, 0) else None
    except (ValueError, RecursionError):  # a lone surrogate, an integer too long to write, or too deep
        return None


def _is_exact(value: object, depth: int) -> bool:
    kind = type(value)
    if kind in _EXACT_SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]  # kind is the type of value
    items: Iterable[object]
    if kind is dict:
        items = value.values()  # type: ignore[attr-defined]  # as above
        for key in value:  # type: ignore[attr-defined]  # as above
            if type(key) is not str:
                return False
    elif kind is list:
        items = value  # type: ignore[assignment]  # as above
    else:
        return False
    for item in items:
        if type(item) not in _EXACT_SCALARS and (depth >= MAX_DEPTH or not _is_exact(item, depth + 1)):
            return False
    return True


# The structural form


def _leaf(tag: bytes, data: str | bytes) -> bytes:
    return xxh3_128_digest(tag + b"\0" + (data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data))


def _node(tag: bytes, name: str, parts: Iterable[bytes]) -> bytes:
    encoded = name.encode("utf-8", "surrogatepass")
    return xxh3_128_digest(tag + b"\0" + len(encoded).to_bytes(4, "little") + encoded + b"".join(parts))


def _name_hash(name: str) -> bytes:
    return _leaf(b"name", name)


def _pairs(hashes: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [key + value for key, value in sorted(hashes)]


def arguments_hash(parts: Mapping[str, bytes]) -> bytes:
    """Return the hash of arguments of which at least one is not JSON, from the hash of each."""
    return _node(b"arguments", "", _pairs((_name_hash(name), part) for name, part in parts.items()))


class CanonicalWalk:
    """One pass over the arguments of one call. Names what was opaque; used by one thread and thrown away."""

    __slots__ = ("_active", "_done", "_known_hash", "opaque")

    def __init__(self, known_hash: KnownHash | None) -> None:
        self._known_hash = known_hash
        self.opaque: list[str] = []
        self._active: set[int] = set()
        # The value is kept beside its hash: were it freed, another object could get its id.
        self._done: dict[int, tuple[object, bytes]] = {}

    def note(self, path: str) -> None:
        """Remember that the part at this path is opaque."""
        if path not in self.opaque and len(self.opaque) < MAX_OPAQUE_NAMES:
            self.opaque.append(path[:MAX_PATH_LENGTH])

    def hash(self, value: object, path: str, depth: int) -> bytes:
        """Return the hash of a part; an opaque part counts by its type's name and is noted."""
        found = self.find(value, path, depth)
        if found is not None:
            return found
        self.note(path)
        return _leaf(b"O", type(value).__qualname__)

    def find(self, value: object, path: str, depth: int) -> bytes | None:
        """Return the hash of a value, or None if the value as a whole is opaque."""
        exact = exact_json(value)
        if exact is not None:
            return xxh3_128_digest(b"J" + exact)
        found = self._find_form(value, path, depth)
        if found is None and self._known_hash is not None:
            known = self._known_hash(value)
            return None if known is None else _leaf(b"R", known)
        return found

    def _find_form(self, value: object, path: str, depth: int) -> bytes | None:
        marker = id(value)
        if marker in self._done:
            return self._done[marker][1]
        if depth > MAX_DEPTH or marker in self._active:
            # A function that calls itself holds itself in its closure; that is no reason for a warning.
            return _leaf(b"recursion", value.__qualname__) if isinstance(value, types.FunctionType) else None
        self._active.add(marker)
        try:
            found = self._form(value, path, depth + 1)
        except Exception:  # the user's class may raise anything from its hooks
            return None
        finally:
            self._active.discard(marker)
        if found is not None:
            self._done[marker] = (value, found)
        return found

    def _form(self, value: Any, path: str, depth: int) -> bytes | None:
        rule = _RULES.get(type(value))
        if rule is not None:
            return rule(self, value, path, depth)
        key = _quiet_getattr(value, "__wfengine_key__")
        if type(key) is str:
            return _leaf(b"wfengine", key)
        for root in _library_names(type(value)):
            found = _LIBRARY_RULES[root](self, value, path, depth)
            if found is not None:
                return found
        for base, rule in _BASE_RULES:
            if isinstance(value, base):
                return rule(self, value, path, depth)
        for module, name, rule in _LATE_RULES:
            if module in sys.modules and isinstance(value, getattr(sys.modules[module], name, ())):
                return rule(self, value, path, depth)
        return _record(self, value, path, depth) or _subclass(self, value, path, depth) or _typing(self, value, path, depth)

    def items(self, tag: bytes, items: Iterable[object], path: str, depth: int, name: str = "") -> bytes:
        inner = path + ".*"
        return _node(tag, name, [self.hash(item, inner, depth) for item in items])

    def fields(self, name: str, fields: Mapping[str, object], path: str, depth: int) -> bytes:
        named = ((_name_hash(field), self.hash(item, f"{path}.{field}", depth)) for field, item in fields.items())
        return _node(b"fields", name, _pairs(named))


def _set(walk: CanonicalWalk, value: Iterable[object], path: str, depth: int) -> bytes:
    inner = path + ".*"
    return _node(b"set", type(value).__qualname__, sorted(walk.hash(item, inner, depth) for item in value))


def _dict(walk: CanonicalWalk, value: dict[object, object], path: str, depth: int) -> bytes:
    if all(type(key) is str for key in value):
        named = ((_name_hash(str(key)), walk.hash(item, f"{path}.{key}", depth)) for key, item in value.items())
        return _node(b"dict", "", _pairs(named))
    inner = path + ".*"
    both = ((walk.hash(key, inner, depth), walk.hash(item, inner, depth)) for key, item in value.items())
    return _node(b"mapping", "", _pairs(both))


def _record(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes | None:
    """Return the form of a dataclass, attrs class, pydantic model, struct or named tuple; None if it is none."""
    cls = type(value)
    names: list[str] | None = None
    if isinstance(_quiet_getattr(cls, "__dataclass_fields__"), dict):
        names = [field.name for field in dataclasses.fields(value)]
    elif isinstance(attributes := _quiet_getattr(cls, "__attrs_attrs__"), tuple):
        names = [attribute.name for attribute in attributes]
    elif isinstance(fields := _quiet_getattr(cls, "model_fields"), dict):
        extra = _quiet_getattr(value, "__pydantic_extra__")
        named = {name: getattr(value, name) for name in fields} | (extra if isinstance(extra, dict) else {})
        return walk.fields(type_name(cls), named, path, depth)
    elif isinstance(struct := _quiet_getattr(cls, "__struct_fields__"), tuple):
        names = list(struct)
    elif isinstance(value, tuple) and isinstance(slots := _quiet_getattr(cls, "_fields"), tuple):
        return walk.fields(type_name(cls), dict(zip(slots, tuple.__iter__(value), strict=True)), path, depth)
    if names is None:
        return None
    return walk.fields(type_name(cls), {name: getattr(value, name) for name in names}, path, depth)


def _subclass(walk: CanonicalWalk, value: object, path: str, depth: int) -> bytes | None:
    """Return the form of an instance of a class derived from a builtin one, read without its overridden methods."""
    for base, read in _PLAIN:
        if isinstance(value, base):
            return _node(b"subclass", type_name(type(value)), [walk.hash(read(value), path, depth)])
    return None


def _typing(walk: CanonicalWalk, value: object, path: str, depth: int) -> bytes | None:
    if type(value).__module__ not in ("types", "typing"):
        return None
    origin = typing.get_origin(value)
    if origin is None or not isinstance(origin, type):
        return _leaf(b"typing", repr(value))
    return walk.items(b"alias", [origin, *typing.get_args(value)], path, depth)


def _function(walk: CanonicalWalk, fn: types.FunctionType, path: str, depth: int) -> bytes:
    key = _quiet_getattr(fn, "__wfengine_key__")
    if type(key) is str:
        return _leaf(b"wfengine", key)
    # Code of a library changes with its version, which must not orphan calls; the name stands for it.
    is_own = is_user_file(fn.__code__.co_filename)
    code = code_hash(fn.__code__) if is_own else _leaf(b"module", str(fn.__module__))
    defaults = walk.items(b"defaults", fn.__defaults__ or (), path, depth)
    keywords = walk.fields("", fn.__kwdefaults__ or {}, path, depth)
    cells = dict(zip(fn.__code__.co_freevars, map(_cell_contents, fn.__closure__ or ()), strict=True))
    return _node(b"function", fn.__qualname__, [code, defaults, keywords, walk.fields("", cells, path, depth)])


def _builtin(walk: CanonicalWalk, fn: types.BuiltinFunctionType, path: str, depth: int) -> bytes:
    owner = fn.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return _leaf(b"builtin", f"{fn.__module__}.{fn.__qualname__}")
    return _node(b"method", fn.__name__, [walk.hash(owner, path + ".__self__", depth)])


def code_hash(code: types.CodeType) -> bytes:
    """Return the hash of what a code object does: without lines, file names, docstring and names of locals."""
    count = code.co_argcount + code.co_kwonlyargcount
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _MEANT_FLAGS)
    names = [list(shape), list(code.co_varnames[:count])]
    return _node(b"code", encode_json(names), [_leaf(b"try", code.co_exceptiontable), *_operations(code)])


#: CO_VARARGS, CO_VARKEYWORDS, CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR; the rest is how the compiler works.
_MEANT_FLAGS = 0x4 | 0x8 | 0x20 | 0x80 | 0x200


def _operations(code: types.CodeType) -> Iterator[bytes]:
    """Yield a hash for each instruction, by the constant or name it means and not by their numbers.

    A docstring is a constant that no instruction loads, so it does not count.
    """
    for operation in dis.get_instructions(code):
        if operation.opcode in _TAKES_CONSTANT:
            constant = operation.argval
            meant = code_hash(constant) if isinstance(constant, types.CodeType) else canonical_hash(constant)
        elif operation.opcode in _TAKES_NAME:
            meant = str(operation.argval).encode("utf-8", "surrogatepass")
        else:
            meant = str(operation.arg).encode()
        yield _leaf(b"op", operation.opname.encode() + b" " + meant)


_TAKES_CONSTANT = frozenset(dis.hasconst)
_TAKES_NAME = frozenset(dis.hasname)


def _cell_contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return Ellipsis


def _quiet_getattr(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # a class may answer any name, in any way
        return None


def _library_names(cls: type) -> list[str]:
    """Return the libraries with a rule of their own that a class, or one it derives from, comes from."""
    roots = [str(base.__module__).partition(".")[0] for base in cls.__mro__]
    return [root for root in dict.fromkeys(roots) if root in _LIBRARY_RULES]


def _zone_name(value: datetime | time) -> str:
    zone = value.tzinfo
    return str(getattr(zone, "key", None) or getattr(zone, "zone", None) or "")


def _decimal(value: object) -> bytes:
    return _leaf(b"decimal", f"{type(value).__qualname__} {sys.modules['decimal'].Decimal.__str__(value)}")


def _datetime(walk: CanonicalWalk, value: datetime, path: str, depth: int) -> bytes:
    name = type(value).__qualname__
    offset = value.utcoffset()
    if offset is None:
        return _leaf(b"datetime", f"{name} {value.replace(tzinfo=None).isoformat()} {value.fold}")
    return _leaf(b"instant", f"{name} {value.astimezone(UTC).isoformat()} {offset!r} {_zone_name(value)}")


def _time(walk: CanonicalWalk, value: time, path: str, depth: int) -> bytes:
    return _leaf(b"time", f"{type(value).__qualname__} {value.isoformat()} {value.fold} {_zone_name(value)}")


def _enum(walk: CanonicalWalk, value: enum.Enum, path: str, depth: int) -> bytes:
    # A combination of flags may have no name of its own.
    return _leaf(b"enum", f"{type_name(type(value))}.{value.name if value.name is not None else repr(value.value)}")


def _module(walk: CanonicalWalk, value: types.ModuleType, path: str, depth: int) -> bytes:
    name = value.__name__
    return _leaf(b"module", Path(str(value.__file__)).stem if name == "__main__" else name)


def _descriptor(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes:
    return _leaf(b"descriptor", f"{type_name(value.__objclass__)}.{value.__name__}")


def _partial(walk: CanonicalWalk, value: functools.partial[object], path: str, depth: int) -> bytes:
    return walk.items(b"partial", (value.func, value.args, value.keywords), path, depth)


def _array(walk: CanonicalWalk, array: Any, path: str, depth: int) -> bytes:
    """Return the form of a numpy array or scalar: type, data type, shape, and the elements in C order."""
    numpy = sys.modules["numpy"]
    name = type(array).__qualname__
    array = numpy.asanyarray(array)
    head = [_leaf(b"dtype", array.dtype.str), _leaf(b"shape", repr(tuple(map(int, array.shape))))]
    if isinstance(array, numpy.ma.MaskedArray):
        mask = _array(walk, numpy.ma.getmaskarray(array), path, depth)
        return _node(b"masked", name, [mask, _array(walk, array.filled(), path, depth)])
    array = numpy.asarray(array)
    if array.dtype.names is not None:
        parts = [_name_hash(field) + _array(walk, array[field], f"{path}.{field}", depth) for field in array.dtype.names]
        return _node(b"records", name, head + parts)
    if array.dtype.hasobject or array.dtype.kind == "T":
        return _node(b"objects", name, [*head[1:], walk.hash(array.ravel().tolist(), path, depth)])
    if array.dtype.char in "gG":  # the bytes of a long double include unset padding
        return _node(b"long", name, [*head, _leaf(b"text", repr([str(item) for item in array.ravel()]))])
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    head[0] = _leaf(b"dtype", little.dtype.str)
    data = numpy.ascontiguousarray(little).reshape(-1).view("u1") if little.nbytes else b""
    return _node(b"array", name, [*head, xxh3_128_digest(data)])


def _numpy(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes | None:
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray | numpy.generic):
        return _array(walk, value, path, depth)
    if isinstance(value, numpy.dtype):
        return _leaf(b"dtype", repr(value))
    name = _quiet_getattr(value, "__name__")
    return _leaf(b"numpy", name) if callable(value) and isinstance(name, str) else None


def _pandas(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes | None:
    pandas = sys.modules["pandas"]
    name = type(value).__qualname__
    if isinstance(value, pandas.DataFrame):
        columns = [_column(walk, value.iloc[:, place], path, depth) for place in range(value.shape[1])]
        labels = [_pandas(walk, value.columns, path, depth) or b"", _pandas(walk, value.index, path, depth) or b""]
        return _node(b"frame", name, labels + columns)
    if isinstance(value, pandas.MultiIndex):
        levels = [value.get_level_values(level) for level in range(value.nlevels)]
        return walk.items(b"index", levels, path, depth, "MultiIndex")
    if isinstance(value, pandas.Index):  # a RangeIndex and the same numbers written out are the same labels
        return _node(b"index", "", [walk.hash(value.name, path, depth), _column(walk, value, path, depth)])
    if isinstance(value, pandas.Series):
        index = _pandas(walk, value.index, path, depth) or b""
        return _node(b"series", name, [walk.hash(value.name, path, depth), index, _column(walk, value, path, depth)])
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return _node(b"extension", name, [_column(walk, pandas.Series(value), path, depth)])
    is_scalar = pandas.api.types.is_scalar(value) or isinstance(value, pandas.DateOffset)
    return _leaf(b"pandas", f"{name} {value!r}") if is_scalar else None


def _column(walk: CanonicalWalk, column: Any, path: str, depth: int) -> bytes:
    pandas = sys.modules["pandas"]
    head = _leaf(b"dtype", str(column.dtype))
    if isinstance(column.dtype, pandas.CategoricalDtype):
        codes = column.codes if isinstance(column, pandas.Index) else column.cat.codes.to_numpy()
        ordered = b"ordered" if column.dtype.ordered else b"free"
        categories = _column(walk, column.dtype.categories, path, depth)
        return _node(b"categories", "", [head, _leaf(b"is", ordered), categories, _array(walk, codes, path, depth)])
    if isinstance(column.dtype, pandas.DatetimeTZDtype):  # as instants; the zone stands in the dtype's name
        values = column.to_numpy(dtype=f"datetime64[{column.dtype.unit}]")
    else:
        values = column.to_numpy()
    if values.dtype != object:
        return _node(b"column", "", [head, _array(walk, values, path, depth)])
    missing = pandas.isna(values)
    plain = [None if gone else item for gone, item in zip(missing, values.tolist(), strict=True)]
    return _node(b"column", "", [head, _array(walk, missing, path, depth), walk.hash(plain, path, depth)])


def _polars(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes | None:
    polars = sys.modules["polars"]
    if isinstance(value, polars.DataFrame):
        return walk.items(b"polars", value.get_columns(), path, depth)
    if isinstance(value, polars.Series):
        head = _leaf(b"dtype", f"{value.name}:{value.dtype}")
        return _node(b"polars series", "", [head, walk.hash(value.to_list(), path, depth)])
    return None


def _arrow(walk: CanonicalWalk, value: Any, path: str, depth: int) -> bytes | None:
    arrow = sys.modules["pyarrow"]
    if isinstance(value, arrow.Table | arrow.RecordBatch):
        names = walk.hash(list(value.schema.names), path, depth)
        return _node(b"arrow", "", [names, walk.items(b"columns", value.columns, path, depth)])
    if isinstance(value, arrow.Array | arrow.ChunkedArray):  # chunks are storage, not content
        return _node(b"arrow array", str(value.type), [walk.hash(value.to_pylist(), path, depth)])
    if isinstance(value, arrow.Scalar):
        return _node(b"arrow scalar", str(value.type), [walk.hash(value.as_py(), path, depth)])
    is_description = isinstance(value, arrow.Schema | arrow.DataType | arrow.Field)
    return _leaf(b"arrow type", str(value)) if is_description else None


_Rule = Callable[[CanonicalWalk, Any, str, int], bytes | None]

#: By exact type.
_RULES: dict[type, _Rule] = {
    str: lambda walk, value, path, depth: _leaf(b"str", value),
    int: lambda walk, value, path, depth: _leaf(b"int", hex(value)),
    float: lambda walk, value, path, depth: _leaf(b"float", repr(value)),
    complex: lambda walk, value, path, depth: _leaf(b"complex", f"{value.real!r} {value.imag!r}"),
    bytes: lambda walk, value, path, depth: _leaf(b"bytes", value),
    bytearray: lambda walk, value, path, depth: _leaf(b"bytearray", bytes(value)),
    memoryview: lambda walk, value, path, depth: _leaf(b"memoryview", value.tobytes()),
    tuple: lambda walk, value, path, depth: walk.items(b"tuple", value, path, depth),
    list: lambda walk, value, path, depth: walk.items(b"list", value, path, depth),
    collections.deque: lambda walk, value, path, depth: walk.items(b"deque", value, path, depth, str(value.maxlen)),
    set: _set,
    frozenset: _set,
    dict: _dict,
    range: lambda walk, value, path, depth: _leaf(b"range", repr(value)),
    slice: lambda walk, value, path, depth: walk.items(b"slice", (value.start, value.stop, value.step), path, depth),
    types.EllipsisType: lambda walk, value, path, depth: _leaf(b"singleton", repr(value)),
    types.NotImplementedType: lambda walk, value, path, depth: _leaf(b"singleton", repr(value)),
    types.SimpleNamespace: lambda walk, value, path, depth: walk.fields("namespace", vars(value), path, depth),
    types.FunctionType: _function,
    types.CodeType: lambda walk, value, path, depth: code_hash(value),
    types.BuiltinFunctionType: _builtin,
    types.MethodWrapperType: lambda walk, value, path, depth: _node(
        b"method", value.__name__, [walk.hash(value.__self__, path + ".__self__", depth)]
    ),
    types.MethodType: lambda walk, value, path, depth: _node(
        b"method",
        value.__func__.__qualname__,
        [walk.hash(value.__self__, path + ".__self__", depth), walk.hash(value.__func__, path, depth)],
    ),
    types.MethodDescriptorType: _descriptor,
    types.WrapperDescriptorType: _descriptor,
    types.ClassMethodDescriptorType: _descriptor,
    types.GetSetDescriptorType: _descriptor,
    operator.itemgetter: lambda walk, value, path, depth: walk.items(b"operator", value.__reduce__(), path, depth),
    operator.attrgetter: lambda walk, value, path, depth: walk.items(b"operator", value.__reduce__(), path, depth),
    operator.methodcaller: lambda walk, value, path, depth: walk.items(b"operator", value.__reduce__(), path, depth),
    type(functools.lru_cache(len)): lambda walk, value, path, depth: walk.items(b"cached", [value.__wrapped__], path, depth),
    re.Pattern: lambda walk, value, path, depth: walk.items(b"pattern", (value.pattern, value.flags), path, depth),
}

#: By class or subclass, the first that fits.
_BASE_RULES: tuple[tuple[type, _Rule], ...] = (
    (enum.Enum, _enum),
    (type, lambda walk, value, path, depth: _leaf(b"type", type_name(value))),
    (datetime, _datetime),
    (date, lambda walk, value, path, depth: _leaf(b"date", f"{type(value).__qualname__} {value.isoformat()}")),
    (time, _time),
    (
        timedelta,
        lambda walk, value, path, depth: _leaf(
            b"timedelta", f"{type(value).__qualname__} {value.days} {value.seconds} {value.microseconds}"
        ),
    ),
    (PurePath, lambda walk, value, path, depth: _leaf(b"path", value.as_posix())),
    (types.ModuleType, _module),
    (functools.partial, _partial),
)

#: As above, of modules that are slow to import: where one was not imported, there is no value of its class.
_LATE_RULES: tuple[tuple[str, str, _Rule], ...] = (
    ("decimal", "Decimal", lambda walk, value, path, depth: _decimal(value)),
    (
        "fractions",
        "Fraction",
        lambda walk, value, path, depth: _leaf(
            b"fraction", f"{type(value).__qualname__} {value.numerator:x}/{value.denominator:x}"
        ),
    ),
    ("pydantic.types", "SecretStr", lambda walk, value, path, depth: _leaf(b"hidden", hidden_form(value))),
    ("pydantic.types", "SecretBytes", lambda walk, value, path, depth: _leaf(b"hidden", hidden_form(value))),
    ("uuid", "UUID", lambda walk, value, path, depth: _leaf(b"uuid", f"{type(value).__qualname__} {value.hex}")),
)

_LIBRARY_RULES: dict[str, _Rule] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "polars": _polars,
    "pyarrow": _arrow,
}

#: How the plain value is read out of an instance of a class derived from a builtin one.
_PLAIN: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (complex, complex.__complex__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (bytearray, lambda value: bytes(bytearray.__getitem__(value, slice(None)))),
    (tuple, lambda value: tuple.__getitem__(value, slice(None))),
    (list, lambda value: list.__getitem__(value, slice(None))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: set(frozenset.__iter__(value))),
)
