"""The pages. Each module holds one, as a `Page`, or those of one matter; a further page is one more of them, and a template."""

from __future__ import annotations

from wfengine.page.pages import (
    artifacts,
    automations,
    deployments,
    doctor,
    events,
    flow,
    flows,
    keys,
    overview,
    queues,
    run,
    runs,
    schedules,
    sql,
    task_run,
    timeline,
    values,
)
from wfengine.page.pages.page import Page

#: In the order of the navigation; those without a `label` are not in it.
PAGES: tuple[Page, ...] = (
    overview.PAGE,
    runs.PAGE,
    flows.PAGE,
    timeline.PAGE,
    *deployments.PAGES,
    *schedules.PAGES,
    *queues.PAGES,
    *events.PAGES,
    *automations.PAGES,
    *values.PAGES,
    *artifacts.PAGES,
    sql.PAGE,
    *doctor.PAGES,
    run.PAGE,
    task_run.PAGE,
    flow.PAGE,
    keys.PAGE,
)
