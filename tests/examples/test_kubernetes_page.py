"""The manifests and the Dockerfile of the page on Kubernetes: by its schemas, and by what they say of one another."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
#: The oldest and the newest Kubernetes whose schemas are asked.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
#: What the patch is made for.
PATCH = "daemon-with-ray.yaml"


Object = dict[str, Any]


def _objects(name: str) -> list[Object]:
    return [found for found in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")) if found]


def _patched(base: Any, patch: Any) -> Any:
    """Return what a strategic merge patch makes: lists of named things are merged by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: _patched(base[key], value) if key in base else value for key, value in patch.items()}
    if isinstance(base, list) and all(isinstance(item, dict) and "name" in item for item in [*base, *patch]):
        changes = {item["name"]: item for item in patch}
        kept = [_patched(item, changes.pop(item["name"], {})) for item in base]
        return [*kept, *changes.values()]
    return patch


def _everything() -> list[Object]:
    daemon = _objects("daemon.yaml")
    stateful = next(found for found in daemon if found["kind"] == "StatefulSet")
    with_ray = _patched(stateful, _objects(PATCH)[0])
    return [*daemon, *_objects("dask.yaml"), *_objects("ray.yaml"), with_ray]


def _pods() -> list[Object]:
    return [found for found in _everything() if found["kind"] in ("StatefulSet", "Deployment")]


def _containers() -> list[Object]:
    return [container for pod in _pods() for container in pod["spec"]["template"]["spec"]["containers"]]


def _instruction(name: str) -> list[str]:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def _exit_code(folder: Path, args: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "wfengine", *args], cwd=folder, capture_output=True, check=False).returncode


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema_of_kubernetes(version: str) -> None:
    for found in _everything():
        kubernetes_validate.validate(found, version, strict=True)


def test_the_schema_finds_what_is_wrong() -> None:
    wrong = _objects("daemon.yaml")[1]
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_selectors_find_the_pods_they_are_meant_for_and_ports_have_a_container() -> None:
    labels = [pod["spec"]["template"]["metadata"]["labels"] for pod in _pods()]
    for pod in _pods():
        wanted = pod["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= pod["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for container in _containers() for port in container.get("ports", ())}
    for found in _everything():
        if found["kind"] == "Service":
            assert any(found["spec"]["selector"].items() <= known.items() for known in labels)
            assert {port["targetPort"] for port in found["spec"].get("ports", ())} <= ports
        if found["kind"] == "NetworkPolicy":
            for source in found["spec"]["ingress"][0]["from"]:
                assert any(source["podSelector"]["matchLabels"].items() <= known.items() for known in labels)
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("daemon.yaml", "dask.yaml", "ray.yaml", PATCH))
    services = {found["metadata"]["name"] for found in _everything() if found["kind"] == "Service"}
    assert set(re.findall(r"(?:tcp://|\")([a-z-]+):\d+", text)) <= services


def test_every_volume_that_is_mounted_is_there() -> None:
    for pod in _pods():
        spec = pod["spec"]["template"]["spec"]
        there = {volume["name"] for volume in spec.get("volumes", ())}
        there |= {claim["metadata"]["name"] for claim in pod["spec"].get("volumeClaimTemplates", ())}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= there


def test_there_is_one_daemon_that_is_not_root_and_has_time_to_stop() -> None:
    daemon = next(found for found in _objects("daemon.yaml") if found["kind"] == "StatefulSet")
    spec = daemon["spec"]["template"]["spec"]
    assert daemon["spec"]["replicas"] == 1
    assert daemon["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    container = spec["containers"][0]
    stop = float(container["args"][container["args"].index("--stop-timeout") + 1])
    assert spec["terminationGracePeriodSeconds"] > stop
    user = {pod["spec"]["template"]["spec"]["securityContext"]["runAsUser"] for pod in _pods()}
    assert [str(number) for number in user] == _instruction("USER")
    for each in _containers():
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["image"] == container["image"]
        assert "memory" in each["resources"]["limits"]


def test_the_commands_of_dask_and_ray_are_those_of_the_programs() -> None:
    import ray.scripts.scripts as ray_scripts
    from distributed.cli import dask_scheduler, dask_worker

    known = {
        ("dask", "scheduler"): dask_scheduler.main, ("dask", "worker"): dask_worker.main, ("ray", "start"): ray_scripts.start,
    }  # fmt: skip
    seen = set()
    for container in _containers():
        if "command" in container:
            program, verb, *args = container["command"]
            seen.add((program, verb))
            known[program, verb].make_context(verb, [str(arg) for arg in args])  # raises where an option is not known
    assert seen == set(known)


def test_the_image_serves_what_the_pod_serves(tmp_path: Path) -> None:
    daemon = next(found for found in _objects("daemon.yaml") if found["kind"] == "StatefulSet")
    args = daemon["spec"]["template"]["spec"]["containers"][0]["args"]
    assert json.loads(_instruction("CMD")[0]) == args
    assert json.loads(_instruction("ENTRYPOINT")[0]) == ["wfengine"]
    assert _instruction("STOPSIGNAL") == ["SIGTERM"]
    (tmp_path / "etl.py").write_text("from wfengine import flow\n\n\n@flow\ndef etl(): ...\n", encoding="utf-8")
    serve = [str(tmp_path / "etl.py") if arg == "etl.py" else arg for arg in args]
    journal = ["--journal", str(tmp_path / "journal.db")]
    assert _exit_code(tmp_path, [*serve, "--check", *journal]) == 0
    probe = json.loads(_instruction("HEALTHCHECK")[0].partition("CMD ")[2])
    assert probe == daemon["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
    assert _exit_code(tmp_path, [*probe[1:], *journal]) != 0  # nobody lives there


def test_the_image_installs_extras_that_there_are() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    installed = re.findall(r"wfengine\[([\w,]+)\]", "".join(_instruction("RUN")))
    assert set(installed[0].split(",")) <= set(extras)
    assert shlex.split(_instruction("COPY")[0])[-1] == "./"


def test_the_page_names_every_file_there_is() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\.\./examples/kubernetes/([\w.-]+)", page))
    assert named == {path.name for path in FOLDER.iterdir()}
