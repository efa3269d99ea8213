"""Results in a bucket: `result_storage="s3://bucket/prefix"`, `gs://...` or `abfs://...`, through fsspec.

Each object has a name that is written once and never again, so that deleting one that no row names cannot meet a writer that
has just made it anew. An object is whole or not there; its size is asked for before the row that names it is written.
Credentials are found by the libraries themselves (environment, profile, role); none is taken from an address, since addresses
stand in the journal. Nothing here reads or writes the journal. The package of each service is imported when it is first used.
"""

from __future__ import annotations

import contextlib
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The extra of wfengine, and the package that it brings, by the scheme of an address.
EXTRAS = {
    "s3": ("s3", "s3fs"),
    "s3a": ("s3", "s3fs"),
    "gs": ("gcs", "gcsfs"),
    "gcs": ("gcs", "gcsfs"),
    "abfs": ("azure", "adlfs"),
    "abfss": ("azure", "adlfs"),
    "az": ("azure", "adlfs"),
}
#: How often a request is made before its error is told, and how long is waited between (seconds; doubled each time).
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0
#: What another attempt does not mend: it is missing, forbidden, or no request was made at all.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, UsageError, ImportError, TypeError)
#: Status codes that another attempt does not mend, where a library has an error of its own for them.
_FINAL_STATUS = frozenset({401, 403, 404})
#: Packages that make a request again by themselves, up to six times within a minute: then once more is enough.
_TRY_THEMSELVES = frozenset({"gcsfs", "adlfs"})
#: What is said to a package: that it does not try again by itself, since waits within waits have no limit that can be named.
_OPTIONS: dict[str, dict[str, Any]] = {"s3fs": {"config_kwargs": {"retries": {"total_max_attempts": 1}}}}
#: Bytes of the name of an object, which the services allow.
_NAME_BYTES = 1024


class BucketStorage:
    """A prefix in a bucket, by its address. Two of the same address are equal."""

    def __init__(self, address: str) -> None:
        self.address = checked_address(address)

    def __repr__(self) -> str:
        return f"BucketStorage({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStorage) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def check_installed(self) -> None:
        """Raise UsageError where the package of this service is not installed. Nothing is asked for, not even credentials."""
        self._package()

    def resolve(self, path: str) -> str:
        """Return the address of an object; UsageError for a path that leads out of the prefix or is no name."""
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or len(path.encode()) > _NAME_BYTES or not path.isprintable():
            raise UsageError(f"{path!r} cannot be the name of an object in {self.address}. Use names with / between them.")
        return f"{self.address}/{path}"

    def new_name(self, checksum: str) -> str:
        """Return a name for some content that no other object has or will have."""
        return f"{checksum}-{uuid.uuid4().hex}"

    def write_path(self, path: str, content: bytes) -> None:
        """Write an object, whole or not at all; when this returns the service has said that it keeps all of it."""
        target = self.resolve(path)

        def write() -> None:
            system = self._file_system()
            system.pipe_file(target, content)
            size = system.info(target)["size"]
            if size != len(content):
                raise OSError(f"{target} has {size} bytes after {len(content)} were written")

        self._ask(write)

    def read_path(self, path: str) -> bytes:
        """Return the content of an object."""
        target = self.resolve(path)
        return bytes(_tried_again(lambda: self._file_system().cat_file(target)))

    def delete_path(self, path: str, age_seconds: float) -> bool:
        """Delete an object that was written at least so long ago; tell whether there was one."""
        target = self.resolve(path)
        try:
            if _age(self._written_at(path)) < age_seconds:
                return False
            self._ask(lambda: self._file_system().rm_file(target))
        except FileNotFoundError:
            return False
        return True

    def list_names(self, age_seconds: float | None = None) -> list[str]:
        """Return the names right below the prefix that `new_name` made, of objects written at least so long ago, in order."""
        listed = self._ask(lambda: self._file_system().find(self.address, maxdepth=1))
        if not listed:
            self._check_there()
        names = (str(path).rsplit("/", 1)[-1] for path in listed)
        own = sorted(name for name in names if is_own_name(name))
        if age_seconds is None:
            return own
        return [name for name in own if _age(self._written_at(name)) >= age_seconds]

    def _check_there(self) -> None:
        """Raise FileNotFoundError where the bucket is missing, PermissionError where it may not be seen.

        The libraries list nothing then, and say no word of it.
        """
        try:
            self._ask(lambda: self._file_system().ls(self.address))
        except FileNotFoundError:  # nothing begins with the prefix, or the bucket is missing
            parts = urlsplit(self.address)
            bucket = f"{parts.scheme}://{parts.netloc}"
            with contextlib.suppress(PermissionError):  # who may only see the prefix has just seen it
                self._ask(lambda: self._file_system().ls(bucket))

    def _written_at(self, path: str) -> datetime:
        target = self.resolve(path)
        written_at: datetime = self._ask(lambda: self._file_system().modified(target))
        return written_at

    def _ask(self, request: Callable[[], T]) -> T:
        _, package = EXTRAS[urlsplit(self.address).scheme]
        return _tried_again(request, 2 if package in _TRY_THEMSELVES else ATTEMPTS)

    def _package(self) -> Any:
        scheme = urlsplit(self.address).scheme
        extra, package = EXTRAS[scheme]
        try:
            import fsspec

            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise UsageError(f"Results in {scheme}:// need the package {package}: pip install 'wfengine[{extra}]'") from error
        return fsspec

    def _file_system(self) -> Any:
        scheme = urlsplit(self.address).scheme
        _, package = EXTRAS[scheme]
        # Listings are not remembered: other processes write. The instance is that of this process and thread.
        options = dict(_OPTIONS.get(package, {}))
        fsspec = self._package()
        if package == "adlfs":  # the account stands in the address
            options |= fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(self.address)  # noqa: SLF001 - it is fsspec's seam
        system = fsspec.filesystem(scheme, use_listings_cache=False, **options)
        if package == "s3fs":
            system.retries = 1
        return system


