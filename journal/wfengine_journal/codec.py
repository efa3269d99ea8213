"""How a Python value becomes a codec name and bytes, and comes back with exactly its type.

JSON where JSON is exact, so that people can read it; pickle (cloudpickle where it is needed) for everything else. What
would not come back is refused here, when it is written. Every payload has a hash over its codec and bytes, and nothing
looks into a payload before the hash was found right.

This module must not touch the file. `pickling` says what a pickle may hold, `previews` what people see of a value.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Sequence
from json import encoder as json_encoder
from typing import NamedTuple, cast

from xxhash import xxh3_128, xxh3_128_digest

from wfengine_journal import guarding, pickling
from wfengine_journal.errors import JournalCorruptError, RecordedError, ValueNotStorableError
from wfengine_journal.pickling import register_script_module as register_script_module
from wfengine_journal.pickling import stored_type_name
from wfengine_journal.previews import preview as preview
from wfengine_journal.previews import text_of, type_name

#: Bytes of one value before compression. A row of SQLite ends at 10**9 bytes, so the round number below is the most
#: that is sure to fit; it also bounds what decompression may produce.
MAX_VALUE_BYTES = 14 * 64 * 1024 * 1024

#: Bytes of a pickled exception. An exception that drags more along is kept as text.
MAX_ERROR_BYTES = 64 * 1024 * 1024

#: Bytes of an exception's message and of its traceback: far above what a person reads, far below what fills a disk.
MAX_MESSAGE_BYTES = 64 * 1024
MAX_TRACEBACK_BYTES = 256 * 1024

#: Characters of one entry (a frame, or the message) within a traceback, so that a huge message leaves the frames.
MAX_TRACEBACK_ENTRY = 16 * 1024

#: Exceptions kept of one chain of causes, contexts and groups.
MAX_CHAIN = 64

#: Levels of nesting that are written as JSON: SQLite's JSON functions and other readers stop at some hundreds.
MAX_JSON_DEPTH = 100

#: Containers on one level above which a shared one is not written out once per use: sharing may double with each level.
MAX_SHARED = 10_000

#: Digits of an int that every Python reads by default.
MAX_INT_DIGITS = 4300

#: Bytes below which compression is not tried, and the share of the bytes it must leave at most to be worth undoing.
COMPRESS_ABOVE_BYTES = 1024
COMPRESS_TO = 0.8

_LENGTH_BYTES = 8
_ERROR_FORMAT = 1


# A NamedTuple, not a frozen dataclass: one is made for each value written, and a dataclass takes a microsecond.
class Encoded(NamedTuple):
    """A value as it stands in the journal."""

    codec: str  # 'json', 'pickle', 'pickle+zlib', or one that was registered
    data: str | bytes  # str when codec is 'json' or 'stored'
    hash: bytes  # xxh3_128 of codec, a zero byte, and the bytes of data
    preview: str | None  # for people; None when codec is 'json', which is readable itself
    python_type: str

    @property
    def size(self) -> int:
        """Return the bytes of data."""
        return len(self.data) if isinstance(self.data, bytes) or self.data.isascii() else len(self.data.encode())


class EncodedError(NamedTuple):
    """An exception as it stands in the journal."""

    type: str
    message: str
    traceback: str
    data: bytes | None  # None: the exception could not be stored, it comes back as RecordedError
    codec: str | None
    hash: bytes | None


# ----------------------------------------------------------------------------------------------------------------- JSON


def _prepare_encoder() -> Callable[[object, int], Iterable[str]]:
    # JSONEncoder.encode builds the C encoder anew at each call, which takes as long as a small value. This one is built
    # once. It keeps no record of cycles (the structure was checked before) and refuses NaN and infinity.
    make = getattr(json_encoder, "c_make_encoder", None)
    escape = getattr(json_encoder, "encode_basestring", None)
    if make is None or escape is None:
        slow = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return lambda value, _level: slow.encode(value)
    return cast("Callable[[object, int], Iterable[str]]", make(None, None, escape, None, ":", ",", False, False, False))


_encode_json = _prepare_encoder()
_decode_json = json.JSONDecoder().raw_decode
_JSON_ATOMS = frozenset({str, int, float, bool, type(None)})
_JSON_CONTAINERS = frozenset({list, dict})
_ONLY_STR = frozenset({str})
_LONG_NUMBER = re.compile(rf"\d{{{MAX_INT_DIGITS + 1}}}")


def _is_json_shaped(value: object) -> bool:
    """Return whether a list or dict holds nothing but JSON's types, exactly. Cycles and deep nesting are not JSON."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        below: list[object] = []
        for container in level:
            items: Iterable[object]
            if type(container) is dict:
                if not _ONLY_STR.issuperset(map(type, container)):
                    return False
                items = container.values()
            else:
                items = cast("list[object]", container)
            if _JSON_ATOMS.issuperset(map(type, items)):
                continue
            for item in items:
                kind = type(item)
                if kind in _JSON_CONTAINERS:
                    below.append(item)
                elif kind not in _JSON_ATOMS:
                    return False
        if not below:
            return True
        if len(below) > MAX_SHARED and len(set(map(id, below))) < len(below):
            return False
        level = below
    return False


