"""The codec gives back what it was given, type for type, or refuses it when it is written."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import json
import math
import subprocess
import sys
import threading
import zlib
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from email.message import Message
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from wfengine_journal import codec, pickling
from wfengine_journal.errors import (
    DriftError,
    JournalCorruptError,
    RecordedError,
    TaskTimeoutError,
    ValueNotStorableError,
)
from wfengine_journal.states import StateType

WHAT = "the result of task run 'load-12'"
JOURNAL_ROOT = Path(codec.__file__).parents[1]


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]
    card: str = dataclasses.field(default="", repr=False)


class RefusesToLoad:
    def __reduce__(self) -> tuple[object, ...]:
        return _refuse_to_load, ()


class ComesBackAsText:
    def __reduce__(self) -> tuple[object, ...]:
        return str, ("not me",)


class BrokenReduce:
    def __reduce__(self) -> tuple[object, ...]:
        raise ValueError("no state today")


class BrokenRepr:
    def __repr__(self) -> str:
        raise ValueError("no text today")


class TwoArguments(Exception):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"cannot reach {host}:{port}")
        self.host = host


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise ValueError("no text today")


class BrokenReduceError(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise ValueError("no state today")


def _refuse_to_load() -> None:
    raise RuntimeError("the license server is gone")


def _round_trip(value: object) -> object:
    encoded = codec.encode(value, WHAT)
    return codec.decode(encoded.codec, encoded.data, encoded.hash, WHAT)


def _same(left: object, right: object) -> bool:
    """Compare with types, order, the sign of zero, and NaN equal to NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            _same(a, b) and _same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, set | frozenset):
        return sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, datetime | time):
        return left.isoformat() == right.isoformat() and type(left.tzinfo) is type(right.tzinfo) and left.fold == right.fold
    return left == right


JSON_VALUES = [
    None, True, False, 0, -1, 2**53 + 1, 10**300, 0.0, -0.0, 0.1, 1e308, 5e-324, "", "zażółć", "\x00\x1f\u2028\x7f",
    "😀", [], {}, [1, [2, [3, {}]]], {"b": 1, "a": [None, True, 1.5]}, {"": {"": ""}}, "x" * 1_048_576, [True, 1, 1.0],
]  # fmt: skip

PICKLED_VALUES = [
    (1, 2), {1, 2}, frozenset({"a"}), {1: "a", "1": "b"}, {None: 1}, math.nan, math.inf, -math.inf, [1.0, math.nan],
    "\ud800", {"k": "\udfff"}, "\ud83d\ude00", b"", b"\x00\xff", bytearray(b"ab"), 1j, 10**5000, [10**5000],
    datetime(2026, 11, 1, 1, 30),  # noqa: DTZ001 - naive ones come back naive
    datetime(2026, 11, 1, 1, 30, tzinfo=UTC), datetime(2026, 11, 1, 1, 30, tzinfo=timezone(timedelta(hours=5.5))),
    datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo("America/New_York"), fold=1), date(2026, 1, 1), time(1, 2, tzinfo=UTC),
    timedelta(days=-1), Decimal("1.10"), UUID(int=7), Path("a/b"), PurePosixPath("/x"), Level.HIGH, [Level.LOW],
    {"k": Level.LOW}, Point(1, 2), Order(1, ["a"]), collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]),
    {"a": (1, [{2}])}, range(3), Ellipsis, NotImplemented, int, Order, len, json.dumps, b"z" * 100_000, io.BytesIO,
]  # fmt: skip


@pytest.mark.parametrize("value", JSON_VALUES, ids=lambda value: codec.preview(value, 30))
def test_what_json_keeps_exactly_is_written_as_json_and_comes_back(value: object) -> None:
    encoded = codec.encode(value, WHAT)
    assert (encoded.codec, type(encoded.data), encoded.preview) == ("json", str, None)
    assert encoded.size == len(encoded.data.encode())
    assert encoded.hash == xxh3_128_digest(b"json\0" + encoded.data.encode())
    assert _same(codec.decode(encoded.codec, encoded.data, encoded.hash, WHAT), value)
    assert codec.is_json_exact(value)
    assert codec.json_text(value) == encoded.data


