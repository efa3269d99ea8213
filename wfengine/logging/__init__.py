"""Logs of flows and tasks: through the standard `logging`, and into the journal beside the run they belong to.

`loggers` is what user code calls, `handlers` what takes the lines to the journal and to the terminal.
"""

from wfengine.logging.loggers import disable_run_logger, get_logger, get_run_logger

__all__ = ["disable_run_logger", "get_logger", "get_run_logger"]
