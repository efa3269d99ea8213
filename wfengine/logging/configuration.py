"""Configuration of `logging` by a file: what `logging.config.dictConfig` takes, written as TOML or JSON.

WFENGINE_LOGGING_CONFIG names the file. It is read when the first logger of ours is made, and by `wfengine serve`.
"""

from __future__ import annotations

import json
import logging.config
import tomllib
from pathlib import Path

from wfengine_journal.errors import UsageError

#: Names a file with a configuration for logging.config.dictConfig: NAME.toml, else JSON.
CONFIG_VARIABLE = "WFENGINE_LOGGING_CONFIG"
#: A configuration file is no larger than this, in bytes: something else was named by mistake.
FILE_BYTES = 1_000_000


def configure(path: Path) -> None:
    """Configure `logging` as the file says. Loggers that exist go on, unless it says otherwise. Raises UsageError."""
    settings = _read(path)
    settings.setdefault("version", 1)
    settings.setdefault("disable_existing_loggers", False)
    try:
        logging.config.dictConfig(settings)
    except Exception as error:  # of many kinds: the file names classes, and they are called
        causes = f"{error}" + (f" ({error.__cause__})" if error.__cause__ is not None else "")
        raise UsageError(f"{_named(path)} does not configure logging: {causes}.") from error


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > FILE_BYTES:
            raise UsageError(f"{_named(path)} has more than {FILE_BYTES:,} bytes: it is no configuration of logging.")
        text = path.read_text(encoding="utf-8")
        settings = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UsageError(f"{_named(path)} cannot be read: {error.strerror or error}. Set the path of a file.") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise UsageError(f"{_named(path)} is no {kind}: {error}.") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{_named(path)} is a {type(settings).__name__}, not an object with 'handlers', 'loggers' and so on.")
    return settings


def _named(path: Path) -> str:
    return f"{CONFIG_VARIABLE}={str(path)!r}"
