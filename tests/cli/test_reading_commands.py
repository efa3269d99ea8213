"""The commands that read, on a journal made by hand: what they print, and with which exit code."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from command_line import Cli
from handmade import HOSTILE, make_journal

from wfengine_journal.read_only_sql import sandbox, select

READING = [
    ["runs", "ls"],
    ["runs", "show", "6", "--tasks", "--history", "--timeline"],
    ["runs", "logs", "6"],
    ["sql", "SELECT * FROM runs"],
    ["sql", "SELECT * FROM tasks"],
    ["sql", "SELECT * FROM failures"],
    ["watch", "6"],
    ["info"],
    ["doctor"],
    ["runs", "show", HOSTILE[:4] + "x"],
]


def test_runs_ls_lists_runs_of_their_own_newest_first(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "ls", "--json")
    assert answer.code == 0
    assert [run["id"] for run in answer.object["runs"]] == [6, 5, 4, 3, 1]
    assert answer.object["schema_version"] == 1
    assert answer.object["command"] == "runs ls"
    assert answer.object["journal"] == str(journal)
    with_subflows = cli("runs", "ls", "--subflows", "--json").object["runs"]
    assert [run["id"] for run in with_subflows] == [6, 5, 4, 3, 2, 1]


def test_runs_ls_filters_by_state_flow_and_age(cli: Cli, journal: Path) -> None:
    def ids(*options: str) -> list[int]:
        return [run["id"] for run in cli("runs", "ls", "--json", *options).object["runs"]]

    assert ids("--state", "failed", "--state", "CRASHED") == [6, 4, 3]
    assert ids("--flow", "report", "--subflows") == [2]
    assert ids("--since", "2026-11-22T15:01") == [6]
    assert ids("--since", "2026-11-23") == []


def test_runs_ls_goes_on_with_the_next_page(cli: Cli, journal: Path) -> None:
    first = cli("runs", "ls", "--limit", "2", "--json").object
    assert [run["id"] for run in first["runs"]] == [6, 5]
    second = cli("runs", "ls", "--limit", "2", "--before", str(first["next_before_id"]), "--json").object
    assert [run["id"] for run in second["runs"]] == [4, 3]
    last = cli("runs", "ls", "--before", str(second["next_before_id"]), "--json").object
    assert (last["runs"][0]["id"], last["next_before_id"]) == (1, None)


def test_parameters_and_results_are_json_in_json(cli: Cli, journal: Path) -> None:
    run = cli("runs", "show", "quiet-heron", "--json").object["run"]
    assert run["parameters"] == {"day": "2026-11-22"}
    assert run["result"] == {"rows": 2}
    assert run["tags"] == ["nightly"]
    assert (run["replayed"], run["ran"], run["not_asked"]) == (1, 2, 1)


def test_runs_show_draws_the_tree_with_subflows_and_a_timeline(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "quiet-heron")
    assert answer.code == 0
    lines = [line.strip() for line in answer.out.splitlines()]
    assert "├─ ✓ extract  100 ms  1 replayed" in lines
    assert any(line.startswith("├─ ✓ clean  3/3  p50") for line in lines)
    assert "└─ ✓ report (subflow)  600 ms" in lines or any(line.startswith("└─ ✓ report (subflow)") for line in lines)
    assert any("quiet-heron-report  run 2" in line for line in lines)
    assert "timeline" in lines
    assert "█" in answer.out


def test_runs_show_lists_tasks_history_and_bars_when_asked(cli: Cli, journal: Path) -> None:
    found = cli("runs", "show", "1", "--tasks", "--history", "--timeline", "--json").object
    assert [(task["id"], task["replayed"], task["orphan"]) for task in found["tasks"]] == [
        (1, True, False),
        (2, False, False),
        (3, False, False),
        (5, False, True),
    ]
    assert [item["state_name"] for item in found["history"] if item["task_id"] is None] == [
        "Running",
        "Crashed",
        "Resuming",
        "Completed",
    ]
    assert [bar["task"] for bar in found["timeline"]] == ["extract", "clean", "clean", "report", "clean"]
    assert [(execution["attempt"], execution["reason"]) for execution in found["executions"]] == [(1, "start"), (2, "resume")]


def test_a_crashed_run_is_shown_with_the_command_that_resumes_it(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "cut-off-owl")
    assert answer.code == 0
    assert "wfengine resume cut-off-owl" in answer.out
    assert "clean  1 interrupted" in answer.out


@pytest.mark.parametrize(("reference", "run_id"), [("1", 1), ("quiet-heron", 1), ("quiet-heron-", 2), ("cut", 4), ("@last", 6)])
def test_a_run_is_found_by_id_name_beginning_and_last(cli: Cli, journal: Path, reference: str, run_id: int) -> None:
    assert cli("runs", "show", reference, "--json").object["run"]["id"] == run_id


def test_an_unknown_run_is_answered_with_near_names(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "quit-heron")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("error[WF103]: ")
    assert "quiet-heron" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_an_ambiguous_beginning_lists_what_it_fits(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "q", "--json")
    assert answer.code == 3
    assert answer.object["error"]["code"] == "WF103"
    assert "1 (quiet-heron" in answer.object["error"]["message"]
    assert "2 (quiet-heron-report" in answer.object["error"]["message"]


def test_runs_logs_filters_by_level_task_and_pattern(cli: Cli, journal: Path) -> None:
    def messages(*options: str) -> list[str]:
        return [line["message"] for line in cli("runs", "logs", "1", "--json", *options).object["logs"]]

    assert messages() == ["two rows", "slow", "first line\nsecond line"]
    assert messages("--level", "warning") == ["slow", "first line\nsecond line"]
    assert messages("--task", "clean", "--grep", "s.ow") == ["slow"]
    assert cli("runs", "logs", "1", "-f").out.count("\n") == 4


def test_watch_of_a_run_that_ended_says_so_and_takes_its_exit_code(cli: Cli, journal: Path) -> None:
    crashed = cli("watch", "cut-off-owl")
    assert crashed.code == 7
    assert "resume with: wfengine resume cut-off-owl" in crashed.err.splitlines()[-1]
    assert cli("watch", "parked-newt").code == 4
    assert cli("watch", "broken-fox").code == 1
    assert cli("watch", "quiet-heron", "-q").err == ""
    assert cli("watch", "quiet-heron", "--json").object["run"]["exit_code"] == 0


def test_sql_answers_as_table_csv_and_json(cli: Cli, journal: Path) -> None:
    query = "SELECT id, name FROM runs WHERE id < 3 ORDER BY id"
    assert cli("sql", query).out.splitlines() == ["id  name", " 1  quiet-heron", " 2  quiet-heron-report"]
    assert cli("sql", query, "--csv").out == "id,name\n1,quiet-heron\n2,quiet-heron-report\n"
    found = cli("sql", "--json", query).object
    assert (found["columns"], found["rows"]) == (["id", "name"], [[1, "quiet-heron"], [2, "quiet-heron-report"]])
    assert cli("sql", "--json", "SELECT 9e999, x'00ff', NULL").object["rows"] == [["inf", "00ff", None]]


def test_sql_reads_a_statement_from_standard_input(cli: Cli, journal: Path) -> None:
    assert cli("sql", "--csv", stdin="SELECT 1 AS one;\n").out == "one\n1\n"
    assert cli("sql", stdin="").code == 2


def test_sql_runs_every_sample_query_of_the_help_view(cli: Cli, journal: Path) -> None:
    samples = [row[0] for row in cli("sql", "--json", "SELECT try FROM help").object["rows"]]
    assert len(samples) > 10
    for sample in samples:
        with sandbox(journal) as connection:
            assert select(connection, sample).columns
            assert list(select(connection, sample).rows) is not None
    assert cli("sql", "SELECT * FROM disk_usage").code == 0


def test_info_says_which_journal_and_why(cli: Cli, journal: Path, tmp_path: Path) -> None:
    found = cli("info", "--json").object
    assert (found["path"], found["exists"]) == (str(journal), True)
    assert found["journal"]["runs"] == {"COMPLETED": 2, "CRASHED": 1, "FAILED": 2, "PAUSED": 1}
    assert "working directory" in cli("info").out
    assert "named with --journal" in cli("info", "--journal", str(journal)).out
    assert "named by WFENGINE_JOURNAL" in cli("info", WFENGINE_JOURNAL=str(journal)).out
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert Cli(below)("info", "--json").object["path"] == str(journal)


def test_doctor_finds_a_sound_journal_sound(cli: Cli, journal: Path) -> None:
    answer = cli("doctor", "--thorough", "--json")
    checks = {check["name"]: check["verdict"] for check in answer.object["checks"]}
    assert (answer.code, answer.object["sound"]) == (0, True)
    assert checks["pages"] == checks["references"] == checks["values"] == checks["file mode"] == "ok"
    assert checks["definitions"] == "ok"
    assert checks["runs"] == "warning"


def test_doctor_finds_a_value_that_does_not_match_its_checksum(cli: Cli, journal: Path) -> None:
    _change(journal, "UPDATE task_run SET result = '[1, 3]' WHERE id = 1")
    answer = cli("doctor")
    assert answer.code == 5
    assert "result of task run 1" in answer.out


def test_doctor_finds_a_row_that_names_a_missing_one(cli: Cli, journal: Path) -> None:
    _change(journal, "UPDATE task_run SET task_id = 77 WHERE id = 1")
    answer = cli("doctor", "--json")
    assert answer.code == 5
    assert {check["name"]: check["verdict"] for check in answer.object["checks"]}["references"] == "damage"


def test_doctor_finds_a_damaged_page_and_other_commands_fail_in_one_line(cli: Cli, journal: Path) -> None:
    connection = sqlite3.connect(journal)
    connection.execute("PRAGMA journal_mode = DELETE")
    root, size = connection.execute(
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'flow_run'"
    ).fetchone()
    connection.close()
    with journal.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 64)
    answer = cli("doctor")
    assert answer.code == 5
    assert "damage" in answer.out
    listed = cli("runs", "ls")
    assert (listed.code, len(listed.err.splitlines())) == (5, 1)
    assert listed.err.startswith("error[WF404]: ")


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("CREATE TRIGGER helpful AFTER UPDATE ON task_run BEGIN DELETE FROM log; END", "trigger helpful on task_run"),
        ("CREATE TRIGGER user_evil AFTER INSERT ON transition BEGIN SELECT 1; END", "trigger user_evil on transition"),
        ("CREATE VIEW balances AS SELECT 1", "view balances"),
        ("DROP TRIGGER transition_stays", "no trigger transition_stays"),
        ("CREATE INDEX quick ON log (message)", "index quick on log"),
        ("CREATE TABLE notes (text TEXT)", "table notes"),
    ],
)
def test_doctor_warns_of_what_wfengine_did_not_define(cli: Cli, journal: Path, planted: str, said: str) -> None:
    _change(journal, planted)
    answer = cli("doctor")
    assert answer.code == 0
    assert said in answer.out
    assert "wfengine recover FILE" in answer.out


def test_doctor_warns_of_a_view_of_ours_that_shows_something_else(cli: Cli, journal: Path) -> None:
    _change(journal, "DROP VIEW stuck")
    _change(journal, "CREATE VIEW stuck AS SELECT id, name, state FROM flow_run WHERE 0")
    assert "another view stuck than wfengine makes" in cli("doctor").out


def test_doctor_does_not_warn_of_a_users_own_tables(cli: Cli, journal: Path) -> None:
    for statement in (
        "CREATE TABLE user_orders (id INTEGER PRIMARY KEY)",
        "CREATE VIEW user_open AS SELECT * FROM user_orders",
        "CREATE TRIGGER user_noted AFTER INSERT ON user_orders BEGIN SELECT 1; END",
    ):
        _change(journal, statement)
    answer = cli("doctor")
    assert "is as wfengine makes it; triggers on tables of your own: 1," in answer.out


def test_doctor_warns_of_a_file_that_others_can_open(cli: Cli, journal: Path) -> None:
    journal.chmod(0o644)
    answer = cli("doctor")
    assert answer.code == 0
    assert "chmod 600" in answer.out


def _change(journal: Path, statement: str) -> None:
    connection = sqlite3.connect(journal)
    connection.execute(statement)
    connection.commit()
    connection.close()


# ---------------------------------------------------------------------------------------------------- hostile text


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments)[:30])
def test_control_sequences_of_a_journal_never_reach_the_terminal(cli: Cli, journal: Path, arguments: list[str]) -> None:
    answer = cli(*arguments)
    for character in ("\x1b", "\x07", "\x08", "\x9b", "\r", "\u202e"):
        assert character not in answer.out + answer.err
    assert not any(line.startswith("forged line") for line in (answer.out + answer.err).splitlines())


@pytest.mark.parametrize("arguments", READING[:6], ids=lambda arguments: " ".join(arguments)[:30])
def test_json_escapes_control_characters_and_keeps_them(cli: Cli, journal: Path, arguments: list[str]) -> None:
    answer = cli(*arguments, "--json")
    for character in ("\x1b", "\x07", "\x08", "\x9b", "\r", "\u202e"):
        assert character not in answer.out
    assert answer.object["schema_version"] == 1
    assert "\\u001b[31m" in answer.out


def test_a_journal_that_holds_text_which_is_not_utf_8_can_be_read(cli: Cli, journal: Path) -> None:
    _change(journal, "UPDATE flow_run SET state_message = CAST(x'ff41' AS TEXT) WHERE id = 4")
    assert cli("runs", "ls", "--json").object["runs"][2]["message"] == "\ufffdA"


# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("arguments", [["--json", "--journal", "J", "runs", "ls"], ["runs", "--json", "ls", "--journal", "J"]])
def test_global_options_stand_before_or_after_the_command(cli: Cli, tmp_path: Path, arguments: list[str]) -> None:
    path = make_journal(tmp_path / "elsewhere.db")
    answer = cli(*[str(path) if argument == "J" else argument for argument in arguments])
    assert answer.object["journal"] == str(path)


def test_colours_are_only_used_where_asked_for(cli: Cli, journal: Path) -> None:
    assert "\x1b" not in cli("runs", "ls").out
    assert "\x1b[32m" in cli("runs", "ls", FORCE_COLOR="1").out
    assert "\x1b" not in cli("runs", "ls", FORCE_COLOR="1", NO_COLOR="1").out
    assert "\x1b" not in cli("runs", "ls", "--no-color", FORCE_COLOR="1").out


def test_output_falls_back_to_ascii_where_that_is_all_there_is(cli: Cli, journal: Path) -> None:
    answer = cli("runs", "show", "1", PYTHONIOENCODING="ascii")
    assert answer.code == 0
    assert "|- + extract" in answer.out


def test_a_reader_that_goes_away_ends_the_command_quietly(cli: Cli, journal: Path) -> None:
    process = cli.start(
        "sql", "--csv", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT * FROM n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "i\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def computed_seconds(pid: int) -> float:
    """Return how long a process has computed; to start takes it a tenth of a second of that."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at a process by /proc")
