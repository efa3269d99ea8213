"""Draw a flow without running it: its function runs, and every task and subflow it calls becomes a node of a graph.

No task's function runs, nothing is journaled. A call gives what its task says in `viz_return_value`, else a stand-in that may
be passed on, looked into and iterated over (an unknown collection is drawn as one with one item); asking it for a truth value
or its length is an error that says what to do. Dependencies come from futures, stand-ins, states and `viz_return_value`s that
are passed to later calls, also inside containers, and from `wait_for`.

Calls come here where no flow run is around them (`scopes.current_tracer`), so a real run pays nothing for it.
"""

from __future__ import annotations

import contextvars
import inspect
import os
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from wfengine.futures import TaskFuture
from wfengine.scopes import LiveRun, Scope, set_scope, set_tracer
from wfengine.states import State
from wfengine.task_engine import Callee, new_call
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import (
    FlowVisualizationError,
    GraphvizExecutableNotFoundError,
    GraphvizImportError,
    WfengineError,
)
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.store import Journal

#: Calls after which a flow is not drawn any further: a stream that loops for ever would fill the memory, and nobody reads it.
NODE_LIMIT = 10_000
#: Containers nested deeper than this are not searched for results of other calls.
DEPTH_LIMIT = 50

_ADVICE = (
    "No task runs while a flow is drawn. Where the flow's own code needs a task's result, say what to take for it: "
    "@task(viz_return_value=[1, 2, 3])."
)


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a task or subflow; `upstream` are the labels of the calls whose results it was given."""

    label: str
    name: str
    kind: Literal["task", "flow"]
    upstream: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The calls of a flow, in the order in which they were made."""

    name: str
    nodes: tuple[Node, ...]

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart, which Markdown viewers draw."""
        numbers = {node.label: number for number, node in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        for node in self.nodes:
            left, right = ("[[", "]]") if node.kind == "flow" else ("[", "]")
            lines.append(f'    n{numbers[node.label]}{left}"{_mermaid_text(node.label)}"{right}')
        for node in self.nodes:
            lines += [f"    n{numbers[other]} --> n{numbers[node.label]}" for other in node.upstream]
        return "\n".join(lines)

    def to_dot(self) -> str:
        """Return the graph in the language of Graphviz: `dot -Tsvg` draws it."""
        lines = [f"digraph {_dot_text(self.name)} {{"]
        for node in self.nodes:
            shape = " [shape=box, peripheries=2]" if node.kind == "flow" else ""
            lines.append(f"    {_dot_text(node.label)}{shape}")
        for node in self.nodes:
            lines += [f"    {_dot_text(other)} -> {_dot_text(node.label)}" for other in node.upstream]
        return "\n".join([*lines, "}", ""])


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _mermaid_text(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("\n", " ")


# ------------------------------------------------------------------------------------------- trace


def trace(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> Graph:
    """Run the flow's function with every call replaced by a node, and return the graph. Not inside a running event loop."""
    tracer = Tracer(flow)
    tracer.context.run(_finish_body, *_body(flow, args, kwargs))
    return tracer.graph()


