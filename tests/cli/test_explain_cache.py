"""`wfengine tasks explain-cache` says why a call was answered from the cache, or why it ran."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from command_line import Cli, environment
from handmade import HOSTILE

HEAD = """
import os, sys, threading
from datetime import timedelta
from wfengine import flow, task
from wfengine.cache_policies import *

"""


def run(cli: Cli, text: str, *, fails: bool = False, **changes: str) -> None:
    """Run a program in the folder of the command line."""
    (cli.folder / "program.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=cli.folder, env=environment(**changes), capture_output=True, text=True
    )
    assert (done.returncode != 0) == fails, done.stderr


def explain(cli: Cli, run_: object, task_run: object) -> tuple[str, dict[str, object]]:
    """Return what the command says, and its JSON."""
    shown = cli("tasks", "explain-cache", str(run_), str(task_run))
    assert (shown.code, shown.err) == (0, ""), shown
    answer = cli("tasks", "explain-cache", str(run_), str(task_run), "--json")
    assert answer.code == 0
    return shown.out, answer.object


LOAD = """
@task(cache_policy={policy}{options})
def load(path, size=1):
    return [path, size]

@flow
def etl(day):
    {body}

etl({day!r})
"""


def load_program(body: str, policy: str = "INPUTS", options: str = "", day: str = "monday") -> str:
    return LOAD.format(policy=policy, options=options, body=body, day=day)


def test_a_hit_names_who_computed_the_result(cli: Cli) -> None:
    run(cli, load_program("load('a'), load('a')"))
    text, found = explain(cli, "@last", 2)
    assert "hit" in text
    assert "It did not run: its key " in text
    assert "had the result of task run 1 of run 1" in text
    assert "The entry has no expiration." in text
    assert found["outcome"] == "hit"
    assert found["source"] == {"run_id": 1, "task_run_id": 1}
    assert found["parts"].keys() == {"task", "argument path", "argument size"}  # type: ignore[attr-defined]


def test_the_first_call_says_that_nobody_asked_before(cli: Cli) -> None:
    run(cli, load_program("load('a')"))
    text, found = explain(cli, 1, "load")
    assert "It ran: there was no entry under its key" in text
    assert "Its result is the entry now." in text
    assert "No call of task 'load' had asked the cache before." in text
    assert found["nearest"] is None


def test_a_miss_names_the_argument_that_differs_from_the_nearest_call(cli: Cli) -> None:
    run(cli, load_program("load('a', 1), load('b', 2), load('b', 3)"))
    text, found = explain(cli, 1, 3)
    assert "The nearest earlier call is task run 2 of run 1" in text
    assert "argument size: then 2, now 3" in text
    assert "argument path" not in text.partition("The key is made of")[0]
    assert found["nearest"] == {
        "run_id": 1, "task_run_id": 2, "differs": [{"part": "argument size", "then": "2", "now": "3"}],
    }  # fmt: skip


def test_a_miss_names_edited_code_another_run_and_other_flow_parameters(cli: Cli) -> None:
    policy = "INPUTS + TASK_SOURCE + RUN_ID + FLOW_PARAMETERS"
    run(cli, load_program("load('a')", policy))
    run(cli, load_program("load('a')", policy, day="tuesday").replace("return [path, size]", "return [size, path]"))
    text, _ = explain(cli, 2, "load")
    assert "source: the code of the task, or of a function that it uses, was edited" in text
    assert "flow run: then 1, now 2 (RUN_ID is part of the policy; without it runs share results)" in text
    assert "flow parameter day: then 'monday', now 'tuesday'" in text
    assert "argument" not in text.partition("The key is made of")[0]


def test_a_miss_after_a_failure_with_the_same_key_says_that_failures_are_not_kept(cli: Cli) -> None:
    program = """
        @task(cache_policy=INPUTS)
        def load(x):
            if "FAIL" in os.environ:
                raise ValueError
            return x

        @flow
        def etl():
            return load(1)

        etl()
    """
    run(cli, program, fails=True, FAIL="1")
    run(cli, program)
    text, _ = explain(cli, 2, "load")
    assert "The earlier task run 1 of run 1" in text
    assert "had the very same key, and left no entry: it is FAILED, and only results are kept." in text
    assert "It left no entry, as it has not completed." in explain(cli, 1, "load")[0]


def test_an_expired_entry_says_until_when_it_was_to_be_used(cli: Cli) -> None:
    program = load_program("load('a'), load('a')", options=", cache_expiration=timedelta(0)")
    run(cli, program)
    text, found = explain(cli, 1, 2)
    assert "expired" in text
    assert "It ran: the entry was to be used until 20" in text
    assert "Its result is the entry now, until 20" in text
    assert found["outcome"] == "expired"


def test_a_refreshed_call_says_that_it_asked_for_nothing(cli: Cli) -> None:
    run(cli, load_program("load('a'), load('a')", options=", refresh_cache=True"))
    assert "refresh_cache=True asks the cache for nothing and replaces the entry" in explain(cli, 1, 2)[0]
    assert "Its result was the entry; another has taken its place" in explain(cli, 1, 1)[0]


def test_an_argument_without_canonical_form_is_named(cli: Cli) -> None:
    run(cli, load_program("load(threading.Lock())").replace("return [path, size]", "return size"))
    text, found = explain(cli, 1, 1)
    assert "It ran, and its result was not kept for others: argument path (lock) has no canonical form" in text
    assert found["key"] is None


def test_a_policy_that_raised_is_shown(cli: Cli) -> None:
    run(cli, load_program("load('a')", policy="CachePolicy.from_cache_key_fn(lambda context, parameters: 1 / 0)"))
    assert "the cache policy raised ZeroDivisionError: division by zero" in explain(cli, 1, 1)[0]


def test_a_task_that_asks_for_no_caching_is_told_how_to(cli: Cli) -> None:
    run(cli, load_program("load('a')", policy="NO_CACHE"))
    text, found = explain(cli, 1, 1)
    assert "no caching was asked for, so it ran." in text
    assert "@task(cache_policy=INPUTS)" in text
    assert found["outcome"] is None


def test_the_call_of_a_subflow_is_no_task(cli: Cli) -> None:
    run(cli, "@flow\ndef child(): pass\n\n@flow\ndef etl(): child()\n\netl()\n")
    assert "only tasks are cached" in explain(cli, 1, "child")[0]


def test_the_key_of_a_function_is_shown_as_it_is(cli: Cli) -> None:
    run(
        cli,
        load_program(
            "load('a')", policy="CachePolicy.from_cache_key_fn(lambda context, parameters: 'key of ' + parameters['path'])"
        ),
    )
    text, found = explain(cli, 1, 1)
    assert "under its key key of a." in text
    assert found["key"] == "key of a"


def test_old_style_keys_are_explained_by_argument(cli: Cli) -> None:
    text = load_program("load('a'), load('b')").replace("cache_policy=INPUTS", "cache_key_fn=task_input_hash")
    run(cli, text.replace("@task", "from wfengine.tasks import task_input_hash\n\n@task"))
    assert "argument path: then 'a', now 'b'" in explain(cli, 1, 2)[0]


@pytest.mark.parametrize(
    ("task_run", "text"),
    [
        ("99", "Run 1 has no task run '99'"),
        ("nothing", "Run 1 has no task run 'nothing'"),
        ("load", "'load' fits several task runs"),
    ],
)
def test_a_task_run_that_cannot_be_found_is_an_error_with_the_way_to_find_it(cli: Cli, task_run: str, text: str) -> None:
    run(cli, load_program("load('a'), load('b')"))
    answer = cli("tasks", "explain-cache", "1", task_run)
    assert answer.code != 0
    assert text in answer.err
    assert "wfengine runs show 1 --tasks" in answer.err


def test_the_name_of_a_task_run_is_enough(cli: Cli) -> None:
    run(cli, load_program("load('a'), load('b')"))
    assert "task run 2 'load-2'" in explain(cli, 1, "load-2")[0]


def test_hostile_text_in_a_journal_steers_no_terminal(cli: Cli, journal: object) -> None:
    shown = cli("tasks", "explain-cache", "6", "8")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
    assert HOSTILE not in shown.out
    text, found = explain(cli, 1, 3)
    assert "had the result of task run 2 of run 1 'quiet-heron'" in text
    assert found["entry"] is not None
