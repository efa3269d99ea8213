"""Results in a bucket, on a real S3 server on loopback: whole before their row, verified on read, and faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.engine.bucket_server import BucketServer, failing, killing
from tests.engine.bucket_server import running as running
from tests.engine.bucket_server import server as server
from tests.engine.conftest import Program, Rows
from wfengine import flow, task
from wfengine.bucket_orphans import delete_orphans, find_orphans
from wfengine.bucket_storage import BucketStorage
from wfengine.result_storage import load_stored, resolve_storage
from wfengine.stored_files import delete
from wfengine_journal.errors import JournalNotFoundError, StoredResultError, UsageError, ValueNotStorableError

LARGE = "x" * 5000


@pytest.fixture
def storage(server: BucketServer, request: pytest.FixtureRequest) -> BucketStorage:
    """A bucket of the test's own."""
    bucket = f"bucket-{abs(hash(request.node.name)):x}"
    BucketStorage(f"s3://{bucket}")._file_system().mkdir(bucket)
    server.requests.clear()
    return BucketStorage(f"s3://{bucket}/results")


def test_a_large_result_goes_to_the_bucket_and_its_address_and_checksum_to_the_journal(
    storage: BucketStorage, rows: Rows
) -> None:
    @task(result_storage=storage.address)
    def make(size: int) -> str:
        return "x" * size

    @flow
    def main() -> list[int]:
        return [len(make(5000)), len(make(5))]

    assert main() == [5000, 5]
    (name,) = storage.list_names()
    assert json.loads(storage.read_path(name)) == LARGE
    ((reference,),) = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    found = json.loads(str(reference))
    assert (found["at"], found["path"], found["size"]) == (storage.address, name, 5002)
    assert name.startswith(found["hash"])
    assert load_stored("stored", str(reference), "the result") == LARGE


def test_an_object_that_was_changed_or_is_gone_is_an_error_and_never_another_value(
    server: BucketServer, storage: BucketStorage, rows: Rows
) -> None:
    @flow(result_storage=storage.address)
    def main() -> str:
        return LARGE

    main()
    ((reference,),) = rows("SELECT result FROM flow_run WHERE result_codec = 'stored'")
    (name,) = storage.list_names()
    storage.write_path(name, LARGE.encode())
    with pytest.raises(StoredResultError, match="checksum does not match"):
        load_stored("stored", str(reference), "the result")
    assert storage.delete_path(name, -60.0)
    with pytest.raises(StoredResultError, match="missing or damaged"):
        load_stored("stored", str(reference), "the result")


def test_a_service_that_is_busy_is_asked_again(server: BucketServer, storage: BucketStorage) -> None:
    server.fault = failing(503, 2, "PUT")
    storage.write_path("ab" * 16, b"content")
    assert [line.split()[0] for line in server.requests].count("PUT") == 3
    server.fault = failing(503, 2, "GET")
    assert storage.read_path("ab" * 16) == b"content"


@pytest.mark.parametrize("why", ["denied", "no bucket", "busy for ever"])
def test_a_result_that_the_bucket_does_not_take_fails_its_task(
    server: BucketServer, storage: BucketStorage, rows: Rows, why: str
) -> None:
    address = "s3://there-is-no-such-bucket/results" if why == "no bucket" else storage.address
    server.fault = {"denied": failing(403, -1, "PUT"), "busy for ever": failing(503, -1, "PUT")}.get(why)

    @task(result_storage=address)
    def make() -> str:
        return LARGE

    @flow
    def main() -> None:
        make()

    with pytest.raises(ValueNotStorableError, match="did not take the file"):
        main()
    assert rows("SELECT state, result FROM tasks") == [("FAILED", None)]
    assert [line.split()[0] for line in server.requests].count("PUT") == (5 if why == "busy for ever" else 1)


