"""The workloads that need fresh processes: start-up, memory, and recovery after kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Row

#: How many times each program is started in one round; the fastest counts, as the rest is other people's work.
STARTS = 5
RECOVERED_TASKS = (1000, 10_000)
#: How long a child may take before the benchmark gives up, in seconds.
CHILD_SECONDS = 120

HELLO = """\
from wfengine import flow, task

@task
def greet(name):
    return f"hello {name}"

@flow
def hello():
    return greet("world")

if __name__ == "__main__":
    hello()
"""

#: Prints the peak of the resident memory of this very process image, which getrusage does not tell of a child.
PEAK = """
import runpy, resource, sys
runpy.run_path(sys.argv[1], run_name="__main__")
try:
    lines = open("/proc/self/status").read().splitlines()
    print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""

#: All futures are held to the end, and every result is asked for.
MAPPED = """
from wfengine import flow, task

@task
def make(number):
    return f"{number:01000d}"

@flow(durability="process")
def main():
    futures = make.map(range(100_000))
    futures.wait()
    assert sum(int(future.result()) for future in futures) == sum(range(100_000))

main()
"""

COUNT = """\
import sys, time
from wfengine import flow, task

@task
def step(number):
    with open("effects", "a") as effects:
        effects.write(f"{number} {time.time_ns()}\\n")
    return number + 1

@flow(durability="process")
def count(tasks):
    number = 0
    while number < tasks:
        number = step(number)

if __name__ == "__main__":
    count(int(sys.argv[1]))
"""


def _environment() -> dict[str, str]:
    roots = [str(Path(__file__).parent.parent / part) for part in ("", "journal", "scheduler")]
    unwanted = ("WFENGINE", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # An installed package has its byte code; here it is kept out of the checkout.
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "wfengine-bench-bytecode")
    return {**environment, "PYTHONPATH": os.pathsep.join(roots)}


def _run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=CHILD_SECONDS, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr}")
    return done.stdout


def _milliseconds(folder: Path, *arguments: str) -> float:
    began = time.perf_counter()
    _run(folder, *arguments)
    return (time.perf_counter() - began) * 1000


def start_up(rounds: int, folder: Path | None) -> list[Row]:
    """W4."""
    bare, imported, first, again, memory, bare_memory = [], [], [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
            place = Path(name)
            (place / "hello.py").write_text(HELLO, encoding="utf-8")
            (place / "bare.py").write_text("pass\n", encoding="utf-8")
            _run(place, "hello.py")  # byte code and file cache
            bare.append(min(_milliseconds(place, "-c", "pass") for _ in range(STARTS)))
            imported.append(min(_milliseconds(place, "-c", "import wfengine") for _ in range(STARTS)))
            first.append(min(_first_hello(place, number) for number in range(STARTS)))
            again.append(min(_milliseconds(place / "0", "../hello.py") for _ in range(STARTS)))
            memory.append(int(_run(place, "-c", PEAK, "hello.py")) / 1024)
            bare_memory.append(int(_run(place, "-c", PEAK, "bare.py")) / 1024)
    over = [ours - base for ours, base in zip(imported, bare, strict=True)]
    durable = "result: synced (default)"
    return [
        Row("W4", "import wfengine, over bare python", over, "ms", "40 ms", "25 ms", "-", bare, "bare python"),
        Row("W4", "hello.py, first (creates the file)", first, "ms", "120 ms", "80 ms", durable, bare, "bare python"),
        Row("W4", "hello.py, again", again, "ms", "120 ms", "80 ms", durable, bare, "bare python"),
        Row("W4", "hello.py, peak memory", memory, "MB", "25 MB", "18 MB", "-", bare_memory, "bare python"),
    ]


def _first_hello(place: Path, number: int) -> float:
    fresh = place / str(number)
    fresh.mkdir()
    return _milliseconds(fresh, "../hello.py")


def mapped_memory(rounds: int, folder: Path | None) -> list[Row]:
    """W8."""
    memory, bare = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
            place = Path(name)
            (place / "mapped.py").write_text(MAPPED, encoding="utf-8")
            (place / "bare.py").write_text("pass\n", encoding="utf-8")
            bare.append(int(_run(place, "-c", PEAK, "bare.py")) / 1024)
            memory.append(int(_run(place, "-c", PEAK, "mapped.py")) / 1024)
    what = "map of 100,000, 1 KB results, peak memory"
    return [Row("W8", what, memory, "MB", "150 MB", "80 MB", "process", bare, "bare python")]


def recovery(rounds: int, folder: Path | None) -> list[Row]:
    """W5."""
    rows = []
    for tasks in RECOVERED_TASKS:
        waits, bare, again = [], [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="wfengine-bench-", dir=folder) as name:
                _run(Path(name), "-m", "wfengine", "resume", "--help")  # byte code and file cache
                bare.append(_milliseconds(Path(name), "-c", "pass"))
                milliseconds, ran_again = _kill_and_resume(Path(name), tasks)
                waits.append(milliseconds)
                again.append(float(ran_again))
        reach, then = ("150 ms", "40 ms") if tasks <= 1000 else ("300 ms", "100 ms")
        label = f"kill -9 after {tasks:,}: process start to next new task"
        rows.append(Row("W5", label, waits, "ms", reach, then, "process", bare, "bare python"))
        rows.append(Row("W5", f"completed tasks of {tasks:,} that ran again", again, "tasks", "0", "0", "process"))
    return rows


def _kill_and_resume(place: Path, tasks: int) -> tuple[float, int]:
    """Return the milliseconds from the start of the resuming process to its first new task, and how many ran again."""
    (place / "count.py").write_text(COUNT, encoding="utf-8")
    effects = place / "effects"
    arguments = [sys.executable, "count.py", str(tasks + 50)]
    child = subprocess.Popen(arguments, cwd=place, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + CHILD_SECONDS
    while not effects.exists() or effects.stat().st_size < _size_of(tasks):
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("The flow ended before it could be killed; run the benchmark again.")
    child.send_signal(signal.SIGKILL)
    child.wait()
    completed = _completed(place / ".wfengine" / "journal.db")
    before = len(effects.read_text(encoding="utf-8").splitlines())
    began = time.time_ns()  # compared with the wall clock of another process
    _run(place, "-m", "wfengine", "resume", "@last")
    lines = [line.split() for line in effects.read_text(encoding="utf-8").splitlines()]
    ran_again = sum(int(number) < completed for number, _ in lines[before:])
    return (int(lines[before][1]) - began) / 1e6, ran_again


def _size_of(tasks: int) -> int:
    """Return the bytes of the side-effect file after so many tasks: number, blank, 19 digits, line end."""
    return sum(len(str(number)) + 21 for number in range(tasks))


def _completed(path: Path) -> int:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM task_run WHERE state = 'COMPLETED'").fetchone()[0])
    finally:
        connection.close()
