"""Ask the API whatever its document allows, and what it does not: no answer may be a fault of the server.

The short form is a test; the long form is `python -m tests.page.many_requests --examples 1000`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
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


def ask(page: Page, examples: int, seed: int, *, changing: int | None = None) -> int:
    """Ask each operation so many things (those that change something `changing`); return how many were asked."""
    schema = schemathesis.openapi.from_dict(page.json("/api/v1/openapi.json"))
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        number = examples if operation.method.upper() == "GET" or changing is None else changing

        @with_seed(seed)
        @settings(max_examples=number, deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
        def check(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(
                base_url=page.base, headers={"authorization": f"Bearer {TOKEN}"}, checks=[not_a_server_error], timeout=LIMIT
            )

        given(case=operation.as_strategy())(check)()
    return asked


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--changing", type=int, help="examples of what changes something, a process each; default: as many")
    parser.add_argument("--seed", type=int, default=20261128)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_program(folder, "fine", "failing", "parent", "asking")
        manage(folder)
        with page_over(folder) as page:
            asked = ask(page, chosen.examples, chosen.seed, changing=chosen.changing)
            print(f"asked {asked} things with seed {chosen.seed}; no fault of the server")


if __name__ == "__main__":
    main()
