"""Has every verb read damaged journals, and counts: what went wrong, what doctor finds, what recover saves."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.nursery import Nursery
from tests.damage.child import VERBS
from tests.damage.damages import Damage
from tests.damage.rich import ROOT, environment

#: Tables whose rows are compared, as SQLite gives them.
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
_CALLS = """
    SELECT t.flow_run_id, t.scope, t.call_key, t.occurrence, t.result_codec, coalesce(t.result, v.data), t.result_hash
    FROM task_run t LEFT JOIN value v ON v.hash = t.result_hash AND t.result IS NULL WHERE t.state = 'COMPLETED'
"""
_RUNS = """
    SELECT r.id, r.result_codec, coalesce(r.result, v.data) FROM flow_run r
    LEFT JOIN value v ON v.hash = r.result_hash AND r.result IS NULL
"""
DOCTOR, RECOVER = (" ".join(VERBS[number]) for number in (0, 1))


def rows_of(path: Path) -> dict[str, object]:
    """Return what each table of a file holds; what SQLite cannot read of it is said instead. Only for files nobody uses."""
    found: dict[str, object] = {}
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            for (name,) in connection.execute(_TABLES).fetchall():
                try:
                    found[name.decode("utf-8", "replace")] = sorted(
                        map(repr, connection.execute(f'SELECT * FROM "{name.decode()}"'))
                    )
                except (sqlite3.Error, ValueError) as error:
                    found[repr(name)] = str(error)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        found["file"] = str(error)
    return found


@dataclass
class Tally:
    """What came of all damages. `violations` is what must be empty."""

    damages: Counter[str] = field(default_factory=Counter)
    changing: Counter[str] = field(default_factory=Counter)  # of which what is read differs
    found: Counter[str] = field(default_factory=Counter)  # of those: doctor says so
    wrong_values: int = 0
    values: int = 0
    refused_values: int = 0
    verbs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    recoverable: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    calls_saved: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    runs_saved: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)  # tables of what doctor did not find
    violations: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the figures, one kind of damage a line."""
        lines = [
            f"{sum(self.damages.values()):,} damages, {self.verbs:,} commands, {self.values:,} values read:"
            f" {len(self.violations)} violations, {self.wrong_values} wrong values; {self.refused_values:,} values refused",
            "exit codes: " + ", ".join(f"{code}: {count:,}" for code, count in sorted(self.codes.items())),
        ]
        for kind, count in self.damages.items():
            parts = [f"{kind}: {count:,}", f"{self.changing[kind]:,} change what is read"]
            parts += [f"doctor finds {self.found[kind]:,} of those ({_percent(self.found[kind], self.changing[kind])})"]
            parts += [f"recover reads {self.recoverable[kind]:,}"]
            parts += [f"results saved {_percent(self.calls_saved[kind], self.calls[kind])}"]
            parts += [f"runs saved {_percent(self.runs_saved[kind], self.runs[kind])}"]
            lines.append(", ".join(parts))
        if self.unseen:
            lines.append("not found by doctor, by table: " + ", ".join(f"{t} {n}" for t, n in self.unseen.most_common()))
        return lines


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


