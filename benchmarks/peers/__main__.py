"""Print one table of the peers beside ours: `python -m benchmarks.peers [NAME ...] [--rounds 3] [--chart FILE.svg]`.

Every round runs all systems one after the other on the same disk, each in a process of its own, after the raw reference:
raw-N (see `benchmarks.raw`). Ratios are taken within a round. A chain's task needs the one before; a map's do not; a flow has
three tasks in a chain. The first column of times is of a chain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chart import Bar, draw
from benchmarks.peers.environments import PEERS, PROGRAMS, Environment, MissingPeerError, Peer, make
from benchmarks.raw import Synchronous, raw_microseconds

ROOT = Path(__file__).parents[2]
OURS = {"chain": 1000, "fan_out": 2000, "flows": 300}
#: A program that takes longer is given up, in seconds.
LIMIT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class System:
    """What is measured: a program in an environment."""

    name: str
    program: Path
    python: Path
    variables: Mapping[str, str]
    counts: Mapping[str, int]
    module: str
    durable: str


@dataclass(slots=True)
class Measured:
    """What was found of one system, a figure a round: microseconds a unit, and those beside raw-N."""

    micros: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ratios: list[float] = field(default_factory=list)
    problem: str = ""


def main() -> None:
    """Measure and print."""
    options = _options()
    systems = _ours()
    missing: list[str] = []
    for peer in PEERS:
        if not options.names or peer.name in options.names:
            print(f"{peer.name}: environment ...", file=sys.stderr, flush=True)
            try:
                systems.append(_system(peer, make(peer)))
            except MissingPeerError as problem:
                missing.append(f"{peer.name} is not measured: {problem}")
    raw: dict[str, list[float]] = {"raw-N": [], "raw-F": []}
    found = {system.name: Measured() for system in systems}
    for number in range(1, options.rounds + 1):
        for system in systems:
            print(f"round {number}: {system.name} ...", file=sys.stderr, flush=True)
            _round(system, found[system.name], raw, options.folder)
    print(f"python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds; a chain beside raw-N, medians")
    print(_table(systems, found, raw))
    for line in [*missing, *(f"{name} failed: {each.problem}" for name, each in found.items() if each.problem)]:
        print(line)
    if options.chart:
        options.chart.write_text(draw("A task of a chain, in microseconds", _bars(systems, found, raw)), encoding="utf-8")
        print(f"chart: {options.chart}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(peer.name for peer in PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, at least 3 (default)")
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw the chains there")
    options = parser.parse_args()
    unknown = set(options.names) - {peer.name for peer in PEERS}
    if unknown or options.rounds < 3:
        parser.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "--rounds must be at least 3")
    return options


def _ours() -> list[System]:
    program = PROGRAMS / "wfengine_program.py"
    roots = os.pathsep.join(str(root) for root in (ROOT, ROOT / "journal", ROOT / "scheduler"))
    return [
        System(
            f"wfengine, {mode}", program, Path(sys.executable), {"WFENGINE_DURABILITY": mode, "PYTHONPATH": roots}, OURS,
            "wfengine", durable,
        )
        for mode, durable in (("process", "kill -9"), ("power", "power cut"))
    ]  # fmt: skip


def _system(peer: Peer, environment: Environment) -> System:
    return System(
        peer.name, peer.program, environment.python, environment.variables, peer.counts, peer.module, peer.durable
    )  # fmt: skip


def _round(system: System, found: Measured, raw: dict[str, list[float]], folder: Path | None) -> None:
    references: dict[str, Synchronous] = {"raw-N": "NORMAL", "raw-F": "FULL"}
    with tempfile.TemporaryDirectory(prefix="peers-", dir=folder, ignore_cleanup_errors=True) as name:
        beside = {key: raw_microseconds(Path(name), 1000, synchronous) for key, synchronous in references.items()}
    for key, micros in beside.items():
        raw[key].append(micros)
    if found.problem:
        return
    try:
        for workload, count in system.counts.items():
            with tempfile.TemporaryDirectory(prefix="peers-", dir=folder, ignore_cleanup_errors=True) as name:
                found.micros[workload].append(_seconds(system, workload, count, Path(name)) / count * 1e6)
        found.ratios.append(found.micros["chain"][-1] / beside["raw-N"])
        found.micros["import"].append(_import_seconds(system) * 1e6)
    except (RuntimeError, subprocess.TimeoutExpired) as problem:
        found.problem = str(problem)


def _seconds(system: System, workload: str, count: int, folder: Path) -> float:
    with (folder / "said.txt").open("w+") as said, (folder / "errors.txt").open("w+") as errors:
        # To files: a server that a peer leaves behind must not keep a pipe open. It ends with the group of its program.
        program = subprocess.Popen(
            [system.python, system.program, workload, str(count)], cwd=folder, env=_variables(system, folder), stdout=said,
            stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            code = program.wait(LIMIT_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        lines, complaint = (folder / "said.txt").read_text().splitlines(), (folder / "errors.txt").read_text()
    if code or not lines:
        raise RuntimeError(f"{workload}: exit code {code}: {complaint.strip()[-300:]}")
    return float(json.loads(lines[-1])["seconds"])


def _import_seconds(system: System) -> float:
    """Return what importing the package costs beside a Python that does nothing, with everything compiled."""
    found: dict[str, list[float]] = {"pass": [], f"import {system.module}": []}
    variables = _variables(system, Path(tempfile.gettempdir()))
    for _ in range(3):
        for code, seconds in found.items():
            began = time.perf_counter()
            subprocess.run([system.python, "-c", code], env=variables, check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    bare, imported = (min(seconds) for seconds in found.values())
    return imported - bare


def _variables(system: System, folder: Path) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**mine, **{name: value.replace("{folder}", str(folder)) for name, value in system.variables.items()}}


# ------------------------------------------------------------------------------------------- what is shown


def _table(systems: Sequence[System], found: Mapping[str, Measured], raw: Mapping[str, Sequence[float]]) -> str:
    lines = [("", "x raw-N (min-max)", "us a task", "tasks/s, map", "flows/s", "import", "a finished task survives")]
    survives = {"raw-N": "kill -9", "raw-F": "power cut"}
    for name, micros in raw.items():
        ratio = statistics.median(micros) / statistics.median(raw["raw-N"])
        lines.append((name, f"{ratio:.1f}", f"{statistics.median(micros):.0f}", "", "", "", survives[name]))
    for system in sorted(systems, key=lambda system: _chain(found[system.name])):
        each = found[system.name]
        if not each.ratios:
            continue
        median = {name: statistics.median(values) for name, values in each.micros.items() if values}
        spread = f"{_short(statistics.median(each.ratios))} ({_short(min(each.ratios))}-{_short(max(each.ratios))})"
        lines.append((
            system.name, spread, f"{median['chain']:,.0f}", f"{1e6 / median['fan_out']:,.0f}", _short(1e6 / median["flows"]),
            f"{median['import'] / 1000:,.0f} ms", system.durable,
        ))  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _chain(found: Measured) -> float:
    return statistics.median(found.micros["chain"]) if found.micros["chain"] else float("inf")


def _bars(systems: Sequence[System], found: Mapping[str, Measured], raw: Mapping[str, Sequence[float]]) -> list[Bar]:
    bars = [
        Bar("sqlite3 alone", statistics.median(raw["raw-N"]), "kill -9", "raw"),
        Bar("sqlite3 alone, synced", statistics.median(raw["raw-F"]), "power cut", "raw"),
    ]
    for system in systems:
        if found[system.name].ratios:
            kind = "ours" if system.module == "wfengine" else "peer"
            bars.append(Bar(system.name, _chain(found[system.name]), system.durable.partition(" (")[0], kind))
    return sorted(bars, key=lambda bar: bar.value)


if __name__ == "__main__":
    main()
