"""Damaged and hostile files: each reading verb ends with a code of ours and a plain message, and no value is a wrong one.

The long form is `python -m tests.damage.program --flips 1000 --seed 7`.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.damage.child import VERBS
from tests.damage.damages import Damage, definitions, flips, hostile, logs, pages, truncations, with_log
from tests.damage.harness import Bench
from tests.damage.hostile_rows import HOSTILE
from tests.damage.rich import environment, make_rich

#: Verbs beyond doctor and recover that read each damaged file, in turn.
SHARE = 8


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rich(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def bench(tmp_path: Path, sound: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, sound)
    yield made
    made.close()


def judge(bench: Bench, damages: Iterator[Damage]) -> None:
    rest = range(2, len(VERBS))
    turns = itertools.cycle([[0, 1, *rest[start::SHARE]] for start in range(SHARE)])
    for damage in damages:
        bench.judge([damage], next(turns))
    print("\n".join(bench.tally.lines()))
    assert bench.tally.violations == []


def test_a_flipped_bit_or_a_wrong_page_never_gives_a_wrong_value_nor_ends_a_command_badly(bench: Bench, sound: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    raw = sound.read_bytes()
    judge(bench, itertools.chain(flips(raw, 20, seed), pages(raw, 8, seed)))
    tally = bench.tally
    # One in fifty of these damages leaves a file that cannot be recovered at all, and so few are one seed's luck: the shares
    # are figures of the long form, and here only may not collapse.
    assert tally.recoverable.total() >= 20
    assert tally.calls_saved["bit flip"] >= 0.7 * tally.calls["bit flip"]
    assert tally.found["page"] >= 0.5 * tally.changing["page"]


def test_a_definition_that_is_not_text_is_damage_and_what_it_defines_is_saved(bench: Bench, sound: Path) -> None:
    """SQLite's report then is no text either, which Python says by a UnicodeDecodeError and not by one of SQLite."""
    judge(bench, definitions(sound.read_bytes()))
    assert bench.tally.recoverable["definition"] == 4


def test_a_file_that_is_cut_off_is_said_to_be_damaged(bench: Bench, sound: Path) -> None:
    judge(bench, truncations(sound.read_bytes(), every=80, start=3))
    assert bench.tally.found["cut off"] == bench.tally.changing["cut off"] >= 5


def test_a_log_that_is_missing_cut_off_or_damaged_gives_an_older_state_and_no_wrong_value(
    bench: Bench, sound: Path, tmp_path: Path
) -> None:
    before, log = with_log(sound, tmp_path)
    judge(bench, logs(before, log, 6, seed=1))


def test_rows_views_and_triggers_of_a_hostile_writer_end_no_command_badly(bench: Bench, sound: Path, tmp_path: Path) -> None:
    first = random.SystemRandom().randrange(SHARE)
    print(f"first {first}")
    for number, damage in enumerate(hostile(sound, tmp_path, list(HOSTILE)), first):
        # The long form has each verb read each of them.
        bench.judge([damage], range(number % SHARE, len(VERBS), SHARE))
    assert bench.tally.violations == []


def test_the_bench_finds_a_wrong_value_and_a_message_that_steers_a_terminal(bench: Bench, sound: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.db"
    shutil.copyfile(sound, forged)
    with closing(sqlite3.connect(forged)) as connection:
        calls = connection.execute(
            "SELECT id, result, result_hash FROM task_run WHERE result_codec = 'json' AND result IS NOT NULL LIMIT 2"
        ).fetchall()
        (first, *_), (_, result, hash_) = calls
        connection.execute("UPDATE task_run SET result = ?, result_hash = ? WHERE id = ?", (result, hash_, first))
        connection.commit()
    bench.judge([Damage("forged", "a result with its checksum", forged.read_bytes())], [])
    assert bench.tally.wrong_values == 1
    assert "is" in bench.tally.violations[0]


def test_ctrl_c_ends_a_command_that_reads_a_view_without_an_end(sound: Path, tmp_path: Path) -> None:
    endless = tmp_path / "journal.db"
    shutil.copyfile(sound, endless)
    with closing(sqlite3.connect(endless)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)").fetchall()]
        listed = ", ".join(f"'x' AS {column}" for column in columns if column != "id")
        connection.execute("DROP VIEW runs")
        connection.execute(
            f"CREATE VIEW runs AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, {listed} FROM n"
        )
        connection.commit()
    with subprocess.Popen(
        [sys.executable, "-m", "wfengine", "export"], cwd=tmp_path, env=environment(tmp_path),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        # What shows that it reads is time spent: the statement is the only thing that takes seconds.
        while _cpu_seconds(process.pid) < 2 and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
