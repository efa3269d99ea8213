"""Refunds: small ones are paid, larger ones wait for a person, for days if need be.

    python examples/approval.py                                              serve, until Ctrl-C
    wfengine deployments run refund/desk -p order=A7 -p amount=250           ask for one
    wfengine inputs ls                                                       what waits for an answer
    wfengine resume @last --input approved=true --input "note=fine"          the answer

The question outlives the daemon: killed while it waits, the next one waits on, and the order is not looked up again.
"""

from __future__ import annotations

from pathlib import Path

from wfengine import flow, pause_flow_run, task
from wfengine.input import RunInput

PAID = Path("paid.txt")


class Decision(RunInput):
    """What a person is asked."""

    approved: bool
    note: str = ""


@task
def look_up(order: str) -> str:
    """Stand for a look into the shop's books."""
    return f"order {order}"


@task
def pay(order: str, amount: float) -> str:
    """Stand for a payment. A real one hands `current_task_run().idempotency_key` to the bank."""
    with PAID.open("a", encoding="utf-8") as file:
        file.write(f"{order} {amount:g}\n")
    return f"paid {amount:g} for {order}"


@flow
def refund(order: str, amount: float) -> str:
    """Pay a refund, if it is small or a person agrees."""
    what = look_up(order)
    if amount > 100:
        decision = pause_flow_run(wait_for_input=Decision, timeout=14 * 86_400)
        if not decision.approved:
            return f"refused: {decision.note}"
    return pay(what, amount)


if __name__ == "__main__":
    refund.serve(name="desk")
