"""Values that have to be JSON, checked before anything is written, with an error that says where they are not."""

from __future__ import annotations

import json
import math
from typing import Literal

from wfengine_journal import guarding
from wfengine_journal.errors import InvalidValueError

#: Levels of lists and dicts in one value.
DEPTH_LIMIT = 100


def plain_json(
    value: object, what: str, *, is_table: bool = False, secrets: Literal["refuse", "hide", "keep"] = "refuse"
) -> str:  # fmt: skip
    """Return the JSON text of a value made of text, numbers, booleans, None, lists and dicts with text keys.

    In a table not-a-numbers become null and whole numbers may be keys, as frames have them. `what` names the value in the
    InvalidValueError that anything else raises. `secrets`: what becomes of the value of a secret in it.
    """
    text = json.dumps(_checked(value, what, is_table, 0), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if secrets == "keep" or not guarding.holds(text.encode()):
        return text
    if secrets == "hide":
        return guarding.hide(text)
    raise InvalidValueError(
        f"{what} holds the value of a secret, and would be kept in the clear. Give the secret's name in its place: in "
        "parameters {{ secrets.NAME }}, in code Secret('NAME')."
    )


def _checked(value: object, what: str, is_table: bool, depth: int) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return _number(value, what, is_table)
    if depth >= DEPTH_LIMIT:
        raise InvalidValueError(f"{what} is nested more than {DEPTH_LIMIT} levels deep. Make it flatter.")
    if isinstance(value, list | tuple):
        return [_checked(item, f"{what}[{index}]", is_table, depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            _key(key, what, is_table): _checked(item, f"{what}[{key!r}]", is_table, depth + 1) for key, item in value.items()
        }
    raise InvalidValueError(
        f"{what} is a {type(value).__module__}.{type(value).__qualname__}, which JSON does not have. Make it text, a number, a "
        "list or a dict first: str(...), .isoformat(), .tolist(), .to_dict()."
    )


def _number(value: float, what: str, is_table: bool) -> float | None:
    if math.isfinite(value):
        return float(value)
    if is_table and math.isnan(value):
        return None
    raise InvalidValueError(f"{what} is {value}, which JSON does not have. Use None or a text.")


def _key(key: object, what: str, is_table: bool) -> str:
    if isinstance(key, str):
        return key.encode("utf-8", "backslashreplace").decode("utf-8")
    if is_table and isinstance(key, int):
        return str(key)
    raise InvalidValueError(f"{what} has the key {key!r}, and keys have to be text. Use str(...).")
