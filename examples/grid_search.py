"""A grid search: which settings of a classifier read 1,797 handwritten digits best. Each point of the grid is a task.

    python grid_search.py              run it; stop it where you like, kill -9 included
    wfengine resume @last              go on: points that were scored are not scored again
    wfengine sql "SELECT inputs, result FROM tasks WHERE task = 'score' ORDER BY CAST(result AS REAL) DESC LIMIT 3"

Widen the grid in the code and resume: only the new points are computed. It needs: pip install 'wfengine[examples-ml]'
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.svm import SVC

from wfengine import flow, get_run_logger, task, unmapped

CS = [0.1, 1.0, 10.0]
GAMMAS = [0.0001, 0.001, 0.01, 0.1]
SEED = 0


@cache
def data() -> list[numpy.ndarray]:
    """A plain function: read again in each process, never journaled."""
    digits = load_digits()
    split: list[numpy.ndarray] = train_test_split(digits.data, digits.target, test_size=0.4, random_state=SEED)
    return split


@task(task_run_name="C={C} gamma={gamma}")
def score(C: float, gamma: float, folds: int) -> float:
    """Return how many of the digits are read rightly, in cross-validation."""
    train, _, labels, _ = data()
    return float(cross_val_score(SVC(C=C, gamma=gamma), train, labels, cv=folds).mean())


@task
def test_best(C: float, gamma: float) -> float:
    """Return how many of the digits are read rightly that nothing was fitted to."""
    train, test, labels, truth = data()
    return float(SVC(C=C, gamma=gamma).fit(train, labels).score(test, truth))


@flow
def grid_search(folds: int = 3) -> dict[str, float]:
    """Score the whole grid, then try the best point on what was kept apart."""
    points = list(product(CS, GAMMAS))
    scores = score.map([C for C, _ in points], [gamma for _, gamma in points], unmapped(folds)).result()
    best, (C, gamma) = max(zip(scores, points, strict=True))
    get_run_logger().info("of %d points the best is C=%g gamma=%g: %.3f", len(points), C, gamma, best)
    return {"C": C, "gamma": gamma, "cross_validation": best, "test": test_best(C, gamma)}


if __name__ == "__main__":
    for name, value in grid_search().items():
        print(f"{name}: {value:.4g}")
