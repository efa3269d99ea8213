"""`crashtest`: kill a flow around each of its commits, let it be recovered, and compare with a run that nothing disturbed.

Each kill is a real SIGKILL of a real process, in a folder of its own. Between two commits of a run only user code happens, so
"before commit 7" and "after commit 6" find the same file, but what user code did in between has happened or not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from wfengine.loading import entrypoint_of, is_loading, load_target, note_skipped_call
from wfengine.testing.comparing import Ending
from wfengine.testing.crash_child import Answer, Order
from wfengine.testing.crash_report import CrashReport, Kill, command_of
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

#: How long one child may run, in seconds, unless the caller says otherwise: more means that it hangs.
CHILD_SECONDS = 60.0
#: Characters of a child's last words that are shown.
TAIL_CHARACTERS = 1500

#: What looks at the folder of an ended run: names of files in it, or a function of it. What they show is compared.
Witness: TypeAlias = str | Sequence[str] | Callable[[Path], object]
#: What fills the folder of a run before it: files and folders to copy, or a function of it.
Prepare: TypeAlias = str | Path | Sequence[str | Path] | Callable[[Path], object]


def crashtest(
    flow: AnyFlow | str,
    *args: object,
    kills: int | None = None,
    at: Iterable[str] = (),
    witness: Witness | None = None,
    prepare: Prepare | None = None,
    virtual_clock: bool = True,
    timeout_seconds: float = CHILD_SECONDS,
    **kwargs: object,
) -> CrashReport:
    """Kill the flow around each commit of its run, recover it, and raise AssertionError where it ends otherwise.

    - `flow`: a flow, or what the command line takes: "file.py:flow". `args` and `kwargs` are its parameters.
    - `kills`: at most so many, spread evenly; default one before and one after each commit. `at`: only at these points.
    - `witness`: what has to be the same as undisturbed besides the result: files that the flow writes in its working
      directory, or a function of that folder, called after the end of the run, whose results are compared.
    - `prepare`: files and folders that are copied into the empty working directory of each run, or a function of it.
    - `virtual_clock`: retries and sleeps of the engine take no time. `timeout_seconds`: of one process.

    Every run has a journal and a working directory of its own; what the flow does outside of these two it does many times.
    """
    options = CrashOptions(kills, tuple(at), witness, prepare, virtual_clock, timeout_seconds)
    report = find_failures(_flow_of(flow), args, kwargs, options)
    if report.failures:
        raise AssertionError(report.explanation())
    return report


@dataclass(frozen=True, slots=True)
class CrashOptions:
    """The options of `crashtest`."""

    kills: int | None = None
    at: tuple[str, ...] = ()
    witness: Witness | None = None
    prepare: Prepare | None = None
    virtual_clock: bool = True
    timeout_seconds: float = CHILD_SECONDS

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong before anything is run."""
        for point in self.at:
            moment, _, number = point.partition(":")
            if moment not in ("before", "after") or not number.isdecimal():
                raise UsageError(f"A point is 'before:N' or 'after:N', not {point!r}. Example: before:7")
        if self.kills is not None and self.kills < 1:
            raise UsageError(f"kills must be at least 1, not {self.kills}.")


def find_failures(
    flow: AnyFlow,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    options: CrashOptions,
    on_kill: Callable[[Kill, int], object] | None = None,
) -> CrashReport:
    """Do as `crashtest`, but return the report whatever stands in it; `on_kill` is told of each kill and of how many."""
    if is_loading():
        note_skipped_call()  # so that what was defined above is found all the same
        raise UsageError("A file that is loaded to find its flow called crashtest. Put that under: if __name__ == '__main__':")
    with tempfile.TemporaryDirectory(prefix="wfengine-crashtest-", ignore_cleanup_errors=True) as folder:
        bench = _Bench(Path(folder), flow, args, kwargs, options)
        answer, seen = bench.undisturbed()
        points = _points(answer.commits, options)
        done = []
        for number, point in enumerate(points):
            done.append(bench.kill(point, number, answer.ending, seen))
            if on_kill is not None:
                on_kill(done[-1], len(points))
    return CrashReport(flow.name, answer.commits, answer.ending, tuple(done))


