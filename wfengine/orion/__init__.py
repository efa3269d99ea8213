"""Names that Prefect 2's code imports from its server. There is no server here."""
