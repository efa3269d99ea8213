"""What `wfengine migrate-check` says about the parts of Prefect that wfengine leaves out, or means differently.

Whether a name is there is never looked up here: `migration` asks the modules themselves. These are the explanations only.
Keys are names without `prefect.`; one stands for everything below it. An option of a decorator is written `@task(option)`.
"""

from __future__ import annotations

#: What is left out on purpose, and what to use in its place.
LEFT_OUT = {
    "get_client": "there is no server to talk to; read runs from the journal: wfengine runs ls, wfengine sql, or sqlite3",
    "client.orchestration": "there is no server to talk to; read the journal: wfengine runs ls, wfengine sql, or sqlite3",
    "client.cloud": "there is no cloud; nothing is sent to anybody",
    "server": "there is no server; everything is in one SQLite file",
    "orion": "the server of Prefect 2; there is none here",
    "settings": "there are no settings or profiles; options are given in code, WFENGINE_JOURNAL names the file",
    "blocks": "there are Secret and the blocks of notifications; keep settings in variables, and build clients in your tasks",
    "workers": "there are no work pools and workers; runs are executed by the process that starts them",
    "infrastructure": "there is no infrastructure to start; run the file where you want it to run",
    "docker": "no images are built here; put the file and wfengine into an image of yours and run it there",
    "agent": "there are no agents; runs are executed by the process that starts them",
    "runner": "there is no runner object; the process that calls a flow executes it",
    "utilities": "internal to Prefect",
    "telemetry": "nothing is sent to anybody",
    "plugins": "there are no plugins",
    "bundles": "there are no work pools to send code to",
    "engine": "internal to Prefect; a flow is run by calling it",
    "testing": "no server has to be started for a test: wfengine.testing.temporary_journal() gives it a journal of its own",
    "main": "import it from wfengine itself",
    "assets": "there are no assets; write artifacts, or rows of a table of your own",
    "Flow.from_source": "code is not fetched from elsewhere; check it out (git clone), then run the file",
    "flows.load_flow_from_flow_run": "runs are resumed by: wfengine resume RUN",
    "@task(asset_deps)": "there are no assets",
}

#: Packages that integrate Prefect with something; each needs Prefect itself.
INTEGRATION = "a package of Prefect's that needs Prefect; call the service's own library inside a task"

#: Packages of Prefect's whose things stand elsewhere here.
MOVED = {
    "prefect_dask": "import it from wfengine.runners.dask (pip install 'wfengine[dask]')",
    "prefect_ray": "import it from wfengine.runners.ray (pip install 'wfengine[ray]')",
}

#: What is there under the same name and means something else. One line each.
DIFFERS = {
    "Flow.deploy": "records the deployment; there are no work pools and images: a run is executed where the flow's file is",
    "deploy": "records the deployments; there are no work pools and images: a run is executed where the flow's file is",
    "@task(persist_result)": "results are always kept; True caches equal calls within one flow run, as in Prefect",
    "@task(cache_result_in_memory)": "taken and ignored: results are read from the journal when they are needed",
    "@flow(cache_result_in_memory)": "taken and ignored: results are read from the journal when they are needed",
    "runtime.flow_run.id": "a small number of this journal, and no UUID",
    "runtime.task_run.id": "a small number of this journal, and no UUID",
}

#: What gives another value each time it is called, by the beginning of its name.
CHANGING = (
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today", "pendulum.now",
    "pendulum.today", "time.time", "time.time_ns", "time.monotonic", "time.perf_counter", "uuid.uuid1", "uuid.uuid4",
    "random.", "secrets.", "os.urandom", "numpy.random.",
)  # fmt: skip

CHANGES = (
    "gives another value each time, and stands in the flow's own code, which a resume runs again. Where a task is given that "
    "value, a resumed run is parked as drifted. Call wfengine.now(), uuid4() or random() instead, or it inside a task"
)

BINDS_PREFECT = (
    "binds the name prefect, which is gone when the import is replaced: write wfengine for prefect where this file uses it, or "
    "import what it needs with from ... import"
)
