"""`wfengine.toml` as code: what it may hold, what is refused where, planning, applying, pruning, and kills in between."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crash.harness import environment
from tests.engine.conftest import Rows
from wfengine.concurrency import set_queue
from wfengine.deployment_file import Declared, read_file
from wfengine.deployment_plan import Planned, apply, find_moved, plan
from wfengine_journal import store
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import UsageError

#: Seconds after which a process counts as hanging.
SECONDS = 60

FLOWS = """
from wfengine import flow

@flow
def etl(day: str = "today", size: int = 3) -> str:
    return day

@flow
def report(kind: str) -> None: ...
"""

WHOLE = """
[[deployments]]
name = "nightly"
flow = "declared_flows.py:etl"
schedules = [
    { cron = "0 3 * * *", timezone = "Europe/Berlin", catch_up = "all", catch_up_limit = 5, jitter = "5m", slug = "night" },
    { interval = "6h", anchor = 2026-01-01T00:00:00Z, overlap = "skip", misfire_grace = 30, parameters = { size = 9 } },
    { once = 2030-12-24T18:00:00, timezone = "Europe/Berlin", active = false },
    { rrule = "FREQ=DAILY", start = 2026-01-01T00:00:00Z, end = "2040-01-01T00:00:00+00:00" },
]
parameters = { day = 2026-11-28 }
tags = ["prod"]
queue = "slow"
priority = 4
concurrency_limit = 1
collision = "cancel_new"
max_recoveries = 2
description = "Load a day."
version = "7"

[[deployments]]
name = "weekly"
flow = "declared_flows:report"
cron = "0 4 * * mon"
timezone = "UTC"
parameters = { kind = "long" }
isolate = true
memory_limit = "512MB"
time_limit = "2h"
paused = true

[queues.slow]
slots = 2
per_partition = 1
rate = "10/min"

[limits.api]
slots = 3
description = "of theirs"

[limits.gpu]
tag = true
slots = 1

[[automations]]
name = "tell"
trigger = { expect = ["wfengine.flow-run.Failed"] }
actions = [{ type = "run-deployment", deployment = "report/weekly" }]

[retention]
keep = "30d"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "declared_flows.py").write_text(FLOWS)
    path = tmp_path / "wfengine.toml"
    path.write_text(WHOLE)
    sys.modules.pop("declared_flows", None)
    return path


def outcomes(planned: list[Planned]) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {f"{each.kind} {each.name}": (each.outcome, each.fields) for each in planned}


def planned(journal: store.Journal, declared: Declared, *, prune: bool = False) -> dict[str, tuple[str, tuple[str, ...]]]:
    return outcomes(journal.records.read(lambda connection: plan(connection, declared, prune=prune)))


