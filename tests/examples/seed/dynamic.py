"""The user's example of a flow whose calls depend on its input, with the tasks and sources that it speaks of."""

from dataclasses import dataclass

from surroundings import note

from wfengine import flow, task


@dataclass(frozen=True)
class Source:
    name: str
    requires_special_handling: bool


SOURCES = [Source("orders", False), Source("returns", True), Source("stock", False)]


@task
def extract_data(source):
    note(f"extract {source.name}")
    return [source.name, len(source.name)]


@task
def special_processing(extracted):
    note(f"special {extracted[0]}")
    return extracted[1] * 100


@task
def standard_processing(extracted):
    note(f"standard {extracted[0]}")
    return extracted[1]


@task
def aggregate_results(results):
    note("aggregate")
    return sum(results)

@flow
def dynamic_processing_flow(data_sources):
    results = []
    for source in data_sources:
        # Dynamically create processing tasks based on input
        extracted = extract_data(source)
        if source.requires_special_handling:
            # Conditional execution paths
            results.append(special_processing(extracted))
        else:
            results.append(standard_processing(extracted))
    return aggregate_results(results)

if __name__ == "__main__":
    print(dynamic_processing_flow(SOURCES))
