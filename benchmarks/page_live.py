"""What it costs the engine that somebody watches: `python -m benchmarks.page_live`.

A flow in a process of its own makes some thousand calls, and then ends about a thousand a second (`--pace 0`: as many as it
can), a few seconds at a time: alone, beside the server of the page, and beside that server with one and with three open pages
of the run. The server is a process of its own too; the open pages are threads of this one that do what the script of the page
does: they hold the stream of changes, and ask for the page anew after an event, as seldom as the script does.

*us/task* is the time that the flow spent in its calls, pauses left out: its throughput is one by that. *CPU us* is the
processor's time of its process by task, *server* that of the server as a share of one core. On a machine that is busy with
other things, or with fewer cores than processes at work, it is the processor's time that tells.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.growth import sized
from wfengine import flow, use_journal

TOKEN = "a-token-for-a-benchmark"
#: Of the engine's throughput, what may be lost to those who watch.
LIMIT = 0.05
#: As in page.js: after an answer that took so long, the page rests so many times as long.
REST = 5
#: Who watches: is there a server, and how many open pages.
WATCHED = {"alone": (False, 0), "server": (True, 0), "1 page": (True, 1), "3 pages": (True, 3)}


# ---------------------------------------------------------------------------------------------------- the flow, in its process


@flow(durability="process")
def steady(calls: int, pace: float) -> None:
    """Make so many calls, and then, for each line of the input, calls for so many seconds as it says."""
    sized.map([{"value": f"{number:087d}"} for number in range(calls)]).result()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_calls_for(float(line), pace)), flush=True)


def _calls_for(seconds: float, pace: float) -> tuple[int, float, float, float]:
    """Return how many calls there were, and seconds: in them, of the processor, and in all."""
    count, inside = 0, 0.0
    processor, began = time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        if pace and (early := count / pace - (now - began)) > 0:
            time.sleep(early)
            now = time.perf_counter()
        sized({"value": f"{count:087d}"})
        inside += time.perf_counter() - now
        count += 1
    return count, inside, time.process_time() - processor, time.perf_counter() - began


class Steady:
    """The process of the flow."""

    def __init__(self, path: Path, calls: int, pace: float) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.page_live",
            "--work",
            str(path),
            "--calls",
            str(calls),
            "--pace",
            str(pace),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=sys.stderr)
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def begin(self, seconds: float) -> None:
        """Let it make calls for so long."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def result(self) -> tuple[int, float, float, float]:
        """Return what `_calls_for` did."""
        count, inside, processor, whole = json.loads(self._read())
        return count, inside, processor, whole

    def end(self) -> None:
        """Let it end."""
        self._process.communicate(timeout=60)


# ---------------------------------------------------------------------------------------------------- the page


