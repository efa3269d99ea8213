"""Times as text, and the machine's clock."""

from __future__ import annotations

import random
import re
import threading
from datetime import UTC, datetime

import pytest

from wfengine_journal.clock import SystemClock, seconds_from_text, text_from_seconds

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_750_000_000.5, "2025-06-15T15:06:40.500000Z"),
        (951_782_400.0, "2000-02-29T00:00:00.000000Z"),
        (4_102_444_799.999999, "2099-12-31T23:59:59.999999Z"),
    ],
)
def test_an_instant_is_written_in_fixed_width_and_read_back(seconds: float, text: str) -> None:
    assert text_from_seconds(seconds) == text
    assert seconds_from_text(text) == pytest.approx(seconds, abs=1e-6)


def test_texts_sort_as_the_instants_they_stand_for() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    instants = [random.Random(seed).uniform(0, 4e9) for _ in range(500)]
    texts = [text_from_seconds(instant) for instant in instants]
    assert all(FORM.fullmatch(text) for text in texts)
    assert sorted(texts) == [text_from_seconds(instant) for instant in sorted(instants)]


def test_the_system_clock_tells_the_same_time_as_text_and_as_seconds() -> None:
    clock = SystemClock()
    for _ in range(1000):
        before, text, after = clock.wall_seconds(), clock.now_text(), clock.wall_seconds()
        assert FORM.fullmatch(text)
        assert before - 1e-5 <= seconds_from_text(text) <= after + 1e-5
    assert datetime.fromisoformat(clock.now_text()).tzinfo == UTC


def test_texts_of_many_threads_are_never_a_mix_of_two_seconds() -> None:
    clock = SystemClock()
    wrong: list[str] = []

    def ask() -> None:
        for _ in range(20_000):
            before, text, after = clock.wall_seconds(), clock.now_text(), clock.wall_seconds()
            if not before - 1e-5 <= seconds_from_text(text) <= after + 1e-5:
                wrong.append(text)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_monotonic_time_never_goes_back_and_sleep_takes_its_time() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_seconds() for _ in range(1000)]
    assert readings == sorted(readings)
    before = clock.monotonic_seconds()
    clock.sleep(0.01)
    assert clock.monotonic_seconds() - before >= 0.01