def _json_form(value: object) -> tuple[str, bytes] | None:
    """Return the JSON text of a value and its UTF-8 bytes, or None when the value would not come back as it is."""
    kind = type(value)
    try:
        if kind not in _JSON_ATOMS and not (kind in _JSON_CONTAINERS and _is_json_shaped(value)):
            return None
        text = "".join(_encode_json(value, 0))
        data = text.encode()
    except (ValueError, RecursionError, RuntimeError):
        # NaN or infinity, an int beyond the limit of digits, a lone surrogate, a container changed by another thread.
        return None
    if not 0 < sys.get_int_max_str_digits() <= MAX_INT_DIGITS and _LONG_NUMBER.search(text):
        # This process was told to write longer ints; the one that resumes may not be told to read them.
        return None
    return text, data


def is_json_exact(value: object) -> bool:
    """Return whether JSON gives the same types and values back."""
    return _json_form(value) is not None


def json_text(value: object) -> str:
    """Return compact JSON of a value for which `is_json_exact` holds, in the order of its dicts."""
    return "".join(_encode_json(value, 0))


def _load_json(text: str, what: str) -> object:
    try:
        value, end = _decode_json(text)
    except json.JSONDecodeError as error:
        raise JournalCorruptError(_damaged(what, f"it is not JSON ({error})")) from error
    except (ValueError, RecursionError) as error:
        raise ValueNotStorableError(f"{what} cannot be read back: {error}.") from error
    if end != len(text):
        raise JournalCorruptError(_damaged(what, "there is text after the end of the JSON"))
    return value


# ------------------------------------------------------------------------------------------------------- encode, decode


def encode(value: object, what: str | Callable[[], str]) -> Encoded:
    """Return a value as it is written. `what`, or what that returns, names it in errors: "the result of task run 'load-12'".

    Raises ValueNotStorableError, now rather than on resume, for a value that would not come back. The check loads what
    was pickled once; it is left out for builtin and stdlib types that are known to come back.
    """
    form = _json_form(value)
    if form is None:
        return _encode_pickle(value, text_of(what))
    text, data = form
    if len(data) > MAX_VALUE_BYTES:
        raise _too_large(value, text_of(what), MAX_VALUE_BYTES)
    if guarding.holds(data):
        return _sealed("json", data, value, text_of(what))
    return Encoded("json", text, xxh3_128_digest(b"json\0" + data), None, type(value).__name__)


