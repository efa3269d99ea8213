"""A canary: a random secret goes everywhere a secret can go, a process is killed in the middle, and then it is searched for.

It is searched byte for byte in all files of the journal, also as JSON, repr, base64, in a URL and in a pickle; in what every
reading verb prints; in exports, backups, the page of a run and the logs of a daemon. The page prints what it was, so that a
failure can be repeated.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.engine.conftest import Program
from wfengine import secrets
from wfengine.variables import Variable
from wfengine_journal import store

ROOT = Path(__file__).parents[2]

PROGRAM = """
from pydantic import SecretStr
from wfengine import get_run_logger
from wfengine.artifacts import create_markdown_artifact, create_table_artifact
from wfengine.cache_policies import INPUTS
from wfengine.events import emit_event
from wfengine.runners.processes import ProcessTaskRunner
from wfengine.secrets import Secret

class Client:
    def __init__(self, key):
        self.key = key

@task(log_prints=True, retries=1)
def everywhere(secret, text):
    value = secret.get()
    print("printed", value)
    get_run_logger().warning("logged %s", {"key": value})
    emit_event("used." + value, resource="order." + value, payload={"key": [value]})
    create_markdown_artifact("# " + value, key="report", description=value)
    create_table_artifact([{"key": value}])
    raise ValueError("raised " + value, {"key": value})

@task(task_run_name="named {text}", tags=["t"])
def give_back(text):
    return {"raw": text, "url": "https://u:" + text + "@h", "client": Client(text), "bytes": text.encode()}

@task(cache_policy=INPUTS, on_interrupt="rerun")
def cached(text, hidden):
    return text + hidden.get_secret_value()

@task
def inner(client):
    return len(client.key)

@flow(flow_run_name="run of {text}")
def child(text, hidden: SecretStr):
    return hidden

@flow(log_prints=True, task_runner=ProcessTaskRunner(1))
def main(secret: Secret, text: str, hidden: SecretStr, options: dict):
    print("the flow prints", text)
    everywhere(secret, text, return_state=True)
    future = everywhere.submit(secret, text)
    future.wait()
    found = give_back(text)
    cached(text, hidden)
    give_back.map([text, found["raw"]]).result()
    child(text, hidden)
    if first_time():
        kill()
    inner(found["client"])
    if first_time("failed"):
        raise RuntimeError("the flow fails with " + text + str(options))
    return found
"""

VERBS = (
    ("runs", "ls"),
    ("runs", "show", "1"),
    ("runs", "show", "1", "--json"),
    ("runs", "logs", "1"),
    ("runs", "logs", "1", "--json"),
    ("tasks", "explain-cache", "1", "1"),
    ("events", "ls"),
    ("events", "ls", "--json"),
    ("artifacts", "ls", "--json"),
    ("artifacts", "show", "1"),
    ("deployments", "ls", "--json"),
    ("deployments", "show", "main/main"),
    ("secrets", "ls", "--json"),
    ("variables", "ls", "--json"),
    ("sql", "SELECT * FROM tasks"),
    ("sql", "SELECT * FROM failures"),
    ("sql", "SELECT * FROM history"),
    ("export", "-o", "runs.jsonl"),
    ("export", "1", "--format", "html", "-o", "run.html"),
    ("backup", "copy.db"),
    ("extract", "1", "small.db"),
    ("doctor",),
    ("info", "--json"),
    ("status",),
)


def forms_of(canary: str) -> list[bytes]:
    """Return what is searched for."""
    raw = canary.encode()
    texts = {canary, json.dumps(canary)[1:-1], json.dumps(canary, ensure_ascii=False)[1:-1], repr(canary)[1:-1], quote(canary)}
    forms = {text.encode() for text in texts} | {canary.encode("utf-16-le"), raw[4:], raw[:-4]}
    # In base64 a text looks different by where it begins; the middle of each of the three forms is searched.
    for shift in range(3):
        forms.add(base64.b64encode(b"x" * shift + raw)[4:-4])
    return [form for form in forms if len(form) >= 8]


def holders(folder: Path, forms: list[bytes]) -> list[str]:
    """Return the files that hold one of the forms, as they are or within something compressed by zlib."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != "effects.txt":
            data = file.read_bytes()
            if any(form in data or form in _inflated(data) for form in forms):
                found.append(str(file.relative_to(folder)))
    return found


