"""The long form: thousands of damaged files, and the figures that can be quoted.

python -m tests.damage.program --flips 1000 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.damage.child import VERBS
from tests.damage.damages import Damage, definitions, flips, hostile, logs, pages, truncations, with_log
from tests.damage.harness import Bench, Tally
from tests.damage.hostile_rows import HOSTILE
from tests.damage.rich import make_rich
from tests.interrupting import end_early_on_interrupt, until_interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all damages; exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage.program", description="Damage a journal in many ways.")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    with tempfile.TemporaryDirectory(prefix="wfengine-damage-") as name:
        tally = judge_all(Path(name), make_rich(Path(name)), options.flips, options.seed)
    for violation in tally.violations:
        print(violation)
    print("\n".join(tally.lines()))
    print(f"seed {options.seed}")
    return 1 if tally.violations else 0


def judge_all(folder: Path, sound: Path, count: int, seed: int) -> Tally:
    """Judge `count` bit flips, as many other damages as go with them, every page cut off, and every hostile statement."""
    bench = Bench(folder, sound)
    rest = list(range(2, len(VERBS)))
    turns = itertools.cycle([rest[start::4] for start in range(4)])
    for damage in until_interrupted(every(folder, sound, count, seed)):
        # Doctor, recover and the values each time; of the other verbs a quarter in turn, but all of them on what is hostile.
        bench.judge([damage], [0, 1, *(rest if damage.kind == "hostile" else next(turns))])
    bench.close()
    return bench.tally


def every(folder: Path, sound: Path, count: int, seed: int) -> Iterator[Damage]:
    """Yield the damaged files of the long form."""
    raw = sound.read_bytes()
    before, log = with_log(sound, folder)
    yield from flips(raw, count, seed)
    yield from pages(raw, count // 4, seed)
    yield from definitions(raw)
    yield from logs(before, log, count // 10, seed)
    yield from truncations(raw)
    yield from hostile(sound, folder, list(HOSTILE))


if __name__ == "__main__":
    sys.exit(main())