def _encode_pickle(value: object, what: str) -> Encoded:
    hidden: list[str | bytes] = []
    try:
        plain = pickling.is_plain(value)
        raw = pickling.dump(value, plain=plain, limit=MAX_VALUE_BYTES, hidden=hidden)
        if not plain:
            pickling.check_same(value, pickling.load(raw))
    except pickling.TooLargeError as error:
        raise _too_large(value, what, MAX_VALUE_BYTES) from error
    except pickling.OwnObjectError as error:
        raise ValueNotStorableError(
            f"{what} cannot be stored: it holds {error}, which belongs to wfengine itself, and a journal outlives the "
            "version that wrote it. Return the result of it instead (of a future: future.result())."
        ) from error
    except Exception as error:
        raise ValueNotStorableError(
            f"{what} cannot be stored: it is of type {stored_type_name(type(value))}, and {_innermost(error)}. "
            "Return plain data, or the path of a file that holds it, or make the type picklable."
        ) from error
    if guarding.holds_any(raw, hidden):
        return _sealed("pickle", raw, value, what)
    codec, data = _compress(raw)
    return Encoded(codec, data, value_hash(codec, data), preview(value), stored_type_name(type(value)))


def _sealed(inner: str, raw: bytes, value: object, what: str) -> Encoded:
    """Return a value that holds a secret: encrypted."""
    codec, data = guarding.seal(inner, raw, what)
    return Encoded(codec, data, value_hash(codec, data), preview(value), stored_type_name(type(value)))


def load_opened(inner: str, raw: bytes, what: str) -> object:
    """Return the value of what was sealed, once it is decrypted: what `Guard.seal` was given."""
    load = _registered.get(inner.partition(":")[0])
    if load is not None:
        return load(inner, raw, what)
    if inner == "json":
        return _load_json(raw.decode(), what)
    try:
        return pickling.load(raw)
    except Exception as error:
        raise _unreadable(what, error) from error


def decode(codec: str, data: str | bytes, hash_: bytes, what: str) -> object:
    """Return the value that was written as `data`.

    Raises JournalCorruptError when the hash or length does not hold or the codec is unknown; ValueNotStorableError when
    the payload is intact but its class or module is no longer there, or refuses to load.
    """
    if codec == "json" and type(data) is str:
        try:
            known = xxh3_128_digest(b"json\0" + data.encode()) == hash_
        except UnicodeEncodeError:
            known = False
        if not known:
            raise JournalCorruptError(_damaged(what, "its checksum does not match"))
        return _load_json(data, what)
    load = _registered.get(codec.partition(":")[0])
    if load is None and (codec not in ("pickle", "pickle+zlib") or type(data) is not bytes):
        raise JournalCorruptError(_damaged(what, f"its codec {codec!r} is not one for {type(data).__name__}"))
    if value_hash(codec, data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")) != hash_:
        raise JournalCorruptError(_damaged(what, "its checksum does not match"))
    if load is not None:
        return load(codec, data, what)
    assert isinstance(data, bytes)
    raw = _decompress(data, what) if codec == "pickle+zlib" else data
    try:
        return pickling.load(raw)
    except Exception as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: Exception) -> ValueNotStorableError:
    return ValueNotStorableError(
        f"{what} cannot be read back: {_innermost(error)}. Restore the class or function under that name, or make an import "
        "of it there, and resume again."
    )


#: Codecs that are not of this module, by what stands before the colon in their name.
_registered: dict[str, Callable[[str, str | bytes, str], object]] = {}


def register_codec(family: str, load: Callable[[str, str | bytes, str], object]) -> None:
    """Let `load(codec, data, what)` read values whose codec is `family` or begins with `family:`.

    It is called with data whose checksum holds, and raises ValueNotStorableError or JournalCorruptError.
    """
    _registered[family] = load


def encoded_by(codec: str, data: str | bytes, value: object, what: str, *, is_secret: bool = False) -> Encoded:
    """Return what a registered codec wrote (`is_secret`: of a value with a secret). ValueNotStorableError if too large."""
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_VALUE_BYTES:
        raise _too_large(value, what, MAX_VALUE_BYTES)
    if is_secret or guarding.holds(raw):
        return _sealed(codec, raw, value, what)
    return Encoded(codec, data, value_hash(codec, raw), preview(value), stored_type_name(type(value)))


