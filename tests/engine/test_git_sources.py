"""Code of deployments from git: fetched at a commit, pinned, loaded from there; real repositories by the git program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from wfengine.deployment_file import read_file
from wfengine.deployments import run_deployment
from wfengine_journal.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs the program git")

FLOWS = """
from wfengine import flow
from helpers_of_{name} import answer

@flow
def etl() -> int:
    return answer
"""


def git(folder: Path, *arguments: str) -> str:
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(folder), *arguments]
    return subprocess.run(command, env={**os.environ, **identity}, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, answer: int) -> str:
    (folder / "flows.py").write_text(FLOWS.format(name="git"))
    (folder / "helpers_of_git.py").write_text(f"answer = {answer}\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", f"answer {answer}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    return folder


def write(tmp_path: Path, address: object, reference: str | None = "main") -> Path:
    file = tmp_path / "wfengine.toml"
    source = f"git = {json.dumps(str(address))}" + ("" if reference is None else f", reference = {json.dumps(reference)}")
    file.write_text(f'[[deployments]]\nname = "far"\nflow = "flows.py:etl"\nsource = {{ {source} }}\n')
    return file


def test_commit_is_pinned_until_the_file_is_applied_again(
    rows: Rows, repository: Path, tmp_path: Path, program: Program
) -> None:
    first = commit(repository, 1)
    write(tmp_path, f"file://{repository}")
    assert program.python("-m", "wfengine", "deploy").code == 0
    run_deployment("far", timeout=0)
    second = commit(repository, 2)
    assert program.python("-m", "wfengine", "resume", "1").code == 0
    assert rows("SELECT state, result FROM runs WHERE id = 1") == [("COMPLETED", "1")]
    source = json.loads(str(rows.value("SELECT source FROM deployment")))
    assert (source["reference"], source["commit"]) == ("main", first)

    done = program.python("-m", "wfengine", "deploy", "wfengine.toml")
    assert done.code == 0, done
    assert "entrypoint, source" in done.out
    assert sorted(each.name for each in (tmp_path / "sources" / "far").iterdir()) == sorted([first, second])
    run_deployment("far", timeout=0)
    assert program.python("-m", "wfengine", "resume", "2").code == 0
    assert rows("SELECT state, result FROM runs WHERE id = 2") == [("COMPLETED", "2")]
    assert "unchanged" in program.python("-m", "wfengine", "deploy").out


def test_any_reference_is_taken(repository: Path, tmp_path: Path) -> None:
    first = commit(repository, 1)
    git(repository, "tag", "-a", "v1", "-m", "one")
    second = commit(repository, 2)
    for reference, expected in (("v1", first), (first, first), ("main", second), (None, second), ("refs/heads/main", second)):
        (deployment,) = read_file(write(tmp_path, f"file://{repository}", reference)).deployments
        assert deployment.source is not None
        assert deployment.source["commit"] == expected
        assert f"/far/{expected}/flows.py" in str(deployment.entrypoint)


@pytest.mark.parametrize(
    ("address", "reference", "said"),
    [
        ("file:///nowhere/at/all", "main", "git fetch failed"),
        ("--upload-pack=touch x", "main", "is no address"),
        ("ext::sh -c touch% x", "main", "git fetch failed"),
        ("", "main", "is no address"),
        ("file:///x", "--all", "names no branch"),
        ("file:///x", "a..b", "names no branch"),
        ("HERE", "no-such-branch", "git fetch failed"),
    ],
)
def test_what_cannot_be_fetched_is_refused(
    rows: Rows, repository: Path, tmp_path: Path, address: str, reference: str, said: str
) -> None:
    commit(repository, 1)
    with pytest.raises(UsageError, match=said):
        read_file(write(tmp_path, f"file://{repository}" if address == "HERE" else address, reference))
    assert rows.value("SELECT count(*) FROM deployment") == 0
    left = tmp_path / "sources" / "far"
    assert not left.exists() or list(left.iterdir()) == []
    assert not (tmp_path / "x").exists()
