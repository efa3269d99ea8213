"""Binding against inspect.Signature.bind as the oracle, coercion by type hints, texts of a command line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfengine.parameters import Parameters
from wfengine_journal.errors import ParameterError, UsageError


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    size: int


class Box:
    pass


class Quacks(Protocol):
    def quack(self) -> None: ...


class Options(TypedDict):
    size: int


class Future:
    __wfengine_future__ = True


UserId = NewType("UserId", int)


def parameters_of(fn: Callable[..., object], **options: Any) -> Parameters:
    return Parameters(fn, owner="flow 'etl'", **options)


def plain(a, b, c=3, d=4):
    return a, b, c, d


def keyword_only(a, *, b, c=3):
    return a, b, c


def no_parameters():
    return ()


def all_defaults(a=1, b=2):
    return a, b


def variable(a, *args, b=2, **kwargs):
    return a, args, b, kwargs


def positional_only(a, b=2, /, c=3):
    return a, b, c


def same_name_twice(a, /, **kwargs):
    return a, kwargs


FUNCTIONS = [plain, keyword_only, no_parameters, all_defaults, variable, positional_only, same_name_twice]


@settings(derandomize=True, max_examples=400, deadline=None)
@given(
    fn=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(), max_size=5).map(tuple),
    kwargs=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "other"]), st.integers(), max_size=4),
)
def test_binding_agrees_with_the_standard_library(fn, args, kwargs):
    parameters = parameters_of(fn)
    try:
        fn(*args, **kwargs)  # asked first: Signature.bind of Python 3.13.0 accepts calls that the function refuses
        expected = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(ParameterError, match=f"flow 'etl': .*Its signature is {fn.__name__}"):
            parameters.bind(args, kwargs)
        return
    expected.apply_defaults()
    bound = parameters.bind(args, kwargs)
    assert list(bound.items()) == list(expected.arguments.items())
    again_args, again_kwargs = parameters.unbind(bound)
    assert fn(*again_args, **again_kwargs) == fn(*args, **kwargs)


def test_names_are_those_of_the_signature_in_order():
    assert parameters_of(variable).names == ("a", "args", "b", "kwargs")


def test_a_bound_method_binds_without_self():
    class Job:
        def run(self, a, b=2):
            return a, b

    assert parameters_of(Job().run).bind((1,), {}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "said"),
    [
        (plain, (), {}, ["missing argument 'a'", "missing argument 'b'", "(a, b, c=3, d=4)"]),
        (plain, (1,), {"b": 1, "a": 2}, ["argument 'a' was given twice"]),
        (plain, (1, 2, 3, 4, 5), {}, ["5 positional arguments where it takes at most 4"]),
        (keyword_only, (1,), {"b": 1, "cc": 2}, ["unexpected argument 'cc' (did you mean 'c'?)"]),
        (keyword_only, (1, 2), {}, ["missing argument 'b'", "2 positional arguments where it takes at most 1"]),
        (positional_only, (), {"a": 1}, ["argument 'a' can only be given by position", "missing argument 'a'"]),
    ],
)
def test_a_wrong_call_is_told_everything_that_is_wrong_with_it(fn, args, kwargs, said):
    with pytest.raises(ParameterError) as caught:
        parameters_of(fn).bind(args, kwargs)
    for text in said:
        assert text in str(caught.value)


def test_a_parameter_with_a_reserved_name_is_refused_at_decoration():
    with pytest.raises(UsageError, match="parameter named 'wait_for'"):
        parameters_of(lambda wait_for: None, reserved=("wait_for", "return_state"))


def test_a_function_without_readable_signature_is_refused_at_decoration():
    with pytest.raises(UsageError, match="written with `def`"):
        Parameters(5, owner="task 'five'")  # type: ignore[arg-type] - the mistake being tested


def test_arguments_recorded_before_a_default_was_added_get_the_default():
    assert parameters_of(plain).unbind({"b": 2, "a": 1}) == ((1, 2, 3, 4), {})
    assert parameters_of(variable).unbind({"a": 1}) == ((1,), {"b": 2})


def test_arguments_that_do_not_fit_the_function_any_more_are_refused():
    with pytest.raises(ParameterError, match=r"'aa' but no such parameter .*; missing argument 'a'"):
        parameters_of(plain).unbind({"aa": 1, "b": 2})


FITTING = [
    (int, 5),
    (int, True),
    (float, 5),
    (str, "x"),
    (None, None),
    (Optional[int], None),  # noqa: UP045 - the old spelling is what is tested
    (int | None, 5),
    (list[int], [1, 2]),
    (list, ["x"]),
    (dict[str, list[float]], {"a": [1.0]}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[str], {"a"}),
    (Sequence[int], (1, 2)),
    (Mapping[str, Any], {"a": object()}),
    (Literal["a", 1], 1),
    (type[Exception], ValueError),
    (Callable[[int], int], abs),
    (Annotated[int, "a remark"], 5),
    (UserId, 5),
    (Options, {"size": 1}),
    (Color, Color.RED),
    (Point, Point(1)),
    (Box, Box()),
    (Quacks, Box()),
    (Any, object()),
    (date, date(2026, 1, 1)),
    (list[int], [Future(), 1]),
    (int, Future()),
    (list[date], [Future(), "2026-01-01"]),
    ([int], "a hint that is no type judges nothing"),
]


def hinted(hint: object) -> Parameters:
    def fn(x):
        return x

    fn.__annotations__ = {"x": hint}
    return parameters_of(fn)


@pytest.mark.parametrize(("hint", "value"), FITTING, ids=lambda each: str(each).split(" at 0x")[0][:30])
def test_a_value_that_fits_stays_the_same_object(hint, value):
    arguments = {"x": value}
    assert hinted(hint).coerce(arguments)["x"] is value


def test_arguments_that_all_fit_come_back_as_the_same_dict():
    arguments = {"x": 5}
    assert hinted(int).coerce(arguments) is arguments


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (date, "2026-01-01", date(2026, 1, 1)),
        (datetime, "2026-01-01T00:00:00", datetime(2026, 1, 1)),  # noqa: DTZ001 - no zone in the text either
        (list[int], ["1", 2], [1, 2]),
        (list[int], (1, 2), [1, 2]),
        (int | None, "5", 5),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (Point, {"x": "1"}, Point(1)),
        (Model, {"size": "3"}, Model(size=3)),
        (list[Model], [{"size": 3}], [Model(size=3)]),
        (Literal["a", 1], "a", "a"),
        (Color, "red", Color.RED),
        (Path, "/tmp", Path("/tmp")),
        (Annotated[int, pydantic.Field(gt=0)], "5", 5),
        (bool, "yes", True),
    ],
)
def test_a_value_that_does_not_fit_is_converted(hint, value, expected):
    converted = hinted(hint).coerce({"x": value})["x"]
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "reason"),
    [
        (int, "many", "unable to parse string as an integer"),
        (str, 5, "valid string"),
        (Literal["a"], "b", "Input should be 'a'"),
        (Color, "blue", "Input should be 'red'"),
        (Point, {"y": 1}, "at x: "),
        (list[int], ["a", "b", "c", "d", "e"], "and 2 more"),
        (Box, 5, "instance of Box"),
        (Annotated[int, pydantic.Field(gt=0)], -1, "greater than 0"),
    ],
)
def test_a_value_that_cannot_be_converted_is_refused_with_the_reason(hint, value, reason):
    with pytest.raises(ParameterError) as caught:
        hinted(hint).coerce({"x": value})
    text = str(caught.value)
    assert text.startswith("flow 'etl': parameter 'x' = ")
    assert reason in text


def test_all_wrong_arguments_are_named_at_once_and_long_values_are_shortened():
    def fn(a: int, b: date, c: str = "x", *rest: int, **more: int) -> None: ...

    parameters = parameters_of(fn)
    bound = parameters.bind(("a" * 5000, "tomorrow", "ok", "1", "z"), {"size": "big"})
    with pytest.raises(ParameterError) as caught:
        parameters.coerce(bound)
    text = str(caught.value)
    for name in ["'a'", "'b'", "'rest[1]'", "'size'", "does not fit int", "does not fit datetime.date"]:
        assert name in text
    assert "'rest[0]'" not in text
    assert len(text) < 1000


def test_variable_arguments_are_converted_one_by_one():
    def fn(*rest: int, **more: int) -> None: ...

    parameters = parameters_of(fn)
    future = Future()
    coerced = parameters.coerce(parameters.bind(("1", 2, future), {"a": "3"}))
    assert coerced == {"rest": (1, 2, future), "more": {"a": 3}}


def test_a_hint_that_cannot_be_resolved_costs_only_its_own_parameter():
    def outer() -> Callable[..., object]:
        class Local:
            pass

        def fn(a: Local, b: int) -> None: ...

        return fn

    assert parameters_of(outer()).coerce({"a": "anything", "b": "5"}) == {"a": "anything", "b": 5}


def test_a_generator_is_not_used_up():
    def fn(items: Iterable[int]) -> None: ...

    items = (each for each in [1, 2])
    parameters_of(fn).coerce({"items": items})
    assert list(items) == [1, 2]


def test_pydantic_is_not_imported_while_values_fit():
    program = """
