"""The pages. Each module holds one, as a `Page`; a further page is one more module, one template, and its name in `PAGES`."""

from __future__ import annotations

from wfengine.page.pages import flow, flows, keys, overview, run, runs, sql, task_run, timeline
from wfengine.page.pages.page import Page

#: In the order of the navigation; those without a `label` are not in it.
PAGES: tuple[Page, ...] = (
    overview.PAGE, runs.PAGE, flows.PAGE, timeline.PAGE, sql.PAGE, run.PAGE, task_run.PAGE, flow.PAGE, keys.PAGE,
)  # fmt: skip
