"""Cache policies: what makes two calls of a task so alike that the second may have the result of the first.

A policy computes a key. Calls with equal keys share one result, in whatever run and process they are. The policies here
never let two tasks share one; a `cache_key_fn` and a policy of your own give the whole key, and tasks whose keys are equal
share, which is sometimes wanted.

    @task(cache_policy=INPUTS + TASK_SOURCE, cache_expiration=timedelta(hours=1))

Nothing here reads or writes the cache: see `caching`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from xxhash import xxh3_128_hexdigest

from wfengine.canonical import CanonicalWalk, encode_json
from wfengine.fingerprint import flow_code
from wfengine.result_hashes import known_result_hash
from wfengine.transactions import IsolationLevel
from wfengine_journal.errors import NoCacheKeyError, UsageError

if TYPE_CHECKING:
    from wfengine.context import TaskRunContext

__all__ = [
    "DEFAULT", "FLOW_PARAMETERS", "INPUTS", "NONE", "NO_CACHE", "RUN_ID", "TASK_SOURCE", "CacheKeyFnPolicy", "CachePolicy",
    "CompoundCachePolicy", "FlowParameters", "Inputs", "RunId", "TaskSource", "task_input_hash",
]  # fmt: skip

Policy = TypeVar("Policy", bound="CachePolicy")
Values = Mapping[str, object]


@dataclass
class CachePolicy:
    """Base of all policies. Derive from it and write `compute_key` for one of your own.

    `isolation_level` SERIALIZABLE lets calls with equal keys run one at a time, so that the later ones find the result
    of the first. `key_storage` and `lock_manager` are accepted and mean the journal, where keys and locks are kept.
    """

    key_storage: object = None
    isolation_level: IsolationLevel | Literal["READ_COMMITTED", "SERIALIZABLE"] | None = None
    lock_manager: object = None

    @classmethod
    def from_cache_key_fn(cls, cache_key_fn: Callable[..., str | None]) -> CacheKeyFnPolicy:
        """Return the policy whose key a function `fn(context, parameters)` gives; None from it means: not cached."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def configure(
        self: Policy, key_storage: object = None, lock_manager: object = None,
        isolation_level: IsolationLevel | Literal["READ_COMMITTED", "SERIALIZABLE"] | None = None,
    ) -> Policy:  # fmt: skip
        """Return a copy with these settings in place of its own; what is None stays."""
        new = copy.copy(self)
        new.key_storage = self.key_storage if key_storage is None else key_storage
        new.lock_manager = self.lock_manager if lock_manager is None else lock_manager
        new.isolation_level = self.isolation_level if isolation_level is None else _checked_level(isolation_level)
        return new

    def compute_key(
        self, task_ctx: TaskRunContext | None, inputs: dict[str, object], flow_parameters: dict[str, object], **kwargs: object
    ) -> str | None:
        """Return the key of a call, or None to leave it uncached.

        `task_ctx` has `task`, `task_run`, `parameters`; `inputs` are the arguments by name, `flow_parameters` those of the
        flow run. What it raises is logged, and the call is not cached.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to compute a key: write its method compute_key.")

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """Return the policy under which both have to agree."""
        if not isinstance(other, CachePolicy):
            return NotImplemented
        if isinstance(other, _None):
            return self
        return _joined([self, other], self, other)

    def __sub__(self, other: str) -> CachePolicy:
        """Return the policy that does not look at the argument of that name."""
        _argument_name(other)
        return self


def _checked_level(level: object) -> IsolationLevel:
    try:
        return IsolationLevel(level)  # type: ignore[arg-type]  # refused just below
    except ValueError as error:
        raise UsageError(f"isolation_level must be READ_COMMITTED or SERIALIZABLE, not {level!r}.") from error


def _joined(policies: list[CachePolicy], *sources: CachePolicy) -> CompoundCachePolicy:
    """Return one policy of several, with the settings of the sources; UsageError when they contradict each other."""
    joined = CompoundCachePolicy(policies=policies)
    for name in ("key_storage", "isolation_level", "lock_manager"):
        given = [getattr(source, name) for source in sources if getattr(source, name) is not None]
        if any(value != given[0] for value in given):
            raise UsageError(
                f"Cache policies with different settings cannot be added: {name} is {' and '.join(map(repr, given))}. "
                "Add them first, and then: (A + B).configure(...)"
            )
        setattr(joined, name, given[0] if given else None)
    return joined


def _argument_name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(
            f"From a cache policy only the name of an argument can be taken away (INPUTS - 'debug'), not {name!r}."
        )
    return name


@dataclass
class CacheKeyFnPolicy(CachePolicy):
    """The key that a function of the context and the arguments gives."""

    cache_key_fn: Callable[..., str | None] | None = None

    def compute_key(
        self, task_ctx: TaskRunContext | None, inputs: dict[str, object], flow_parameters: dict[str, object], **kwargs: object
    ) -> str | None:
        """See CachePolicy."""
        return None if self.cache_key_fn is None else self.cache_key_fn(task_ctx, inputs)


@dataclass
class CompoundCachePolicy(CachePolicy):
    """Several policies, which all have to agree. One that gives no key is left out; none gives one: no key."""

    policies: list[CachePolicy] = field(default_factory=list)

    def __post_init__(self) -> None:
        flat: list[CachePolicy] = []
        for policy in self.policies:
            flat += policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]
        excluded = {name for policy in flat if type(policy) is Inputs for name in policy.exclude}
        # One Inputs for all of them: what one leaves out, all leave out.
        self.policies = [policy for policy in flat if type(policy) is not Inputs]
        if len(self.policies) < len(flat):
            self.policies.append(Inputs(exclude=sorted(excluded)))

    def compute_key(
        self, task_ctx: TaskRunContext | None, inputs: dict[str, object], flow_parameters: dict[str, object], **kwargs: object
    ) -> str | None:
        """See CachePolicy."""
        return _key_of(_compound_parts(self, Asked(task_ctx, inputs, flow_parameters)))

    def __sub__(self, other: str) -> CachePolicy:
        """See CachePolicy."""
        name = _argument_name(other)
        if not any(type(policy) is Inputs for policy in self.policies):
            return self
        return _joined([*self.policies, Inputs(exclude=[name])], self)


@dataclass
class _None(CachePolicy):
    """No key: the call is not cached."""

    def compute_key(
        self, task_ctx: TaskRunContext | None, inputs: dict[str, object], flow_parameters: dict[str, object], **kwargs: object
    ) -> str | None:
        """See CachePolicy."""
        return None

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """Return the other one."""
        return other


class _PartsPolicy(CachePolicy):
    """A policy whose key is made of named parts, which `wfengine tasks explain-cache` can compare."""

    def compute_key(
        self, task_ctx: TaskRunContext | None, inputs: dict[str, object], flow_parameters: dict[str, object], **kwargs: object
    ) -> str | None:
        """See CachePolicy."""
        return _key_of(_PARTS[_builtin_class(self)](self, Asked(task_ctx, inputs, flow_parameters)))


@dataclass
class Inputs(_PartsPolicy):
    """The task and its arguments, but for those named in `exclude`. Arguments count by their content."""

    exclude: list[str] = field(default_factory=list)

    def __sub__(self, other: str) -> CachePolicy:
        """See CachePolicy."""
        new = copy.copy(self)
        new.exclude = [*self.exclude, _argument_name(other)]
        return new


@dataclass
class TaskSource(_PartsPolicy):
    """The code of the task and of the user's functions it reaches. Comments, layout and docstrings do not count."""


