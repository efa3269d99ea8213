"""Serializers: how a result is written where its task or flow chose so, `@task(result_serializer="json")`.

With a chosen serializer the flow is given what the serializer gives back, at the first run exactly as on replay: a tuple
that goes through JSON is a list both times. Without one the journal's own way is used, which gives every value back as it
was.

A serializer of your own derives from `Serializer`, names a `type` and writes `dumps` and `loads`. Its attributes that were
given as arguments stand in the journal beside each value (so keep secrets out of them); the class is found by its `type`,
so the module that defines it has to be imported where a value is loaded.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, cast

from wfengine_journal import guarding, pickling
from wfengine_journal.codec import MAX_VALUE_BYTES, Encoded, encoded_by, is_json_exact
from wfengine_journal.errors import UsageError, ValueNotStorableError

__all__ = [
    "CompressedJSONSerializer", "CompressedPickleSerializer", "CompressedSerializer", "JSONSerializer", "PickleSerializer",
    "Serializer", "resolve_serializer",
]  # fmt: skip

#: The family of these codecs in the journal: 'serializer:json', or 'serializer:json {"jsonlib":"orjson"}'.
FAMILY = "serializer"

#: Serializers by their `type`. A class that is defined again, as in a notebook, takes the place of the first.
_CLASSES: dict[str, type[Serializer]] = {}


class Serializer:
    """Turns a value into bytes and back. Base of all serializers; `Serializer(type="json")` makes one by its type."""

    type: str = ""

    def __new__(cls, *args: object, **settings: object) -> Serializer:
        """Return a serializer of this class, or of the one that `type` names."""
        name = settings.get("type")
        if cls is not Serializer or name is None:
            return super().__new__(cls)
        return super().__new__(_class_of(str(name)))

    def __init__(self, **settings: object) -> None:
        """Set attributes that the class declares; UsageError for any other."""
        for name, value in settings.items():
            if name == "type" and value == self.type:
                continue
            if name == "type" or name not in self._declared():
                known = ", ".join(self._declared()) or "none"
                raise UsageError(f"{type(self).__name__} has no setting {name!r}. It has: {known}.")
            setattr(self, name, value)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if type(value).__name__ == "FieldInfo":  # written for Prefect, whose serializers are pydantic models
                setattr(cls, name, value.get_default(call_default_factory=True))
        if isinstance(vars(cls).get("type"), str):
            _CLASSES[cls.type] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @classmethod
    def _declared(cls) -> list[str]:
        names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in getattr(base, "__annotations__", ()))
        return [name for name in names if name != "type" and not name.startswith("_")]

    def dumps(self, obj: object) -> bytes:
        """Return the bytes of a value."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to write a value: write its method dumps.")

    def loads(self, blob: bytes) -> object:
        """Return the value of bytes that `dumps` made."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to read a value: write its method loads.")


class PickleSerializer(Serializer):
    """Pickle. By default as the journal pickles: classes of a script are found again wherever the script is loaded."""

    type: str = "pickle"
    picklelib: str = "cloudpickle"

    def dumps(self, obj: object) -> bytes:
        """See Serializer."""
        if self.picklelib != "cloudpickle":
            return bytes(_attribute(self.picklelib, "dumps")(obj))
        return pickling.dump(obj, limit=MAX_VALUE_BYTES)

    def loads(self, blob: bytes) -> object:
        """See Serializer."""
        return pickling.load(blob) if self.picklelib == "cloudpickle" else _attribute(self.picklelib, "loads")(blob)


class JSONSerializer(Serializer):
    """JSON. Types that JSON lacks are written by `object_encoder`, by default as pydantic writes them and with their class.

    So pydantic models, dataclasses, sets, dates and the like come back as what they were; tuples come back as lists, and
    the keys of dicts as text. `object_encoder` and `object_decoder` are dotted names of functions, or None.
    """

    type: str = "json"
    jsonlib: str = "json"
    object_encoder: str | None = "wfengine.serializers.encode_object"
    object_decoder: str | None = "wfengine.serializers.decode_object"
    dumps_kwargs: dict[str, Any] = {}  # noqa: RUF012 - a setting; never changed in place
    loads_kwargs: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, **settings: object) -> None:
        """See Serializer. UsageError where the keyword arguments would replace the functions."""
        super().__init__(**settings)
        for name, taken, setting in (
            ("dumps_kwargs", "default", "object_encoder"), ("loads_kwargs", "object_hook", "object_decoder"),
        ):  # fmt: skip
            if taken in getattr(self, name):
                raise UsageError(f"JSONSerializer: {taken!r} cannot be among {name}; name the function with {setting}=.")

    def dumps(self, obj: object) -> bytes:
        """See Serializer."""
        options = dict(self.dumps_kwargs)
        if self.object_encoder:
            options["default"] = _named(self.object_encoder)
        text = _attribute(self.jsonlib, "dumps")(obj, **options)
        return text.encode() if isinstance(text, str) else bytes(text)

    def loads(self, blob: bytes) -> object:
        """See Serializer."""
        options = dict(self.loads_kwargs)
        if self.object_decoder:
            options["object_hook"] = _named(self.object_decoder)
        return _attribute(self.jsonlib, "loads")(blob.decode(), **options)


class CompressedSerializer(Serializer):
    """What another serializer writes, compressed by a module that has `compress` and `decompress`."""

    type: str = "compressed"
    serializer: Serializer | str | None = None
    compressionlib: str = "lzma"

    def __init__(self, **settings: object) -> None:
        """See Serializer. UsageError without `serializer`."""
        super().__init__(**settings)
        if self.serializer is None:
            raise UsageError(f"{type(self).__name__} needs the serializer whose bytes it compresses: serializer='json'.")
        self.serializer = resolve_serializer(self.serializer, type(self).__name__)

    def dumps(self, obj: object) -> bytes:
        """See Serializer."""
        return bytes(_attribute(self.compressionlib, "compress")(cast(Serializer, self.serializer).dumps(obj)))

    def loads(self, blob: bytes) -> object:
        """See Serializer."""
        return cast(Serializer, self.serializer).loads(_attribute(self.compressionlib, "decompress")(blob))


class CompressedPickleSerializer(CompressedSerializer):
    """Pickle, compressed."""

    type: str = "compressed/pickle"
    serializer: Serializer | str | None = "pickle"


class CompressedJSONSerializer(CompressedSerializer):
    """JSON, compressed."""

    type: str = "compressed/json"
    serializer: Serializer | str | None = "json"


def _named(path: str) -> Callable[..., Any]:
    """Return the function of a dotted name."""
    module, _, name = path.rpartition(".")
    return _attribute(module, name)


def _attribute(module: str, name: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


# ------------------------------------------------------------------------------------------- objects in JSON


def encode_object(obj: object) -> dict[str, object]:
    """Return what JSON writes in place of an object of a class that it lacks: the class's name, and what pydantic makes of it.

    Raises TypeError for a class that could not be found again, or that pydantic cannot take apart.
    """
    from pydantic_core import to_jsonable_python

    cls = type(obj)
    if isinstance(obj, BaseException):
        return {"__exc_type__": pickling.reference_of(cls), "message": str(obj)}
    origin = getattr(cls, "__pydantic_generic_metadata__", {}).get("origin") or cls  # Model[int] has no name to be found by
    reference = pickling.reference_of(origin)
    if cls.__module__ == "builtins" and cls not in (set, frozenset, bytes, complex):
        raise TypeError(f"a {cls.__qualname__} cannot be written as JSON")
    data = str(obj) if isinstance(obj, PurePath) else to_jsonable_python(obj)
    return {"__class__": reference, "data": data}


def decode_object(found: dict[str, Any]) -> object:
    """Return the object that `encode_object` wrote as this dict; any other dict stays as it is."""
    if found.keys() == {"__class__", "data"} and _is_reference(found["__class__"]):
        from pydantic import TypeAdapter

        adapter: TypeAdapter[object] = TypeAdapter(cast("type", pickling.find_named(found["__class__"])))
        return adapter.validate_python(found["data"])
    if found.keys() == {"__exc_type__", "message"} and _is_reference(found["__exc_type__"]):
        cls = pickling.find_named(found["__exc_type__"])
        if isinstance(cls, type) and issubclass(cls, BaseException):
            return cls(found["message"])
    return found


def _is_reference(text: object) -> bool:
    return isinstance(text, str) and text.count(":") == 1


# ------------------------------------------------------------------------------------------- in the journal


def resolve_serializer(chosen: object, owner: str) -> Serializer:
    """Return the serializer that an option names, by its type or itself. Raises UsageError."""
    if isinstance(chosen, str):
        return _class_of(chosen)()
    if not isinstance(chosen, Serializer):
        known = ", ".join(map(repr, _known_types()))
        raise UsageError(f"{owner}: a serializer is one of {known} or a Serializer, not {chosen!r}.")
    codec = codec_of(chosen)
    try:
        _serializer_of(codec)
    except Exception as error:
        raise UsageError(
            f"{owner}: {chosen!r} could not be made again from what stands in the journal ({codec}): {error} Give its class "
            "attributes as settings, each of which has a default."
        ) from error
    return chosen


def _class_of(name: str) -> type[Serializer]:
    try:
        return _CLASSES[name]
    except KeyError:
        raise UsageError(
            f"There is no serializer of type {name!r}; known are {', '.join(map(repr, _known_types()))}. If it is your own, "
            "import the module that defines it."
        ) from None


def _known_types() -> Iterator[str]:
    return (name for name in _CLASSES if name != CompressedSerializer.type)


def codec_of(serializer: Serializer) -> str:
    """Return the name that stands in the journal beside a value, from which the serializer can be made again."""
    if not serializer.type or _CLASSES.get(serializer.type) is not type(serializer):
        name = type(serializer).__name__
        raise UsageError(f"{name} needs a `type` of its own, a text: it stands beside each value in the journal.")
    settings = _settings(serializer)
    if not settings:
        return f"{FAMILY}:{serializer.type}"
    if not is_json_exact(settings):
        raise UsageError(
            f"The settings of {serializer!r} cannot be written beside the values, as they are not plain JSON. Keep them on the "
            "class, or read them in dumps and loads."
        )
    return f"{FAMILY}:{serializer.type} {json.dumps(settings, sort_keys=True, separators=(',', ':'))}"


def _settings(serializer: Serializer) -> dict[str, object]:
    """Return the settings that differ from those of the class."""
    settings: dict[str, object] = {}
    for name, value in vars(serializer).items():
        if name.startswith("_"):
            continue
        own: object = codec_of(value).partition(":")[2] if isinstance(value, Serializer) else value
        if own != getattr(type(serializer), name, None):
            settings[name] = own
    return settings


def _serializer_of(codec: str) -> Serializer:
    """Return the serializer whose `codec_of` this is. Raises UsageError, or what its class raises."""
    name, _, text = codec.partition(":")[2].partition(" ")
    settings = json.loads(text) if text else {}
    nested = settings.get("serializer")
    if isinstance(nested, str) and " " in nested:
        settings["serializer"] = _serializer_of(f"{FAMILY}:{nested}")
    return _class_of(name)(**settings)


def serialize(serializer: Serializer, value: object, what: str) -> tuple[Encoded, object]:
    """Return a value as it is written, and as it comes back. ValueNotStorableError for one that the serializer refuses."""
    try:
        data = bytes(serializer.dumps(value))
        given_back = serializer.loads(data)
    except Exception as error:
        raise ValueNotStorableError(
            f"{what} cannot be stored: {type(serializer).__name__} refuses a value of type {type(value).__qualname__} "
            f"({type(error).__name__}: {error}). Return something it can write and read, or choose another result_serializer."
        ) from error
    return encoded_by(codec_of(serializer), data, given_back, what, is_secret=_holds_secret(value)), given_back


def _holds_secret(value: object) -> bool:
    """Tell whether a value holds a secret: one that is known, or a pydantic SecretStr. A serializer may not show it."""
    if not guarding.POST.is_alert and "pydantic.types" not in sys.modules:
        return False
    hidden: list[str | bytes] = []
    try:
        raw = pickling.dump(value, limit=MAX_VALUE_BYTES, hidden=hidden)
    except Exception:  # it does not pickle; then what the serializer wrote is all there is to look at
        raw = b""
    return guarding.holds_any(raw, hidden)


def load_serialized(codec: str, data: str | bytes, what: str) -> object:
    """Return a value that `serialize` wrote. Raises ValueNotStorableError where its serializer cannot give it back."""
    try:
        return _serializer_of(codec).loads(data.encode() if isinstance(data, str) else data)
    except Exception as error:
        raise ValueNotStorableError(
            f"{what} cannot be read back by the serializer {codec.partition(':')[2]!r} ({type(error).__name__}: {error}). "
            "Import the module that defines it, or restore what its class needs, and resume again."
        ) from error
