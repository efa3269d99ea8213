"""Which database is meant, and a connection to it through SQLAlchemy. Needs the extra `sql`, and a driver for the database.

What is journaled of a `Database` is its URL without a password, and the name of the secret that holds one. The value is read
where the connection is opened. No connection is kept: a task opens one and closes it, so nothing is shared with other threads
or forked children, and a rotated password counts from the next task on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from wfengine.redaction import KEEPER
from wfengine.secrets import Secret
from wfengine_journal.errors import UsageError

try:
    from sqlalchemy import Connection, Engine, create_engine
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool
except ImportError as missing:
    raise UsageError(
        "SQL databases need the package SQLAlchemy, which is not installed. Type: pip install 'wfengine[sql]'"
    ) from missing

T = TypeVar("T")

#: Engines that are kept: they hold no connection, but know what their database can do, which takes a moment to ask.
ENGINES_LIMIT = 32
#: What to install for a kind of database.
_PIP_LINES = {
    "postgresql": "pip install 'wfengine[postgres]', and write postgresql+psycopg://...",
    "snowflake": "pip install 'wfengine[snowflake]'",
    "databricks": "pip install 'wfengine[databricks]'",
    "duckdb": "pip install duckdb-engine",
    "mysql": "pip install pymysql, and write mysql+pymysql://...",
}
_REFERENCE = re.compile(r"\{\{\s*secrets\.([A-Za-z0-9_-]{1,255})\s*\}\}")
#: Parameters of a URL that hold what nobody should see.
_TELLING = re.compile(r"password|passwd|pwd|token|secret|private_key|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Database:
    """A database: a SQLAlchemy URL without a password, and the secret that holds the password.

    `Database("postgresql+psycopg://etl@db/shop", password=Secret("shop"))`; etl:{{ secrets.shop }}@db in the URL is the same.
    `connect_args` go to the driver, and may hold secrets too. Raises UsageError for a URL that cannot be read, or that has a
    password in the clear.
    """

    url: str
    password: Secret[str] | None = None
    connect_args: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the reference out of the URL; refuse a password in the clear."""
        url = parsed(self.url)
        if url.password is not None:
            reference = _REFERENCE.fullmatch(str(url.password))
            if reference is None or self.password is not None:
                KEEPER.learn(str(url.password))
                raise UsageError(
                    f"A password stands in the URL of the database at {url.host}, where it would be journaled with each task. "
                    "Keep it as a secret: wfengine secrets set NAME, and write Database(URL, password=Secret('NAME')), or "
                    "{{ secrets.NAME }} in its place in the URL."
                )
            object.__setattr__(self, "password", Secret[str](reference[1]))
            object.__setattr__(self, "url", url._replace(password=None).render_as_string(hide_password=False))
        _refuse_telling(url)

    def resolved(self) -> tuple[URL, dict[str, object]]:
        """Return the URL with its password, and the arguments of the driver. Raises SecretError."""
        url = parsed(self.url)
        if self.password is not None:
            url = url.set(password=str(_value(self.password)))
        return url, {name: _value(value) for name, value in self.connect_args.items()}


def parsed(url: str) -> URL:
    """Return a URL's parts. Raises UsageError, whose text does not repeat it."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError(
            "The URL of a database cannot be read. Write DIALECT+DRIVER://USER@HOST:PORT/DATABASE, such as "
            "postgresql+psycopg://etl@db/shop or sqlite:///shop.db, and quote special characters as in any URL."
        ) from None


def engine_of(database: Database | Secret[str] | str) -> Engine:
    """Return what opens connections: of a `Database`, of a URL without a password, or of the secret that holds a whole URL.

    A text without :// is the name of such a secret. Raises UsageError, SecretError.
    """
    if isinstance(database, str):
        database = Database(database) if "://" in database else Secret[str](database)
    arguments: dict[str, object] = {}
    if isinstance(database, Secret):
        url = parsed(str(database.get()))
        KEEPER.learn(url.password)  # the driver's errors may hold it without the rest of the URL
    elif isinstance(database, Database):
        url, arguments = database.resolved()
    else:
        raise UsageError(f"A database is a Database(...), a URL or the name of a secret that holds a URL, not {database!r}.")
    if arguments:
        return _new_engine(url, arguments)
    return _engine(url)


def connected(database: Database | Secret[str] | str, work: Callable[[Connection], T]) -> T:
    """Return what `work` returns of a connection whose transaction is committed if it returns, and else rolled back."""
    with engine_of(database).begin() as connection:
        return work(connection)


@functools.lru_cache(maxsize=ENGINES_LIMIT)
def _engine(url: URL) -> Engine:
    return _new_engine(url, {})


def _new_engine(url: URL, arguments: dict[str, object]) -> Engine:
    try:
        # hide_parameters: an error would show the values of a statement to everybody who reads the log.
        return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    except (ImportError, NoSuchModuleError) as missing:
        kind = url.get_backend_name()
        line = _PIP_LINES.get(kind, "install SQLAlchemy's dialect for it, and its driver")
        raise UsageError(f"What connects to {url.drivername} databases is not installed ({missing}). Type: {line}") from missing


def _value(value: object) -> object:
    return value.get() if isinstance(value, Secret) else value


def _refuse_telling(url: URL) -> None:
    found = [name for name, value in url.query.items() if _TELLING.search(name) and "{{" not in str(value)]
    if found:
        KEEPER.learn([url.query[name] for name in found])
        raise UsageError(
            f"The URL of the database at {url.host} has the parameter {found[0]}, which would be journaled with each task. "
            f"Give it as Database(URL, connect_args={{{found[0]!r}: Secret('NAME')}})."
        )
