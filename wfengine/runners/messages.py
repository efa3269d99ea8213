"""What goes between a flow's process and the workers of a runner, as bytes.

Both sides pickle with cloudpickle, so that functions and classes of a script or notebook travel by value and those of a
module by name. Beyond that:

- A task or flow that cannot be imported by its name is rebuilt on the worker once, and comes back as the one that it is.
- A future of the run travels as its number; on the worker it is a `WorkerFuture`, see `worker`.
- An exception keeps its class, cause, context, notes and the lines of its traceback.
- What is large - a function, an argument - travels as a *parcel*: named by the hash of its bytes, and sent to a worker once.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import io
import pickle
import sys
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, NamedTuple, cast

import cloudpickle
import xxhash

from wfengine.loading import SCRIPT_NAMES, loading
from wfengine.runners.remote_errors import Failure, bare_error, failure_of, travels_in_parts
from wfengine.task_future import TaskFuture
from wfengine_journal.errors import UnsendableError
from wfengine_journal.previews import preview, type_name

#: An argument whose pickle is larger travels as a parcel, in bytes.
PARCEL_BYTES = 64 << 10
#: The thread of a worker that runs the task's own code; threads which that starts have other numbers.
MAIN = 0


class Order(NamedTuple):
    """What a worker is to run: the function in a parcel, and its arguments."""

    function: str  # the name of its parcel
    arguments: bytes
    parcels: tuple[str, ...]  # of arguments, by position in `arguments`
    is_async: bool
    log_prints: bool
    tags: frozenset[str] = frozenset()  # of the `with tags(...)` blocks around it
    scope: int = 0  # what the questions of its code are asked in


class Run(NamedTuple):
    """To a worker that asked for something: run this first, on the thread that asked, and say what came of it."""

    order: Order
    parcels: Mapping[str, bytes]


class Apart(NamedTuple):
    """To a worker that asked for something: let a thread of its own run this call, which has a limit, and wait here."""

    number: int  # for `Finish`


class Ran(NamedTuple):
    """From a worker: what came of an order."""

    value: object
    failure: Failure | None = None


class Halted(NamedTuple):
    """The run was stopped: user code is to unwind, or has unwound because of that."""

    text: str


class Call(NamedTuple):
    """From a worker: user code called a task or flow, or submitted a task."""

    callee: object
    args: tuple[object, ...]
    kwargs: dict[str, object]
    wait_for: object
    return_state: bool
    submitted: bool
    tags: frozenset[str]


class Asked(NamedTuple):
    """A question, and the scope of the code that asks."""

    scope: int
    what: object


class Begun(NamedTuple):
    """The number of a call of something async, which has its place in the order of calls; see `Finish`."""

    number: int


class Finish(NamedTuple):
    """From a worker: the call that took its place before is awaited now, or is run apart."""

    number: int


class Do(NamedTuple):
    """From a worker: user code called a public function of wfengine that needs the journal."""

    module: str
    name: str
    args: tuple[object, ...]
    kwargs: dict[str, object]


class Ask(NamedTuple):
    """From a thread of a worker that waits for the answer."""

    thread: int
    what: bytes  # a pickled Asked, or the outcome of an order that came as an answer


class Tell(NamedTuple):
    """From a worker, which does not wait: a line of its log, or what it printed."""

    what: bytes


class Done(NamedTuple):
    """From a worker: what came of the order that it was given first; pickled Ran or Halted."""

    what: bytes


class Lost(NamedTuple):
    """From the runner itself: the worker died, or cannot be reached."""

    why: str


@dataclass(slots=True)
class Names:
    """What one side knows of the other's objects."""

    #: Begins the name of each task and flow that the flow's process rebuilds on workers.
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    futures: dict[int, object] = field(default_factory=dict)
    sent: dict[str, object] = field(default_factory=dict)

    def number_of(self, future: object) -> int:
        """Return the number of a future, from now on kept for the worker."""
        self.futures[id(future)] = future
        return id(future)


#: On a worker: tasks and flows by the name the flow's process gave them, and back.
_rebuilt: dict[str, Any] = {}
_rebuilt_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


#: Values of these types refer to nothing, and are pickled without a look at what they consist of.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def dump(value: object, names: Names | None = None) -> bytes:
    """Pickle what is sent: by the flow's process with its `names`, by a worker without. Raises whatever pickling raises."""
    if type(value) is Ran and type(value.value) in _PLAIN and value.failure is None:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    buffer = io.BytesIO()
    _Pickler(buffer, names).dump(value)
    return buffer.getvalue()


