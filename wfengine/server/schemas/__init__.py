"""Names that Prefect's code imports from its server. There is no server here."""