@pytest.mark.parametrize("value", PICKLED_VALUES, ids=lambda value: codec.preview(value, 30))
def test_what_json_would_change_is_pickled_and_comes_back(value: object) -> None:
    encoded = codec.encode(value, WHAT)
    assert encoded.codec in ("pickle", "pickle+zlib")
    assert encoded.size == len(encoded.data)
    assert encoded.hash == xxh3_128_digest(encoded.codec.encode() + b"\0" + encoded.data)
    assert encoded.preview is not None
    assert 0 < len(encoded.preview) <= 200
    assert encoded.preview.isprintable()
    assert _same(codec.decode(encoded.codec, encoded.data, encoded.hash, WHAT), value)
    assert not codec.is_json_exact(value)


_atoms = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
    | st.decimals(allow_nan=False) | st.datetimes(timezones=st.none() | st.timezones()) | st.dates() | st.timedeltas()
    | st.uuids() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
_hashable = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates()
_nested = st.recursive(
    _atoms,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(_hashable, inner) | st.frozensets(_hashable),
    max_leaves=20,
)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(_nested)
def test_any_nesting_of_builtins_comes_back_type_for_type(value: object) -> None:
    encoded = codec.encode(value, WHAT)
    assert _same(codec.decode(encoded.codec, encoded.data, encoded.hash, WHAT), value)
    if encoded.codec == "json":
        assert _same(json.loads(json.dumps(value)), value)


def test_json_keeps_the_order_of_a_dict_and_writes_letters_as_they_are() -> None:
    assert codec.json_text({"b": "é", "a": [1, 2]}) == '{"b":"é","a":[1,2]}'


def test_an_int_that_only_this_process_may_read_is_not_json() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert not codec.is_json_exact([10**5000])
        assert codec.is_json_exact([10**4000])
    finally:
        sys.set_int_max_str_digits(limit)


def test_numpy_and_pandas_come_back_equal_with_their_types_and_a_shape_as_preview() -> None:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    array = numpy.arange(12, dtype="float32").reshape(3, 4)
    frame = pandas.DataFrame({"city": ["Oslo", "Lima"], "degrees": [1.5, 20.0]})
    assert numpy.array_equal(_round_trip(array), array)
    assert _round_trip(array).dtype == array.dtype
    pandas.testing.assert_frame_equal(_round_trip(frame), frame)
    assert type(_round_trip(numpy.float64(1.5))) is numpy.float64
    assert codec.encode(array, WHAT)[3:] == ("numpy.ndarray of float32, shape (3, 4)", "numpy.ndarray")
    assert codec.encode(frame, WHAT)[3:] == ("pandas.DataFrame, 2 rows x 2 columns: city, degrees", "pandas.DataFrame")


def test_local_functions_and_classes_come_back_by_value() -> None:
    base = 40

    class Local:
        seen: list[int] = []  # noqa: RUF012 - that it is shared is what is tested

        def __init__(self, number: int) -> None:
            self.number = number

        def total(self) -> int:
            return self.number + base

    assert _round_trip(lambda number: number + base)(2) == 42
    method, shared = Local.total, Local.seen
    back = _round_trip([Local(2)])
    assert back[0].total() == 42
    assert type(back[0]) is Local
    assert Local.total is method, "the class in use was changed by reading a value"
    assert Local.seen is shared


def test_a_local_class_of_another_process_comes_back_with_its_methods(tmp_path: Path) -> None:
    program = """
import sys
from wfengine_journal import codec
def make():
    class Local:
        def total(self): return self.number + 40
    value = Local(); value.number = 2
    return value
encoded = codec.encode([make(), make()], "it")
sys.stdout.buffer.write(encoded.codec.encode() + b"\\n" + encoded.hash + encoded.data)
"""
    output = _run([sys.executable, "-c", program])
    name, _, rest = output.partition(b"\n")
    back = codec.decode(name.decode(), rest[16:], rest[:16], WHAT)
    assert [item.total() for item in back] == [42, 42]


def test_cycles_and_sharing_are_pickled() -> None:
    cycle: list[object] = [1]
    cycle.append(cycle)
    back = _round_trip(cycle)
    assert back[1] is back
    doubling: object = [1]
    for _ in range(90):
        doubling = [doubling, doubling]
    assert codec.encode(doubling, WHAT).codec.startswith("pickle")
    assert not codec.is_json_exact(doubling)


