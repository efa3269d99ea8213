"""Code of deployments from git: a commit is fetched by the git program into a folder of its own, and pinned.

    source = { git = "https://example.org/flows.git", reference = "v3" }

The folder is `sources/NAME/COMMIT` beside the journal. It is there whole or not at all, and never changed: another commit has
another folder. What runs is the file in it; nothing is fetched when a run begins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from wfengine_journal.errors import UsageError
from wfengine_journal.location import make_private_folder

#: Seconds that one command of git may take.
GIT_SECONDS = 300.0
#: Ways to fetch that run no program of the address's choosing.
PROTOCOLS = "file:git:http:https:ssh"

_REFERENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,200}")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def checked_source(owner: str, source: object) -> dict[str, str]:
    """Return a source as it is kept. Raises UsageError."""
    if not isinstance(source, Mapping) or not isinstance(source.get("git"), str) or set(source) - {"git", "reference"}:
        raise UsageError(f"{owner}: source is {{ git = 'ADDRESS', reference = 'BRANCH, TAG OR COMMIT' }}, and not {source!r}.")
    address, reference = str(source["git"]), source.get("reference", "HEAD")
    if not address.strip() or address.startswith("-") or not address.isprintable():
        raise UsageError(f"{owner}: {address!r} is no address of a git repository. Example: https://example.com/team/flows.git")
    if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference) or ".." in reference:
        raise UsageError(f"{owner}: {reference!r} names no branch, tag or commit.")
    return {"git": address, "reference": reference}


def fetch(owner: str, source: Mapping[str, str], name: str, folder: Path) -> tuple[Path, str]:
    """Return the folder of the commit that a source names now, and the commit. Fetches it. Raises UsageError.

    `name`: of the deployment; `folder`: where sources are kept.
    """
    home = folder / re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".")
    make_private_folder(home)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
    try:
        _git(owner, making, "init", "--quiet")
        _git(owner, making, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", source["git"], source["reference"])
        commit = _git(owner, making, "rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
        if not _COMMIT.fullmatch(commit):
            raise UsageError(f"{owner}: git says that {source['reference']} is {commit!r}, which is no commit.")
        target = home / commit
        if not target.is_dir():
            _git(owner, making, "checkout", "--quiet", "--detach", commit)
            with suppress(FileExistsError, OSError):  # another process was quicker
                os.rename(making, target)  # noqa: PTH104  # of a folder, onto a name that is free
        if not target.is_dir():
            raise UsageError(f"{owner}: commit {commit} could not be put into {target}.")
        return target, commit
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _git(owner: str, folder: Path, *arguments: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
    }
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=GIT_SECONDS,
            check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError(f"{owner}: its source needs the program git, which is not installed here.") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{owner}: git {arguments[0]} was not finished after {GIT_SECONDS:g} s.") from error
    if done.returncode != 0:
        raise UsageError(f"{owner}: git {arguments[0]} failed: {done.stderr.strip()[-500:] or done.returncode}")
    return done.stdout
