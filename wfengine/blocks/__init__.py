"""The one block of Prefect's that is there: `blocks.system.Secret`."""
