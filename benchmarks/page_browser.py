"""Whether the browser stays responsive: `python -m benchmarks.page_browser`, with the system's own Chromium.

It opens the run page of a run of 100,000 calls that is going on, looks at it for a while in which nothing is committed, then
while about a thousand tasks a second end and the page updates itself, and then at a stretch of it in which each call is drawn.
A *long task* is one of the browser's: more than 50 ms in which it answers nobody. *Heap* is what the page's script holds once
it was collected, *nodes* those of the document and of all that was not collected; both are to stay level however often it
updates.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page_live import TOKEN, Steady, served

#: What the page is made to note, from before its own script on.
NOTE = """
window.longTasks = [];
window.updates = 0;
new PerformanceObserver((list) => { for (const each of list.getEntries()) window.longTasks.push(each.duration); })
    .observe({ type: "longtask", buffered: true });
document.addEventListener("htmx:afterRequest", () => { window.updates += 1; });
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured while one thing was looked at: long tasks in milliseconds, updates, megabytes, nodes."""

    what: str
    long_tasks: list[float]
    updates: int
    heap: float
    nodes: int


def look(path: Path, calls: int, pace: float, seconds: float) -> list[Seen]:
    """Return what was seen of each part."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium: apt install chromium")
    found: list[Seen] = []
    steadily = Steady(path, calls, pace)
    try:
        with served(path) as (base, _), sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page()
            tab.add_init_script(NOTE)
            session = tab.context.new_cdp_session(tab)
            session.send("Performance.enable")
            tab.goto(f"{base}/?token={TOKEN}")
            tab.goto(f"{base}/runs/1")
            found.append(_seen("opened", tab, session))
            tab.wait_for_timeout(seconds * 1000)
            found.append(_seen("nothing changes", tab, session))
            for turn in range(1, 4):
                steadily.begin(seconds)
                tab.wait_for_timeout(seconds * 1000)
                count = steadily.result()[0]
                found.append(_seen(f"{count / seconds:,.0f} tasks a second end, {turn}", tab, session))
            tab.goto(f"{base}/runs/1?from=0.5&to=0.52")
            bars = tab.locator("svg.waterfall g").count()
            found.append(_seen(f"a stretch is opened, {bars} bars", tab, session))
            steadily.begin(seconds)
            tab.wait_for_timeout(seconds * 1000)
            count = steadily.result()[0]
            found.append(_seen(f"the same, {count / seconds:,.0f} tasks a second end", tab, session))
            browser.close()
    finally:
        steadily.end()
    return found


def _seen(what: str, tab: Any, session: Any) -> Seen:
    long_tasks, updates = tab.evaluate(
        "() => { const found = [window.longTasks, window.updates]; window.longTasks = []; window.updates = 0; return found; }"
    )
    session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return Seen(what, long_tasks, updates, metrics["JSHeapUsedSize"] / 1e6, int(metrics["Nodes"]))


def main() -> None:
    """Look, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_browser", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls that the run has made before it is looked at")
    parser.add_argument("--pace", type=float, default=1000, help="tasks that end in a second")
    parser.add_argument("--seconds", type=float, default=10, help="for which each part is looked at")
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wfengine-page-", dir=options.folder) as folder:
        found = look(Path(folder) / "journal.db", options.calls, options.pace, options.seconds)
    print(f"{'long':>5} {'total ms':>9} {'longest':>8} {'updates':>8} {'heap MB':>8} {'nodes':>7}")
    for each in found:
        total, longest = sum(each.long_tasks), max(each.long_tasks, default=0.0)
        print(
            f"{len(each.long_tasks):5} {total:9.0f} {longest:8.0f} {each.updates:8} {each.heap:8.1f} {each.nodes:7}  "
            f"{each.what}"
        )


if __name__ == "__main__":
    main()