def load(data: bytes, names: Names | None = None) -> Any:
    """Return what was sent. Modules are imported as when a flow is looked for: what they start at import does nothing."""
    with loading():
        return _Unpickler(io.BytesIO(data), names).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # ships no type information
    def __init__(self, buffer: io.BytesIO, names: Names | None) -> None:
        super().__init__(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = names

    def persistent_id(self, obj: object) -> object:
        kind = type(obj)
        if kind in (int, str, float, tuple, list, dict, bytes, bool):
            return None
        if getattr(kind, "__wfengine_future__", False) and isinstance(obj, TaskFuture):
            return self._future(obj)
        if getattr(kind, "__wfengine_by_name__", False) and kind in _decorated_classes():
            return self._decorated(obj)
        return None

    def _future(self, obj: Any) -> object:
        if self._names is not None:
            return ("future", self._names.number_of(obj))
        number = getattr(obj, "number", None)  # none: that of a background task, made here by its id
        return None if number is None else ("future", number)

    def _decorated(self, obj: Any) -> object:
        known = _rebuilt_names.get(obj) if self._names is None else None
        return None if known is None else ("decorated", known)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is type and obj.__module__ == __name__:  # of these messages: found there, without cloudpickle's search
            return NotImplemented
        if type(obj) in _decorated_classes():
            return self._reduce_decorated(obj)
        if isinstance(obj, BaseException) and travels_in_parts(obj):
            return bare_error, (type(obj), obj.args), vars(obj) or None
        if isinstance(obj, BaseException) and _is_taken_over(type(obj)):
            return obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if type(obj) is CodeType:  # cloudpickle leaves out where code stands, which tracebacks are to show
            maker, parts = cloudpickle.cloudpickle._code_reduce(obj)  # noqa: SLF001 - there is no public way
            return _code, (maker, parts, obj.co_filename)
        if _is_of_script(obj):
            # cloudpickle does that for __main__; a script that was loaded by its path is a module that no worker can import.
            if isinstance(obj, FunctionType):
                return self._dynamic_function_reduce(obj)
            if isinstance(obj, type):
                return cloudpickle.cloudpickle._dynamic_class_reduce(obj)  # noqa: SLF001 - there is no public way
        return super().reducer_override(obj)

    def _reduce_decorated(self, obj: Any) -> Any:
        place = _place_of(obj)
        if place is not None:
            return _imported, place
        maker, parts = obj.__reduce__()
        if self._names is None or not isinstance(maker, functools.partial):  # one that is bound: by what it is bound to
            return NotImplemented
        name = f"{self._names.prefix}:{id(obj)}"
        self._names.sent[name] = obj
        return _blank, (name, type(obj)), (parts[0], maker.keywords), None, None, _filled


class _Unpickler(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, names: Names | None) -> None:
        super().__init__(buffer)
        self._names = names

    def persistent_load(self, pid: Any) -> object:
        kind, key = pid
        if self._names is not None:
            return (self._names.futures if kind == "future" else self._names.sent)[key]
        if kind == "future":
            from wfengine.runners.worker import WorkerFuture

            return WorkerFuture(key)
        return _rebuilt[key]


def _is_taken_over(kind: type[BaseException]) -> bool:
    """Tell whether Dask, by the package tblib, pickles a class of exceptions as it likes: such a SystemExit has no code."""
    reducer = copyreg.dispatch_table.get(kind)
    return reducer is not None and str(getattr(reducer, "__module__", "")).startswith("tblib")


@functools.cache
def _decorated_classes() -> tuple[type, ...]:
    from wfengine.flows import Flow
    from wfengine.tasks import Task

    return Flow, Task


def _is_of_script(obj: object) -> bool:
    module = getattr(obj, "__module__", None)
    return isinstance(module, str) and module.startswith(SCRIPT_NAMES) and module in sys.modules


def _place_of(obj: Any) -> tuple[str, str] | None:
    """Return module and qualified name by which a worker can import a task or flow; None where it cannot."""
    module, name = obj.__module__, obj.__qualname__
    if not isinstance(module, str) or module.startswith(SCRIPT_NAMES) or "<" in name or module not in sys.modules:
        return None
    found: object = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is obj else None


def _imported(module: str, name: str) -> object:
    return functools.reduce(getattr, name.split("."), cast(object, importlib.import_module(module)))


def _code(maker: Callable[..., CodeType], parts: tuple[object, ...], file: str) -> CodeType:
    return maker(*parts).replace(co_filename=file)


def _blank(name: str, kind: type) -> object:
    """Return the task or flow of a name; a new one is filled when its function, which may refer to it, is there."""
    known = _rebuilt.get(name)
    if known is None:
        known = _rebuilt[name] = object.__new__(kind)
    return known


def _filled(made: Any, state: tuple[Callable[..., object], dict[str, object]]) -> None:
    if not vars(made):
        type(made).__init__(made, *state)
        name = next(name for name, known in _rebuilt.items() if known is made)
        _rebuilt_names[made] = name


# ---------------------------------------------------------------------------------------------------- orders


def pack_arguments(
    args: tuple[object, ...], kwargs: Mapping[str, object], names: Names, owner: Callable[[], str], labels: tuple[str, ...]
) -> tuple[bytes, dict[str, bytes]]:
    """Return pickled arguments, and the large ones among them as parcels. Raises UnsendableError naming the one that cannot,
    and what `owner` returns.
    """
    if not kwargs and all(type(value) in _PLAIN for value in args):
        whole = pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL)
        if len(whole) <= PARCEL_BYTES:
            return whole, {}
    try:
        whole = dump((args, kwargs), names)
    except Exception as error:
        raise _unsendable(args, kwargs, names, owner(), labels, error) from error
    if len(whole) <= PARCEL_BYTES:
        return whole, {}
    parcels: dict[str, bytes] = {}

    def packed(value: object) -> object:
        data = dump(value, names)
        if len(data) <= PARCEL_BYTES:
            return value
        name = xxhash.xxh3_128_hexdigest(data)
        parcels[name] = data
        return _Parcel(name)

    small = tuple(packed(value) for value in args), {name: packed(value) for name, value in kwargs.items()}
    return dump(small, names), parcels


