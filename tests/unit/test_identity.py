"""What counts as the same inputs of a call, and what a person is told when they changed."""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import re
import subprocess
import sys
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest

from wfengine.identity import (
    INLINE_LIMIT,
    canonical_hash,
    describe_inputs,
    differing_arguments,
    drift_cause,
    explicit_key,
)

ROOT = Path(__file__).parents[2]


class Color(Enum):
    RED = 1
    BLUE = 2


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Order:
    number: int
    lines: tuple[str, ...] = ()


@dataclass
class Invoice:
    number: int
    lines: tuple[str, ...] = ()


@attrs.define
class Parcel:
    weight: Decimal


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    since: date = date(2020, 1, 1)


class Point(NamedTuple):
    x: int
    y: int


Pair = namedtuple("Pair", "x y")


class Text(str):
    __slots__ = ()


class Opaque:
    pass


class HasKey:
    def __init__(self, key: str) -> None:
        self.__wfengine_key__ = key


class Hostile:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = object.__hash__


@dataclass
class Raising:
    value: int = 1

    def __getattribute__(self, name: str) -> object:
        if name == "value":
            raise OSError("gone")
        return super().__getattribute__(name)


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


def recursive() -> Callable[[int], int]:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    return factorial


def function_of(source: str, name: str = "f") -> Any:
    names: dict[str, Any] = {}
    exec(source, names)
    return names[name]


BERLIN, PARIS = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Paris")
NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)