def test_file_becomes_records_with_all_that_it_says(journal: store.Journal, rows: Rows, file: Path) -> None:
    apply(journal, read_file(file))
    assert rows(
        "SELECT full_name, queue, priority, concurrency_limit, collision, isolate, max_recoveries, parameters, tags, version,"
        " description, paused, applied_from FROM deployments ORDER BY id"
    ) == [
        ("etl/nightly", "slow", 4, 1, "cancel_new", 0, 2, '{"day":"2026-11-28"}', '["prod"]', "7", "Load a day.", 0, str(file)),
        ("report/weekly", "default", 0, None, "enqueue", 1, 10, '{"kind":"long"}', None, None, None, 1, str(file)),
    ]  # fmt: skip
    assert rows("SELECT memory_limit_bytes, time_limit_seconds FROM deployment ORDER BY id") == [(None, None), (512e6, 7200.0)]
    assert rows(
        "SELECT kind, rule, timezone, slug, catch_up, catch_up_limit, jitter_seconds, misfire_grace_seconds, overlap,"
        " anchor_at, starts_at, ends_at, parameters, active FROM schedule WHERE deployment_id = 1 ORDER BY id"
    ) == [
        ("cron", "0 3 * * *", "Europe/Berlin", "night", "all", 5, 300.0, 60.0, "queue", None, None, None, "{}", 1),
        (
            "interval", "21600", "UTC", "", "last", 100, 0.0, 30.0, "skip", "2026-01-01T00:00:00.000000Z", None, None,
            '{"size":9}', 1,
        ),
        ("once", "2030-12-24T17:00:00Z", "Europe/Berlin", "", "last", 100, 0.0, 60.0, "queue", None, None, None, "{}", 0),
        (
            "rrule", "FREQ=DAILY", "UTC", "", "last", 100, 0.0, 60.0, "queue", None, "2026-01-01T00:00:00.000000Z",
            "2040-01-01T00:00:00.000000Z", "{}", 1,
        ),
    ]  # fmt: skip
    assert rows("SELECT name, slots, partition_slots, rate_count, rate_seconds FROM quota ORDER BY name") == [
        ("api", 3, None, None, None), ("queue:slow", 2, 1, 10, 60.0), ("tag:gpu", 1, None, None, None),
    ]  # fmt: skip
    assert rows("SELECT name, applied_from FROM automation") == [("tell", str(file))]
    schema = json.loads(str(rows.value("SELECT parameter_schema FROM deployment WHERE id = 2")))
    assert (list(schema["properties"]), schema["required"]) == (["kind"], ["kind"])


def test_applying_again_changes_nothing_at_all(journal: store.Journal, rows: Rows, file: Path) -> None:
    tables = ("deployment", "schedule", "quota", "automation")
    first = outcomes(apply(journal, read_file(file)))
    assert {outcome for outcome, _ in first.values()} == {"created"}
    before = [rows(f"SELECT * FROM {table}") for table in tables]
    again = outcomes(apply(journal, read_file(file), prune=True))
    assert {outcome for outcome, _ in again.values()} == {"unchanged"}
    assert [rows(f"SELECT * FROM {table}") for table in tables] == before


def test_plan_is_what_applying_does_and_writes_nothing(journal: store.Journal, rows: Rows, file: Path) -> None:
    declared = read_file(file)
    assert set(planned(journal, declared).values()) == {("created", ())}
    assert outcomes(plan(None, declared, prune=True)) == planned(journal, declared)
    assert rows.value("SELECT count(*) FROM deployment") == 0
    apply(journal, declared)
    text = WHOLE.replace('"0 3 * * *"', '"0 4 * * *"').replace("priority = 4", "priority = 5").replace("slots = 3", "slots = 4")
    text = text.replace('name = "weekly"', 'name = "monthly"').replace('name = "tell"', 'name = "say"')
    file.write_text(text)
    changed = read_file(file)
    expected = {
        "deployment etl/nightly": ("updated", ("priority", "schedules")),
        "deployment report/monthly": ("created", ()),
        "queue slow": ("unchanged", ()),
        "limit api": ("updated", ("slots",)),
        "tag gpu": ("unchanged", ()),
        "automation say": ("created", ()),
    }
    assert planned(journal, changed) == expected
    gone = {"deployment report/weekly": ("removed", ()), "automation tell": ("removed", ())}
    assert planned(journal, changed, prune=True) == {**expected, **gone}
    assert rows("SELECT full_name FROM deployments ORDER BY id") == [("etl/nightly",), ("report/weekly",)]

    assert outcomes(apply(journal, changed, prune=True)) == {**expected, **gone}
    assert rows("SELECT full_name FROM deployments ORDER BY id") == [("etl/nightly",), ("report/monthly",)]
    assert rows("SELECT name FROM automation WHERE removed_at IS NULL") == [("say",)]


