"""The smallest flow worth resuming: ask for names, greet each. Run it: python hello.py"""

from wfengine import flow, task


@task
def greet(name: str) -> str:
    return f"Hello, {name}!"


@flow
def hello(names: list[str]) -> list[str]:
    return [greet(name) for name in names]


if __name__ == "__main__":
    print("\n".join(hello(["Ada", "Grace", "Barbara", "Radia"])))
