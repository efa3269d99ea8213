"""Marks on arguments: what they hold, that they can be stored, and which values of a call they let futures be found in."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict, deque
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import date
from typing import NamedTuple

import attrs
import cloudpickle
import pytest
from pydantic import BaseModel, ConfigDict

import wfengine
from wfengine import State, annotations
from wfengine.annotations import BaseAnnotation, Quote, allow_failure, freeze, opaque, quote, unmapped
from wfengine.exceptions import UsageError
from wfengine.resolution import Search, UpstreamFailure, is_plain, replaced, resolved
from wfengine.states import Completed, Failed, Pending
from wfengine_journal import codec

ALL = (unmapped, allow_failure, quote, opaque, freeze, Quote)


@dataclass
class Order:
    number: object
    notes: list[object] = field(default_factory=list)
    total: int = field(default=0, init=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: object

    def __post_init__(self) -> None:
        if isinstance(self.value, list) and self.value:
            raise ValueError("made anew")


@attrs.frozen
class Item:
    price: object


class Pair(NamedTuple):
    left: object
    right: object


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow", frozen=True)

    value: object
    other: int = 1


# What a mark is


@pytest.mark.parametrize("mark", ALL, ids=lambda mark: mark.__name__)
def test_a_mark_holds_a_value_and_can_be_pickled_by_its_public_name(mark: type[BaseAnnotation[object]]) -> None:
    marked = mark([1])
    assert (marked.value, marked.unwrap(), repr(marked)) == ([1], [1], f"{mark.__name__}([1])")
    assert marked.rewrap(2) == mark(2)
    assert marked != mark([2])
    assert hash(mark(1)) == hash(mark(1))
    for loaded in (pickle.loads(pickle.dumps(marked)), cloudpickle.loads(cloudpickle.dumps(marked)), copy.deepcopy(marked)):
        assert type(loaded) is mark
        assert loaded == marked
    names = pickle.dumps(marked)
    assert b"wfengine" in names
    assert b"resolution" not in names


def test_marks_of_two_kinds_are_never_equal() -> None:
    assert quote(1) != opaque(1)
    assert quote(1) != 1


def test_a_mark_can_be_stored_in_a_journal() -> None:
    encoded = codec.encode((quote(date(2026, 1, 2)), unmapped(3)), "the result")
    assert codec.decode(encoded.codec, encoded.data, encoded.hash, "the result") == (quote(date(2026, 1, 2)), unmapped(3))


def test_marks_stand_where_prefect_has_them() -> None:
    from wfengine.utilities import annotations as under_prefects_name

    assert wfengine.unmapped is annotations.unmapped is under_prefects_name.unmapped
    assert wfengine.allow_failure is under_prefects_name.allow_failure
    assert (under_prefects_name.quote, under_prefects_name.opaque, under_prefects_name.freeze) == (quote, opaque, freeze)


def test_quote_and_freeze_give_their_value_back_under_prefects_names() -> None:
    assert quote(1).unquote() == 1
    assert freeze({"a": date(2026, 1, 1)}).unfreeze() == {"a": date(2026, 1, 1)}


@pytest.mark.parametrize("value", [object(), {1: {object()}}, lambda: None])
def test_freeze_takes_json_only(value: object) -> None:
    with pytest.raises(UsageError, match=r"which a .* is not"):
        freeze(value)


# What is found in values


DONE = Completed(data=5)
BROKEN = Failed(data=ValueError("broken"))

CONTAINERS = {
    "list": ([DONE], [5]),
    "tuple": ((1, DONE), (1, 5)),
    "set": ({DONE}, {5}),
    "frozen set": (frozenset({DONE}), frozenset({5})),
    "deque": (deque([DONE], maxlen=3), deque([5], maxlen=3)),
    "dict value": ({"a": DONE}, {"a": 5}),
    "dict key": ({DONE: "a"}, {5: "a"}),
    "ordered dict": (OrderedDict(a=DONE), OrderedDict(a=5)),
    "named tuple": (Pair(1, DONE), Pair(1, 5)),
    "dataclass": (Order(DONE), Order(5)),
    "frozen dataclass with slots": (Frozen(DONE), Frozen(5)),
    "attrs": (Item(DONE), Item(5)),
    "pydantic": (Model(value=DONE, more=[DONE]), Model(value=5, more=[5])),
    "one in another": ({"a": [(Order(Pair(DONE, {"b": DONE})),)]}, {"a": [(Order(Pair(5, {"b": 5})),)]}),
    "marked": (quote(DONE), DONE),
    "marked inside": ([opaque(DONE), allow_failure([DONE])], [5, [5]]),
    "marked twice": (opaque(allow_failure(DONE)), 5),
    "opaque container": (opaque([DONE]), [DONE]),
    "unmapped": (unmapped([DONE]), [5]),
}


@pytest.mark.parametrize("case", CONTAINERS, ids=str)
def test_states_are_replaced_by_their_values_wherever_they_stand(case: str) -> None:
    value, expected = CONTAINERS[case]
    before = copy.copy(value)
    made = resolved(value)
    assert made == expected
    assert type(made) is type(expected)
    assert value == before, "the caller's own object stays as it was"
    assert resolved([value]) == [expected]


def test_a_default_dict_keeps_what_makes_its_defaults() -> None:
    value: defaultdict[str, object] = defaultdict(list, a=DONE)
    made = resolved(value)
    assert isinstance(made, defaultdict)
    assert made["a"] == 5
    assert made["new"] == []


def test_init_does_not_run_again_where_a_field_is_replaced() -> None:
    made = resolved(Frozen((Completed(data=[1]),)))
    assert made == Frozen(([1],))
    assert resolved(Frozen(Completed(data=[1]))).value == [1]  # type: ignore[attr-defined]  # __post_init__ would refuse it
    with pytest.raises(FrozenInstanceError):
        made.value = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, {"b": (2.5, "c")}]},
        Order(1, [1, 2]),
        Model(value=[1]),
        [Pair(1, 2)] * 3,
        [object(), lambda: None, date(2026, 1, 1)],
        "text",
        [[0.5] * 10] * 10,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_nothing_is_given_back_as_the_same_object(value: object) -> None:
    assert resolved(value) is value
    search = Search(value)
    assert (search.has_futures, search.has_annotations, search.pending) == (False, False, [])


def test_plain_arguments_are_told_at_a_glance() -> None:
    assert is_plain((1, "a", None), {"b": 2.5})
    assert not is_plain(([DONE],), {})
    assert not is_plain((1,), {"b": DONE})


def test_a_container_that_holds_itself_is_looked_at_once() -> None:
    loop: list[object] = [DONE]
    loop.append(loop)
    twice: object = [DONE]
    for _ in range(40):  # two to the power of forty ways lead to the innermost
        twice = [twice, twice]
    assert Search(loop, twice).has_futures
    made = resolved(loop)
    assert isinstance(made, list)
    assert made[0] == 5
    innermost = resolved(twice)
    while isinstance(innermost, list):
        innermost = innermost[0]
    assert innermost == 5


def test_what_lies_deeper_than_the_limit_is_left_alone() -> None:
    deep: object = DONE
    for _ in range(60):
        deep = [deep]
    assert not Search(deep).has_futures
    assert resolved(deep) is deep


def test_a_class_that_cannot_be_made_anew_is_named() -> None:
    class Triple(tuple):  # type: ignore[type-arg]
        def __new__(cls, a: object, b: object) -> Triple:  # type: ignore[misc]
            return super().__new__(cls, (a, b))

        __slots__ = ()

    with pytest.raises(UsageError, match=r"Triple.*Pass the futures in a list"):
        resolved(Triple(DONE, 1))


def test_unhashable_results_cannot_take_their_futures_place_in_a_set() -> None:
    with pytest.raises(UsageError, match=r"set.*unhashable"):
        resolved({Completed(data=[1])})


# Failures


def test_the_exception_of_a_failed_state_is_told_with_its_source() -> None:
    with pytest.raises(UpstreamFailure, match="broken") as caught:
        resolved({"a": [BROKEN]})
    assert caught.value.source is BROKEN
    assert isinstance(caught.value.error, ValueError)


@pytest.mark.parametrize("value", [allow_failure(BROKEN), [allow_failure([BROKEN])], allow_failure({"a": (BROKEN,)})])
def test_with_allow_failure_the_exception_takes_its_place(value: object) -> None:
    made = resolved(value)
    while not isinstance(made, Exception):
        made = next(iter(made.values() if isinstance(made, dict) else made))  # type: ignore[call-overload]
    assert isinstance(made, ValueError)


def test_allow_failure_holds_only_for_what_is_inside_it() -> None:
    with pytest.raises(UpstreamFailure):
        resolved([allow_failure(BROKEN), BROKEN])
    shared = [BROKEN]
    with pytest.raises(UpstreamFailure):
        resolved([allow_failure(shared), shared])


def test_a_state_that_has_not_ended_has_no_value_even_where_failures_are_allowed() -> None:
    for value in (Pending(), allow_failure(Pending())):
        with pytest.raises(UpstreamFailure, match="Pending"):
            resolved(value)


def test_a_quoted_failure_stops_nothing() -> None:
    assert resolved(quote(BROKEN)) is BROKEN
    assert resolved([opaque([BROKEN])]) == [[BROKEN]]
    search = Search(quote(BROKEN), opaque([BROKEN]))
    assert (search.has_futures, search.has_annotations) == (False, True)


def test_replacing_by_something_else_keeps_marks_and_classes() -> None:
    value = [allow_failure([DONE]), quote(DONE), Pair(DONE, 1)]
    made = replaced(value, lambda found: found.name if isinstance(found, State) else found)
    assert made == [allow_failure(["Completed"]), quote(DONE), Pair("Completed", 1)]