def is_own_name(name: str) -> bool:
    """Tell whether a name is one that `new_name` makes: a checksum and an id, in hexadecimal."""
    checksum, _, unique = name.partition("-")
    return len(checksum) >= 16 and len(unique) == 32 and set(checksum + unique) <= set("0123456789abcdef")


def checked_address(address: str) -> str:
    """Return the address of a prefix in a bucket without a slash at its end. Raises UsageError."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UsageError(f"The address of a result_storage cannot be read ({error}). Write 's3://bucket/prefix'.") from error
    if parts.password is not None or parts.query or parts.fragment or (parts.username and not parts.scheme.startswith("abfs")):
        # The address itself is not shown: what is secret in it would stand in a log then.
        raise UsageError(
            f"The address of a result_storage in {parts.scheme}:// holds a password, key, query or fragment, and it "
            "would stand in the journal. Leave it out: credentials are found in the environment, as the service's own "
            "tools find them."
        )
    if parts.scheme not in EXTRAS or not parts.netloc or ".." in parts.path.split("/") or not address.isprintable():
        raise UsageError(f"{address!r} names no bucket. Write 's3://bucket/prefix', 'gs://...' or 'abfs://...'.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _age(written_at: datetime) -> float:
    aware = written_at if written_at.tzinfo is not None else written_at.replace(tzinfo=UTC)
    return SystemClock().wall_seconds() - aware.timestamp()


def _is_passing(error: BaseException) -> bool:
    """Tell whether another attempt may do better."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    is_forbidden = type(error) is OSError and str(error).startswith("Forbidden: ")  # as gcsfs says it
    return isinstance(error, Exception) and not (isinstance(error, _FINAL) or is_forbidden or status in _FINAL_STATUS)


def _tried_again(request: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """Return what a request returns, which is made again after an error that may pass."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    waits = wait_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)
    return Retrying(
        stop=stop_after_attempt(attempts), wait=waits, retry=retry_if_exception(_is_passing), reraise=True,
        sleep=SystemClock().sleep,
    )(request)  # fmt: skip