import sys
from wfengine.parameters import Parameters
def fn(a: int, b: list[str] | None = None, *, c: dict[str, float]): ...
parameters = Parameters(fn, owner="task 'fn'")
parameters.coerce(parameters.bind((1, ["x"]), {"c": {"a": 1.0}}))
parameters.from_text({"a": "5"})
assert "pydantic" not in sys.modules
parameters.coerce(parameters.bind(("1",), {"c": {}}))
assert "pydantic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (int, "5", 5),
        (str, "5", "5"),
        (str, "null", "null"),
        (str | None, "null", None),
        (str | None, "5", "5"),
        (int | None, "null", None),
        (date, "2026-01-01", date(2026, 1, 1)),
        (list[int], "[1, 2]", [1, 2]),
        (list[date], '["2026-01-01"]', [date(2026, 1, 1)]),
        (Point, '{"x": 1}', Point(1)),
        (Decimal, "1.10", Decimal("1.10")),
        (bool, "true", True),
        (Path, "5", Path("5")),
        (Any, "[1]", [1]),
        (Any, "plain text", "plain text"),
        (Color, "red", Color.RED),
        (Annotated[str, "a remark"], "5", "5"),
        (float, "9" * 5000 + "x", None),
    ],
)
def test_a_text_is_read_as_what_the_hint_takes(hint, text, expected):
    parameters = hinted(hint)
    arguments = parameters.bind((), parameters.from_text({"x": text}))
    if expected is None and text != "null":
        with pytest.raises(ParameterError):
            parameters.coerce(arguments)
        return
    value = parameters.coerce(arguments)["x"]
    assert value == expected
    assert str(value) == str(expected)


