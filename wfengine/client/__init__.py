"""Names that Prefect's code imports from its client. There is no server here, and no client of one."""
