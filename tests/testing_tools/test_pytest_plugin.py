"""The pytest plugin, in real pytest processes that know it by its entry point alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ("pytester",)

FLOWS = """
from wfengine import flow, task

@task(retries=1, retry_delay_seconds=86400)
def flaky(seen):
    if not seen:
        seen.append(1)
        raise ValueError("not yet")
    return 3

SEEN = []

@flow
def patient():
    return flaky(SEEN)
"""


def test_a_test_gets_a_journal_of_its_own_and_a_clock_by_naming_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(flows=FLOWS)
    pytester.makepyfile(
        """
        import pytest
        from flows import SEEN, patient
        from wfengine.journals import default_journal

        def test_waits_a_day(wfengine_clock, wfengine_journal):
            assert patient() == 3
            assert wfengine_clock.slept_seconds == 86400
            (run,) = wfengine_journal.runs()
            (call,) = wfengine_journal.tasks()
            assert (run["state"], call["attempts"]) == ("COMPLETED", 2)
            assert default_journal().path == wfengine_journal.path

        def test_clock_alone(wfengine_clock):
            SEEN.clear()
            assert patient() == 3

        def test_journal_alone(wfengine_journal):
            assert patient() == 3
            assert len(wfengine_journal.runs()) == 1
            assert not hasattr(wfengine_journal.clock, "advance")

        @pytest.fixture
        def late_clock(request):
            return request.getfixturevalue("wfengine_clock")

        @pytest.mark.xfail(raises=pytest.fail.Exception, strict=True)
        def test_clock_named_too_late(wfengine_journal, late_clock):
            pass
        """
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=3, xfailed=1)
    assert not (pytester.path / ".wfengine").exists()


def test_fixtures_are_listed_with_what_they_are_for(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    done.stdout.fnmatch_lines(["wfengine_journal*", "wfengine_clock*"])


def test_loading_the_plugin_loads_nothing_that_only_a_fixture_needs() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import wfengine.testing.plugin\n"
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "wfengine.testing.plugin" in loaded
    heavy = ("asyncio", "pydantic", "cloudpickle", "sqlite_utils", "rich", "tenacity", "croniter", "multiprocessing")
    assert [name for name in loaded if name.split(".")[0] in heavy] == []
    assert [name for name in loaded if name.startswith("wfengine.testing.")] == ["wfengine.testing.plugin"]