def test_a_text_without_a_hint_is_json_when_it_can_be():
    assert parameters_of(plain).from_text({"a": "1", "b": "x", "c": "{}"}) == {"a": 1, "b": "x", "c": {}}


def test_an_unknown_name_on_the_command_line_is_answered_with_the_nearest_one():
    with pytest.raises(ParameterError, match=r"'nmae' \(did you mean 'name'\?\).*fn\(name, size=1\)"):
        parameters_of(_fn_of_names()).from_text({"nmae": "1"})


def test_unknown_names_go_into_keyword_arguments_when_the_function_takes_them():
    def fn(**more: int) -> None: ...

    assert parameters_of(fn).from_text({"size": "5"}) == {"size": 5}


def _fn_of_names() -> Callable[..., object]:
    def fn(name, size=1):
        return name, size

    return fn


def with_fields(
    a: int = pydantic.Field(gt=0),
    b: int = pydantic.Field(default=5),
    c: list[int] = pydantic.Field(default_factory=list),  # noqa: B008
):
    return a, b, c


def test_a_pydantic_field_as_default_gives_the_default_it_holds():
    parameters = parameters_of(with_fields)
    first, second = parameters.bind((1,), {}), parameters.bind((), {"a": 2, "b": 6})
    assert first == {"a": 1, "b": 5, "c": []}
    assert second == {"a": 2, "b": 6, "c": []}
    assert first["c"] is not second["c"]
    assert parameters.unbind({"a": 1}) == ((1, 5, []), {})


def test_a_pydantic_field_without_default_is_required_and_its_constraints_hold():
    parameters = parameters_of(with_fields)
    with pytest.raises(ParameterError, match="missing argument 'a'"):
        parameters.bind((), {"b": 5})
    with pytest.raises(ParameterError, match="greater than 0"):
        parameters.coerce(parameters.bind((-1,), {}))
    assert parameters.coerce(parameters.bind(("3",), {}))["a"] == 3
