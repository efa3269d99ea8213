"""Print one table of the workloads: `python -m benchmarks [W1 W2 ...] [--rounds 3]`.

`python -m benchmarks profile W1` says where the time of a task goes.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from pathlib import Path

from benchmarks import capacity, daemon, processes, workloads
from benchmarks.hops import print_hops
from benchmarks.table import Row, print_table

#: Every workload by its name in the table; each takes the number of rounds and a scratch folder.
WORKLOADS = {
    "W1": workloads.chain_process,
    "W1p": workloads.chain_power,
    "W2": workloads.fan_out,
    "W2a": workloads.fan_out_async,
    "W3": workloads.small_flows,
    "W4": processes.start_up,
    "W5": processes.recovery,
    "W6": capacity.old_file,
    "W7": workloads.bytes_per_task,
    "W8": processes.mapped_memory,
    "W9": daemon.daemon,
    "W10": capacity.many_processes,
    "C1": capacity.queued_runs,
    "C2": capacity.waiting_runs,
}


def main() -> None:
    """Run the named workloads, or all of them."""
    options = _options()
    if options.names[:1] == ["profile"]:
        for name in options.names[1:] or ["W1"]:
            print_hops(name, options.folder)
        return
    rows: list[Row] = []
    for name in options.names or WORKLOADS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += WORKLOADS[name](options.rounds, options.folder)
    place = options.folder or tempfile.gettempdir()
    print(f"python {sys.version.split()[0]}, sqlite {sqlite3.sqlite_version}, {sys.platform}, scratch files in {place}")
    print_table(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{' '.join(WORKLOADS)}, or: profile W1 | W1p")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds a row, at least 3 (default)")
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    options = parser.parse_args()
    unknown = set(options.names) - set(WORKLOADS) - {"profile"}
    if unknown or options.rounds < 3:
        parser.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else "--rounds must be at least 3")
    return options


if __name__ == "__main__":
    main()