def test_prune_leaves_what_other_files_and_code_declare(journal: store.Journal, rows: Rows, file: Path, tmp_path: Path) -> None:
    apply(journal, read_file(file))
    other = tmp_path / "other.toml"
    other.write_text('[[deployments]]\nname = "hourly"\nflow = "declared_flows.py:etl"\n')
    apply(journal, read_file(other))
    deployment = read_file(other).deployments[0]
    deployment.name, deployment.applied_from = "by hand", None
    deployment.apply()
    file.write_text("")
    apply(journal, read_file(file), prune=True)
    assert rows("SELECT name FROM deployments ORDER BY name") == [("by hand",), ("hourly",)]


def test_prune_removes_the_quotas_that_the_file_declared_and_nobody_has_set_since(
    journal: store.Journal, rows: Rows, file: Path
) -> None:
    file.write_text("[queues.a]\nslots = 1\n[queues.b]\nslots = 1\n[limits.c]\nslots = 1\n[limits.d]\nslots = 1\ntag = true\n")
    apply(journal, read_file(file))
    set_queue("b", slots=2)
    set_queue("by-hand", slots=2)
    file.write_text("[limits.c]\nslots = 1\n")
    assert [(each.kind, each.name, each.outcome) for each in apply(journal, read_file(file))] == [("limit", "c", "unchanged")]
    with closing(open_reader(journal.path)) as connection:
        planned = plan(connection, read_file(file), prune=True)
    gone = [("limit", "c", "unchanged"), ("queue", "a", "removed"), ("tag", "d", "removed")]
    assert [(each.kind, each.name, each.outcome) for each in planned] == gone
    assert apply(journal, read_file(file), prune=True) == planned
    assert rows("SELECT name FROM quota ORDER BY name") == [("c",), ("queue:b",), ("queue:by-hand",)]


def test_what_a_file_declared_before_it_was_moved_is_removed_when_one_says_where_it_stood(
    journal: store.Journal, rows: Rows, file: Path, tmp_path: Path
) -> None:
    file.write_text(file.read_text() + "\n[limits.old]\nslots = 1\n")
    apply(journal, read_file(file))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    moved = folder / file.name
    file.rename(moved)
    moved.write_text("")
    apply(journal, read_file(moved), prune=True)
    before = rows.value("SELECT count(*) FROM deployments")
    declared = read_file(moved)
    assert before
    assert journal.read(lambda connection: find_moved(connection, declared)) == str(file.resolve())
    apply(journal, replace(declared, moved_from=str(file.resolve())), prune=True)
    for table in ("deployments", "quota", "automations"):
        assert rows(f"SELECT 1 FROM {table}") == []
    assert journal.read(lambda connection: find_moved(connection, declared)) is None


# ------------------------------------------------------------------------------------------- what is refused

