"""The pictures of the README, light and dark: `python -m tests.page.screenshots [FOLDER]`.

It runs the flows below in a folder that is thrown away, serves their journal on this machine, and has the system's own Chromium
look at it. What varies from one time to the next - names of runs, times - varies in the pictures too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wfengine.page import PageServer, app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
TOKEN = "a-token-for-pictures"
WIDTH, HEIGHT = 1280, 760
#: Bytes of one picture: more than that makes a README slow to open.
LARGEST = 150_000

PROGRAM = """
import random
import time
from wfengine import flow, get_run_logger, task

@task
def extract(region, day):
    time.sleep(random.uniform(0.1, 0.4))
    get_run_logger().info("%s: %s rows", region, 1000 + len(region))
    return {"region": region, "day": day, "rows": 1000 + len(region)}

@task(retries=1)
def clean(table):
    time.sleep(random.uniform(0.1, 0.3))
    return {**table, "rows": table["rows"] - 7}

@task
def load(table):
    time.sleep(random.uniform(0.05, 0.2))
    if table["region"] == "south" and table["day"].endswith("3"):
        raise ConnectionError("the warehouse closed the connection")
    return {"loaded": table["rows"], "region": table["region"]}

@task
def report(loads):
    time.sleep(0.2)
    return {"rows": sum(each["loaded"] for each in loads)}

@flow
def sales(day="2026-11-22"):
    tables = [extract.submit(region, day) for region in ("north", "south", "east", "west", "online")]
    loads = [load.submit(clean.submit(table)) for table in tables]
    return report([each.result() for each in loads])

@flow
def invoices(month="2026-10"):
    return report([{"loaded": 12}])

if __name__ == "__main__":
    for number in range(1, 9):
        sales(f"2026-11-2{number}", return_state=True)
        invoices(return_state=True)
"""
SHOTS = {
    "overview": "/",
    "run": "/runs/5",
    "graph": "/runs/5?show=graph",
    "timeline": "/timeline?since=1h",
    "flow": "/flow?name=sales",
}


def take(folder: Path, chosen: list[str]) -> list[Path]:
    """Make the pictures, and return where they are."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium: apt install chromium")
    made: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="wfengine-pictures-") as scratch:
        journal = Path(scratch) / "journal.db"
        (Path(scratch) / "sales.py").write_text(PROGRAM, encoding="utf-8")
        environment = {**os.environ, "WFENGINE_JOURNAL": str(journal)}
        subprocess.run([sys.executable, "sales.py"], cwd=scratch, env=environment, check=True, capture_output=True)
        server = PageServer(app(journal, token=TOKEN), port=0)
        server.start()
        try:
            with sync_playwright() as started:
                browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
                for scheme in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
                    )  # fmt: skip
                    tab = context.new_page()
                    tab.goto(f"{server.address}?token={TOKEN}")
                    for name in chosen:
                        tab.goto(f"{server.address.rstrip('/')}{SHOTS[name]}")
                        tab.wait_for_selector("main h1")
                        target = folder / f"{name}-{scheme}.png"
                        tab.screenshot(path=target)
                        made.append(target)
                    context.close()
                browser.close()
        finally:
            server.stop(10.0)
    return made


def main() -> None:
    """Make all pictures, and refuse one that is too large."""
    parser = argparse.ArgumentParser(prog="python -m tests.page.screenshots", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--only", nargs="*", choices=sorted(SHOTS), default=["overview", "run"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in take(options.folder, options.only):
        size = path.stat().st_size
        print(f"{path}: {size:,} bytes")
        if size > LARGEST:
            raise SystemExit(f"{path} is larger than {LARGEST:,} bytes.")


if __name__ == "__main__":
    main()
