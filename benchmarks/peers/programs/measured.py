"""What all programs of peers share: run one workload and say in a line of JSON how long it took."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

#: Units of work done before the clock starts.
WARM_UP = 3


def measured(chain: Callable[[int], float], fan_out: Callable[[int], float], flows: Callable[[int], float]) -> None:
    """Run `WORKLOAD N`, given on the command line, after a short one; print its seconds."""
    workload, count = sys.argv[1], int(sys.argv[2])
    work = {"chain": chain, "fan_out": fan_out, "flows": flows}[workload]
    work(WARM_UP)
    print(json.dumps({"seconds": work(count), "count": count}), flush=True)