def test_deep_nesting_is_refused_with_words() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    assert not codec.is_json_exact(deep)
    with pytest.raises(ValueNotStorableError, match=r"load-12.*nested too deeply"):
        codec.encode(deep, WHAT)
    assert len(codec.preview(deep)) <= 200
    moderate: object = []
    for _ in range(150):
        moderate = [moderate]
    assert _round_trip(moderate) == moderate


def test_what_cannot_come_back_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with (tmp_path / "data.txt").open("w+") as file:
        refused = {
            "lock": threading.Lock(),
            "generator": (number for number in range(3)),
            "TextIOWrapper": file,
            "license server is gone": RefusesToLoad(),
            "no state today": BrokenReduce(),
            "comes back as a str": ComesBackAsText(),
            "memoryview": memoryview(b"abc"),
        }
        for reason, value in refused.items():
            for held in (value, [value], {"k": (value,)}):
                with pytest.raises(ValueNotStorableError) as caught:
                    codec.encode(held, WHAT)
                assert reason in str(caught.value)
                assert str(caught.value).startswith(WHAT)
                assert "Return plain data" in str(caught.value)


def test_an_object_of_the_engine_itself_is_refused_by_name() -> None:
    for value in (StateType.COMPLETED, [StateType], codec.encode, {"k": (DriftError("x"),)}):
        with pytest.raises(ValueNotStorableError, match=r"wfengine itself.*result of it instead"):
            codec.encode(value, WHAT)


def test_a_value_over_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(ValueNotStorableError, match=r"more than the limit of 939,524,096 bytes.*return the path"):
        codec.encode(bytes(codec.MAX_VALUE_BYTES + 1), WHAT)


@pytest.mark.parametrize("value", [{"amount": 12.5, "name": "é"}, (1, "two"), b"ab" * 2000], ids=["json", "pickle", "zlib"])
def test_every_flipped_byte_is_noticed(value: object) -> None:
    encoded = codec.encode(value, WHAT)
    data = encoded.data.encode() if isinstance(encoded.data, str) else encoded.data
    for position in range(len(data)):
        damaged: str | bytes = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        if encoded.codec == "json":
            damaged = damaged.decode("utf-8", "surrogateescape")
        with pytest.raises(JournalCorruptError, match=r"load-12.*checksum"):
            codec.decode(encoded.codec, damaged, encoded.hash, WHAT)
    for hash_ in (b"", encoded.hash[:-1], bytes(16)):
        with pytest.raises(JournalCorruptError):
            codec.decode(encoded.codec, encoded.data, hash_, WHAT)


def test_a_payload_under_another_codec_is_damage() -> None:
    text, pickled = codec.encode([1], WHAT), codec.encode((1,), WHAT)
    for name, data, hash_ in [
        ("pickle", text.data, text.hash),
        ("json", pickled.data, pickled.hash),
        ("pickle+zlib", pickled.data, pickled.hash),
        ("marshal", pickled.data, pickled.hash),
        ("", b"", b""),
    ]:
        with pytest.raises(JournalCorruptError):
            codec.decode(name, data, hash_, WHAT)


def _signed(name: str, data: bytes) -> tuple[str, bytes, bytes, str]:
    return name, data, xxh3_128_digest(name.encode() + b"\0" + data), WHAT


def test_a_compressed_payload_never_grows_beyond_what_it_says() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    for length in (0, 100, 50_000_001, 2**63, codec.MAX_VALUE_BYTES + 1):
        with pytest.raises(JournalCorruptError, match=r"length|decompress"):
            codec.decode(*_signed("pickle+zlib", length.to_bytes(8, "little") + bomb))
    raw = pickling.dump((1, 2), limit=100)
    good = len(raw).to_bytes(8, "little") + zlib.compress(raw)
    assert codec.decode(*_signed("pickle+zlib", good)) == (1, 2)
    for bad in (good + b"x", good[:-1], good[:9], b"", b"\x01"):
        with pytest.raises(JournalCorruptError):
            codec.decode(*_signed("pickle+zlib", bad))


