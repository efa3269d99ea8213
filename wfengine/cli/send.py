"""`wfengine send`: send a message to a run."""

from __future__ import annotations

import click

from wfengine.cli import execution
from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path
from wfengine.cli.output import clean, json_value, say, write_json
from wfengine_journal.queries import get_run, reading


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine send quiet-heron '{\"paid\": true}' --topic payment --key invoice-77\n"
        "  wfengine send @last 1.10 --text",
        'JSON:\n  {"schema_version", "command", "message": {"id", "run_id", "topic", "is_new"}}',
    ),
)
@click.argument("run", metavar="RUN")
@click.argument("value")
@click.option("--topic", default="default", show_default=True, help="What it is about; the flow says receive(TOPIC).")
@click.option("--key", help="A second message with this topic and key is not sent.")
@click.option("--text", is_flag=True, help="Take VALUE as text even where it is JSON.")
@pass_settings
def send(settings: Settings, run: str, value: str, topic: str, key: str | None, text: bool) -> int:
    """Send VALUE to a run: what it is as JSON, else the text itself. It is kept until the run receives it."""
    path = journal_path(settings)
    with reading(path) as connection:  # refuses a missing journal, which the engine would create
        found = get_run(connection, run)
    message_id, is_new = execution.send(path, found.id, value if text else json_value(value), topic=topic, key=key)
    if settings.as_json:
        write_json("send", {"message": {"id": message_id, "run_id": found.id, "topic": topic, "is_new": is_new}})
    elif not settings.quiet:
        name = clean(found.name)
        say(
            f"Message {message_id} is sent to {name}, topic '{clean(topic)}'."
            if is_new
            else f"Nothing is sent: message {message_id} of topic '{clean(topic)}' has this key, and {name} has it already."
        )
    return ExitCode.OK
