"""Pages of a service that takes twenty requests a second, and two at a time for each customer.

    python examples/rate_limited_queue.py                   serve the queue, until Ctrl-C
    python examples/rate_limited_queue.py ada 40            ask for forty pages of a customer, from any process
    wfengine queues ls                                      how many wait

A page that was asked for is in the journal, and is fetched once: asking again for it gives the same run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wfengine import flow, task
from wfengine.concurrency import set_queue
from wfengine.deployments import run_deployment

FETCHED = Path("fetched.txt")


@task(retries=3, retry_delay_seconds=1)
def fetch(customer: str, page: int) -> int:
    """Stand for a request to the service."""
    with FETCHED.open("a", encoding="utf-8") as file:
        file.write(f"{customer} {page}\n")
    return page * page


@flow
def pages(customer: str, page: int) -> int:
    """Fetch one page of a customer."""
    return fetch(customer, page)


def ask(customer: str, count: int) -> None:
    """Put so many pages of a customer into the queue."""
    for page in range(count):
        run_deployment(
            "pages/api", {"customer": customer, "page": page}, timeout=0, partition_key=customer,
            idempotency_key=f"{customer} {page}",
        )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) == 3:
        ask(sys.argv[1], int(sys.argv[2]))
    else:
        set_queue("api", rate="20/s", per_partition=2)
        pages.serve(name="api", queue="api")