PROGRAM = """
    @task
    def make(letter):
        note(letter)
        return letter * 5000

    @flow(result_storage=os.environ["BUCKET"])
    def main():
        made = make("a")
        if os.environ["KILLED"] == "after" and first_time():
            kill()
        return len(made)

    if os.environ["KILLED"] == "within" and first_time():
        (HERE / "pid").write_text(str(os.getpid()))
    main()
"""


@pytest.mark.parametrize("killed", ["within", "after"])
def test_a_flow_that_is_killed_within_an_upload_or_after_it_goes_on(
    program: Program, server: BucketServer, storage: BucketStorage, rows: Rows, killed: str
) -> None:
    server.fault = killing(program.folder / "pid")
    program.environment |= {**server.environment, "BUCKET": storage.address, "KILLED": killed}
    program.write(PROGRAM)
    program.run_and_be_killed()
    stored = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    assert len(stored) == len(storage.list_names()) == (1 if killed == "after" else 0)
    assert program.resume(recovery=True)["result"] == "5000"
    assert program.effects == (["a"] if killed == "after" else ["a", "a"])
    ((reference,),) = rows("SELECT result FROM task_run WHERE result_codec = 'stored'")
    assert json.loads(str(reference))["path"] in storage.list_names()
    journal = b"".join(path.read_bytes() for path in program.folder.glob("journal.db*"))
    assert b"canary-of-the-secret-key" not in journal


def test_pruning_leaves_a_young_object_and_names_that_are_not_its_own(storage: BucketStorage) -> None:
    name = storage.new_name("ab" * 16)
    storage.write_path(name, b"content")
    storage.write_path("letter.txt", b"of somebody")
    reference = json.dumps({"at": storage.address, "path": name, "hash": "ab" * 16})
    other = json.dumps({"at": storage.address, "path": "letter.txt", "hash": "letter.txt"})
    assert delete([reference, other]) == 0
    assert storage.delete_path(name, -60.0)
    assert not storage.delete_path(name, -60.0)
    assert storage.read_path("letter.txt") == b"of somebody"


@pytest.mark.parametrize("address", ["s3://me:canary@bucket/x", "s3://bucket/x?sig=canary", "abfs://c:canary@account/x"])
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match="holds a password") as caught:
        resolve_storage(address, "Task 'make'")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///x", "s3://bucket/../x", "s3://[", "s3://b\n/x", "ftp://host/x", "bucket/x"]
)
def test_nonsense_for_an_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        resolve_storage(address, "Task 'make'")


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "", "x" * 1025, "a\nb"])
def test_a_name_that_leads_out_of_the_prefix_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        BucketStorage("s3://bucket/results").resolve(path)


def test_orphans_are_found_and_deleted_and_what_a_row_names_stays(storage: BucketStorage, rows: Rows) -> None:
    @flow(result_storage=storage.address)
    def main() -> str:
        return LARGE

    main()
    (kept,) = storage.list_names()
    orphan = storage.new_name("ab" * 16)
    storage.write_path(orphan, b"content")
    storage.write_path("letter.txt", b"of somebody")
    assert find_orphans(storage.address) == []
    assert find_orphans(storage.address, age_seconds=-60) == [orphan]
    assert delete_orphans(storage.address) == []
    with pytest.raises(JournalNotFoundError):
        delete_orphans(storage.address, journal="no-such-journal.db", age_seconds=-60)
    assert delete_orphans(storage.address, age_seconds=-60) == [orphan]
    assert storage.list_names() == [kept]
    assert storage.read_path("letter.txt") == b"of somebody"


def test_a_missing_package_is_answered_with_its_pip_line() -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from wfengine import task\n"
        "try:\n    task(result_storage='s3://bucket/x')(len)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout == "UsageError Results in s3:// need the package s3fs: pip install 'wfengine[s3]'\n"


@pytest.mark.parametrize(
    "address", ["gs://bucket/prefix", "abfs://container@account.dfs.core.windows.net/prefix", "az://container/x"]
)
def test_addresses_of_other_services_are_taken_as_they_are_written(address: str) -> None:
    assert BucketStorage(f"{address}/").address == address
