"""The same promises on each service: the protocols of Amazon, Google and Azure, on real servers, with faults and kills."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from tests.engine.bucket_server import Environ, Fault
from tests.engine.bucket_services import NO_AZURITE, SERVICES, Service, find_azurite, resetting, serving
from tests.engine.conftest import Program, Rows
from tests.engine.test_bucket_storage import LARGE, PROGRAM
from wfengine import flow
from wfengine.bucket_orphans import delete_orphans, find_orphans
from wfengine.bucket_storage import BucketStorage
from wfengine.result_storage import load_stored
from wfengine_journal.errors import StoredResultError, ValueNotStorableError


@pytest.fixture(scope="module", params=SERVICES)
def running(request: pytest.FixtureRequest) -> Iterator[Service]:
    if request.param == "abfs" and find_azurite() is None:
        pytest.skip(NO_AZURITE)
    with serving(request.param) as service:
        yield service


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    running.gate.fault = None
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def storage(service: Service) -> BucketStorage:
    """A bucket of the test's own."""
    return BucketStorage(service.address(f"shelf-{uuid.uuid4().hex}"))


def is_upload(environ: Environ) -> bool:
    """Tell whether a request brings the content of an object."""
    return environ["REQUEST_METHOD"] in ("PUT", "POST") and int(environ.get("CONTENT_LENGTH") or 0) > 1000


def is_download(environ: Environ) -> bool:
    """Tell whether a request is for the content of an object, and not for what is said of it."""
    return environ["REQUEST_METHOD"] == "GET" and "abababab" in environ["PATH_INFO"]


def killing(pid_file: Path) -> Fault:
    """Kill the process whose id is in the file once an object comes, before it is kept."""

    def fault(environ: Environ) -> Response | None:
        if not is_upload(environ) or not pid_file.exists():
            return None
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        pid_file.unlink()
        return Response("", 503)

    return fault


def test_an_object_is_written_read_listed_and_deleted(storage: BucketStorage) -> None:
    name = storage.new_name("ab" * 16)
    storage.write_path(name, b"content")
    storage.write_path("letter.txt", b"of somebody")
    assert storage.read_path(name) == b"content"
    assert storage.list_names() == [name]
    assert storage.list_names(3600) == []
    assert not storage.delete_path(name, 3600)
    assert storage.delete_path(name, -60)
    assert not storage.delete_path(name, -60)
    with pytest.raises(FileNotFoundError):
        storage.read_path(name)


def test_a_result_that_was_changed_or_is_gone_is_an_error(storage: BucketStorage, rows: Rows) -> None:
    @flow(result_storage=storage.address)
    def main() -> str:
        return LARGE

    assert main() == LARGE
    ((reference,),) = rows("SELECT result FROM flow_run WHERE result_codec = 'stored'")
    assert load_stored("stored", str(reference), "the result") == LARGE
    (name,) = storage.list_names()
    storage.write_path(name, LARGE.encode())
    with pytest.raises(StoredResultError, match="checksum does not match"):
        load_stored("stored", str(reference), "the result")
    assert storage.delete_path(name, -60)
    with pytest.raises(StoredResultError, match="missing or damaged"):
        load_stored("stored", str(reference), "the result")


def test_orphans_are_found_and_deleted_and_what_a_row_names_stays(storage: BucketStorage, rows: Rows) -> None:
    @flow(result_storage=storage.address)
    def main() -> str:
        return LARGE

    main()
    (kept,) = storage.list_names()
    orphan = storage.new_name("ab" * 16)
    storage.write_path(orphan, b"content")
    assert find_orphans(storage.address) == []
    assert delete_orphans(storage.address, age_seconds=-60) == [orphan]
    assert storage.list_names() == [kept]


def test_a_bucket_that_is_missing_fails_the_task_and_is_no_empty_list(service: Service, storage: BucketStorage) -> None:
    missing = storage.address.replace("shelf-", "none-")

    @flow(result_storage=missing)
    def main() -> str:
        return LARGE

    with pytest.raises(ValueNotStorableError, match="did not take the file"):
        main()
    with pytest.raises(StoredResultError, match="did not answer"):
        find_orphans(missing)


