"""Small things under the names that Prefect gives their modules."""