BAD = [
    ("no TOML", "[[deployments", "is no TOML"),
    ("a table that there is not", "[deployment]\n", "no key 'deployment'. Did you mean 'deployments'?"),
    ("one table in place of several", '[deployments]\nname = "x"\n', "tables of their own: [[deployments]]"),
    ("a key that there is not", '[[deployments]]\nname = "x"\nflow = "a.py:b"\nque = "q"\n', "Did you mean 'queue'?"),
    ("no name", '[[deployments]]\nflow = "declared_flows.py:etl"\n', "needs name"),
    ("no flow", '[[deployments]]\nname = "x"\n', "needs flow"),
    ("a file that there is not", '[[deployments]]\nname = "x"\nflow = "nowhere.py:etl"\n', "nowhere.py"),
    ("a flow that there is not", '[[deployments]]\nname = "x"\nflow = "declared_flows.py:elt"\n', "elt"),
    ("a module that there is not", '[[deployments]]\nname = "x"\nflow = "no.such.module:etl"\n', "no.such"),
    ("several flows", '[[deployments]]\nname = "x"\nflow = "declared_flows.py"\n', "holds 2 flows"),
    ("a name with a slash", '[[deployments]]\nname = "a/b"\nflow = "declared_flows.py:etl"\n', "without '/'"),
    ("a parameter that there is not", "+parameters = { dya = 1 }", "parameter 'dya'"),
    ("a value that does not fit", '+parameters = { size = "big" }', "size"),
    ("parameters that are no table", "+parameters = 3", "parameters is a table"),
    ("a number as queue", "+queue = 3", "a queue is named by"),
    ("a text as priority", '+priority = "high"', "priority is a whole number"),
    ("a text as tags", '+tags = "prod"', "tags is a list"),
    ("a number as paused", "+paused = 1", "paused is true or false"),
    ("a number as version", "+version = 1.5", "version is a text in quotes"),
    ("limits without isolation", '+memory_limit = "1GB"', "isolate=True"),
    ("schedules that are a table", '+schedules = { cron = "@daily" }', "schedules is a list of tables"),
    ("a schedule without a rule", '+schedules = [{ timezone = "UTC" }]', "none of them is given"),
    ("a schedule with two rules", '+schedules = [{ cron = "@daily", interval = 3 }]', "cron and interval is given"),
    ("a cron that is none", '+schedules = [{ cron = "61 * * * *" }]', "schedule 1"),
    ("a zone that is none", '+cron = "@daily"\ntimezone = "Mars"', "Mars"),
    ("a zone that is a number", '+cron = "@daily"\ntimezone = 3', "timezone is a text"),
    ("a key of schedules that there is not", '+schedules = [{ cron = "@daily", catchup = "all" }]', "Did you mean 'catch_up'?"),
    ("an interval that is none", '+interval = "often"', "interval is a number of seconds"),
    ("an anchor of a cron", '+schedules = [{ cron = "@daily", anchor = 2026-01-01T00:00:00Z }]', "anchor goes with interval"),
    ("a day as instant", "+schedules = [{ once = 2026-01-01 }]", "date and time"),
    ("a schedule twice", '+schedules = [{ cron = "@daily" }, { cron = "@daily" }]', "twice"),
    ("a queue's key", "[queues.slow]\nslot = 1\n", "Did you mean 'slots'?"),
    ("a queue's rate", '[queues.slow]\nrate = "often"\n', "is no rate"),
    ("a queue that is no table", "[queues]\nslow = 3\n", "is a table"),
    ("negative slots", "[limits.api]\nslots = -1\n", "[limits.api]"),
    ("a tag with a rate", '[limits.gpu]\ntag = true\nrate = "1/s"\n', "tag"),
    ("an automation without a trigger", '[[automations]]\nname = "a"\nactions = []\n', "no trigger"),
    ("retention", '[retention]\nkep = "3d"\n', "Did you mean 'keep'?"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_nonsense_is_refused_with_its_place_before_anything_is_written(rows: Rows, file: Path, text: str, said: str) -> None:
    deployment = '[[deployments]]\nname = "x"\nflow = "declared_flows.py:etl"\n'
    good = '[[deployments]]\nname = "good"\nflow = "declared_flows.py:etl"\n'
    if text.startswith("[deployments]"):
        file.write_text(text)
    else:
        file.write_text(f"{good}{deployment}{text[1:]}\n" if text.startswith("+") else f"{good}{text}")
    with pytest.raises(UsageError) as refused:
        read_file(file)
    assert said in str(refused.value)
    assert str(file) in str(refused.value)
    assert rows.value("SELECT count(*) FROM deployment") == 0


def test_two_deployments_of_one_name_are_refused(file: Path) -> None:
    file.write_text('[[deployments]]\nname = "x"\nflow = "declared_flows.py:etl"\n' * 2)
    with pytest.raises(UsageError, match="there are two of 'etl/x'"):
        read_file(file)


VALUES = st.recursive(
    st.none().map(lambda _: "''")
    | st.sampled_from(["true", "-1", "0", "3", "1e400", "nan", "2026-01-01", "2026-01-01T00:00:00Z", "07:00:00"])
    | st.sampled_from(['"@daily"', '"5m"', '"* * * * *"', '"UTC"', '"declared_flows.py:etl"', '"10/s"', '"enqueue"', '""'])
    | st.text(max_size=8).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["cron", "interval", "name", "day", "expect", "slots"]), inner, max_size=2).map(
            lambda pairs: f"{{ {', '.join(f'{key} = {value}' for key, value in pairs.items())} }}"
        )
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        "name", "flow", "schedules", "cron", "interval", "rrule", "timezone", "parameters", "tags", "description", "version",
        "paused", "queue", "priority", "concurrency_limit", "collision", "isolate", "memory_limit", "time_limit",
        "max_recoveries", "slots", "rate", "tag", "keep", "every", "trigger", "actions",
    ]
)  # fmt: skip
HEADS = st.sampled_from(
    [
        "[[deployments]]",
        "[queues.a]",
        "[limits.a]",
        "[limits]",
        "[queues]",
        "[[automations]]",
        "[retention]",
        "[backup]",
        "[[watch]]",
        "[x]",
    ]
)
TABLES = st.tuples(HEADS, st.dictionaries(KEYS, VALUES, max_size=4))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(TABLES, max_size=3), st.booleans())
def test_any_file_is_read_or_refused_with_our_own_error(
    file: Path, tables: list[tuple[str, dict[str, str]]], starts_well: bool
) -> None:
    text = ""
    for head, pairs in tables:
        if starts_well and head == "[[deployments]]":
            pairs = {**pairs, "name": '"x"', "flow": '"declared_flows.py:etl"'}
        text += head + "\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items())
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        declared = read_file(file)
    except UsageError:
        return
    assert len(plan(None, declared)) >= len(declared.deployments)