async def trace_async(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> Graph:
    """Do as `trace` does, in the running event loop."""
    import asyncio

    tracer = Tracer(flow)
    fn, bound_args, bound_kwargs = _body(flow, args, kwargs)
    with _explained(flow.name):
        value = tracer.context.run(fn, *bound_args, **bound_kwargs)
        await asyncio.create_task(_exhausted_async(value), context=tracer.context)
    return tracer.graph()


def _body(
    flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """Return the flow's function and its arguments, checked as a run would check them."""
    arguments = flow.parameters.bind(flow.bound + args, kwargs)
    if flow.should_validate_parameters:
        arguments = flow.parameters.coerce(arguments)
    return flow.fn, *flow.parameters.unbind(arguments)


def _finish_body(fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    with _explained(getattr(fn, "__name__", "flow")):
        value = fn(*args, **kwargs)
        if inspect.isgenerator(value):
            for _ in value:
                pass
        elif inspect.isawaitable(value) or inspect.isasyncgen(value):
            import asyncio

            asyncio.run(_exhausted_async(value))


async def _exhausted_async(value: object) -> None:
    """Await what an async function gave, or take all items of an async generator."""
    if inspect.isawaitable(value):
        await value
    elif inspect.isasyncgen(value):
        async for _ in value:
            pass


class _explained:
    """Turns what the flow's code raises into an error that says what a drawing needs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, WfengineError):
            text = f"The code of flow '{self._name}' raised {type(error).__name__} while it was drawn: {error}. {_ADVICE}"
            raise FlowVisualizationError(text) from error


class Tracer:
    """Takes every call that a flow's function makes, gives a stand-in for its result, and remembers who was given it."""

    def __init__(self, flow: AnyFlow) -> None:
        self._name = flow.name
        self._scope = Scope(LiveRun(cast("Journal", _ClockOnly()), flow, 0, flow.name, epoch=0, version=0), None)
        self._lock = threading.Lock()
        self._nodes: list[Node] = []
        self._counts: dict[str, int] = {}
        # By identity: values that were given for results, kept alive here so that no other object gets their identity.
        self._given: dict[int, tuple[object, int]] = {}
        self.context = contextvars.copy_context()
        self.context.run(set_scope, None)  # drawn inside a run, the flow's calls are still not calls of that run
        self.context.run(set_tracer, self)

    def graph(self) -> Graph:
        """Return what was called so far."""
        return Graph(self._name, tuple(self._nodes))

    def call(
        self, callee: Callee, args: tuple[object, ...], kwargs: dict[str, object], before: object, return_state: bool
    ) -> object:
        """Take a direct call; an async callee's result has to be awaited, as in a run."""
        number, value = self._add(callee, args, kwargs, before)
        state: State[object] = State(StateType.COMPLETED, task_run_id=number, data=value)
        if callee.is_generator and not return_state:
            return _streamed(value) if callee.is_async and not isinstance(value, StandIn) else value
        shown: object = state if return_state else value
        return _later(shown) if callee.is_async else shown

    def submit(self, callee: Callee, args: tuple[object, ...], kwargs: dict[str, object], before: object) -> TaskFuture[object]:
        """Take a submitted call; its future is settled at once."""
        number, value = self._add(callee, args, kwargs, before)
        call = new_call(callee, self._scope, args, kwargs, has_futures=True)
        call.task_run_id = number
        future: TaskFuture[object] = TaskFuture(call)
        future.settle(value, None)
        return future

    def _add(self, callee: Callee, args: tuple[object, ...], kwargs: dict[str, object], before: object) -> tuple[int, object]:
        """Add a node; return its number, from 1, and the value that stands for its result."""
        callee.parameters.bind(args, kwargs)  # a call that does not fit fails here as it would in a run
        found: dict[int, None] = {}
        self._find_sources([args, kwargs, list(cast("Iterable[object]", before or ()))], found)
        with self._lock:
            number = len(self._nodes) + 1
            if number > NODE_LIMIT:
                raise FlowVisualizationError(
                    f"Flow '{self._name}' made more than {NODE_LIMIT} calls while it was drawn, so it may loop for ever. "
                    f"{_ADVICE}"
                )
            count = self._counts[callee.name] = self._counts.get(callee.name, -1) + 1
            upstream = tuple(self._nodes[source - 1].label for source in found)
            self._nodes.append(Node(f"{callee.name}-{count}", callee.name, callee.kind, upstream))
            if callee.viz_return_value is None:
                return number, StandIn(number, f"the result of {callee.kind} '{callee.name}'")
            value = _copied(callee.viz_return_value)
            self._remember(value, number)
            return number, value

    def _remember(self, value: object, number: int, depth: int = 0) -> None:
        if depth > DEPTH_LIMIT or id(value) in self._given:
            return
        if _copied(value) is not value:  # what everybody has in common, such as True or 7, belongs to no call
            self._given[id(value)] = (value, number)
        for item in _items_of(value):
            self._remember(item, number, depth + 1)

    def _find_sources(self, value: object, found: dict[int, None], depth: int = 0) -> None:
        """Collect the numbers of the calls that a value came from."""
        if isinstance(value, StandIn):
            found.update(dict.fromkeys(value.wfengine_sources))
        elif isinstance(value, TaskFuture):
            found[value.call.task_run_id] = None
        elif isinstance(value, State) and value.task_run_id is not None:
            found[value.task_run_id] = None
        elif id(value) in self._given:
            found[self._given[id(value)][1]] = None
        elif depth <= DEPTH_LIMIT:
            for item in _items_of(value):
                self._find_sources(item, found, depth + 1)


class _ClockOnly:
    """All that a future of a drawn call asks of a journal."""

    clock = SystemClock()


async def _later(value: object) -> object:
    return value


async def _streamed(values: object) -> AsyncIterator[object]:
    for value in cast("Iterable[object]", values):
        yield value


def _items_of(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    inner = getattr(value, "value", None) if type(value).__module__.startswith("wfengine") else None
    return () if inner is None else (inner,)  # unmapped(x) and its like


def _copied(value: object) -> object:
    """Return an equal object that is nobody else's, so that its identity says where it came from; else the value itself."""
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception:
        return value


# ------------------------------------------------------------------------------------------- stand-ins


class StandIn:
    """Stands for a result that nobody computed. What is derived from it stands for a result of the same calls."""

    __slots__ = ("__sources", "__what")

    def __init__(self, source: int | tuple[int, ...], what: str) -> None:
        self.__sources = (source,) if isinstance(source, int) else source
        self.__what = what

    @property
    def wfengine_sources(self) -> tuple[int, ...]:
        """The numbers of the calls. Under this name so that it is in nobody's way."""
        return self.__sources

    @property
    def wfengine_what(self) -> str:
        """What it stands for, for people."""
        return self.__what

    def __repr__(self) -> str:
        return f"<{self.__what}>"

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(f"{self!r} has no {name}. {_ADVICE}")
        return self

    def __getitem__(self, key: object) -> StandIn:
        return self

    def __call__(self, *args: object, **kwargs: object) -> StandIn:
        return _joined(self, *args, *kwargs.values())

    def __iter__(self) -> Iterator[StandIn]:
        yield self

    def __next__(self) -> StandIn:
        return self

    async def __aiter__(self) -> AsyncIterator[StandIn]:
        yield self

    def __bool__(self) -> bool:
        raise FlowVisualizationError(f"The flow's code asked whether {self.__what} is true, to decide its way. {_ADVICE}")

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        raise FlowVisualizationError(f"The flow's code compared {self.__what} with {other!r}, to decide its way. {_ADVICE}")

    def __hash__(self) -> int:
        return id(self)


def _joined(first: StandIn, *others: object) -> StandIn:
    """Return what stands for a result of all these stand-ins together."""
    sources = dict.fromkeys(first.wfengine_sources)
    for other in others:
        if isinstance(other, StandIn):
            sources.update(dict.fromkeys(other.wfengine_sources))
    return StandIn(tuple(sources), first.wfengine_what)


for _operator in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(StandIn, f"__{_operator}__", _joined)
    setattr(StandIn, f"__r{_operator}__", _joined)
for _operator in ("neg", "pos", "abs", "invert"):
    setattr(StandIn, f"__{_operator}__", _joined)


# ------------------------------------------------------------------------------------------- render


def render(graph: Graph, folder: Path | None = None) -> Path:
    """Draw the graph into a PNG named after the flow, open it where there is a screen, and return its path."""
    try:
        import graphviz
    except ImportError as error:
        raise GraphvizImportError(
            f"Flow '{graph.name}' was not drawn: the package graphviz is not installed. Type: pip install 'wfengine[viz]'   "
            "Or take the graph as text, which needs nothing: flow.generate_mermaid_graph()."
        ) from error
    name = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in graph.name)
    place = (folder or Path.cwd()) / f"{name}.png"
    source = graphviz.Source(graph.to_dot())
    try:
        source.render(outfile=place, view=_has_screen(), cleanup=True)
    except graphviz.ExecutableNotFound as error:
        raise GraphvizExecutableNotFoundError(
            f"Flow '{graph.name}' was not drawn: the program dot of Graphviz is not on the PATH. Install it (Debian, Ubuntu: "
            "apt install graphviz; macOS: brew install graphviz), or take the graph as text: flow.generate_mermaid_graph()."
        ) from error
    return place


def _has_screen() -> bool:
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def visualize(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> Path:
    """Trace and render."""
    return render(trace(flow, args, kwargs))


async def visualize_async(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> Path:
    """Trace in the running event loop, and render."""
    return render(await trace_async(flow, args, kwargs))


def mermaid(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Trace into the text of a Mermaid flowchart."""
    return trace(flow, args, kwargs).to_mermaid()


async def mermaid_async(flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Trace in the running event loop, into the text of a Mermaid flowchart."""
    return (await trace_async(flow, args, kwargs)).to_mermaid()


def in_loop(
    plain: Callable[[AnyFlow, tuple[object, ...], dict[str, object]], object],
    soon: Callable[[AnyFlow, tuple[object, ...], dict[str, object]], Coroutine[object, object, object]],
    flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object],
) -> object:  # fmt: skip
    """Call `plain`, or, where an event loop runs in this thread, return the coroutine of `soon`."""
    return soon(flow, args, kwargs) if _loop_runs() else plain(flow, args, kwargs)


def _loop_runs() -> bool:
    asyncio = sys.modules.get("asyncio")  # not imported: then no loop runs
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False
