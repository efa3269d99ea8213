"""When a failed attempt is followed by another one. No waiting: a policy only computes."""

from __future__ import annotations

import pytest
import tenacity

from wfengine.retries import RetryPolicy, exponential_backoff, make_policy
from wfengine_journal.errors import UsageError

ERROR = ValueError("no")


def delays(policy: RetryPolicy, error: BaseException = ERROR, elapsed: float = 0.0) -> list[float | None]:
    """Return the delay after the first, second, third ... failure, up to the one after which there is none."""
    found: list[float | None] = []
    for failures in range(1, 20):
        found.append(policy.next_delay_seconds(failures, error, elapsed))
        if found[-1] is None:
            break
    return found


def policy(retries: object = 3, delay: object = None, jitter: float | None = None, condition: object = None) -> RetryPolicy:
    return make_policy("task 'load'", retries, delay, jitter, condition)  # type: ignore[arg-type]


def test_without_retries_a_failure_is_final() -> None:
    assert RetryPolicy().is_none
    assert policy(0).is_none
    assert delays(policy(0)) == [None]


@pytest.mark.parametrize(
    ("retries", "delay", "expected"),
    [
        (1, None, [0.0, None]),
        (3, 2, [2.0, 2.0, 2.0, None]),
        (3, 0.5, [0.5, 0.5, 0.5, None]),
        (3, [1, 10], [1.0, 10.0, 10.0, None]),
        (2, (1, 10, 100), [1.0, 10.0, None]),
        (4, exponential_backoff(0.5), [0.5, 1.0, 2.0, 4.0, None]),
        (3, lambda retries: [retries] * retries, [3.0, 3.0, 3.0, None]),
        (3, tenacity.wait_fixed(7), [7.0, 7.0, 7.0, None]),
        (3, tenacity.wait_exponential(multiplier=1, max=3), [1.0, 2.0, 3.0, None]),
        (3, tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3.0, 3.0, 3.0, None]),
        (tenacity.stop_after_attempt(3), 1, [1.0, 1.0, None]),
        (tenacity.stop_after_attempt(2) | tenacity.stop_after_delay(60), None, [0.0, None]),
    ],
)
def test_delays_are_those_of_the_policy(retries: object, delay: object, expected: list[float | None]) -> None:
    assert delays(policy(retries, delay)) == expected


def test_a_stop_after_a_delay_looks_at_the_time_since_the_first_attempt() -> None:
    stop = policy(tenacity.stop_after_delay(60))
    assert stop.next_delay_seconds(1, ERROR, 59.0) == 0.0
    assert stop.next_delay_seconds(1, ERROR, 61.0) is None


def test_jitter_only_ever_lengthens_a_delay() -> None:
    found = [policy(1, 10, jitter=0.5).next_delay_seconds(1, ERROR, 0.0) or 0.0 for _ in range(200)]
    assert all(10.0 <= delay <= 15.0 for delay in found)
    assert len(set(found)) > 100


@pytest.mark.parametrize(
    "condition",
    [lambda error: isinstance(error, ValueError), tenacity.retry_if_exception_type(ValueError)],
    ids=["function", "tenacity"],
)
def test_a_condition_decides_by_the_exception(condition: object) -> None:
    conditional = policy(2, condition=condition)
    assert delays(conditional) == [0.0, 0.0, None]
    assert delays(conditional, KeyError("other")) == [None]


def test_the_conditions_of_tenacity_can_be_combined() -> None:
    combined = tenacity.retry_if_exception_type(ValueError) & tenacity.retry_if_exception_message(match="no.*")
    assert delays(policy(1, condition=combined)) == [0.0, None]
    assert delays(policy(1, condition=combined), ValueError("yes")) == [None]


@pytest.mark.parametrize("retries", [-1, 1.5, "3", None, True, [1]])
def test_a_number_of_retries_that_is_none_is_refused_by_name(retries: object) -> None:
    with pytest.raises(UsageError, match=r"task 'load': retries must be a number of at least 0 or a tenacity stop, not"):
        policy(retries)


@pytest.mark.parametrize("delay", [-1, [1, -1], [], "soon", float("nan"), ["a"]])
def test_a_delay_that_is_none_is_refused_by_name(delay: object) -> None:
    with pytest.raises(UsageError, match=r"task 'load': retry_delay_seconds must be seconds of at least 0"):
        policy(3, delay)


def test_a_condition_that_cannot_be_asked_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"task 'load': retry_condition_fn must be a function"):
        policy(3, condition="always")
