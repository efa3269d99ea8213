"""Runs one command line of wfengine in the working directory, with a fault of the disk ahead if the environment says so."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.damage.child import judge
from tests.faults import injector
from wfengine.cli import _run

#: Where what came of it is noted: not among the files whose calls are counted.
FOUND = "found.json"
#: Names a bug that is planted, to see the harness find it: 'claims to be done' or 'shows a traceback' when the disk failed.
BUG_VARIABLE = "FAULTS_BUG"


def main() -> None:
    """Run the words of the command line; note the exit code, and what is wrong with how it ended."""
    found = Path(FOUND).absolute()
    os.chdir("disk")
    os.environ["WFENGINE_JOURNAL"] = str(Path("journal.db").absolute())
    arguments = tuple(sys.argv[1:])
    said, talk = io.StringIO(), io.StringIO()
    code: int | None = None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(talk):
        injector.arm()
        try:
            code = _run(list(arguments))
        except BaseException:  # what ends the command line with a traceback
            traceback.print_exc()
    if "WF9" not in talk.getvalue() and "KeyError: 'failing for good'" in talk.getvalue():
        talk = io.StringIO("the flow failed, as it does without a fault, and its traceback was shown")
    if code and os.environ.get(BUG_VARIABLE) == "claims to be done":
        code = 0
    elif code and os.environ.get(BUG_VARIABLE) == "shows a traceback":
        talk.write("Traceback (most recent call last): ...")
    wrong = judge(arguments, said.getvalue() if not code else "{}", talk.getvalue(), code)
    found.write_text(json.dumps({"code": code, "wrong": wrong, "err": talk.getvalue()[-600:]}), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        import wfengine.cli.files
        import wfengine.cli.run
        import wfengine.cli.runs
        import wfengine.run_page  # noqa: F401 - so that no child has to

        serve(main)
    else:
        main()
