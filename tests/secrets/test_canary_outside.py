"""A canary leaves the process by no way out: metrics, traces, notifications, pages, the REST API and its streams.

Wherever the program of this test puts the secret it puts a marker too, which is none: each search has to find that one, so that
a search which looks in the wrong place fails. Whatever is asked here is asked of processes that were never told the secret, and
that could decrypt it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.daemons import DaemonProcess
from tests.engine.conftest import Program
from tests.notifications.conftest import certificate, mail, service  # noqa: F401  # fixtures
from tests.notifications.services import SLACK, HttpService, MailService
from tests.otlp import Receiver
from tests.secrets.test_canary import forms_of, holders
from wfengine import secrets
from wfengine.notifications import set_target
from wfengine_journal import store

#: It is executed twice: in the middle the process is killed.
PROGRAM = """
import logging
from pydantic import SecretStr
from wfengine import get_run_logger
from wfengine.artifacts import create_markdown_artifact, create_table_artifact
from wfengine.cache_policies import INPUTS
from wfengine.events import emit_event
from wfengine.listeners.tracing import current_context
from wfengine.notifications import notify, notify_hook
from wfengine.secrets import Secret

MARKER = os.environ["MARKER"]

@task(log_prints=True, retries=1, on_failure=[notify_hook("slack")])
def everywhere(secret, text):
    for value in (secret.get(), MARKER):
        print("printed", value)
        get_run_logger().warning("logged %s", {"key": value})
        emit_event("used." + value, resource="order." + value, payload={"key": [value]})
        create_markdown_artifact("# " + value, key="report", description=value)
        create_table_artifact([{"key": value}])
        notify(["slack", "mail"], "told " + value, "about " + value)
    raise ValueError("raised " + secret.get(), {"key": MARKER})

@task(task_run_name="named {text} {marker}", tags=["t"])
def give_back(text, marker):
    return {"raw": text, "url": "https://u:" + text + "@h", "bytes": text.encode(), "marker": marker}

@task(cache_policy=INPUTS)
def cached(text, marker):
    return text + marker

@flow(flow_run_name="run of {text} {marker}")
def child(text, marker):
    return marker + text

@flow(name="main " + MARKER, log_prints=True, on_failure=[notify_hook(["slack", "mail"])])
def main(secret, text, marker, options):
    print("the flow prints", text, marker)
    found = give_back(text, marker)
    cached(text, marker)
    child(text, marker)
    if first_time():
        kill()
    everywhere.submit(secret, text).wait()
    raise RuntimeError("the flow fails with " + text + " and " + marker + str(options))

if __name__ == "__main__":
    secret = Secret("db")
    try:
        main(secret, secret.get(), MARKER, {"url": ["https://" + secret.get(), "https://" + MARKER]})
    except RuntimeError:
        pass
"""


def prepare(program: Program, receiver: Receiver, service: HttpService, mail: MailService, canary: str) -> None:  # noqa: F811
    """Keep the secret, set both targets, and have the processes of the program trace."""
    secrets.set("db", canary)
    secrets.set("slack", SLACK)
    secrets.set("mail", mail.password)
    set_target("slack", url_secret="slack", allow_private=True, rate=None)
    set_target("mail", url=mail.url.replace(mail.password, "{{ secrets.mail }}"), allow_private=True, rate=None)
    store.close_all()
    program.environment |= {
        **service.environment, "WFENGINE_TRACES": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "WFENGINE_NOTIFICATIONS": "off",
    }  # fmt: skip


def mailed(mail: MailService) -> list[bytes]:  # noqa: F811
    """Return the mails as they came, and what a reader sees of them."""
    seen = [str(each["Subject"]).encode() for each in mail.got]
    parts = [part for each in mail.got for part in each.walk() if part.get_content_maintype() == "text"]
    return [*mail.raw, *seen, *(part.get_content().encode() for part in parts)]


def scraped(program: Program) -> list[bytes]:
    """Return the metrics in each of the three ways: served by a daemon, in a file, printed; and the log of that daemon."""
    arguments = ("-m", "wfengine", "serve", "--metrics-port", "0", "--log-format", "json")
    with DaemonProcess(program.folder, *arguments, environment=program.environment) as daemon:
        daemon.wait_until_ready()
        (port,) = [fact["fields"]["port"] for fact in daemon.facts if fact.get("event") == "metrics.serving"]  # type: ignore[index]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            served = answer.read()
        daemon.stop()
        log = daemon.said.encode()
    for options in (["--textfile", "metrics.prom"], ["--json"]):
        done = program.python("-m", "wfengine", "metrics", *options)
        assert done.code == 0, done
    return [served, (program.folder / "metrics.prom").read_bytes(), done.out.encode(), log]


def crawled(program: Program) -> set[str]:
    """Ask a page of another process for everything; the answers are in the folder 'answers' then."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("page_crawler.py"))], cwd=program.folder, env=program.environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.crash
def test_a_canary_leaves_by_no_way_out(program: Program, service: HttpService, mail: MailService) -> None:  # noqa: F811
    seed = random.randrange(10**9)
    print("seed", seed)
    made = random.Random(seed)
    canary = "".join(made.choices("abcdefghijkmnpqrstuvwxyz23456789", k=26))
    marker = "marker" + "".join(made.choices("abcdefghijkmnpqrstuvwxyz23456789", k=12))
    program.write(PROGRAM)
    with Receiver() as receiver:
        prepare(program, receiver, service, mail, canary)
        program.environment["MARKER"] = marker
        program.run_and_be_killed()
        assert program.resume()["state"] == "FAILED"
        receiver.wait_for("task everywhere")
    sent = program.python("-m", "wfengine", "notifications", "send", "--json")
    assert sent.code == 0, sent
    del program.environment["WFENGINE_TRACES"]
    ways = {"Slack": service.raw, "mail": mailed(mail), "traces": receiver.raw, "metrics": scraped(program)}
    answered = crawled(program)
    assert {"/", "/runs/1", "/tasks/1", "/runs/1/logs/stream", "/events/stream", "/api/v1/runs/1/extract"} <= answered
    forms = forms_of(canary) + forms_of("TIiajkdnlazkcOXrIdevi7FQ") + forms_of(mail.password)  # of Slack's URL
    for way, parts in ways.items():
        assert any(marker.encode() in part for part in parts), f"nothing is found of what goes out by {way}"
        assert [part for part in parts if any(form in part for form in forms)] == [], way
    with_marker = holders(program.folder / "answers", [marker.encode()])
    assert len(with_marker) > 20
    assert holders(program.folder, forms) == []
