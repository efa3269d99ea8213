"""The user's last example, as it stands."""

import surroundings  # noqa: F401

from wfengine import flow, task

@task
def say_hello(name):
    return f"Hello, {name}!"

@flow(name="Hello Flow")
def hello_flow(name="world"):
    result = say_hello(name)
    print(result)
    return result

# Run the flow
if __name__ == "__main__":
    hello_flow()
