"""The user's example of a task with everything: caching, a hook of the old form, retries; and a flow that calls it."""

from surroundings import note

from wfengine import flow, task
from wfengine.tasks import task_input_hash
from datetime import timedelta

def alert_on_failure(task, old_state, new_state):
    if new_state.is_failed():
        # Send alert via Slack, email, etc.
        print(f"Task {task.name} failed with error: {new_state.message}")
    return new_state

@task(
    cache_key_fn=task_input_hash,
    cache_expiration=timedelta(hours=1),
    on_failure=[alert_on_failure],
    retries=3,
    retry_delay_seconds=60
)
def process_critical_data(data):
    # Process important data with built-in resilience
    return processed_result

processed_result = {"rows": 3}


@task
def save(result, copy):
    note(f"save {copy}")
    return copy


@flow
def critical(data):
    return [save(process_critical_data(data), copy) for copy in range(3)]


if __name__ == "__main__":
    print(critical("orders"))
