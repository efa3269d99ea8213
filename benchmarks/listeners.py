"""What listeners cost a sequential task (W1): `python -m benchmarks.listeners [--rounds 5] [--tasks 5000] [--folder PLACE]`.

Each round runs the chain once with nothing on, once with each listener and once with all of them, each in a journal of its own,
in another order each time; the receiver of the traces is another process. The ratio is to the run of the same round with
nothing on: of the time on the wall, which other work on the machine moves, and of the processor time of this process, all its
threads counted. Where fewer than two cores were free when it began, the wall says little: what sends spans needs one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.workloads import WARM_UP_TASKS, scratch, step
from wfengine import flow
from wfengine.journals import default_journal
from wfengine.listeners.metrics import MetricsServer
from wfengine.listeners.tracing import start_tracing, stop_tracing
from wfengine.logging import JsonFormatter

TASKS = 5000
ROUNDS = 5
SEED = 7
#: How long is waited after the first tasks: a process that sends spans is started by them, once, and not by each task.
SETTLE_SECONDS = 0.5

#: Answers every request as a receiver of OTLP does that took all of it, and says at which port.
RECEIVER = """
import http.server, os

os.nice(19)  # it would be on another machine

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """Have no listener."""
    yield


@contextlib.contextmanager
def traces() -> Iterator[None]:
    """Send spans by OTLP."""
    tracer = start_tracing(default_journal())
    try:
        yield
    finally:
        stop_tracing(tracer)


@contextlib.contextmanager
def metrics() -> Iterator[None]:
    """Serve metrics on a port, which takes the time of each commit."""
    server = MetricsServer(default_journal(), port=0)
    server.start()
    try:
        yield
    finally:
        server.stop(5.0)


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Have had traces, which are off again."""
    with traces():
        chain(WARM_UP_TASKS)
    yield


@contextlib.contextmanager
def json_logs() -> Iterator[None]:
    """Write logs as JSON lines."""
    with Path(os.devnull).open("w") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter())
        logger = logging.getLogger("wfengine")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


@contextlib.contextmanager
def everything() -> Iterator[None]:
    """Have all of them on."""
    with json_logs(), metrics(), traces():
        yield


KINDS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "nothing on": nothing,
    "switched off again": switched_off,
    "traces": traces,
    "metrics": metrics,
    "JSON logs": json_logs,
    "all": everything,
}


@flow(name="chain", durability="process")
def chain(count: int) -> tuple[float, float]:
    """Return the seconds of so many dependent tasks: on the wall, and of this process on the processor."""
    number = 0
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        number = step(number)
    return time.perf_counter() - wall, time.process_time() - processor


def measured(kind: str, tasks: int, folder: Path | None) -> tuple[float, float]:
    """Return the seconds of one chain with some listeners on."""
    with scratch(folder), KINDS[kind]():
        chain(WARM_UP_TASKS)
        time.sleep(SETTLE_SECONDS)
        return chain(tasks)


@contextlib.contextmanager
def receiver() -> Iterator[None]:
    """Have a receiver of traces in a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        os.environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1"}
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, and print one line a kind."""
    options = _options()
    order, taken = [*KINDS], {kind: list[tuple[float, float]]() for kind in KINDS}
    chance = random.Random(SEED)
    cores, busy = os.cpu_count() or 1, os.getloadavg()[0]
    print(f"{cores} cores, {max(0.0, cores - busy):.1f} of them free in the last minute", file=sys.stderr, flush=True)
    with receiver():
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds} ...", file=sys.stderr, flush=True)
            chance.shuffle(order)
            for kind in order:
                taken[kind].append(measured(kind, options.tasks, options.folder))
    lines = [_line(kind, taken, options.tasks) for kind in KINDS]
    if options.json:
        print(json.dumps(lines))
        return
    print(f"{'':<20} {'wall, us/task':>14} {'ratio':>7} {'CPU, us/task':>14} {'ratio':>7}   medians of {options.rounds} rounds")
    for kind, line in zip(KINDS, lines, strict=True):
        print(f"{kind:<20} {line['wall']:>14.1f} {line['wall_ratio']:>7.3f} {line['cpu']:>14.1f} {line['cpu_ratio']:>7.3f}")


def _line(kind: str, taken: dict[str, list[tuple[float, float]]], tasks: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for index, name in enumerate(("wall", "cpu")):
        ours, bare = ([each[index] for each in taken[which]] for which in (kind, "nothing on"))
        found[name] = statistics.median(ours) / tasks * 1e6
        found[f"{name}_ratio"] = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listeners", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least 3")
    parser.add_argument("--tasks", type=int, default=TASKS, help="tasks of a chain")
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds must be at least 3")
    return options


if __name__ == "__main__":
    main()