def test_a_name_that_is_gone_is_told_without_calling_it_damage() -> None:
    for payload, words in [
        (b"cjson\nNoSuchThing\n.", "module json has no NoSuchThing.*Restore"),
        (b"cno_such_module_here\nX\n.", "no module no_such_module_here, which should hold X"),
        (b"c__main__\nNoSuchClass\n.", "NoSuchClass of the script was looked for in .* not there"),
        (b"garbage", "cannot be read back"),
    ]:
        with pytest.raises(ValueNotStorableError, match=words):
            codec.decode(*_signed("pickle", payload))


# ------------------------------------------------------------------------------------------------------------- previews


def test_previews_are_bounded_printable_and_never_raise() -> None:
    cases = {
        "(1, [2, {3}])": (1, [2, {3}]),
        "Level.HIGH": Level.HIGH,
        "Point(x=1, y='a')": Point(1, "a"),
        "Order(number=1, lines=['a'])": Order(1, ["a"], card="4111"),
        "<tests BrokenRepr (repr failed)>": BrokenRepr(),
        "frozenset({1})": frozenset({1}),
        "<int of 3322 bits>": 10**1000,
    }
    for expected, value in cases.items():
        shown = codec.preview(value)
        assert shown == expected or ("BrokenRepr (repr failed)>" in expected and shown.endswith("BrokenRepr (repr failed)>"))
    assert "[1, <" in codec.preview([1, BrokenRepr()])
    assert codec.preview("a\x1b[31m\u202eb\ud800" + "c" * 1000).isprintable()
    assert len(codec.preview(list(range(10**6)))) <= 200
    assert len(codec.preview({n: [n] * 100 for n in range(10**5)}, 50)) <= 50
    assert "0x" not in codec.preview(lambda: 1)


def test_a_preview_shows_no_attribute_that_its_class_does_not_show() -> None:
    class Client:
        def __init__(self) -> None:
            self.password = "hunter2"

    @dataclasses.dataclass
    class Masked:
        password: str

        def __repr__(self) -> str:
            return "Masked(***)"

    assert "hunter2" not in codec.preview(Client())
    assert codec.preview([Masked("hunter2")]) == "[Masked(***)]"


# ----------------------------------------------------------------------------------------------------------- exceptions


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_an_exception_comes_back_as_itself_with_its_chain_and_notes() -> None:
    original = _raised(KeyError("id"), _raised(ValueError("bad", 3)))
    original.add_note("while loading row 7")
    original.__context__ = OSError(2, "No such file", "a.csv")
    encoded = codec.encode_error(original)
    assert (encoded.type, encoded.message) == ("KeyError", "'id'")
    assert "ValueError: ('bad', 3)" in encoded.traceback
    back = codec.decode_error(encoded)
    assert type(back) is KeyError
    assert back.args == ("id",)
    assert (type(back.__cause__), back.__cause__.args) == (ValueError, ("bad", 3))
    assert type(back.__context__) is FileNotFoundError
    assert back.__suppress_context__
    assert back.__notes__[0] == "while loading row 7"
    assert encoded.traceback in back.__notes__[1]
    again = codec.decode_error(codec.encode_error(back))
    assert again.__notes__ == back.__notes__, "the traceback is noted once, however often it is recorded"


def test_groups_and_cycles_of_exceptions_come_back() -> None:
    group = _raised(ExceptionGroup("two failed", [_raised(ValueError("a"), KeyError("why")), TypeError("b")]))
    back = codec.decode_error(codec.encode_error(group))
    assert type(back) is ExceptionGroup
    assert [type(inner) for inner in back.exceptions] == [ValueError, TypeError]
    assert type(back.exceptions[0].__cause__) is KeyError
    assert "two failed" in codec.encode_error(group).traceback
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    back = codec.decode_error(codec.encode_error(first))
    assert back.__cause__.__cause__ is back


def test_an_exception_that_cannot_come_back_is_recorded_as_text(tmp_path: Path) -> None:
    with (tmp_path / "open.txt").open("w") as file:
        for error, text in [
            (ValueError("held", threading.Lock()), "held"),
            (ValueError("open", file), "open"),
        ]:
            encoded = codec.encode_error(_raised(error))
            assert encoded.data is None
            assert encoded.codec is None
            assert encoded.hash is None
            back = codec.decode_error(encoded)
            assert type(back) is RecordedError
            assert text in str(back)
            assert back.recorded_type == encoded.type
            assert "_raised" in back.recorded_traceback


