"""The dashboard and the alert rules of examples/monitoring speak of metrics that exist, and are what their programs read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import yaml

from wfengine import flow, use_journal
from wfengine.listeners.metrics import MetricsServer

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
#: What Grafana needs of a dashboard, as far as this one uses it.
SOURCE = {"type": "object", "required": ["type", "uid"], "properties": {"type": {"const": "prometheus"}}}
PANEL = {
    "type": "object",
    "required": ["id", "title", "type", "gridPos", "targets", "datasource", "fieldConfig"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "title": {"type": "string", "minLength": 3},
        "type": {"enum": ["timeseries", "stat"]},
        "datasource": SOURCE,
        "gridPos": {
            "type": "object",
            "required": ["x", "y", "w", "h"],
            "properties": {"x": {"enum": [0, 8, 16]}, "y": {"minimum": 0}, "w": {"const": 8}, "h": {"minimum": 3}},
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["refId", "expr", "datasource"],
                "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string"}, "datasource": SOURCE},
            },
        },
    },
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "items": PANEL, "minItems": 1},
        "templating": {
            "type": "object",
            "properties": {"list": {"items": {"required": ["name", "type", "query"]}}},
        },
        "time": {"required": ["from", "to"]},
    },
}


def names_there_are(folder: Path) -> dict[str, set[str]]:
    """Return the names of all samples of a daemon's metrics, with the labels that each may have."""
    journal = use_journal(folder / "journal.db")
    flow(name="etl")(lambda: None)()
    journal.flush()
    found: dict[str, set[str]] = {}
    for metric in MetricsServer(journal, port=0)._registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
        for suffix in suffixes.get(metric.type, ("",)):
            found[metric.name + suffix] = set()
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        *(variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


def test_every_metric_that_the_examples_name_exists(tmp_path: Path) -> None:
    there = names_there_are(tmp_path) | {"wfengine_daemon_silence_seconds": set()}  # there is no daemon here
    named = {name for expression in expressions() for name in re.findall(r"\bwfengine_\w+", expression)}
    assert len(named) >= 12
    assert named - set(there) == set()


def test_the_dashboard_is_one(tmp_path: Path) -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    jsonschema.validate(dashboard, DASHBOARD)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alert_rules_are_complete_and_prometheus_reads_them() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "description"} <= set(rule["annotations"])
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "rules", str(FOLDER / "alerts.yml")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