def recorded_size(codec: str, data: str | bytes) -> int:
    """Return the length of a value's data, before it was compressed."""
    return int.from_bytes(cast(bytes, data[:_LENGTH_BYTES]), "little") if codec == "pickle+zlib" else len(data)


def value_hash(codec: str, data: bytes) -> bytes:
    """Return the checksum of a value."""
    state = xxh3_128(codec.encode() + b"\0")
    state.update(data)
    return state.digest()


def _compress(raw: bytes) -> tuple[str, bytes]:
    """Return codec and payload. A compressed payload begins with the raw length, 8 bytes, least significant first."""
    if len(raw) > COMPRESS_ABOVE_BYTES:
        small = zlib.compress(raw, 1)
        if len(small) + _LENGTH_BYTES <= len(raw) * COMPRESS_TO:
            return "pickle+zlib", len(raw).to_bytes(_LENGTH_BYTES, "little") + small
    return "pickle", raw


def _decompress(data: bytes, what: str) -> bytes:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if not 0 < length <= MAX_VALUE_BYTES:
        raise JournalCorruptError(_damaged(what, f"it claims a length of {length} bytes"))
    stream = zlib.decompressobj()
    try:
        # One byte more than was promised is asked for: a longer stream then shows, and no more is ever produced.
        raw = stream.decompress(memoryview(data)[_LENGTH_BYTES:], length + 1)
    except zlib.error as error:
        raise JournalCorruptError(_damaged(what, f"it cannot be decompressed ({error})")) from error
    if len(raw) != length or not stream.eof or stream.unused_data:
        raise JournalCorruptError(_damaged(what, f"it does not decompress to the {length} bytes it should"))
    return raw


def _damaged(what: str, how: str) -> str:
    return (
        f"{what} is damaged in the journal: {how}. Restore the journal from a backup, or run that part again: "
        "wfengine resume RUN --rerun TASK_RUN_ID"
    )


def _too_large(value: object, what: str, limit: int) -> ValueNotStorableError:
    return ValueNotStorableError(
        f"{what} cannot be stored: it is of type {stored_type_name(type(value))} and takes more than the limit of "
        f"{limit:,} bytes. Write it to a file and return the path."
    )


