"""`wfengine metrics`: the journal's metrics as text for Prometheus, once or again and again into a file."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path
from wfengine.cli.output import write, write_json
from wfengine_journal.clock import SystemClock
from wfengine_journal.queries import reading


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine metrics | grep flow_run_states\n"
        "  wfengine metrics --textfile /var/lib/prometheus/node-exporter/wfengine.prom --interval 15",
        'JSON:\n  {"schema_version", "command", "metrics": [{"name", "labels", "value"}]}',
    ),
)
@click.option("--textfile", type=click.Path(path_type=Path, dir_okay=False), help="Write into this file, by a rename.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 86400), metavar="SECONDS", help="With --textfile: write it again and again."
)
@pass_settings
def metrics(settings: Settings, textfile: Path | None, interval: float | None) -> int:
    """Print what Prometheus is to know of the journal: how runs and tasks ended, how long they took, queues, sizes.

    A daemon answers the same, and how long its commits take, with: wfengine serve --metrics-port PORT
    """
    if interval is not None and textfile is None:
        raise click.BadParameter("it goes with --textfile FILE", param_hint="--interval")
    from wfengine.listeners.metrics import metrics_text, registry_of, write_textfile  # needs an extra

    path = journal_path(settings)
    with reading(path):  # refuses what is no journal
        registry = registry_of(path, SystemClock())
    if textfile is None:
        if settings.as_json:
            found = [
                {"name": sample.name, "labels": sample.labels, "value": sample.value}
                for metric in registry.collect()
                for sample in metric.samples
            ]
            write_json("metrics", {"metrics": found})
        else:
            write(metrics_text(registry).rstrip("\n"))
        return ExitCode.OK
    write_textfile(registry, textfile)
    pause = threading.Event()
    while interval is not None:
        pause.wait(interval)
        write_textfile(registry, textfile)
    if settings.as_json:
        write_json("metrics", {"file": str(textfile)})
    return ExitCode.OK
