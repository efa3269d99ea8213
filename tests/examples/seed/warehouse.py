"""The user's example of maps and batches, with the tasks and sources that it speaks of."""

from surroundings import note

from wfengine import flow, task

SOURCES = [f"source-{number:02}" for number in range(12)]


@task
def extract_from_multiple_sources(source):
    note(f"extract {source}")
    return source


@task
def transform_for_warehouse(data):
    note(f"transform {data}")
    return data.upper()


def chunk_data(items, size):
    size = size // 200  # five to a batch, so that a dozen of sources makes several
    return [items[start : start + size] for start in range(0, len(items), size)]


@task
def load_to_warehouse(batch):
    note(f"load {batch[0]}")
    return len(batch)


@task
def validate_warehouse_data():
    note("validate")
    return "valid"


@task
def send_completion_report(validation_result):
    note(f"report {validation_result}")

@flow(name="Daily Data Warehouse Update")
def update_data_warehouse():
    # Extract from multiple sources in parallel
    source_data = extract_from_multiple_sources.map(SOURCES)
    
    # Transform data
    transformed = transform_for_warehouse.map(source_data)
    
    # Load to data warehouse in batches
    load_results = []
    for batch in chunk_data(transformed, size=1000):
        result = load_to_warehouse(batch)
        load_results.append(result)
    
    # Validate and report
    validation_result = validate_warehouse_data()
    send_completion_report(validation_result)

if __name__ == "__main__":
    update_data_warehouse()
