"""A child process of the edit corpus: start the flow of a file, plan its resume, or resume it. It is forked from a nursery."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import sys
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from wfengine import cli, use_journal
from wfengine.cli import ending, run  # noqa: F401 - so that no child has to import them
from wfengine.dry_runs import plan_run
from wfengine.loading import load_entrypoint
from wfengine.recovery import find_run_id, resume_run
from wfengine_journal import store


def execute() -> None:
    """Do what the command line asks for; say on standard output what became of it, as JSON."""
    verb, file = sys.argv[1:]
    if verb == "cli":
        cli.main(["--journal", os.environ["WFENGINE_JOURNAL"], "resume", "@last"])
    journal = use_journal(Path(os.environ["WFENGINE_JOURNAL"]))
    if verb == "start":
        main = load_entrypoint(f"file:{file}:main")
        assert callable(main)
        try:
            made = main()
            answer = {"result": asyncio.run(made) if inspect.iscoroutine(made) else made}
        except (ValueError, RuntimeError) as error:
            answer = {"failure": str(error)}
    else:
        run_id = find_run_id(journal, "@last")
        planned = plan(journal.path, run_id) if verb == "plan and resume" else {}
        state = resume_run(journal, run_id)
        result = state.result(raise_on_failure=False)
        answer = {**planned, **({"result": result} if state.is_completed() else {"failure": str(result)})}
    print(json.dumps(answer), flush=True)
    store.close_all()
    os._exit(0)  # taking down an interpreter that was forked with all its modules takes longer than the run


def plan(path: Path, run_id: int) -> dict[str, object]:
    """Return what a resume would do: each call with its decision, and whether the body came to its end."""
    effects = Path(os.environ["EFFECTS"])
    before = effects.read_bytes() if effects.exists() else b""
    found = plan_run(path, run_id)
    assert (effects.read_bytes() if effects.exists() else b"") == before, "a plan executed something"
    assert found.error is None, found.error
    calls = [(call.decision, call.task, *json.loads(call.inputs).values()) for call in found.calls]
    return {"calls": calls, "ended": found.ended}


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page
        serve(execute)
    else:
        execute()
