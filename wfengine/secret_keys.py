"""The keys that secrets are encrypted with, and where they stand: the environment, a key file, or the system's keyring.

    WFENGINE_SECRETS_KEY        the key itself (several: the newest first, with commas between them)
    WFENGINE_SECRETS_KEY_FILE   the file that holds it, mode 0600; default: wfengine/secrets.key in the user's configuration
    WFENGINE_SECRETS_KEYRING=1  the keyring of the system holds it, under the service 'wfengine'

The first of them that is set is used. A key is 32 random bytes, written as base64. File and keyring are made with a new key
when the first secret is set; keys that a new one replaced stay below it, since other journals and recorded results may need
them. Everything here needs the extra `secrets`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine_journal.errors import SecretError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

KEY_VARIABLE = "WFENGINE_SECRETS_KEY"
FILE_VARIABLE = "WFENGINE_SECRETS_KEY_FILE"
KEYRING_VARIABLE = "WFENGINE_SECRETS_KEYRING"
KEYRING_SERVICE = "wfengine"
KEYRING_USER = "secrets-key"

KEY_BYTES = 32
NONCE_BYTES = 12
#: Characters of a key file: room for thousands of keys, and not for a disk that was named by mistake.
FILE_LIMIT = 1_000_000
_HEAD = "# Keys of wfengine's secrets, the newest first. Whoever has this file and a journal can read its secrets.\n"
PIP_LINE = "pip install 'wfengine[secrets]'"


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    raw: bytes

    @property
    def id(self) -> str:
        """Return what names the key in a journal, and says nothing about it: 16 hex digits."""
        return hashlib.blake2b(self.raw, digest_size=8, person=b"wfengine key id").hexdigest()

    def text(self) -> str:
        """Return the key as it is written."""
        return base64.b64encode(self.raw).decode()

    def __repr__(self) -> str:
        return f"<key {self.id}>"

    def encrypt(self, name: str, text: str) -> bytes:
        """Return a secret's text encrypted, bound to its name."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, text.encode(), _associated(name))

    def decrypt(self, name: str, ciphertext: bytes) -> str:
        """Return the text that was encrypted under this name. Raises SecretError for anything else."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher().decrypt(ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:], _associated(name)).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretError(
                f"Secret '{name}' cannot be decrypted with its key {self.id}: it was changed in the journal by something else "
                f"than wfengine. Set it anew: wfengine secrets set {name} --overwrite"
            ) from error

    def seal(self, raw: bytes, kind: str) -> bytes:
        """Return a value encrypted: the same bytes each time, as the journal compares what it holds by hash."""
        return self._sealing_cipher().encrypt(raw, [b"wfengine sealed", kind.encode()])

    def unseal(self, data: bytes, kind: str, what: str) -> bytes:
        """Return what was sealed. Raises SecretError."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._sealing_cipher().decrypt(data, [b"wfengine sealed", kind.encode()])
        except (InvalidTag, ValueError) as error:
            raise SecretError(
                f"{what} cannot be decrypted with its key {self.id}: it was changed in the journal. See what else is damaged: "
                "wfengine doctor"
            ) from error

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derived(b"secrets", 32))

    def _sealing_cipher(self) -> AESSIV:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(self._derived(b"sealed values", 64))

    def _derived(self, purpose: bytes, length: int) -> bytes:
        """Return a key for one purpose: BLAKE2b keyed with this one."""
        return hashlib.blake2b(purpose, key=self.raw, digest_size=length, person=b"wfengine derive").digest()


def _associated(name: str) -> bytes:
    return b"wfengine secret " + name.encode()


def require_extra() -> None:
    """Raise SecretError where the package that encrypts is not installed."""
    try:
        import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise SecretError(
            f"To keep secrets in the journal, the package cryptography is needed: {PIP_LINE}. Without it, secrets can be read "
            "from elsewhere: Secret('env:NAME'), Secret('file:/path'), Secret('command:...')."
        ) from error


# ------------------------------------------------------------------------------------------- where the keys stand


class KeySource:
    """Where keys stand. `label` names it for people."""

    label = ""

    def load(self) -> list[Key]:
        """Return the keys, the newest first; none where nothing was made yet. Raises SecretError."""
        raise NotImplementedError

    def store(self, keys: Sequence[Key]) -> None:
        """Let these keys take the place of those that are there, at once or not at all. Raises SecretError."""
        raise NotImplementedError


class EnvironmentKeys(KeySource):
    """Keys in an environment variable, which nobody but the user can change."""

    label = f"the environment variable {KEY_VARIABLE}"

    def load(self) -> list[Key]:
        """See KeySource."""
        return _keys_of(os.environ.get(KEY_VARIABLE, "").replace(",", "\n"), self.label)

    def store(self, keys: Sequence[Key]) -> None:
        """See KeySource."""
        raise SecretError(
            f"The key stands in {self.label}, which wfengine cannot change. Make a new one with wfengine secrets new-key, put "
            f"it before the old one, {KEY_VARIABLE}=NEW,OLD, and type: wfengine secrets rotate-key"
        )