class _Parcel(NamedTuple):
    """Stands for an argument that travels by itself."""

    name: str


def unpack_arguments(data: bytes, parcels: Callable[[str], bytes]) -> tuple[tuple[object, ...], dict[str, object]]:
    """Return arguments on the worker; each task gets its own copy of what came in a parcel."""
    args, kwargs = load(data)

    def unpacked(value: object) -> object:
        return load(parcels(value.name)) if type(value) is _Parcel else value

    return tuple(unpacked(value) for value in args), {name: unpacked(value) for name, value in kwargs.items()}


def _unsendable(
    args: tuple[object, ...], kwargs: Mapping[str, object], names: Names, owner: str, labels: tuple[str, ...], error: Exception
) -> UnsendableError:
    places = [*zip([*labels, *("*args",) * len(args)], args, strict=False), *kwargs.items()]
    for label, value in places:
        try:
            dump(value, names)
        except Exception as found:
            return UnsendableError(
                f"{owner}: the argument '{label}' ({type_name(type(value))}: {preview(value)}) cannot be sent to a worker, so "
                f"the task was not run: {type(found).__name__}: {found}. Make it inside the task, pass plain data instead, or "
                "run the task on threads: task.with_options(runner=ThreadTaskRunner())."
            )
    return UnsendableError(f"{owner}: its arguments cannot be sent to a worker: {type(error).__name__}: {error}.")


#: Stands behind the pickle of what came of an order, where unpickling does not look, so that it is told apart unread.
_OUTCOME = b"#"


def outcome(what: Ran | Halted) -> bytes:
    """Pickle what came of an order."""
    return dump(what) + _OUTCOME


def is_outcome(data: bytes) -> bool:
    """Tell whether this is what came of an order, and not a question."""
    return data.endswith(_OUTCOME)


def ran(value: object, what: str) -> bytes:
    """Pickle what a worker gives back; what cannot be sent is a failure that says so."""
    try:
        return outcome(Ran(value))
    except Exception as error:
        text = (
            f"{what} returned a {type_name(type(value))}, which cannot be sent back from its worker: {type(error).__name__}: "
            f"{error}. Return plain data, or write it to a file and return the path."
        )
        return outcome(Ran(None, failure_of(UnsendableError(text), dump)))