def _inflated(data: bytes) -> bytes:
    parts = []
    start = data.find(b"\x78\x01")
    while start >= 0:
        with suppress(zlib.error):
            parts.append(zlib.decompressobj().decompress(data[start:], 10_000_000))
        start = data.find(b"\x78\x01", start + 1)
    return b"".join(parts)


def wfengine(program: Program, *arguments: str) -> str:
    """Run a command line, and return all that it printed."""
    environment = {
        **program.environment,
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in (".", "journal", "scheduler")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "wfengine", *arguments], cwd=program.folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return f"{done.stdout}\n{done.stderr}"


@pytest.mark.crash
@pytest.mark.parametrize("isolate", [False, True])
def test_a_canary_is_found_nowhere(program: Program, isolate: bool) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    made = random.Random(seed)
    canary = "".join(made.choices("abcdefghijkmnpqrstuvwxyz23456789", k=16)) + 'ä"\\' + "".join(made.choices("ABCDEFGHJK", k=8))
    hidden = "".join(made.choices("abcdefghijkmnpqrstuvwxyz23456789", k=24))
    secrets.set("db", canary)
    secrets.set("hidden", hidden)
    Variable.set("region", "north")
    store.close_all()
    program.write(PROGRAM)
    (program.folder / "wfengine.toml").write_text(
        f"""
        [[deployments]]
        name = "main"
        flow = "program.py:main"
        isolate = {str(isolate).lower()}
        [deployments.parameters]
        secret = "{{{{ secrets.db }}}}"
        text = "{{{{ secrets.db }}}}"
        hidden = "{{{{ secrets.hidden }}}}"
        options = {{ region = "{{{{ variables.region }}}}", url = "https://{{{{ secrets.db }}}}" }}
        """
    )
    said = [wfengine(program, "deploy", "wfengine.toml"), wfengine(program, "deployments", "run", "main/main")]
    said += _served(program) if isolate else []
    for _ in range(3):  # it is killed, then it fails, then it completes; a daemon may have seen the first two
        state, sealed = program.python("-c", STATE).out.split()
        said += [wfengine(program, "resume", "1")] if state != "COMPLETED" else []
    said.append(_read(program))
    state, sealed = program.python("-c", STATE).out.split()
    assert state == "COMPLETED", said[:6]
    assert int(sealed) >= 1, "nothing was sealed"
    forms = forms_of(canary) + forms_of(hidden)
    assert [text for text in said if any(form in text.encode() for form in forms)] == []
    assert holders(program.folder, forms) == []


def _served(program: Program) -> list[str]:
    """Let a daemon execute the run in a process of its own, which is killed once, until it has failed; stop the daemon."""
    with (program.folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "wfengine", "serve"], cwd=program.folder, env=program.environment, stdout=log, stderr=log
        )
        try:
            said = wfengine(program, "watch", "1")
        finally:
            daemon.terminate()
            daemon.wait(60)
    return [said, (program.folder / "daemon.log").read_text()]


READING = """
import json, sys
from wfengine.cli import main
for verb in json.loads(sys.argv[1]):
    try:
        main(verb)
    except SystemExit as end:
        print("VERB", *verb, end.code, flush=True)
"""


def _read(program: Program) -> str:
    """Call every reading verb, in one process that was never told a secret; return what they print."""
    done = program.python("-c", READING, json.dumps(VERBS))
    assert done.out.count("VERB ") == len(VERBS), done
    ends = [line for line in done.out.splitlines() if line.startswith("VERB ")]
    assert [line for line in ends if line[-2:] not in (" 0", " 1", " 3")] == [], done
    return done.out + done.err


STATE = """
import os, sqlite3
connection = sqlite3.connect(os.environ["WFENGINE_JOURNAL"])
print(connection.execute("SELECT state FROM flow_run WHERE id = 1").fetchone()[0])
print(connection.execute("SELECT count(*) FROM value WHERE codec LIKE 'sealed:%'").fetchone()[0])
"""


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    canary = 'abcdefghijklmnopä"\\QRSTUVWX'
    forms = forms_of(canary)
    planted = {
        "plain": canary.encode(), "json": json.dumps({"a": canary}).encode(),
        "base64": base64.b64encode(b"ab" + canary.encode()),
        "zlib": b"head" + zlib.compress(canary.encode(), 1), "repr": repr([canary]).encode(),
    }  # fmt: skip
    for name, data in planted.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "nothing").write_bytes(b"abcdefgh***")
    assert holders(tmp_path, forms) == sorted(planted)
