"""Lock managers, under the names Prefect gives them. Every one of them means the journal's own lock."""
