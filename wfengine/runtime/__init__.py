"""What running code may ask about its run, as attributes: `from wfengine.runtime import flow_run`, then `flow_run.name`.

Outside of a run the attributes are empty (None, 0, [] or {}). Ids are integers, as everywhere in wfengine; they are no
UUIDs and not text. For tests of code that asks, an environment variable stands in for an attribute:
`WFENGINE__RUNTIME__FLOW_RUN__NAME=nightly`, and likewise `TASK_RUN` and `DEPLOYMENT`.
"""

from wfengine.runtime import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