@pytest.mark.parametrize("killed", ["within", "after"])
def test_a_flow_that_is_killed_within_an_upload_or_after_it_goes_on(
    program: Program, service: Service, storage: BucketStorage, rows: Rows, killed: str
) -> None:
    service.gate.fault = killing(program.folder / "pid")
    program.environment |= {**service.environment, "BUCKET": storage.address, "KILLED": killed}
    program.write(PROGRAM)
    program.run_and_be_killed()
    stored = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    assert len(stored) == len(storage.list_names()) == (1 if killed == "after" else 0)
    assert program.resume(recovery=True)["result"] == "5000"
    ((reference,),) = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    assert json.loads(str(reference))["path"] in storage.list_names()


def answering(status: int, times: int, is_meant: Callable[[Environ], bool]) -> Fault:
    """Answer so many requests with an error of the service."""
    left = [times]

    def fault(environ: Environ) -> Response | None:
        if not is_meant(environ) or left[0] == 0:
            return None
        left[0] -= 1
        return Response("as the test says", status)

    return fault


def spoiling(content: bytes) -> Fault:
    """Answer each request for an object with that content in place of its own, headers and all, as a broken proxy would."""

    def fault(environ: Environ) -> Response | None:
        return Response(content, 200, mimetype="application/octet-stream") if is_content(environ) else None

    return fault


def is_content(environ: Environ) -> bool:
    """Tell whether a request is for the content of a result, whatever its name."""
    is_data = "alt=media" in environ.get("QUERY_STRING", "") or "/download/" in environ["PATH_INFO"]
    is_list = "comp=" in environ.get("QUERY_STRING", "") or "list-type" in environ.get("QUERY_STRING", "")
    is_google = "/storage/v1/" in environ["PATH_INFO"] or "/b/" in environ["PATH_INFO"]
    named = "results" in environ["PATH_INFO"] and not environ["PATH_INFO"].rstrip("/").endswith("results")
    return environ["REQUEST_METHOD"] == "GET" and named and not is_list and (is_data or not is_google)


@pytest.mark.parametrize("what", ["truncated", "corrupted", "empty"])
def test_a_result_that_is_read_truncated_or_corrupted_is_an_error_and_not_another_value(
    service: Service, storage: BucketStorage, rows: Rows, what: str
) -> None:
    @flow(result_storage=storage.address)
    def main() -> str:
        return LARGE

    main()
    ((reference,),) = rows("SELECT result FROM flow_run WHERE result_codec = 'stored'")
    (name,) = storage.list_names()
    raw = storage.read_path(name)
    spoiled = {"truncated": raw[: len(raw) // 2], "corrupted": bytes([raw[0] ^ 1]) + raw[1:], "empty": b""}[what]
    service.gate.fault = spoiling(spoiled)
    with pytest.raises(StoredResultError):
        load_stored("stored", str(reference), "the result")
    service.gate.fault = None
    assert load_stored("stored", str(reference), "the result") == LARGE


def test_a_service_that_is_busy_is_asked_again(service: Service, storage: BucketStorage) -> None:
    if service.scheme == "abfs":
        pytest.skip("Azure's library waits for 15 seconds before it tries again")
    name, content = storage.new_name("ab" * 16), b"x" * 5000
    service.gate.fault = answering(503, 1, is_upload)
    storage.write_path(name, content)
    service.gate.fault = answering(503, 1, is_download)
    assert storage.read_path(name) == content


def test_a_connection_that_is_reset_is_made_again(service: Service, storage: BucketStorage) -> None:
    if service.scheme == "abfs":
        pytest.skip("Azure's library waits for 15 seconds before it tries again")
    name, content = storage.new_name("ab" * 16), b"x" * 5000
    service.gate.fault = resetting(1, is_upload)
    storage.write_path(name, content)
    service.gate.fault = resetting(1, is_download)
    assert storage.read_path(name) == content
