"""Results outside of the journal: `result_storage=` keeps the large ones in files, and the journal keeps where and which.

A file is written and synced before the row that names it. It is named by its content (in a bucket also by an id), so no later
result replaces it; a `result_storage_key` is a second name for it, for people, which later results take over. The
reference in the journal holds the checksum, which is verified whenever the value is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from wfengine.bucket_storage import EXTRAS, BucketStorage
from wfengine.filesystems import LocalFileSystem
from wfengine.steps import run_coroutine
from wfengine_journal.codec import Encoded, decode, encoded_by, value_hash
from wfengine_journal.errors import StoredResultError, UsageError, ValueNotStorableError
from wfengine_journal.transitions import INLINE_BYTES

#: The codec of a reference in the journal; its data is the JSON text of a `Reference`.
CODEC = "stored"
#: Addresses at which results cannot be kept.
_UNKNOWN = frozenset({"adl", "http", "https", "ftp", "sftp", "hdfs", "memory"})


@runtime_checkable
class Storage(Protocol):
    """What keeps files by a relative path. Both methods may be async."""

    def write_path(self, path: str, content: bytes) -> object:
        """Write a file, whole or not at all; it has to survive a power cut when this returns."""

    def read_path(self, path: str) -> object:
        """Return the bytes of a file."""


#: What the option `result_storage` may be.
StorageOption: TypeAlias = "Storage | Path | str | None"


class Reference(NamedTuple):
    """Where a value is, and what it is."""

    at: str  # a folder as 'file:///...', or the class of the storage
    path: str
    codec: str
    hash: str  # checksum of codec and content, in hexadecimal
    size: int  # bytes
    key: str | None  # the name that a result_storage_key gave it


#: The storages that options of this process named: a folder that was moved is found again through them.
_in_use: list[Storage] = []


def resolve_storage(option: object, owner: str) -> Storage | None:
    """Return the storage that an option names. Raises UsageError."""
    if option is None:
        return None
    storage: object = option
    if isinstance(option, Path):
        storage = LocalFileSystem(option)
    elif isinstance(option, str):
        storage = _storage_of(option, owner)
    if not isinstance(storage, Storage):
        raise UsageError(
            f"{owner}: result_storage must be a folder (a Path, 'file:///...', LocalFileSystem), a bucket ('s3://...', "
            f"'gs://...', 'abfs://...') or an object with write_path and read_path, not {option!r}."
        )
    if storage not in _in_use:
        _in_use.append(storage)
    return storage


def _storage_of(text: str, owner: str) -> Storage:
    scheme = text.partition("://")[0]
    if scheme in EXTRAS:
        bucket = BucketStorage(text)
        bucket.check_installed()
        return bucket
    if scheme in _UNKNOWN:
        raise UsageError(
            f"{owner}: results cannot be kept at {scheme}://. Use a bucket ('s3://...', 'gs://...', 'abfs://...'), a folder "
            "(Path, 'file:///...'), or an object of your own with write_path and read_path."
        )
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalFileSystem(unquote(parts.path))
    raise UsageError(
        f"{owner}: result_storage={text!r} is no address. Write 's3://bucket/prefix', 'file:///folder', Path('folder') or "
        "LocalFileSystem(basepath=...); there are no blocks to be loaded by name."
    )


def check_key(storage: Storage | None, key: str) -> None:
    """Raise UsageError for a result_storage_key that a folder or bucket cannot take."""
    if not key.strip():
        raise UsageError("the result_storage_key is empty")
    if isinstance(storage, LocalFileSystem | BucketStorage):
        storage.resolve(key)


def store(storage: Storage, encoded: Encoded, key: str | None, what: str) -> Encoded:
    """Write a value to its storage if it is large or has a key; return what stands in the journal.

    Raises ValueNotStorableError where it cannot be written.
    """
    if key is None and len(encoded.data) <= INLINE_BYTES:
        return encoded
    content = encoded.data if isinstance(encoded.data, bytes) else encoded.data.encode()
    checksum = encoded.hash.hex()
    path = storage.new_name(checksum) if isinstance(storage, BucketStorage) else checksum
    try:
        _write(storage, path, content, key)
    except Exception as error:
        raise ValueNotStorableError(
            f"{what} cannot be stored: {storage!r} did not take the file {key or path!r} ({type(error).__name__}: {error}). "
            "Make it writable, or leave result_storage out: the journal keeps results of any size."
        ) from error
    reference = Reference(_address(storage), path, encoded.codec, checksum, len(content), key)
    text = json.dumps(reference._asdict(), ensure_ascii=False)
    # The preview is that of the value: the reference is not what people look for.
    shown = encoded.preview if encoded.preview is not None else str(encoded.data)[:200]
    return encoded_by(CODEC, text, None, what)._replace(preview=shown, python_type=encoded.python_type)


def _write(storage: Storage, path: str, content: bytes, key: str | None) -> None:
    if not isinstance(storage, LocalFileSystem):
        for name in (path, key):
            if name is not None:
                _completed(storage.write_path(name, content))
        return
    target = storage.resolve(path)
    if not (target.is_file() and target.read_bytes() == content and _touched(target)):
        storage.write_path(path, content)
    if key is not None:
        storage.link_path(key, path)


def _touched(target: Path) -> bool:
    """Say of a file that is used again that it is young, so that pruning leaves it; False if pruning has just taken it away."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # somebody else's file: whoever may not touch it may not prune it either
    return True


