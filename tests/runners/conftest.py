"""What the tests of runners share: journals, rows and programs as the engine's tests have them, and clusters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.conftest import journal, program, rows  # noqa: F401 - fixtures
from tests.runners.clusters import DaskCluster


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[DaskCluster]:
    """Two workers of Dask, whose place is taken by a new one when they die."""
    cluster = DaskCluster(2)
    yield cluster
    cluster.close()