def test_ctrl_c_ends_a_long_statement(cli: Cli, journal: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0"
    process = cli.start("sql", endless, "-v")
    while process.poll() is None and computed_seconds(process.pid) < 1:
        threading.Event().wait(0.01)
    assert process.poll() is None
    os.kill(process.pid, 2)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error.strip()) == (130, "")


def test_doctor_lists_the_damage_of_a_file_that_cannot_be_opened_and_the_way_on(cli: Cli, journal: Path) -> None:
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(journal.read_bytes())
    content[100:4096] = b"\xff" * 3996
    journal.write_bytes(content)
    answer = cli("doctor")
    assert answer.code == 5
    assert [line.split()[0] for line in answer.out.splitlines()] == ["damage", "damage"]
    assert "wfengine recover .wfengine/journal.db" in answer.err
    assert "sqlite3 .wfengine/journal.db .recover | sqlite3 recovered.db" in answer.err
    assert "then run: wfengine doctor" not in answer.out + answer.err
    found = cli("doctor", "--json")
    assert (found.code, found.object["sound"]) == (5, False)


def test_runs_show_tells_how_processes_ended_that_were_made_for_the_run(cli: Cli, journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        (epoch,) = connection.execute("SELECT max(epoch) FROM execution WHERE flow_run_id = 6").fetchone()
        connection.execute(
            "UPDATE execution SET exit_code = -11, peak_memory_bytes = 300000000, output = ?"
            " WHERE flow_run_id = 6 AND epoch = ?",
            ("one\n\x1b[31mtwo\nFatal Python error\n", epoch),
        )
    answer = cli("runs", "show", "6")
    assert answer.code == 0
    section = answer.out.partition("processes that ended badly\n")[2].splitlines()
    assert section[0].startswith(f"  attempt {epoch}  pid ")
    assert section[0].endswith("  ended by SIGSEGV (exit code -11)  300.0 MB of memory")
    assert section[1] == "    one"
    assert section[2].endswith("two")
    assert "\x1b" not in answer.out
    (execution,) = [one for one in cli("runs", "show", "6", "--json").object["executions"] if one["attempt"] == epoch]
    assert (execution["exit_code"], execution["peak_memory_bytes"]) == (-11, 300_000_000)
    assert execution["output"].endswith("Fatal Python error\n")


@pytest.mark.parametrize(("code", "shown"), [(3, "exit code 3"), (-40, "ended by signal 40 (exit code -40)"), (0, "")])
def test_runs_show_names_an_exit_code_and_is_silent_about_a_good_end(cli: Cli, journal: Path, code: int, shown: str) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE execution SET exit_code = ? WHERE flow_run_id = 6 AND epoch = 1", (code,))
    out = cli("runs", "show", "6").out
    assert shown in out
    assert ("processes that ended badly" in out) == bool(code)
