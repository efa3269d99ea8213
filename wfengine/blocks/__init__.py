"""The blocks of Prefect's that are there: `blocks.system.Secret`, and those of `blocks.notifications`."""
