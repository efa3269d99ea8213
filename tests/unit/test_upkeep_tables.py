"""[retention], [backup], [[watch]] and [webhooks] of wfengine.toml: what is accepted, and what is refused with which words."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfengine.source_tables import Sources, sources_of
from wfengine.upkeep import Backups, Retention
from wfengine.upkeep_tables import find_file, read_tables, upkeep_of
from wfengine_journal.errors import UsageError


def made(folder: Path, text: str) -> tuple[Retention | None, Backups | None]:
    file = folder / "wfengine.toml"
    file.write_text(text, encoding="utf-8")
    return upkeep_of(read_tables(file), "wfengine.toml")


def test_both_tables_are_read(tmp_path: Path) -> None:
    assert made(tmp_path, "") == (None, None)
    assert made(tmp_path, '[retention]\nkeep = "30d"\n') == (Retention("30d"), None)
    text = (
        '[retention]\nkeep = "2w"\nevery = "12h"\nkeep_runs = 5\nkeep_failed = true\n'
        '[backup]\nfolder = "copies"\nevery = "1h"\nkeep = 3\n'
    )
    assert made(tmp_path, text) == (Retention("2w", "12h", 5, True), Backups("copies", "1h", 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[retention]", "lacks 'keep'"),
        ("[backup]", "lacks 'folder'"),
        ("retention = 5", "is a table"),
        ('[retention]\nkep = "30d"', "Did you mean 'keep'"),
        ('[backup]\nfolder = "x"\nkeep = "7"', "a whole number"),
        ('[backup]\nfolder = "x"\nkeep = true', "a whole number"),
        ("[retention]\nkeep = 30", "text in quotes"),
        ('[retention]\nkeep = "30 days"', "is not an age"),
        ('[retention]\nkeep = "30d"\nkeep_failed = 1', "true or false"),
        ('[retention]\nkeep = "30d"\nevery = "1s"', "from 1 minute"),
        ("[retention", "is no TOML"),
        ("\x00", "is no TOML"),
        ("a = " + "[" * 5000, "cannot be read|is no TOML"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(tmp_path, text)


def test_the_file_is_beside_the_journal_or_beside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "wfengine.toml").touch()
    (tmp_path / ".wfengine").mkdir()
    assert find_file(tmp_path / "journal.db") == tmp_path / "wfengine.toml"
    assert find_file(tmp_path / ".wfengine" / "journal.db") == tmp_path / "wfengine.toml"
    assert find_file(tmp_path / "elsewhere" / "journal.db") is None


KEYS = st.sampled_from(["keep", "every", "keep_runs", "keep_failed", "folder", "x"]) | st.text(
    string.ascii_lowercase, max_size=5
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)


def sources(folder: Path, text: str) -> Sources:
    file = folder / "wfengine.toml"
    file.write_text(text, encoding="utf-8")
    return sources_of(read_tables(file), "wfengine.toml")


def test_folders_and_webhooks_are_read(tmp_path: Path) -> None:
    assert sources(tmp_path, "") == Sources()
    text = (
        '[[watch]]\npath = "in"\npattern = "*.csv"\nrecursive = false\n'
        '[webhooks]\nport = 4000\n[[webhooks.hooks]]\nname = "orders"\nsecret = "ORDERS"\n'
    )
    assert sources(tmp_path, text) == Sources(
        ({"path": "in", "pattern": "*.csv", "recursive": False},), ({"name": "orders", "secret": "ORDERS"},), {"port": 4000}
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[watch]\npath = 'in'", "with two brackets"),
        ("[[watch]]\npattern = '*'", "lacks 'path'"),
        ("[[watch]]\npath = 'in'\npatern = '*'", "Did you mean 'pattern'"),
        ("[webhooks]", "lacks 'hooks'"),
        ("[webhooks]\nhooks = [1]", "is a table"),
        ("[webhooks]\nhooks = []\nport = 70000", "from 1 to 65535"),
        ("[webhooks]\n[[webhooks.hooks]]\nname = 'a'", "lacks 'secret'"),
    ],
)
def test_sources_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sources(tmp_path, text)


@given(st.dictionaries(KEYS, VALUES, max_size=5) | VALUES, st.dictionaries(KEYS, VALUES, max_size=5) | VALUES)
def test_whatever_stands_there_is_read_or_refused(retention: object, backup: object) -> None:
    try:
        upkeep_of({"retention": retention, "backup": backup}, "wfengine.toml")
        sources_of({"watch": [retention], "webhooks": backup}, "wfengine.toml")
    except UsageError as error:
        assert str(error)  # noqa: PT017 - whatever is raised is ours, and says something


def test_the_tables_of_the_page_are_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "running-as-a-service.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks)
    assert all(made(tmp_path, text))
    found = sources(tmp_path, text)
    assert (len(found.folders), len(found.hooks)) == (1, 1)
