"""The user's first example, and a start of it."""

import surroundings  # noqa: F401

from wfengine import flow, task

@task
def extract_data(source):
    # Extract data from source
    return {"raw_data": [1, 2, 3, 4, 5]}

@task
def transform_data(data):
    # Transform the data
    return {"transformed_data": [x * 10 for x in data["raw_data"]]}

@task
def load_data(data):
    # Load the transformed data
    print(f"Loading data: {data}")
    return "Data loaded successfully"

@flow(name="Simple ETL Pipeline")
def etl_pipeline(source="default_source"):
    raw_data = extract_data(source)
    transformed_data = transform_data(raw_data)
    result = load_data(transformed_data)
    return result

if __name__ == "__main__":
    print(etl_pipeline())