class FileKeys(KeySource):
    """Keys in a file that only its owner can read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = f"the key file {path}"

    def load(self) -> list[Key]:
        """See KeySource."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SecretError(f"{self.label[:1].upper()}{self.label[1:]} cannot be read: {error.strerror}.") from error
        try:
            self._refuse_unsafe(os.fstat(descriptor))
            raw = os.read(descriptor, FILE_LIMIT + 1)
        finally:
            os.close(descriptor)
        if len(raw) > FILE_LIMIT:
            raise SecretError(f"{self.path} is too large for a key file. Name another one: {FILE_VARIABLE}=PATH")
        return _keys_of(raw.decode("utf-8", "replace"), self.label)

    def _refuse_unsafe(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise SecretError(f"{self.path} is no file, so it holds no key. Name another one: {FILE_VARIABLE}=PATH")
        if found.st_mode & 0o077:
            raise SecretError(
                f"The key file {self.path} can be read or written by others (mode {stat.S_IMODE(found.st_mode):04o}), so "
                f"it was not used. Type: chmod 600 {self.path}"
            )
        if found.st_uid not in (os.getuid(), 0):
            raise SecretError(f"The key file {self.path} belongs to another user, so it was not used.")

    def store(self, keys: Sequence[Key]) -> None:
        """See KeySource. Written beside, synced, and renamed: a cut leaves the old file or the new one."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)  # mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(_HEAD + "".join(f"{key.text()}\n" for key in keys))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
            opened = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as error:
            raise SecretError(
                f"The key file {self.path} cannot be written: {error.strerror}. Name another one: {FILE_VARIABLE}=PATH"
            ) from error


class KeyringKeys(KeySource):
    """Keys in the keyring of the system."""

    label = f"the keyring of the system (service '{KEYRING_SERVICE}')"

    def load(self) -> list[Key]:
        """See KeySource."""
        return _keys_of(read_keyring(KEYRING_SERVICE, KEYRING_USER) or "", self.label)

    def store(self, keys: Sequence[Key]) -> None:
        """See KeySource."""
        keyring = keyring_module()
        try:
            keyring.set_password(KEYRING_SERVICE, KEYRING_USER, "\n".join(key.text() for key in keys))
        except keyring.errors.KeyringError as error:
            raise _keyring_failed(error) from error


class _Keyring:
    """What is used of the package keyring."""

    if TYPE_CHECKING:
        errors: type[_Errors]

        def get_password(self, service: str, user: str) -> str | None: ...
        def set_password(self, service: str, user: str, password: str) -> None: ...


if TYPE_CHECKING:

    class _Errors:
        KeyringError: type[Exception]


def keyring_module() -> _Keyring:
    """Return the package keyring. Raises SecretError where it is not installed."""
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise SecretError(f"The keyring of the system is reached through the package keyring: {PIP_LINE}") from error
    return keyring  # type: ignore[return-value]  # a module, used as the object that `_Keyring` describes


def read_keyring(service: str, user: str) -> str | None:
    """Return what the system's keyring holds. Raises SecretError where there is none to ask."""
    keyring = keyring_module()
    try:
        return keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise _keyring_failed(error) from error


def _keyring_failed(error: Exception) -> SecretError:
    return SecretError(
        f"The keyring of the system did not answer: {' '.join(str(error).split())[:300]} Unlock it; or keep the key in a file: "
        f"unset {KEYRING_VARIABLE}."
    )


def key_source() -> KeySource:
    """Return where this process finds its keys."""
    if os.environ.get(KEY_VARIABLE):
        return EnvironmentKeys()
    if os.environ.get(KEYRING_VARIABLE, "").lower() in ("1", "true"):
        return KeyringKeys()
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return FileKeys(Path(named).expanduser().absolute())
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    try:
        return FileKeys(Path(base).expanduser().absolute() / "wfengine" / "secrets.key")
    except RuntimeError as error:  # no home folder
        raise SecretError(f"There is no home folder for the key file. Name one: {FILE_VARIABLE}=PATH") from error


def _keys_of(text: str, label: str) -> list[Key]:
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        try:
            raw = base64.b64decode(written, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != KEY_BYTES:
            raise SecretError(
                f"Line {number} of {label} is no key: a key is {KEY_BYTES} bytes in base64, {len(new_key().text())} "
                "characters. Make one: wfengine secrets new-key"
            )
        key = Key(raw)
        if key not in keys:
            keys.append(key)
    return keys


def new_key() -> Key:
    """Return a key that nobody has."""
    return Key(secrets.token_bytes(KEY_BYTES))


def writing_key() -> Key:
    """Return the key that new secrets are encrypted with; make one where there is none. Raises SecretError."""
    require_extra()
    source = key_source()
    keys = source.load()
    if not keys:
        source.store([new_key()])
        keys = source.load()  # as another process may have made one at the same time, and the last one stays
    return keys[0]


def key_of(key_id: str, what: str) -> Key:
    """Return the key of that id. Raises SecretError that says where it was looked for."""
    require_extra()
    source = key_source()
    keys = source.load()
    for key in keys:
        if key.id == key_id:
            return key
    has = f"which has {', '.join(key.id for key in keys)}" if keys else "which has none"
    raise SecretError(
        f"{what} cannot be read: it is encrypted with key {key_id}, and that is not in {source.label}, {has}. Put the key "
        f"there, or say where it is: {KEY_VARIABLE}, {FILE_VARIABLE} or {KEYRING_VARIABLE}=1."
    )