# ------------------------------------------------------------------------------------------- kills

DRIVER = """
import os, sys
from pathlib import Path
from wfengine import use_journal
from wfengine.deployment_file import read_file
from wfengine.deployment_plan import apply

journal = use_journal("journal.db")
kill, commits = int(sys.argv[1]), 0

def probe(moment, number, changes):
    global commits
    commits = max(commits, number)
    if moment == "after" and number == kill:
        os.kill(os.getpid(), 9)

journal.probe_commits(probe)
apply(journal, read_file(Path("wfengine.toml")), prune=True)
print(commits)
"""
SHOWN = (
    "SELECT full_name, schedule, queue, paused FROM deployments ORDER BY 1",
    "SELECT name, slots FROM quota ORDER BY 1",
    "SELECT name, definition, active FROM automation WHERE removed_at IS NULL ORDER BY 1",
)


def test_after_a_kill_at_any_commit_applying_again_does_the_rest(tmp_path: Path) -> None:
    def prepare(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "declared_flows.py").write_text(FLOWS)
        (folder / "wfengine.toml").write_text(WHOLE.replace('name = "weekly"', 'name = "old"').replace('"tell"', '"older"'))
        assert drive(folder, 0).returncode == 0
        (folder / "wfengine.toml").write_text(WHOLE)
        return folder

    def drive(folder: Path, kill: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(DRIVER), str(kill)],
            cwd=folder, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    undisturbed = prepare("undisturbed")
    done = drive(undisturbed, 0)
    assert done.returncode == 0, done
    expected = [Rows(undisturbed / "journal.db")(sql) for sql in SHOWN]
    commits = int(done.stdout)
    assert commits >= 3
    for number in range(1, commits + 1):
        folder = prepare(str(number))
        assert drive(folder, number).returncode == -9
        read = Rows(folder / "journal.db")
        names = {row[0] for row in read(SHOWN[0])}
        assert names in ({"etl/nightly", "report/old"}, {"etl/nightly", "report/weekly"})  # all of it or nothing
        assert drive(folder, 0).returncode == 0
        assert [read(sql) for sql in SHOWN] == expected
