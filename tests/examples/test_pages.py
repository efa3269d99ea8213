"""The pages about the code say what the code says: error codes, and the functions that the architecture names."""

from __future__ import annotations

import re
from pathlib import Path

from wfengine import task_engine
from wfengine_journal import errors

ROOT = Path(__file__).parents[2]


def test_the_page_of_errors_lists_exactly_the_codes_that_there_are() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (WF\d{3}) \| `(\w+)` \|", page, re.MULTILINE)
    there_are = [
        (value.code, name)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.WfengineError)
    ]

    assert listed == sorted(there_are)
    assert len({code for code, _ in there_are}) == len(there_are)


def test_the_architecture_names_the_eight_hops_by_functions_in_the_order_of_the_page() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    hops = re.findall(r"^\| (\d) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE)

    assert [int(number) for number, _ in hops] == list(range(1, 9))
    named = [name for _, names in hops for name in re.findall(r"`(\w+)`", names)]
    assert all(hasattr(task_engine, name) or hasattr(task_engine.Call, name) for name in named)
    firsts = [re.findall(r"`(\w+)`", names)[0] for _, names in hops]
    lines = [getattr(task_engine, name).__code__.co_firstlineno for name in firsts]
    assert lines == sorted(lines)


def test_every_module_that_the_layer_table_names_exists() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \(in `([\w/]+)`\) \| ([^|]+) \|", page, re.MULTILINE)
    folders = {package: ROOT / ("" if folder == package else folder) / package for package, folder, _ in rows}

    named = {(package, name) for package, _, modules in rows for name in re.findall(r"`(\w+)/?`", modules)}
    missing = [
        f"{package}.{name}"
        for package, name in named
        if not ((folders[package] / f"{name}.py").exists() or (folders[package] / name).is_dir())
    ]

    assert len(rows) == 3
    assert missing == []
