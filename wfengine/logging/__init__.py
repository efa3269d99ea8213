"""Logs of flows and tasks: through the standard `logging`, and into the journal beside the run they belong to.

`loggers` is what user code calls, `handlers` what takes the lines to the journal and to the terminal,
`json_lines` makes JSON of them, and `configuration` reads a file that says more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.logging.loggers import disable_run_logger, get_logger, get_run_logger

if TYPE_CHECKING:
    from wfengine.logging.json_lines import JsonFormatter

__all__ = ["JsonFormatter", "disable_run_logger", "get_logger", "get_run_logger"]


def __getattr__(name: str) -> object:
    if name == "JsonFormatter":
        from wfengine.logging import json_lines  # loads what only a program that asks for it has to wait for

        return json_lines.JsonFormatter
    raise AttributeError(f"module 'wfengine.logging' has no attribute {name!r}")