def _flow_of(flow: AnyFlow | str) -> AnyFlow:
    if not isinstance(flow, str):
        if not getattr(flow, "__wfengine_flow__", False):
            raise UsageError(f"crashtest takes a flow or 'FILE:FLOW', not {flow!r}.")
        return flow
    found = load_target(flow)
    if len(found) != 1:
        raise UsageError(f"{flow} holds {len(found)} flows. Name one as {flow}:FLOW")
    return cast("AnyFlow", found[0])


def _points(commits: int, options: CrashOptions) -> list[str]:
    if options.at:
        return list(options.at)
    every = [f"{moment}:{number}" for number in range(1, commits + 1) for moment in ("before", "after")]
    kills = len(every) if options.kills is None else min(options.kills, len(every))
    return [every[place * len(every) // kills] for place in range(kills)]


# ------------------------------------------------------------------------------------------- cases

#: What a case says whose child killed itself as it was told to.
_KILLED = "killed"


class _Bench:
    """Runs the cases of one crashtest."""

    def __init__(
        self, folder: Path, flow: AnyFlow, args: tuple[object, ...], kwargs: dict[str, object], options: CrashOptions
    ) -> None:
        self._folder = folder
        self._options = options
        arguments = {**dict(zip(flow.parameters.names, args, strict=False)), **kwargs}
        self._command = command_of(flow, arguments, _command_options(options))
        self._call = f"crashtest({flow.fn.__name__}, ..."
        entrypoint = entrypoint_of(flow.fn)
        pickle = folder / "call.pickle"
        pickle.write_bytes(_pickled((None if entrypoint else flow, (*flow.bound, *args), kwargs)))
        self._order = Order(
            journal="", entrypoint=entrypoint, pickle=str(pickle), kill="", note="", answer="",
            virtual_clock=options.virtual_clock, sys_path=[str(Path(entry).absolute()) for entry in sys.path],
        )  # fmt: skip

    def undisturbed(self) -> tuple[Answer, object]:
        """Run the flow twice without a kill: where these two already differ, no comparison means anything."""
        (first, first_seen), (second, second_seen) = (self._undisturbed(name) for name in ("first", "second"))
        difference = _difference(first.ending, first_seen, second.ending, second_seen)
        if difference is not None:
            raise UsageError(
                f"Two undisturbed runs of the flow differ already, so no crash can be told by that: {difference} "
                "Let the flow return, and the witness look at, what is the same in each run."
            )
        return first, first_seen

    def _undisturbed(self, name: str) -> tuple[Answer, object]:
        case = self._case(name)
        said = case.run("")
        if not isinstance(said, Answer):
            raise UsageError(f"The flow does not even end undisturbed, so that comes first: {said}")
        if not said.ending.is_final:
            raise UsageError(
                f"The flow does not even end undisturbed, so that comes first: {said.ending.state}: {said.ending.shown}"
            )
        return said, _look(self._options.witness, case.work)

    def kill(self, point: str, number: int, ending: Ending, seen: object) -> Kill:
        """Run the flow, killed at a point, recover it, and compare."""
        case = self._case(str(number))
        command = f"{self._command} --at {point}" if self._command else f"{self._call}, at=['{point}'])"
        try:
            said = case.run(point)
            commit = case.note()
            if said == _KILLED:
                said = case.run("")
            if not isinstance(said, Answer):
                return Kill(point, commit, None, None, f"the recovery did not end: {said}", command)
            witness = _look(self._options.witness, case.work)
            problem = _difference(ending, seen, said.ending, witness)
            return Kill(point, commit, said.ending, witness, problem, command)
        finally:
            shutil.rmtree(case.folder, ignore_errors=True)

    def _case(self, name: str) -> _Case:
        folder = self._folder / name
        work = folder / "work"
        work.mkdir(parents=True)
        _fill(self._options.prepare, work)
        order = replace(
            self._order, journal=str(folder / "journal.db"), note=str(folder / "note.txt"), answer=str(folder / "answer.json")
        )
        return _Case(folder, work, order, self._options.timeout_seconds)


@dataclass(frozen=True, slots=True)
class _Case:
    """One run of the flow, over as many processes as it takes."""

    folder: Path
    work: Path
    order: Order
    timeout_seconds: float

    def run(self, kill: str) -> Answer | str:
        """Run one child to its end; return its answer, _KILLED, or what went wrong."""
        order_file = self.folder / "order.json"
        order_file.write_text(json.dumps(asdict(replace(self.order, kill=kill))), encoding="utf-8")
        output = self.folder / "output.txt"
        with output.open("wb") as stream:
            try:
                code = subprocess.run(
                    [sys.executable, "-m", "wfengine.testing.crash_child", str(order_file)],
                    cwd=self.work, env=self._environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                    timeout=self.timeout_seconds, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"it still ran after {self.timeout_seconds} s. {_tail(output)}"
        if code != 0 and kill and self.note():
            return _KILLED
        if code != 0:
            return f"its process ended with code {code}. {_tail(output)}"
        said = json.loads(Path(self.order.answer).read_text(encoding="utf-8"))
        return Answer(Ending(**said["ending"]), said["commits"])

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(self.order.sys_path)
        return {**os.environ, "PYTHONPATH": path, "WFENGINE_JOURNAL": self.order.journal}

    def note(self) -> str:
        """Return what was being committed when the kill came, '' if none came."""
        path = Path(self.order.note)
        return path.read_text(encoding="utf-8") if path.exists() else ""


def _pickled(value: object) -> bytes:
    import cloudpickle

    try:
        return cast("bytes", cloudpickle.dumps(value))
    except Exception as error:
        raise UsageError(
            f"The flow or its parameters cannot be handed to another process ({type(error).__name__}: {error}). "
            "Define the flow at the top level of a file, and give it plain data."
        ) from error


def _tail(output: Path) -> str:
    text = output.read_text(encoding="utf-8", errors="replace").strip()[-TAIL_CHARACTERS:]
    return f"It said:\n{text}" if text else "It said nothing."


# ------------------------------------------------------------------------------------------- the folder of a run


def _fill(prepare: Prepare | None, work: Path) -> None:
    if prepare is None:
        return
    if callable(prepare):
        prepare(work)
        return
    for given in [prepare] if isinstance(prepare, str | Path) else prepare:
        source = Path(given)
        if source.is_dir():
            shutil.copytree(source, work / source.resolve().name)
        elif source.exists():
            shutil.copy2(source, work / source.name)
        else:
            raise UsageError(f"There is no file or folder {source} to copy into the working directory of each run.")


def _look(witness: Witness | None, work: Path) -> object:
    """Return what the witness sees, or the error that it raises."""
    if witness is None:
        return None
    if not callable(witness):
        return {name: _text(work / name) for name in ([witness] if isinstance(witness, str) else witness)}
    try:
        return witness(work)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else None


def _command_options(options: CrashOptions) -> list[str] | None:
    """Return the options as the command line takes them, None where they are functions."""
    witness, prepare = options.witness, options.prepare
    if callable(witness) or callable(prepare):
        return None
    words = []
    for name in [witness] if isinstance(witness, str) else witness or ():
        words += ["--witness", name]
    for source in [prepare] if isinstance(prepare, str | Path) else prepare or ():
        words += ["--copy", str(source)]
    return words if options.virtual_clock else [*words, "--real-clock"]


def _difference(ending: Ending, seen: object, other: Ending, other_seen: object) -> str | None:
    difference = ending.difference(other, "undisturbed")
    if difference is not None:
        return difference
    if seen != other_seen:
        return f"the witness sees {other_seen!r}, undisturbed {seen!r}."
    return None
