"""The keys that cache policies give: what they depend on, how policies add up, and what has no key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from wfengine import task
from wfengine.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    Asked,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
    FlowParameters,
    Inputs,
    RunId,
    TaskSource,
    cache_key,
    task_input_hash,
)
from wfengine.locking.memory import MemoryLockManager
from wfengine.transactions import IsolationLevel
from wfengine_journal.errors import NoCacheKeyError, UsageError


@task
def load(path: str) -> str:
    return path


@task
def store(path: str) -> str:
    return path


@dataclass
class Run:
    flow_run_id: int = 1


@dataclass
class Context:
    """What a policy is told of a call."""

    task: object = load
    task_run: Run = field(default_factory=Run)
    parameters: dict[str, object] = field(default_factory=dict)


def key(policy: CachePolicy, inputs: dict[str, object] | None = None, **changed: object) -> str | None:
    """Return the key of a call of task `load` in flow run 1."""
    flow_parameters = changed.pop("flow_parameters", {})
    context = Context(**changed)  # type: ignore[arg-type]
    assert isinstance(flow_parameters, dict)
    return policy.compute_key(context, {"path": "a"} if inputs is None else inputs, flow_parameters)  # type: ignore[arg-type]


ALL = [INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, INPUTS + TASK_SOURCE, Inputs(exclude=["debug"])]


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_equal_calls_have_equal_keys(policy: CachePolicy) -> None:
    made = key(policy)
    assert made is not None
    assert made == key(policy)
    assert len(made) == 32


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_two_tasks_never_have_the_same_key(policy: CachePolicy) -> None:
    assert key(policy) != key(policy, task=store)


@pytest.mark.parametrize("policy", ALL, ids=repr)
def test_the_key_of_a_policy_is_that_which_its_parts_give(policy: CachePolicy) -> None:
    made = cache_key(policy, Asked(Context(), {"path": "a"}, {}))  # type: ignore[arg-type]
    assert made.key == key(policy)
    assert made.parts["task"] == load.key


def test_inputs_are_the_arguments_by_content() -> None:
    assert key(INPUTS, {"path": "a", "n": 1}) == key(INPUTS, {"n": 1, "path": "a"})
    assert key(INPUTS, {"path": "a"}) != key(INPUTS, {"path": "b"})
    assert key(INPUTS, {"path": "a"}) != key(INPUTS, {"other": "a"})
    assert key(INPUTS, {"n": 1}) != key(INPUTS, {"n": True})
    assert key(INPUTS, {"n": {1, 2, 3}}) == key(INPUTS, {"n": {3, 2, 1}})


def test_inputs_do_not_look_at_what_was_taken_away() -> None:
    for policy in (INPUTS - "debug", Inputs(exclude=["debug"]), (INPUTS + INPUTS) - "debug"):
        assert key(policy, {"path": "a", "debug": True}) == key(policy, {"path": "a", "debug": False})
        assert key(policy, {"path": "a", "debug": True}) != key(policy, {"path": "b", "debug": True})
    twice = DEFAULT - "debug" - "verbose"
    assert key(twice, {"debug": 1, "verbose": 1}) == key(twice, {"debug": 2, "verbose": 2})
    assert key(INPUTS, {"debug": 1}) != key(INPUTS, {"debug": 2})


def test_a_call_without_arguments_has_a_key_of_its_inputs() -> None:
    assert key(INPUTS, {}) is not None
    assert INPUTS.compute_key(None, {}, {}) == INPUTS.compute_key(None, {}, {})


def test_the_source_is_the_code_and_what_it_reaches() -> None:
    def make(step: int) -> Callable[..., object]:
        def helper(x: int) -> int:
            return x + step

        other = helper if step < 10 else abs

        def body(x: int) -> int:
            return other(x)

        return body

    class Named:
        def __init__(self, fn: Callable[..., object]) -> None:
            self.key, self.fn = "body", fn

    assert key(TASK_SOURCE, task=Named(make(1))) == key(TASK_SOURCE, task=Named(make(1)))
    assert key(TASK_SOURCE, task=Named(make(1))) != key(TASK_SOURCE, task=Named(make(11)))


def test_the_source_of_an_object_that_is_called_is_its_call() -> None:
    class Doubles:
        def __call__(self, x: int) -> int:
            return x * 2

    class Triples:
        def __call__(self, x: int) -> int:
            return x * 3

    class Named:
        key = "body"

        def __init__(self, fn: Callable[..., object]) -> None:
            self.fn = fn

    assert key(TASK_SOURCE, task=Named(Doubles())) == key(TASK_SOURCE, task=Named(Doubles()))
    assert key(TASK_SOURCE, task=Named(Doubles())) != key(TASK_SOURCE, task=Named(Triples()))


def test_flow_parameters_and_run_id_are_those_of_the_flow_run() -> None:
    assert key(FLOW_PARAMETERS, flow_parameters={"day": 1}) == key(FLOW_PARAMETERS, {"other": 1}, flow_parameters={"day": 1})
    assert key(FLOW_PARAMETERS, flow_parameters={"day": 1}) != key(FLOW_PARAMETERS, flow_parameters={"day": 2})
    assert key(RUN_ID, task_run=Run(1)) == key(RUN_ID, {"other": 1}, task_run=Run(1))
    assert key(RUN_ID, task_run=Run(1)) != key(RUN_ID, task_run=Run(2))


def test_without_a_context_there_is_no_source_and_no_run() -> None:
    assert TASK_SOURCE.compute_key(None, {}, {}) is None
    assert RUN_ID.compute_key(None, {}, {}) is None
    assert (TASK_SOURCE + RUN_ID).compute_key(None, {}, {}) is None


def test_default_is_inputs_and_source_and_run() -> None:
    assert isinstance(DEFAULT, CompoundCachePolicy)
    assert {type(policy) for policy in DEFAULT.policies} == {Inputs, TaskSource, RunId}
    assert key(DEFAULT) != key(DEFAULT, task_run=Run(2))
    assert key(DEFAULT) != key(DEFAULT, {"path": "b"})


def test_adding_policies_flattens_them_and_keeps_one_inputs() -> None:
    policy = (INPUTS - "a") + (TASK_SOURCE + (INPUTS - "b"))
    assert isinstance(policy, CompoundCachePolicy)
    assert policy.policies == [TaskSource(), Inputs(exclude=["a", "b"])]
    assert key(INPUTS + RUN_ID) == key(RUN_ID + INPUTS)


@pytest.mark.parametrize("nothing", [NO_CACHE, NONE])
def test_adding_no_cache_changes_nothing(nothing: CachePolicy) -> None:
    assert (INPUTS + nothing) == INPUTS
    assert (nothing + INPUTS) == INPUTS
    assert (DEFAULT + nothing).compute_key(Context(), {}, {}) == key(DEFAULT, {})  # type: ignore[arg-type]
    assert nothing.compute_key(None, {}, {}) is None
    assert (nothing + nothing).compute_key(None, {}, {}) is None


def test_taking_an_argument_from_a_policy_that_has_none_changes_nothing() -> None:
    assert TASK_SOURCE - "x" == TASK_SOURCE
    assert (TASK_SOURCE + RUN_ID) - "x" == TASK_SOURCE + RUN_ID


def test_what_cannot_be_added_or_taken_away_is_refused() -> None:
    with pytest.raises(TypeError):
        INPUTS + "path"  # type: ignore[operator]
    with pytest.raises(UsageError, match="only the name of an argument"):
        INPUTS - 5  # type: ignore[operator]
    with pytest.raises(UsageError, match="only the name of an argument"):
        DEFAULT - INPUTS  # type: ignore[operator]


def test_settings_go_along_and_must_not_contradict_each_other() -> None:
    serial = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=MemoryLockManager())
    assert (serial + RUN_ID).isolation_level == (RUN_ID + serial).isolation_level == "SERIALIZABLE"
    assert ((serial + RUN_ID) - "x").isolation_level == "SERIALIZABLE"
    assert (serial + serial).lock_manager == MemoryLockManager()
    assert INPUTS.isolation_level is None
    assert serial.configure(key_storage="somewhere").isolation_level == "SERIALIZABLE"
    with pytest.raises(UsageError, match="isolation_level is"):
        serial + RUN_ID.configure(isolation_level="READ_COMMITTED")
    assert key(serial) == key(INPUTS)


def test_policies_of_one_kind_are_equal() -> None:
    assert Inputs() == INPUTS
    assert Inputs(exclude=["a"]) != INPUTS
    assert FlowParameters() == FLOW_PARAMETERS
    assert NO_CACHE == NONE


# ---------------------------------------------------------------------------------------------------- the user's own


def test_the_key_of_a_function_is_taken_as_it_is() -> None:
    policy = CachePolicy.from_cache_key_fn(lambda context, parameters: f"{context.task.key}/{parameters['path']}")
    assert isinstance(policy, CacheKeyFnPolicy)
    made = cache_key(policy, Asked(Context(), {"path": "a"}, {}))  # type: ignore[arg-type]
    assert made.key == key(policy) == "load/a"
    assert list(made.parts.values()) == ["load/a"]


def test_a_function_and_other_policies_have_to_agree() -> None:
    def day(context: object, parameters: dict[str, object]) -> str | None:
        return None if parameters["path"] == "b" else "monday"

    both = INPUTS + CachePolicy.from_cache_key_fn(day)
    made = cache_key(both, Asked(Context(), {"path": "a"}, {}))  # type: ignore[arg-type]
    assert made.parts["cache_key_fn day"] == "monday"
    assert made.key == key(both)
    assert key(both) != key(INPUTS)
    assert key(both, {"path": "b"}) not in (None, key(both))


def test_a_class_that_derives_from_a_policy_of_ours_has_its_own_key() -> None:
    class Coarse(Inputs):
        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):  # type: ignore[no-untyped-def]
            return str(super().compute_key(task_ctx, {"path": inputs["path"][0]}, flow_parameters))

    assert key(Coarse(), {"path": "apple"}) == key(Coarse(), {"path": "avocado"})
    assert key(Coarse(), {"path": "apple"}) != key(Coarse(), {"path": "pear"})
    made = cache_key(Coarse() + RUN_ID, Asked(Context(), {"path": "apple"}, {}))  # type: ignore[arg-type]
    assert sorted(made.parts) == ["flow run", "policy Coarse", "task"]


def test_a_policy_without_compute_key_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match="compute_key"):
        CachePolicy().compute_key(None, {}, {})


def test_two_policies_of_one_class_are_two_parts() -> None:
    @dataclass
    class Fixed(CachePolicy):
        text: str = ""

        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):  # type: ignore[no-untyped-def]
            return self.text

    made = cache_key(Fixed(text="a") + Fixed(text="b"), Asked(None, {}, {}))
    assert sorted(made.parts.values()) == ["a", "b"]


def test_task_input_hash_is_the_task_its_code_and_its_arguments() -> None:
    made = task_input_hash(Context(), {"path": "a"})  # type: ignore[arg-type]
    assert made == key(INPUTS + TASK_SOURCE)
    assert made != task_input_hash(Context(), {"path": "b"})  # type: ignore[arg-type]
    assert made != task_input_hash(Context(task=store), {"path": "a"})  # type: ignore[arg-type]
    parts = cache_key(CachePolicy.from_cache_key_fn(task_input_hash), Asked(Context(), {"path": "a"}, {}))  # type: ignore[arg-type]
    assert parts.key == made
    assert sorted(parts.parts) == ["argument path", "source", "task"]


# ---------------------------------------------------------------------------------------------------- no key


def test_arguments_without_canonical_form_have_no_key_and_say_which() -> None:
    for inputs, name in (({"lock": threading.Lock()}, "lock"), ({"many": [1, {"inner": threading.Lock()}]}, "many")):
        with pytest.raises(NoCacheKeyError, match=f"argument {name}") as caught:
            key(INPUTS, inputs)
        assert isinstance(caught.value, ValueError)  # as Prefect raises
        assert task_input_hash(Context(), inputs) is None  # type: ignore[arg-type]
    with pytest.raises(NoCacheKeyError, match="flow parameter lock"):
        key(FLOW_PARAMETERS, flow_parameters={"lock": threading.Lock()})


def test_a_key_that_is_no_text_is_refused() -> None:
    policy = CachePolicy.from_cache_key_fn(lambda context, parameters: 5)  # type: ignore[arg-type, return-value]
    with pytest.raises(NoCacheKeyError, match="of type int"):
        cache_key(policy, Asked(None, {}, {}))