@dataclass
class FlowParameters(_PartsPolicy):
    """The task and the parameters of the flow run."""


@dataclass
class RunId(_PartsPolicy):
    """The task and the flow run: what is cached is only found again in the same run."""


# ------------------------------------------------------------------------------------------- keys and their parts


class Asked(NamedTuple):
    """A call, as policies see it."""

    task_ctx: TaskRunContext | None
    inputs: Values
    flow_parameters: Values


class CacheKey(NamedTuple):
    """The key of a call, and the parts it is made of: a name and a short text or hash for each."""

    key: str | None
    parts: dict[str, str]


def cache_key(policy: CachePolicy, asked: Asked) -> CacheKey:
    """Return the key that a policy gives a call, with its parts. Raises whatever a policy of the user raises.

    Raises NoCacheKeyError for arguments without a canonical form.
    """
    parts = _parts_of(policy, asked)
    if type(policy) not in _PARTS and len(parts) == 1 and _label(policy) in parts:
        return CacheKey(parts[_label(policy)], parts)  # as the user's code gave it, so that people find it again
    return CacheKey(_key_of(parts), parts)


def _parts_of(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    # By exact type: a class that derives from one of ours may have a compute_key of its own.
    if type(policy) is CompoundCachePolicy:
        return _compound_parts(policy, asked)
    if isinstance(policy, CacheKeyFnPolicy) and policy.cache_key_fn is task_input_hash:
        return _compound_parts(_TASK_INPUTS, asked)
    parts = _PARTS.get(type(policy))
    if parts is not None:
        return parts(policy, asked)
    key = policy.compute_key(asked.task_ctx, dict(asked.inputs), dict(asked.flow_parameters))
    if key is None:
        return {}
    if not isinstance(key, str):
        raise NoCacheKeyError(
            f"{_label(policy)} gave a key of type {type(key).__name__}; a key is text, or None for no caching."
        )
    return {_label(policy): key}


def _label(policy: CachePolicy) -> str:
    if isinstance(policy, CacheKeyFnPolicy):
        return f"cache_key_fn {getattr(policy.cache_key_fn, '__name__', '')}".rstrip()
    return f"policy {type(policy).__name__}"


def _compound_parts(policy: CompoundCachePolicy, asked: Asked) -> dict[str, str]:
    parts: dict[str, str] = {}
    for number, inner in enumerate(policy.policies):
        for name, part in _parts_of(inner, asked).items():
            # Two policies of one class, with settings of their own, are two parts.
            parts[f"{name} ({number})" if parts.get(name, part) != part else name] = part
    return parts


def _key_of(parts: Mapping[str, str]) -> str | None:
    return xxh3_128_hexdigest(encode_json(dict(parts)).encode("utf-8", "surrogatepass")) if parts else None


def _builtin_class(policy: CachePolicy) -> type[CachePolicy]:
    return next(cls for cls in type(policy).__mro__ if cls in _PARTS)


def _task_part(asked: Asked) -> dict[str, str]:
    """Return what keeps two tasks apart whose calls are alike."""
    return {} if asked.task_ctx is None else {"task": str(asked.task_ctx.task.key)}


def _input_parts(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    assert isinstance(policy, Inputs)
    counted = {name: value for name, value in asked.inputs.items() if name not in policy.exclude}
    return {**_task_part(asked), **_value_parts("argument", counted)} or {"arguments": "none"}


def _parameter_parts(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    return {**_task_part(asked), **_value_parts("flow parameter", asked.flow_parameters)} or {"flow parameters": "none"}


def _value_parts(kind: str, values: Values) -> dict[str, str]:
    walk = CanonicalWalk(known_result_hash)
    parts: dict[str, str] = {}
    for name in sorted(values):
        found = walk.find(values[name], name, 1)
        if found is None:
            walk.note(name)
        else:
            parts[f"{kind} {name}"] = found.hex()
    if walk.opaque:
        raise NoCacheKeyError(
            f"{kind} {', '.join(walk.opaque)} ({_types(values, walk.opaque)}) has no canonical form, so it cannot be "
            "told whether another call has the same. Pass plain data, leave it out (INPUTS - 'name'), or give a cache_key_fn."
        )
    return parts


def _types(values: Values, paths: list[str]) -> str:
    names = dict.fromkeys(path.partition(".")[0] for path in paths)
    return ", ".join(type(values[name]).__qualname__ for name in names if name in values)


def _source_parts(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    if asked.task_ctx is None:
        return {}
    fn = asked.task_ctx.task.fn
    code = (
        fn if isinstance(fn, FunctionType | MethodType | functools.partial) else type(fn).__call__
    )  # an object that is called
    return {**_task_part(asked), "source": flow_code(code).hash}


def _run_parts(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    if asked.task_ctx is None:
        return {}
    return {**_task_part(asked), "flow run": str(asked.task_ctx.task_run.flow_run_id)}


def _no_parts(policy: CachePolicy, asked: Asked) -> dict[str, str]:
    return {}


_PARTS: dict[type[CachePolicy], Callable[[CachePolicy, Asked], dict[str, str]]] = {
    Inputs: _input_parts,
    TaskSource: _source_parts,
    FlowParameters: _parameter_parts,
    RunId: _run_parts,
    _None: _no_parts,
}

INPUTS = Inputs()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
NO_CACHE = NONE = _None()
#: What `persist_result=True` on a task means: the same task with the same code and arguments, in the same flow run.
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID

_TASK_INPUTS = CompoundCachePolicy(policies=[INPUTS, TASK_SOURCE])


def task_input_hash(context: TaskRunContext, arguments: dict[str, object]) -> str | None:
    """Return a key of a task, its code and its arguments, for `cache_key_fn`; None for arguments without a canonical form."""
    try:
        return _TASK_INPUTS.compute_key(context, arguments, {})
    except NoCacheKeyError:
        return None
