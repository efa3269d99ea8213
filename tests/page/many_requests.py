"""Ask the API whatever its document allows, and what it does not: no answer may be a fault of the server.

The short form is a test; the long form is `python -m tests.page.many_requests --examples 1000`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from schemathesis.checks import not_a_server_error

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from managed import manage
from serving_page import LIMIT, TOKEN, Page, page_over, run_program

#: Starting a process for each example is what makes these slow: of them the short form asks fewer.
PHASES = (Phase.explicit, Phase.generate)


def ask(
    page: Page, examples: int, seed: int, *, changing: int | None = None, share: tuple[int, int] = (1, 1),
    tell: Callable[[str, int], object] = lambda *_: None,
) -> int:  # fmt: skip
    """Ask each operation so many things (those that change something `changing`); return how many were asked.

    `share`: (2, 3) asks every third operation, from the second one on. `tell` is told of each operation that is done: its name,
    and how many things it was asked.
    """
    schema = schemathesis.openapi.from_dict(page.json("/api/v1/openapi.json"))
    asked = 0
    for result in itertools.islice(schema.get_all_operations(), share[0] - 1, None, share[1]):
        operation = result.ok()
        number = examples if operation.method.upper() == "GET" or changing is None else changing
        if number == 0:
            continue
        before = asked

        @with_seed(seed)
        @settings(max_examples=number, deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
        def check(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(
                base_url=page.base, headers={"authorization": f"Bearer {TOKEN}"}, checks=[not_a_server_error], timeout=LIMIT
            )

        given(case=operation.as_strategy())(check)()
        tell(operation.label, asked - before)
    return asked


def _say(operation: str, asked: int) -> None:
    print(f"{asked:6} {operation}", flush=True)


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="of what only reads; 0: ask nothing of it")
    parser.add_argument("--changing", type=int, help="examples of what changes something, a process each; default: as many")
    parser.add_argument("--share", default="1/1", help="2/3: every third operation, from the second on; for several at a time")
    parser.add_argument("--seed", type=int, default=20261128)
    chosen = parser.parse_args()
    first, each = (int(number) for number in chosen.share.split("/"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_program(folder, "fine", "failing", "parent", "asking")
        manage(folder)
        with page_over(folder) as page:
            asked = ask(page, chosen.examples, chosen.seed, changing=chosen.changing, share=(first, each), tell=_say)
            print(f"asked {asked} things with seed {chosen.seed}; no fault of the server")


if __name__ == "__main__":
    main()