def _completed(result: object) -> object:
    return run_coroutine(result) if isinstance(result, Awaitable) else result


def _address(storage: Storage) -> str:
    if isinstance(storage, LocalFileSystem):
        return storage.folder.as_uri()
    if isinstance(storage, BucketStorage):
        return storage.address
    return f"{type(storage).__module__}.{type(storage).__qualname__}"


def load_stored(codec: str, data: str | bytes, what: str) -> object:
    """Return the value that a reference leads to. Raises StoredResultError where its file is missing or damaged."""
    reference = _reference(data)
    content = _find(reference, reference.path, what, _candidates(reference))
    inner: str | bytes = content.decode() if reference.codec == "json" else content
    return decode(reference.codec, inner, bytes.fromhex(reference.hash), what)


def check_in_place(data: str | bytes, what: str) -> None:
    """Raise StoredResultError unless the file that people see is where it was written, and unchanged.

    It is asked before a cached result is used: whoever deletes or replaces its file means that it is to be computed again.
    """
    reference = _reference(data)
    storages = _candidates(reference)
    recorded = storages[:1] if "://" in reference.at else storages
    _find(reference, reference.key or reference.path, what, recorded)


def _reference(data: str | bytes) -> Reference:
    return Reference(**json.loads(data))


def _find(reference: Reference, path: str, what: str, storages: list[Storage]) -> bytes:
    """Return the content of a file with the right checksum, from the first storage that has it."""
    problems: list[str] = []
    for storage in storages:
        try:
            content = cast(bytes, _completed(storage.read_path(path)))
        except Exception as error:
            problems.append(f"{storage!r}: {type(error).__name__}: {error}")
            continue
        if value_hash(reference.codec, content).hex() == reference.hash:
            return content
        problems.append(f"{storage!r}: the file {path!r} is not what was written there, its checksum does not match")
    looked = "; ".join(problems) or "no storage of that class is used by this program"
    raise StoredResultError(
        f"{what} is kept at {reference.at} in the file {path!r}, which is missing or damaged ({looked}). Put it back and try "
        "again."
    )


def _candidates(reference: Reference) -> list[Storage]:
    """Return where a value may be: where it was written, then the storages of this program."""
    if reference.at.partition("://")[0] in EXTRAS:
        bucket = BucketStorage(reference.at)
        return [bucket, *(each for each in _in_use if isinstance(each, BucketStorage) and each != bucket)]
    if not reference.at.startswith("file:"):
        return [storage for storage in _in_use if _address(storage) == reference.at]
    recorded = LocalFileSystem(unquote(urlsplit(reference.at).path))
    others = [each for each in _in_use if isinstance(each, LocalFileSystem) and each.folder != recorded.folder]
    return [recorded, *others]
