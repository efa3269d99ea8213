"""Prefect's place of the triggers of `wfengine.automations`: see `wfengine.events.schemas.automations`."""
