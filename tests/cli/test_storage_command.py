"""`wfengine storage orphans` and `wfengine doctor --buckets`, on an S3 server on loopback."""

from __future__ import annotations

import uuid

import pytest
from command_line import Cli

from tests.engine.bucket_server import BucketServer, failing
from tests.engine.bucket_server import running as running
from tests.engine.bucket_server import server as server
from wfengine.bucket_storage import BucketStorage

PROGRAM = """
from wfengine import flow

@flow(result_storage="ADDRESS")
def report():
    return "x" * 5000

if __name__ == "__main__":
    report()
"""


@pytest.fixture
def address(server: BucketServer) -> str:
    """A bucket of the test's own."""
    bucket = f"shelf-{uuid.uuid4().hex}"
    BucketStorage(f"s3://{bucket}")._file_system().mkdir(bucket)
    return f"s3://{bucket}/results"


@pytest.fixture
def orphan(cli: Cli, address: str) -> str:
    """A bucket with an object that a row names, one that none names, and a file of somebody's."""
    (cli.folder / "report.py").write_text(PROGRAM.replace("ADDRESS", address))
    assert cli("run", "report.py", "--quiet", PYTHONWARNINGS="").code == 0
    storage = BucketStorage(address)
    name = storage.new_name("ab" * 16)
    storage.write_path(name, b"content")
    storage.write_path("letter.txt", b"of somebody")
    return name


def test_orphans_are_listed_and_deleted_where_that_is_asked_for_by_address(
    cli: Cli, server: BucketServer, address: str, orphan: str
) -> None:
    young = cli("storage", "orphans", PYTHONWARNINGS="")
    assert (young.code, young.out) == (0, "")
    assert "every object is named by a row" in young.err
    found = cli("storage", "orphans", "--older-than", "0", "--json", PYTHONWARNINGS="")
    assert found.code == 0, found
    assert found.object["buckets"] == [{"address": address, "orphans": [orphan], "problem": None}]
    shown = cli("storage", "orphans", "--older-than", "0", PYTHONWARNINGS="")
    assert shown.out == f"{address}/{orphan}\n"
    assert f"delete with: wfengine storage orphans {address} --delete" in shown.err
    deleted = cli("storage", "orphans", address, "--older-than", "0", "--delete", PYTHONWARNINGS="")
    assert (deleted.code, deleted.out) == (0, f"{address}/{orphan}\n")
    assert "deleted 1 object " in deleted.err
    assert len(BucketStorage(address).list_names()) == 1
    assert BucketStorage(address).read_path("letter.txt") == b"of somebody"


def test_what_a_journal_names_is_never_deleted_at_by_itself(cli: Cli, server: BucketServer, address: str, orphan: str) -> None:
    answer = cli("storage", "orphans", "--delete", "--older-than", "0")
    assert answer.code == 2
    assert "--delete needs the address" in answer.err
    assert len(BucketStorage(address).list_names()) == 2


@pytest.mark.parametrize("nonsense", ["nonsense", "s3://", "s3://me:canary@bucket/x", "s3://bucket/../x"])
def test_nonsense_for_an_address_is_refused_before_anything_is_asked(cli: Cli, nonsense: str) -> None:
    answer = cli("storage", "orphans", nonsense, "--json")
    assert answer.code == 2
    assert "canary" not in answer.out + answer.err


def test_a_bucket_that_does_not_answer_is_said_and_the_others_are_looked_at(
    cli: Cli, server: BucketServer, address: str, orphan: str
) -> None:
    answer = cli("storage", "orphans", "s3://there-is-none/x", address, "--older-than", "0", "--json", PYTHONWARNINGS="")
    assert answer.code == 1, answer
    missing, there = answer.object["buckets"]
    assert "did not answer" in missing["problem"]
    assert there["orphans"] == [orphan]
    server.fault = failing(403, -1, "GET")
    denied = cli("doctor", "--buckets", PYTHONWARNINGS="")
    assert denied.code == 0
    assert "warning  bucket" in denied.out


def test_doctor_looks_into_buckets_only_where_it_is_asked_to(cli: Cli, server: BucketServer, address: str, orphan: str) -> None:
    server.requests.clear()
    plain = cli("doctor", PYTHONWARNINGS="")
    assert (plain.code, server.requests) == (0, [])
    asked = cli("doctor", "--buckets", "--json", PYTHONWARNINGS="")
    assert asked.code == 0, asked
    (bucket,) = [check for check in asked.object["checks"] if check["name"] == "bucket"]
    assert bucket == {"name": "bucket", "verdict": "ok", "text": f"{address}: every object is named by a row"}


def test_a_journal_without_buckets_needs_no_package_and_no_bucket(cli: Cli, journal: object) -> None:
    answer = cli("storage", "orphans")
    assert (answer.code, answer.out) == (0, "")
    assert "the journal names no bucket" in answer.err
    assert cli("doctor", "--buckets").code == 0
    assert cli("--journal", "none.db", "storage", "orphans").code == 5
