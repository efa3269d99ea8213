"""All errors of wfengine, under the name Prefect gives this module. The tree is drawn in `wfengine_journal.errors`.

Four names of Prefect's are other names for classes of ours:

- `PrefectException`: the base of all errors, `WfengineError`.
- `ObjectNotFound`: `NotFoundError`.
- `PrefectSignal`: `Signal`, the base of what unwinds user code and is not for it to catch.
- `Abort` and `Pause`: `RunHalted`, raised where a run stops before its end; its `error` says why.
"""

from __future__ import annotations

from wfengine_journal.errors import *  # noqa: F403 - this module is that list, and the other names below
from wfengine_journal.errors import NotFoundError, RunHalted, Signal, WfengineError

PrefectException = WfengineError
ObjectNotFound = NotFoundError
PrefectSignal = Signal
Abort = RunHalted
Pause = RunHalted