@pytest.mark.parametrize(
    "error", [TwoArguments("db", 5432), BrokenReduceError("x"), HTTPError("http://a", 404, "gone", Message(), None)], ids=repr
)
def test_an_exception_whose_class_cannot_be_called_again_comes_back_without_its_init(error: Exception) -> None:
    back = codec.decode_error(codec.encode_error(_raised(error, KeyError("why"))))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert type(back.__cause__) is KeyError


def test_what_cannot_be_stored_of_an_exception_is_left_out_and_the_rest_comes_back() -> None:
    error = TwoArguments("db", 5432)
    error.lock = threading.Lock()
    back = codec.decode_error(codec.encode_error(_raised(error)))
    assert type(back) is TwoArguments
    assert back.host == "db"
    assert not hasattr(back, "lock")


def test_one_bad_link_of_a_chain_becomes_text_and_the_rest_stays() -> None:
    back = codec.decode_error(codec.encode_error(_raised(ValueError("outer"), ValueError("held", threading.Lock()))))
    assert type(back) is ValueError
    assert type(back.__cause__) is RecordedError
    assert "held" in str(back.__cause__)


def test_hostile_exceptions_are_always_recorded() -> None:
    broken = codec.encode_error(_raised(BrokenStr("x")))
    assert "str() of the exception failed" in broken.message
    assert type(codec.decode_error(broken)) is BrokenStr
    huge = codec.encode_error(_raised(ValueError("m" * 10_485_760)))
    assert len(huge.message) < codec.MAX_MESSAGE_BYTES + 100
    assert "10,485,760 characters" in huge.message
    assert len(huge.traceback.encode()) < codec.MAX_TRACEBACK_BYTES + 100
    assert "in _raised" in huge.traceback
    odd = codec.encode_error(ValueError("a\ud800b\x00c"))
    assert odd.message == "a\\ud800b\\x00c"
    long: BaseException = ValueError("0")
    for number in range(1, 3000):
        following = ValueError(str(number))
        following.__cause__ = long
        long = following
    assert str(codec.decode_error(codec.encode_error(long))) == "2999"


def test_damage_to_a_recorded_exception_is_noticed() -> None:
    encoded = codec.encode_error(ValueError("x"))
    with pytest.raises(JournalCorruptError):
        codec.decode_error(encoded._replace(data=encoded.data[:-1] + b"x"))
    gone = b"cno_such_module_here\nX\n."
    unreadable = encoded._replace(codec="pickle", data=gone, hash=_signed("pickle", gone)[2])
    assert type(codec.decode_error(unreadable)) is RecordedError


def test_the_errors_of_the_engine_itself_come_back() -> None:
    recorded = RecordedError("shop.OutOfStock", "no more", "Traceback ...")
    back = codec.decode_error(codec.encode_error(recorded))
    assert type(back) is RecordedError
    assert (back.recorded_type, back.recorded_message) == ("shop.OutOfStock", "no more")
    late = codec.decode_error(codec.encode_error(TaskTimeoutError("too slow", flow_run_id=3)))
    assert type(late) is TaskTimeoutError
    assert late.flow_run_id == 3


def test_an_exception_that_compares_by_its_attributes_still_equals_its_like() -> None:
    @dataclasses.dataclass
    class Rejected(Exception):
        code: int

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self) and vars(other) == vars(self)

        __hash__ = None  # type: ignore[assignment]

    assert codec.decode_error(codec.encode_error(Rejected(4))) == Rejected(4)


# -------------------------------------------------------------------------------------------------------------- scripts

