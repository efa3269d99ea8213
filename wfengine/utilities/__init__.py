"""Small helpers, under the names of the modules that Prefect keeps them in."""