#: Pairs that a task cannot tell apart, or must not: each is a way in which keys were wrong elsewhere.
SAME: dict[str, tuple[object, object]] = {
    "order of a dict": ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
    "order of a dict that is not JSON": ({1: "a", (2,): "b"}, {(2,): "b", 1: "a"}),
    "order of a set": ({"a", "b", "c"}, {"c", "b", "a"}),
    "nan": (math.nan, float("nan")),
    "dataclass": (Order(1, ("a",)), Order(1, ("a",))),
    "attrs": (Parcel(Decimal("1.5")), Parcel(Decimal("1.5"))),
    "pydantic": (Model(name="a"), Model(name="a")),
    "path": (Path("a/b"), PurePosixPath("a/b")),
    "numpy layout": (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    "numpy byte order": (np.array([1, 2], "<i4"), np.array([1, 2], ">i4")),
    "numpy view": (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
    "numpy masked": (np.ma.array([1, 2], mask=[False, True]), np.ma.array([1, 3], mask=[False, True])),
    "frame": (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), pd.DataFrame({"a": [1, 2], "b": ["x", None]})),
    "range index": (pd.Series([1, 2]), pd.Series([1, 2], index=[0, 1])),
    "slice of a frame": (pd.DataFrame({"a": range(9)})[3:5], pd.DataFrame({"a": [3, 4]}, index=[3, 4])),
    "lambda on another line": (function_of("f = lambda x: x + 1"), function_of("\n\nf = lambda x: x + 1")),
    "docstring": (function_of("def f(x):\n 'a'\n return x"), function_of("def f(x):\n 'b'\n\n return x")),
    "closure": (adder(1), adder(1)),
    "partial": (functools.partial(adder, n=1), functools.partial(adder, n=1)),
    "bound method": (Order(1).__eq__, Order(1).__eq__),
    "wfengine key": (HasKey("load"), HasKey("load")),
    "lone surrogate": ("\udc80", "\udc80"),
    "long integer": (10**5000, 10**5000),
    "deque": (deque([1, 2]), deque([1, 2])),
    "recursive function": (recursive(), recursive()),
}

DIFFERENT: dict[str, tuple[object, object]] = {
    "int and float": (1, 1.0),
    "int and bool": (1, True),
    "int and text": (1, "1"),
    "none and text": (None, "null"),
    "list and tuple": ([1, 2], (1, 2)),
    "nested tuple": ({"a": [1]}, {"a": (1,)}),
    "boundaries of items": (("ab", "c"), ("a", "bc")),
    "nesting": (((1,), 2), ((1, 2),)),
    "key type": ({1: "a"}, {"1": "a"}),
    "set and frozenset": ({1}, frozenset({1})),
    "zero sign": (0.0, -0.0),
    "infinities": (math.inf, -math.inf),
    "bytes and text": (b"a", "a"),
    "bytes and bytearray": (b"a", bytearray(b"a")),
    "text class": (Text("a"), "a"),
    "int enum": (Level.LOW, 1),
    "enum": (Color.RED, Color.BLUE),
    "flags": (Right.READ | Right.WRITE, Right.READ),
    "aware and naive": (datetime(2024, 6, 1, 12), NOON),  # noqa: DTZ001 - a naive one is the point
    "fold": (datetime(2024, 6, 1, fold=1), datetime(2024, 6, 1)),  # noqa: DTZ001 - as above
    "zone": (NOON.astimezone(BERLIN), NOON.astimezone(PARIS)),
    "offset": (NOON, NOON.astimezone(timezone(timedelta(hours=1)))),
    "date and datetime": (date(2024, 6, 1), datetime(2024, 6, 1)),  # noqa: DTZ001 - as above
    "times": (time(1), time(2)),
    "timedeltas": (timedelta(1), timedelta(2)),
    "decimal places": (Decimal("1.0"), Decimal("1.00")),
    "fractions": (Fraction(1, 2), Fraction(1, 3)),
    "uuid": (UUID(int=1), UUID(int=2)),
    "path and text": (Path("a"), "a"),
    "ranges": (range(3), range(4)),
    "slices": (slice(3), slice(4)),
    "complex": (complex(1, 0.0), complex(1, -0.0)),
    "classes with equal fields": (Order(1), Invoice(1)),
    "dataclass field": (Order(1), Order(2)),
    "attrs field": (Parcel(Decimal(1)), Parcel(Decimal(2))),
    "pydantic field": (Model(name="a"), Model(name="b")),
    "pydantic extra": (Model(name="a"), Model.model_validate({"name": "a", "more": 1})),
    "named tuple and tuple": (Point(1, 2), (1, 2)),
    "named tuples": (Point(1, 2), Pair(1, 2)),
    "dict class": (OrderedDict(a=1), {"a": 1}),
    "counters": (Counter("a"), Counter("b")),
    "dtype": (np.array([1]), np.array([1.0])),
    "shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "numpy scalar and int": (np.int64(1), 1),
    "numpy float and float": (np.float64(1), 1.0),
    "numpy values": (np.array(["a"], dtype=object), np.array(["b"], dtype=object)),
    "numpy moments": (np.array(["2024-01-01"], "M8[D]"), np.array(["2024-01-02"], "M8[D]")),
    "numpy mask": (np.ma.array([1, 2], mask=[False, True]), np.ma.array([1, 2], mask=[True, False])),
    "frame value": (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})),
    "frame column": (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
    "frame index": (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[5])),
    "frame dtype": (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
    "frame and series": (pd.DataFrame({"a": [1]}), pd.Series([1], name="a")),
    "missing text": (pd.Series(["a", None]), pd.Series(["a", "None"])),
    "nullable": (pd.Series([1, None], dtype="Int64"), pd.Series([1, 0], dtype="Int64")),
    "category order": (pd.Series(pd.Categorical(["a"], ["a", "b"])), pd.Series(pd.Categorical(["a"], ["b", "a"]))),
    "series zone": (pd.Series([NOON]).dt.tz_convert("UTC"), pd.Series([NOON]).dt.tz_convert("Europe/Paris")),
    "timestamps": (pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01 00:00:00.000000001")),
    "missing kinds": (pd.NaT, pd.NA),
    "code": (function_of("def f(x): return x + 1"), function_of("def f(x): return x + 2")),
    "called name": (function_of("def f(x): return a(x)"), function_of("def f(x): return b(x)")),
    "default": (function_of("def f(x=1): return x"), function_of("def f(x=2): return x")),
    "closures": (adder(1), adder(2)),
    "partials": (functools.partial(adder, n=1), functools.partial(adder, n=2)),
    "owners of a method": (Order(1).__eq__, Order(2).__eq__),
    "builtins": (len, sum),
    "library functions": (os.path.join, os.path.split),
    "numpy functions": (np.mean, np.median),
    "ufuncs": (np.add, np.multiply),
    "getters": (operator.itemgetter(1), operator.itemgetter(2)),
    "method descriptors": (str.upper, str.lower),
    "types": (int, str),
    "own types": (Order, Invoice),
    "aliases": (list[int], list[str]),
    "unions": (int | None, str | None),
    "modules": (os, sys),
    "patterns": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "wfengine keys": (HasKey("a"), HasKey("b")),
    "ellipsis and none": (..., None),
    "surrogates": ("\udc80", "\udc81"),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_inputs_have_one_key(name: str) -> None:
    first, second = SAME[name]
    assert describe_inputs({"x": first}).key == describe_inputs({"x": second}).key
    assert describe_inputs({"x": [first, {1}]}).key == describe_inputs({"x": [second, {1}]}).key
    assert describe_inputs({"x": first}).opaque == ()


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_inputs_have_different_keys(name: str) -> None:
    first, second = DIFFERENT[name]
    assert describe_inputs({"x": first}).key != describe_inputs({"x": second}).key
    assert describe_inputs({"x": {"a": [first]}}).key != describe_inputs({"x": {"a": [second]}}).key
    assert describe_inputs({"x": first}).opaque == describe_inputs({"x": second}).opaque == ()


def test_an_argument_has_one_key_however_long_its_neighbours_are() -> None:
    long = "x" * (INLINE_LIMIT + 1)
    assert describe_inputs({"b": 1, "a": long}).key == canonical_hash({"a": long, "b": 1})
    assert describe_inputs({"b": 1, "é": "ü"}).key == canonical_hash({"é": "ü", "b": 1})


PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/journal"]
from datetime import datetime, UTC
from enum import Enum
from dataclasses import dataclass
from wfengine.identity import describe_inputs
Color = Enum("Color", "RED BLUE")
@dataclass(frozen=True)
class Part:
    name: str
def fn(x): return x in {{"a", "b", "c"}}
class Odd: pass
values = {{"set": {{"a", "b", Part("c"), Color.RED}},
          "dict": {{Part("a"): 1, "b": {{2, 3}}}},
          "fn": fn, "odd": [Odd()], "at": datetime(2024, 1, 1, tzinfo=UTC)}}
print(describe_inputs(values).key.hex())
"""


def test_a_key_is_the_same_in_every_process_and_under_every_name_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.format(root=str(ROOT)))
    keys = set()
    for seed in "012":
        for command in ([str(script)], ["-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import script"]):
            environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
            run = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=True)
            keys.add(run.stdout)
    assert len(keys) == 1


def test_an_opaque_argument_is_left_out_and_named() -> None:
    described = describe_inputs({"client": Opaque(), "x": 1})
    assert described.key == describe_inputs({"x": 1}).key
    assert described.opaque == ("client",)
    assert described.partial == ("client",)


def test_an_opaque_part_is_named_by_its_path_and_counts_by_its_type() -> None:
    described = describe_inputs({"config": {"client": Opaque(), "n": 1}, "rows": [Opaque(), Opaque()]})
    assert described.opaque == ("config.client", "rows.*")
    assert described.key == describe_inputs({"config": {"client": Opaque(), "n": 1}, "rows": [Opaque(), Opaque()]}).key
    assert described.key != describe_inputs({"config": {"client": Opaque(), "n": 2}, "rows": [Opaque(), Opaque()]}).key


def test_an_opaque_result_counts_by_its_stored_hash_and_others_do_not_ask() -> None:
    asked: list[object] = []

    def known_hash(value: object) -> bytes | None:
        asked.append(value)
        return b"1" * 16

    result = Opaque()
    described = describe_inputs({"model": result, "nested": (result, {1})}, known_hash=known_hash)
    assert described.opaque == ()
    assert all(value is result for value in asked)
    assert described.key != describe_inputs({"model": result, "nested": (result, {1})}).key
    assert described.key != describe_inputs({"model": result, "nested": (result, {1})}, known_hash=lambda _: b"2").key


HOSTILE: dict[str, Callable[[], object]] = {
    "any name raises": Hostile,
    "a field raises": Raising,
    "in a list": lambda: [Hostile()],
    "in a dict": lambda: {"a": Raising()},
    "as a key": lambda: {Hostile(): 1},
    "the class": lambda: Hostile,
}


# By name: pytest itself asks a parameter for attributes.
@pytest.mark.parametrize("name", HOSTILE)
def test_no_class_of_a_user_can_break_the_description(name: str) -> None:
    described = describe_inputs({"x": HOSTILE[name](), "y": 1})
    assert json.loads(described.text)["y"] == 1


def test_cycles_and_deep_nesting_end() -> None:
    cycle: list[object] = [1]
    cycle.append(cycle)
    json_deep: object = 1
    deep: object = ()
    shared: object = (1,)
    for _ in range(5000):
        json_deep = [json_deep]
        deep = (deep,)
    for _ in range(40):
        shared = (shared, shared)
    described = describe_inputs({"cycle": cycle, "json": json_deep, "deep": deep, "shared": shared})
    assert described.key == describe_inputs({"cycle": cycle, "json": json_deep, "deep": deep, "shared": shared}).key
    assert "shared" not in described.opaque
    assert len(described.opaque) == 3


def test_key_args_and_ignore_args_narrow_the_key_and_not_the_text() -> None:
    arguments: dict[str, object] = {"a": 1, "b": 2, "c": Opaque()}
    only = describe_inputs(arguments, key_args=["a"])
    without = describe_inputs(arguments, ignore_args={"b", "c"})
    assert only.key == without.key == describe_inputs({"a": 1}).key
    assert only.opaque == ()
    assert set(json.loads(only.text)) == {"a", "b", "c"}


def test_an_authors_key_never_equals_a_key_of_inputs() -> None:
    assert explicit_key("{}") != describe_inputs({}).key
    assert explicit_key("a") != explicit_key("b")
    assert len(explicit_key("\udc80")) == 16


def test_long_arguments_stand_as_previews_whose_hash_tells_them_apart() -> None:
    first, second = (describe_inputs({"x": "a" * 3000 + end, "y": 1}) for end in "bc")
    assert first.partial == ("x",)
    assert len(first.text) < 300
    assert first.text != second.text
    assert re.search(r" #[0-9a-f]{8}$", json.loads(first.text)["x"])


def test_all_arguments_together_fit_the_row() -> None:
    described = describe_inputs({f"a{place}": "x" * (500 + place) for place in range(10)})
    assert len(described.text) <= 4096 + 100
    assert 0 < len(described.partial) < 10
    assert "a9" in described.partial
    assert "a0" not in described.partial


def test_text_that_utf8_cannot_hold_is_still_json() -> None:
    described = describe_inputs({"x": "\udc80", "y": 1})
    described.text.encode()
    assert json.loads(described.text)["y"] == 1


def test_only_differing_arguments_are_listed_around_their_first_difference() -> None:
    recorded = json.dumps({"a": 1, "b": "x" * 500 + "left" + "z" * 50, "c": 1, "gone": None})
    present = json.dumps({"a": 1, "b": "x" * 500 + "right" + "z" * 50, "c": 1.0, "new": 2})
    differences = {name: (before, after) for name, before, after in differing_arguments(recorded, present)}
    assert set(differences) == {"b", "c", "gone", "new"}
    assert differences["c"] == ("1", "1.0")
    assert differences["gone"] == ("None", "(absent)")
    assert "left" in differences["b"][0]
    assert "right" in differences["b"][1]
    assert max(map(len, differences["b"])) <= 102
    assert differing_arguments("{", "{}") == [("inputs", "'{'", "'{}'")]


def test_a_long_argument_is_shown_from_a_little_before_its_first_difference() -> None:
    def shown(place: int, length: int) -> tuple[str, str]:
        recorded = "a" * length
        present = recorded[:place] + "b" + recorded[place + 1 :]
        (difference,) = differing_arguments(json.dumps({"x": recorded}), json.dumps({"x": present}))
        return difference[1:]

    assert shown(60, 98) == (f"'{'a' * 98}'", f"'{'a' * 60}b{'a' * 37}'")  # a hundred characters, with the quotes
    assert shown(10, 200) == (f"'{'a' * 99}…", f"'{'a' * 10}b{'a' * 88}…")
    assert shown(29, 99) == (f"'{'a' * 99}…", f"'{'a' * 29}b{'a' * 69}…")
    assert shown(100, 200) == (f"…{'a' * 100}…", f"…{'a' * 30}b{'a' * 69}…")
    assert shown(190, 200) == (f"…{'a' * 99}'", f"…{'a' * 89}b{'a' * 9}'")


def test_inputs_that_are_no_object_are_compared_as_text() -> None:
    assert differing_arguments("[1]", "{}") == [("inputs", "'[1]'", "'{}'")]
    assert differing_arguments("{}", "[1]") == [("inputs", "'{}'", "'[1]'")]


@pytest.mark.parametrize(
    ("recorded", "present", "word"),
    [
        ("'2024-01-01T10:00:00Z'", "'2024-01-01T10:00:05Z'", "clock"),
        ("'report-2024-01-01.csv'", "'report-2024-01-02.csv'", "clock"),
        (
            "datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc) #01234567",
            "datetime.datetime(2024, 1, 1, 1, 0, tzinfo=datetime.timezone.utc) #89abcdef",
            "clock",
        ),
        ("1732300000.25", "1732300009.5", "clock"),
        ("'1b4e28ba-2fa1-41d2-883f-0016d3cca427'", "'9c5b94b1-35ad-49bb-b118-8e8fc24abf80'", "uuid"),
        ("UUID('1b4e28ba-2fa1-41d2-883f-0016d3cca427') #01234567", f"{UUID(int=5)!r} #76543210", "uuid"),
        ("'<Client at 0x7f01>'", "'<Client at 0x7f02>'", "address"),
        ("0.123", "0.456", "random"),
        ("1e-05", "0.5", "random"),
        ("0.5", "2e-07", "random"),
        ("0.0", "0.5", "random"),
        ("1000000000", "3999999999", "clock"),
        ("1000000000000", "1000000000001", "clock"),
        ("1732300000000000000", "1732300000000001000", "clock"),
    ],
)
def test_a_recognisable_cause_of_drift_is_named_with_what_to_do(recorded: str, present: str, word: str) -> None:
    cause = drift_cause(recorded, present)
    assert cause is not None
    assert word in cause.lower()
    assert "key_args" in cause


@pytest.mark.parametrize(
    ("recorded", "present"),
    [
        ("1", "2"), ("'a'", "'b'"), ("'2024-01-01'", "5"), ("1.5", "0.5"), ("0", "0.5"), ("0.5", "0"), ("0.5", "1.0"),
        ("-0.5", "0.5"), ("999999999", "1000000001"), ("3999999999", "4000000000"), ("1732300009", "1732300000"),
        ("1732300000", "1732300000"), ("'<A at 0x7f01>'", "'<A>'"), ("'<A>'", "'<A at 0x7f01>'"),
        ("'2024-01-01'", "'2024-01-01'"), ("'on 2024-01-01'", "'at 2024-01-02'"),
    ],
)  # fmt: skip
def test_an_ordinary_change_has_no_cause(recorded: str, present: str) -> None:
    assert drift_cause(recorded, present) is None


def test_describing_small_json_arguments_takes_a_dozen_calls() -> None:
    """No encoder of json, no pickle: those take a hundred."""
    arguments: dict[str, object] = {"x": 5}
    calls: list[str] = []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event in ("call", "c_call") else None)
    try:
        describe_inputs(arguments)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 16