SCRIPT = """
import sys
from wfengine_journal import codec

class Order:
    class Line:
        pass
    def __init__(self):
        self.line = Order.Line()

class Refused(Exception):
    pass

def price(order):
    return 7

def value():
    return {"order": Order(), "price": price, "own": lambda order: price(order) + 1, "class": Order.Line}

def write(path):
    encoded = codec.encode(value(), "it")
    error = codec.encode_error(Refused("no"))
    with open(path, "wb") as file:
        for part in (encoded.codec.encode(), encoded.hash, encoded.data, error.codec.encode(), error.hash, error.data):
            file.write(len(part).to_bytes(4, "little") + part)

def read(path, module_order, module_line, module_refused, module_price):
    parts = []
    with open(path, "rb") as file:
        while head := file.read(4):
            parts.append(file.read(int.from_bytes(head, "little")))
    back = codec.decode(parts[0].decode(), parts[2], parts[1], "it")
    assert type(back["order"]) is module_order
    assert type(back["order"].line) is module_line
    assert back["class"] is module_line
    assert back["price"] is module_price
    assert back["own"](None) == 8
    error = codec.EncodedError("__main__.Refused", "no", "", parts[5], parts[3].decode(), parts[4])
    assert type(codec.decode_error(error)) is module_refused
    print("same classes")

if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        read(sys.argv[2], Order, Order.Line, Refused, price)
"""

LOADER = """
import importlib.util, sys
from wfengine_journal import codec

def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    codec.register_script_module(module)
    return module

script = load("loaded_for_resume", sys.argv[1])
if len(sys.argv) > 4:
    load("another_script", sys.argv[4])
if sys.argv[2] == "write":
    assert codec.encode(script.Order(), "it").python_type == "__main__.Order"
    script.write(sys.argv[3])
else:
    script.read(sys.argv[3], script.Order, script.Order.Line, script.Refused, script.price)
"""


def _run(command: list[str]) -> bytes:
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(JOURNAL_ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(SCRIPT)
    (tmp_path / "loader.py").write_text(LOADER)
    (tmp_path / "other.py").write_text(SCRIPT)
    return path


@pytest.mark.parametrize("writer", ["script", "loader"])
@pytest.mark.parametrize("reader", ["script", "loader", "loader of two"])
def test_a_class_of_a_script_is_the_same_class_however_the_script_is_loaded(
    script: Path, tmp_path: Path, writer: str, reader: str
) -> None:
    stored, loader = str(tmp_path / "stored"), str(tmp_path / "loader.py")
    if writer == "script":
        _run([sys.executable, str(script), "write", stored])
    else:
        _run([sys.executable, loader, str(script), "write", stored])
    if reader == "script":
        output = _run([sys.executable, str(script), "read", stored])
    else:
        others = [str(tmp_path / "other.py")] if reader == "loader of two" else []
        output = _run([sys.executable, loader, str(script), "read", stored, *others])
    assert output == b"same classes\n"


def test_a_value_of_a_script_that_is_not_loaded_says_which_script(script: Path, tmp_path: Path) -> None:
    _run([sys.executable, str(script), "write", str(tmp_path / "stored")])
    program = SCRIPT.partition("if __name__")[0].replace("class Order", "class Renamed")
    program += f"""
try:
    read({str(tmp_path / "stored")!r}, 0, 0, 0, 0)
except Exception as error:
    print(type(error).__name__, error)
"""
    output = _run([sys.executable, "-c", program]).decode()
    assert "ValueNotStorableError it cannot be read back: Order of the script shop.py was looked for" in output


def test_a_class_of_a_session_without_a_file_is_written_by_value() -> None:
    program = """
class Order:
    total = 7
from wfengine_journal import codec
encoded = codec.encode(Order(), "it")
import sys
del Order
sys.stdout.buffer.write(encoded.codec.encode() + b"\\n" + encoded.hash + encoded.data)
"""
    name, _, rest = _run([sys.executable, "-c", program]).partition(b"\n")
    assert codec.decode(name.decode(), rest[16:], rest[:16], WHAT).total == 7


def test_writing_json_and_plain_values_never_imports_cloudpickle() -> None:
    program = """
import sys
from wfengine_journal import codec
for value in ({"a": [1]}, (1, 2), {3}, b"x"):
    encoded = codec.encode(value, "it")
    assert codec.decode(encoded.codec, encoded.data, encoded.hash, "it") == value
print([name for name in ("cloudpickle", "asyncio", "multiprocessing", "importlib.metadata") if name in sys.modules])
"""
    assert _run([sys.executable, "-c", program]) == b"[]\n"