class Bench:
    """Reads damaged files in one folder. `truth`: the sound journal that they were made from."""

    def __init__(self, folder: Path, truth: Path) -> None:
        self.tally = Tally()
        self._folder = folder / "bench"
        self._truth = truth
        self._nursery = Nursery(ROOT / "tests" / "damage" / "child.py", environment(self._folder))
        self._rows = rows_of(truth)
        self._calls, self._runs = (set(self._ask(truth, sql)) for sql in (_CALLS, _RUNS))
        sound = self._read(truth.read_bytes(), None, [])
        self._values = dict(sound["values"])
        assert not [text for text in self._values.values() if text.startswith(("refused", "DEFECT"))]

    def close(self) -> None:
        """End the nursery."""
        self._nursery.close()

    def judge(self, damages: Iterable[Damage], verbs: Iterable[int] = range(len(VERBS))) -> None:
        """Read each damaged file, and count what comes of it."""
        chosen = list(verbs)
        for damage in damages:
            label = f"{damage.kind}: {damage.name}"
            found = self._read(damage.raw, damage.wal, chosen)
            self.tally.damages[damage.kind] += 1
            if "died" in found:
                self.tally.violations.append(f"{label}: {found['died']}")
                continue
            self._judge_verbs(label, found)
            self._judge_values(label, damage.kind, found["values"])
            self._judge_doctor(damage, found)
            self._judge_rescue(label, damage.kind, found)

    def _read(self, raw: bytes, wal: bytes | None, verbs: list[int]) -> dict[str, Any]:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        (self._folder / "journal.db").write_bytes(raw)
        if wal is not None:
            (self._folder / "journal.db-wal").write_bytes(wal)
        code = self._nursery.run(self._folder, [",".join(map(str, verbs))], {})
        if code != 0 or not (self._folder / "found.json").exists():
            verb = (self._folder / "verb.txt").read_text(encoding="utf-8")
            errors = (self._folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
            return {"died": f"{verb}: ended with {code}: {errors[-3000:]}"}
        return dict(json.loads((self._folder / "found.json").read_text(encoding="utf-8")))

    def _judge_verbs(self, label: str, found: dict[str, Any]) -> None:
        for verb, outcome in found.items():
            if verb != "values":
                self.tally.verbs += 1
                self.tally.codes[outcome["code"]] += 1
                self.tally.violations += [f"{label}: {text}" for text in outcome["wrong"]]

    def _judge_values(self, label: str, kind: str, values: list[tuple[str, str]]) -> None:
        for whose, value in values:
            self.tally.values += 1
            if value.startswith("refused"):
                self.tally.refused_values += 1
            elif value.startswith("DEFECT"):
                self.tally.violations.append(f"{label}: {whose} {value[:500]}")
            elif whose in self._values and value != self._values[whose]:
                self.tally.wrong_values += 1
                self.tally.violations.append(f"{label}: {whose} is {value[:100]}, not {self._values[whose][:100]}")

    def _judge_doctor(self, damage: Damage, found: dict[str, Any]) -> None:
        if DOCTOR not in found:
            return
        now = rows_of(self._folder / "journal.db")
        changed = [name for name in {*now, *self._rows} if now.get(name) != self._rows.get(name)]
        if changed:
            self.tally.changing[damage.kind] += 1
            if found[DOCTOR]["code"] != 0:
                self.tally.found[damage.kind] += 1
            elif damage.kind != "hostile":
                self.tally.unseen.update(changed)

    def _judge_rescue(self, label: str, kind: str, found: dict[str, Any]) -> None:
        if RECOVER not in found:
            return
        self.tally.calls[kind] += len(self._calls)
        self.tally.runs[kind] += len(self._runs)
        if found[RECOVER]["code"] != 0:
            return
        self.tally.recoverable[kind] += 1
        rescued = self._folder / "rescued.db"
        with closing(sqlite3.connect(rescued)) as connection:
            for check, sound in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                said = connection.execute(f"PRAGMA {check}").fetchall()
                if said != sound:
                    self.tally.violations.append(f"{label}: {check} of what was rescued: {said[:3]}")
        calls, runs = set(self._ask(rescued, _CALLS)), set(self._ask(rescued, _RUNS))
        if kind != "hostile" and (wrong := calls - self._calls):
            self.tally.violations.append(f"{label}: {len(wrong)} calls have another value after a rescue: {list(wrong)[:2]}")
        self.tally.calls_saved[kind] += len(calls & self._calls)
        self.tally.runs_saved[kind] += len(runs & self._runs)

    @staticmethod
    def _ask(path: Path, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            return connection.execute(sql).fetchall()
