"""A grid search over real digits and a site of real files: each is killed in the middle, and does nothing twice."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from programs import EXAMPLES, python, query, resume, run_until_killed

POINTS = 12
WORKERS = 32  # of the threads that may be fetching when the process is killed


def _result(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(str(query(folder / "journal.db", "SELECT result FROM runs")[0][0]))
    return found


@pytest.mark.crash
def test_a_grid_search_that_is_killed_scores_no_point_twice_and_finds_the_best(tmp_path: Path) -> None:
    if find_spec("sklearn") is None:
        pytest.skip("install the extra examples-ml")
    run_until_killed(tmp_path, f"{EXAMPLES / 'grid_search.py'}:grid_search", "score", 5, warnings="default")
    done = query(tmp_path / "journal.db", "SELECT id FROM tasks WHERE state = 'COMPLETED'")

    resume(tmp_path, warnings="default")

    assert len(done) >= 5
    assert query(tmp_path / "journal.db", "SELECT id FROM tasks WHERE replayed ORDER BY id") == sorted(done)
    scores = query(tmp_path / "journal.db", "SELECT CAST(result AS REAL) FROM tasks WHERE task = 'score'")
    result = _result(tmp_path)
    assert len(scores) == POINTS
    assert result["cross_validation"] == max(score for (score,) in scores)  # type: ignore[type-var]  # reals
    assert (result["C"], result["gamma"]) == (10.0, 0.001)
    assert isinstance(result["test"], float)
    assert result["test"] > 0.95
    assert math.isfinite(result["test"])


class Site:
    """A folder that is served on loopback; `asked` counts what was asked for, `broken` answers 503 once."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked[self.path] += 1
                if self.path == "/page1.html" and asked[self.path] == 1:
                    self.send_error(503)
                else:
                    super().do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Sixty pages, each of which links to the next three and to one that is not there; and a page that fails once."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(60):
        links = "".join(f'<a href="page{(number + step) % 60}.html#top">next</a> ' for step in (1, 2, 3))
        text = f'<h1>page {number}</h1> {links}<a href="missing.html">lost</a> <a href="http://elsewhere.invalid/">away</a>'
        (folder / f"page{number}.html").write_text(text, encoding="utf-8")
    (folder / "index.html").write_text('<a href="page0.html">begin</a>', encoding="utf-8")
    served = Site(folder)
    yield served
    served.stop()


@pytest.mark.crash
def test_a_site_is_read_whole_over_a_kill_and_what_was_read_is_not_asked_for_again(tmp_path: Path, site: Site) -> None:
    run_until_killed(tmp_path, f"{EXAMPLES / 'scrape.py'}:scrape", "fetch", 20, site.address)
    done = query(tmp_path / "journal.db", "SELECT inputs ->> '$.address' FROM tasks WHERE state = 'COMPLETED'")
    before = site.asked.copy()

    resume(tmp_path)

    assert len(done) >= 20
    assert _result(tmp_path)["pages"] == 61
    assert _result(tmp_path)["missing"] == [f"{site.address}missing.html"]
    paths = {str(address).removeprefix(site.address.rstrip("/")) for (address,) in done}
    assert [path for path in paths if site.asked[path] != before[path]] == []
    assert sum(site.asked.values()) <= 61 + 1 + 1 + WORKERS
    assert query(tmp_path / "journal.db", "SELECT attempts FROM tasks WHERE task = 'fetch' AND inputs GLOB '*page1.html*'") == [
        (2,)
    ]


def test_the_scraper_reads_a_folder_of_python_when_it_is_given_no_address(tmp_path: Path) -> None:
    ended = python(tmp_path, EXAMPLES / "scrape.py")

    assert ended.returncode == 0, ended.stderr
    import email

    files = [path for path in Path(email.__file__).parent.rglob("*") if "__pycache__" not in path.parts]
    folders = [path for path in files if path.is_dir()]
    assert f"pages: {1 + len(files)}\n" in ended.stdout
    assert folders
    assert "missing: []" in ended.stdout