def _innermost(error: BaseException) -> str:
    """Return the text of the first cause of an error: the lock that cannot be pickled, not who held it."""
    for _ in range(MAX_CHAIN):
        inner = error.__cause__ or error.__context__
        if inner is None or isinstance(error, pickling.NameGoneError):
            break
        error = inner
    if isinstance(error, pickling.NameGoneError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    message = _message(error).rstrip(".")[:500]
    return f"{type_name(type(error))} was raised: {message}" if message else f"{type_name(type(error))} was raised"


# ----------------------------------------------------------------------------------------------------------- exceptions


def encode_error(error: BaseException) -> EncodedError:
    """Return an exception as it is written: always its text, and itself when it would come back as it is. Never raises.

    Causes, contexts and notes are kept with it; one of the chain that cannot be stored is kept as text.
    """
    codec = data = hash_ = None
    hidden: list[str | bytes] = []
    raw = _pickle_chain(error, hidden)
    if raw is not None:
        try:
            codec, data = guarding.seal("pickle", raw, "it") if guarding.holds_any(raw, hidden) else _compress(raw)
            hash_ = value_hash(codec, data)
        except ValueNotStorableError:
            codec = data = None  # its text is recorded, without the secret
    return EncodedError(*_error_text(error), data, codec, hash_)


def decode_error(encoded: EncodedError) -> BaseException:
    """Return the exception that was written, or a RecordedError with its text when it cannot come back as itself.

    The recorded traceback goes with it as a note. Raises JournalCorruptError when the hash does not hold, nothing else.
    """
    error: BaseException | None = None
    if encoded.data is not None:
        what = f"a recorded {encoded.type}"
        try:
            error = _restore_chain(decode(encoded.codec or "", encoded.data, encoded.hash or b"", what))
        except ValueNotStorableError:
            error = None
    if error is None:
        error = RecordedError(encoded.type, encoded.message, encoded.traceback)
    _note_traceback(error, encoded.traceback)
    return error


def _error_text(error: BaseException) -> tuple[str, str, str]:
    """Return type, message and traceback of an exception, each storable and bounded."""
    return stored_type_name(type(error)), _bounded(guarding.hide(_message(error)), MAX_MESSAGE_BYTES), _traceback_text(error)


def error_message(error: BaseException) -> str:
    """Return the text of an exception, also of one whose own str() fails; storable and printable as text."""
    return _message(error)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        return "<str() of the exception failed>"
    # What SQLite and a terminal cannot take as text is written as an escape.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _bounded(text: str, limit: int) -> str:
    data = text[:limit].encode()
    if len(data) <= limit and len(text) <= limit:
        return text
    return f"{data[:limit].decode(errors='ignore')}... (cut, {len(text):,} characters in all)"


def _traceback_text(error: BaseException) -> str:
    """Return the formatted traceback with causes and groups; of a very long one the end, where the error is."""
    try:
        entries = [guarding.hide(entry) for entry in traceback.format_exception(error)]
    except Exception as failure:
        return f"<no traceback: formatting it raised {type_name(type(failure))}>"
    cut = "".join(
        entry if len(entry) <= MAX_TRACEBACK_ENTRY else f"{entry[:MAX_TRACEBACK_ENTRY]}... (cut)\n" for entry in entries
    )
    data = cut.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00")
    if len(data) <= MAX_TRACEBACK_BYTES:
        return data.decode()
    return f"(the beginning is cut)\n{data[-MAX_TRACEBACK_BYTES:].decode(errors='ignore')}"


# A pickled exception is (1, members, links). A member is the exception; or (class, args, attributes) for one whose class
# cannot be called with its args again, as an __init__ of two parameters that passes one text on; or (type, message,
# traceback) for one that cannot be stored. The first is the one that was raised. Pickling an exception drops its cause and
# context, so links says for each member (index of its cause or None, index of its context or None, suppress_context, notes
# or None).
_Parts = tuple["type[BaseException]", "tuple[object, ...]", "dict[str, object]"]
_Link = tuple["int | None", "int | None", bool, "list[str] | None"]


def _pickle_chain(error: BaseException, hidden: list[str | bytes]) -> bytes | None:
    try:
        chain = _chain(error)
        links = [_link(member, chain) for member in chain]
        raw = _try_pickle(list(chain), links, hidden)
        if raw is None:
            members = [
                member if _try_pickle([member], links[:1]) else _parts(member) or _error_text(member) for member in chain
            ]
            raw = None if _is_text(members[0]) else _try_pickle(members, links, hidden)
        return raw
    except Exception:
        # An exception whose own attributes raise. Its text is recorded, so nothing is hidden by leaving it out.
        return None


def _chain(error: BaseException) -> list[BaseException]:
    """Return the exception and those it hangs together with, each once, nearest first."""
    found = {id(error): error}
    queue = [error]
    for member in queue:  # grows while it is walked
        inside = member.exceptions if isinstance(member, BaseExceptionGroup) else ()
        for other in (member.__cause__, member.__context__, *inside):
            if other is not None and id(other) not in found and len(found) < MAX_CHAIN:
                found[id(other)] = other
                queue.append(other)
    return queue


def _link(member: BaseException, chain: list[BaseException]) -> _Link:
    def index(other: BaseException | None) -> int | None:
        return next((number for number, candidate in enumerate(chain) if candidate is other), None)

    notes = getattr(member, "__notes__", None)
    if not (type(notes) is list and all(type(note) is str for note in notes)):
        notes = None
    return index(member.__cause__), index(member.__context__), member.__suppress_context__, notes


def _is_text(member: object) -> bool:
    return type(member) is tuple and type(member[0]) is str


def _parts(error: BaseException) -> _Parts | None:
    """Return what an exception can be put together from without calling its __init__, if it is then the same."""
    args = tuple(item if _is_storable(item) else preview(item) for item in error.args)
    attributes = {name: value for name, value in vars(error).items() if name != "__notes__" and _is_storable(value)}
    try:
        parts = cast(_Parts, pickling.load(pickling.dump((type(error), args, attributes), errors=True, limit=MAX_ERROR_BYTES)))
        back = _assembled(parts)
        pickling.check_same(error, back)
        return (type(error), args, attributes) if _message(back) == _message(error) else None
    except Exception:
        # Whatever a class does when it is taken apart: the error is then recorded as text.
        return None


def _is_storable(value: object) -> bool:
    try:
        pickling.load(pickling.dump(value, errors=True, limit=MAX_ERROR_BYTES))
    except Exception:
        return False
    return True


def _assembled(parts: _Parts) -> BaseException:
    kind, args, attributes = parts
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def _try_pickle(
    members: Sequence[BaseException | _Parts | tuple[str, str, str]],
    links: list[_Link],
    hidden: list[str | bytes] | None = None,
) -> bytes | None:
    """Return the pickle of a chain if each of its members comes back with its type and text, else None."""
    try:
        raw = pickling.dump((_ERROR_FORMAT, members, links), errors=True, limit=MAX_ERROR_BYTES, hidden=hidden)
        loaded = cast("tuple[int, list[object], object]", pickling.load(raw))[1]
        for member, back in zip(members, loaded, strict=True):
            if isinstance(member, BaseException):
                pickling.check_same(member, back)
                if _message(member) != _message(cast("BaseException", back)):
                    return None
    except Exception:
        # Whatever a class does when it is pickled: the error is then recorded as text.
        return None
    return raw


def _restore_chain(payload: object) -> BaseException | None:
    """Return the exception of a payload with its chain put together again, or None if this is no such payload."""
    if not (type(payload) is tuple and len(payload) == 3 and payload[0] == _ERROR_FORMAT):
        return None
    members = [_restored(member) for member in payload[1]]
    for member, (cause, context, suppress, notes) in zip(members, payload[2], strict=True):
        # Set through BaseException, as a class may have frozen its attributes. Setting a cause sets suppress as well.
        _set(member, "__cause__", None if cause is None else members[cause])
        _set(member, "__context__", None if context is None else members[context])
        _set(member, "__suppress_context__", suppress)
        if notes and "__notes__" not in vars(member):
            for note in notes:
                _add_note(member, note)
    return members[0]


def _restored(member: BaseException | _Parts | tuple[str, str, str]) -> BaseException:
    if isinstance(member, BaseException):
        return member
    if isinstance(member[0], str):
        return RecordedError(*member)
    return _assembled(member)


def _set(error: BaseException, name: str, value: object) -> None:
    BaseException.__dict__[name].__set__(error, value)


_NOTE = "Recorded traceback, from when it was raised first:\n"


def _note_traceback(error: BaseException, text: str) -> None:
    # Read from the instance: a class may have made a property of it that raises.
    notes = vars(error).get("__notes__")
    noted = isinstance(notes, list) and any(isinstance(note, str) and note.startswith(_NOTE) for note in notes)
    # A class that compares by its attributes would no longer equal its like.
    if type(error).__eq__ is object.__eq__ and not noted:
        before = _message(error)
        _add_note(error, _NOTE + text)
        if _message(error) != before:
            vars(error)["__notes__"].pop()


def _add_note(error: BaseException, note: str) -> None:
    try:
        error.add_note(note)
    except Exception:
        # A frozen class. A note is an extra; the exception itself matters.
        return
