"""All errors of wfengine, under the name Prefect gives this module. The tree is drawn in `wfengine_journal.errors`."""

from __future__ import annotations

from wfengine_journal.errors import *  # noqa: F403 - this module is exactly that list
