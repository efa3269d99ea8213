"""What the tests of runners share: journals, rows and programs as the engine's tests have them."""

from __future__ import annotations

from tests.engine.conftest import journal, program, rows  # noqa: F401 - fixtures
