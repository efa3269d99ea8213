"""Blocks that cannot be run to their end here - a container, a cluster, another program - are checked as far as they can be."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from pages import blocks
from programs import shell

from wfengine.cli.base import Group
from wfengine.flows import Flow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def _only(page: str, language: str) -> str:
    (block,) = blocks((DOCS / page).read_text(encoding="utf-8"), language)
    return block


def test_the_container_of_the_page_serves_a_file_and_asks_whether_the_daemon_lives(tmp_path: Path) -> None:
    said = dict(re.findall(r"^(\w+) (.*)$", _only("running-as-a-service.md", "dockerfile"), re.MULTILINE))
    (tmp_path / "etl.py").write_text("from wfengine import flow\n\n\n@flow\ndef etl(): ...\n", encoding="utf-8")
    served = shlex.join([*json.loads(said["ENTRYPOINT"]), *json.loads(said["CMD"])])
    probe = shlex.join(json.loads(said["HEALTHCHECK"].removeprefix("CMD ")))

    assert said["RUN"].split()[-1] == "wfengine"
    assert said["ENV"].startswith(f"WFENGINE_JOURNAL={said['VOLUME']}/")
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert shell(tmp_path, f"{served} --check").returncode == 0
    assert shell(tmp_path, probe).returncode == 5  # there is no journal, and nobody lives there


def test_the_flow_of_the_page_on_kubernetes_takes_its_cluster_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="install the extra dask")
    monkeypatch.setenv("DASK_ADDRESS", "tcp://scheduler:8786")
    made: dict[str, object] = {}
    exec(compile(_only("kubernetes.md", "python"), "kubernetes.md", "exec"), made)

    assert isinstance(made["etl"], Flow)
    assert "DASK_ADDRESS" in (ROOT / "examples" / "kubernetes" / "daemon.yaml").read_text(encoding="utf-8")


def test_the_lines_of_the_page_on_kubernetes_name_files_and_commands_that_there_are() -> None:
    from wfengine.cli import root

    lines = [shlex.split(line) for line in _only("kubernetes.md", "sh").splitlines()]
    inside = [line[line.index("wfengine") + 1 :] for line in lines if "wfengine" in line]
    files = [line[line.index("-f") + 1] for line in lines if "-f" in line]

    assert files == ["Dockerfile", "daemon.yaml"]
    assert all((ROOT / "examples" / "kubernetes" / name).exists() for name in files)
    assert inside
    for first, *_ in inside:
        assert isinstance(root, Group)
        assert first in root.list_commands(None)  # type: ignore[arg-type]  # a table; it asks no context


def test_the_journal_that_litestream_copies_is_where_a_journal_is() -> None:
    settings = yaml.safe_load(_only("deployment-recipes.md", "yaml"))

    assert [Path(each["path"]).parts[-2:] for each in settings["dbs"]] == [(".wfengine", "journal.db")]