@contextlib.contextmanager
def served(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the page in a process of its own, and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.page_live", "--serve", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().rstrip("/"), process
    finally:
        process.communicate(timeout=60)  # it ends with its input


def _serve(path: Path) -> None:
    from wfengine.page import PageServer, app

    server = PageServer(app(path, token=TOKEN), port=0)
    server.start()
    print(server.address, flush=True)
    sys.stdin.read()
    server.stop(10.0)


class OpenPage:
    """An open page of a run: what page.js does, without a browser."""

    def __init__(self, base: str, run: int) -> None:
        self.answers: list[float] = []
        self.size = 0
        self._address = f"/runs/{run}"
        self._is_over = threading.Event()
        self._client = httpx.Client(
            base_url=base, headers={"authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False
        )  # fmt: skip
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        rested = 0.0
        with self._client.stream("GET", "/events") as stream:
            for line in stream.iter_lines():
                if self._is_over.is_set():
                    return
                now = time.perf_counter()
                if line == "event: changed" and now >= rested:
                    answer = self._client.get(self._address)
                    assert answer.status_code == 200, answer.text
                    took = time.perf_counter() - now
                    self.answers.append(took)
                    self.size = len(answer.content)
                    rested = now + took * (1 + REST)

    def close(self) -> None:
        """Say that it is over: it ends with the next event, and that comes while something is committed."""
        self._is_over.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(60)
        self._client.close()


def processor_seconds(pid: int) -> float:
    """Return the processor's time of a process until now, where the system tells it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


# ---------------------------------------------------------------------------------------------------- measuring


@dataclass(slots=True)
class Measured:
    """Of each round: seconds in a call, of the processor for one, calls a second, share of a core of the server; answers."""

    inside: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


def measure(path: Path, calls: int, pace: float, seconds: float, rounds: int) -> dict[str, Measured]:
    """Return what there was with each of WATCHED, taken in turns."""
    found = {name: Measured() for name in WATCHED}
    steadily = Steady(path, calls, pace)
    try:
        for number in range(rounds):
            names = list(WATCHED)
            for name in names if number % 2 == 0 else reversed(names):
                _round(path, steadily, seconds, *WATCHED[name], found[name])
    finally:
        steadily.end()
    return found


def _round(path: Path, steadily: Steady, seconds: float, is_served: bool, pages: int, into: Measured) -> None:
    with contextlib.ExitStack() as stack:
        base, server = stack.enter_context(served(path)) if is_served else ("", None)
        if server is not None:  # what it loads for its first answer is not what watching costs
            httpx.get(f"{base}/runs/1", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30, trust_env=False)
        opened = [OpenPage(base, 1) for _ in range(pages)]
        before = 0.0 if server is None else processor_seconds(server.pid)
        steadily.begin(seconds)
        count, inside, processor, whole = steadily.result()
        if server is not None:
            into.server.append((processor_seconds(server.pid) - before) / whole)
        into.inside.append(inside / count)
        into.processor.append(processor / count)
        into.pace.append(count / whole)
        for each in opened:
            each.close()
        if opened:  # a last commit, with which they end
            steadily.begin(1.5)
            steadily.result()
        for each in opened:
            each.join()
            into.answers += each.answers


def show(found: dict[str, Measured]) -> None:
    """Print one table."""
    print(f"{'us/task':>9} {'ratio':>6} {'CPU us':>8} {'ratio':>6} {'tasks/s':>8} {'server':>7} {'answers':>8} {'ms each':>8}")
    alone = found["alone"]
    for name, each in found.items():
        inside, processor = statistics.median(each.inside), statistics.median(each.processor)
        # Each round is compared with that round alone: what else the machine does changes from round to round.
        ratios = [
            statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            for ours, theirs in ((each.inside, alone.inside), (each.processor, alone.processor))
        ]
        share = f"{statistics.median(each.server):7.1%}" if each.server else f"{'-':>7}"
        answers = f"{statistics.median(each.answers) * 1000:8.1f}" if each.answers else f"{'-':>8}"
        print(
            f"{inside * 1e6:9.1f} {ratios[0]:6.3f} {processor * 1e6:8.1f} {ratios[1]:6.3f} {statistics.median(each.pace):8.0f}"
            f" {share} {len(each.answers):8} {answers}  {name}"
        )
        if ratios[0] > 1 + LIMIT:
            print(f"          more than {LIMIT:.0%} are lost with: {name}")


def main() -> None:
    """Measure, and print one table; or be the process of the flow, or of the server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_live", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="calls that the run has made before it is watched")
    parser.add_argument("--pace", type=float, default=1000, help="tasks that end in a second; 0: as many as can")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        journal = use_journal(options.work)
        steady(options.calls, options.pace)
        journal.close()
    elif options.serve is not None:
        _serve(options.serve)
    else:
        with tempfile.TemporaryDirectory(prefix="wfengine-page-", dir=options.folder) as folder:
            found = measure(Path(folder) / "journal.db", options.calls, options.pace, options.seconds, options.rounds)
        print(f"a run of {options.calls:,} calls and more, medians of {options.rounds} rounds")
        show(found)


if __name__ == "__main__":
    main()
