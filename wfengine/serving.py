"""Serve deployments: make the daemon of them - scheduler, executor, automations, upkeep - and run it in this process.

    etl.serve(name="nightly", cron="0 3 * * *")          # one flow
    serve(etl.to_deployment("nightly", cron="0 3 * * *"), report.to_deployment("weekly"))

What is served is recorded in the journal first. So whatever was due, begun or cut off when the process ends, in whichever way,
is there for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wfengine.automations.service import Automations
from wfengine.daemon import STOP_SECONDS, Daemon, checked_stop_timeout, stopping_on_signals
from wfengine.declarations import collecting, note_declared
from wfengine.deployment_file import read_file
from wfengine.deployment_plan import apply as apply_file
from wfengine.deployments import Deployment
from wfengine.executor import RECOVER, Executor, checked_queues
from wfengine.isolation import Children
from wfengine.journals import default_journal, default_path, use_journal
from wfengine.loading import is_loading, load_namespace, load_target, note_skipped_call
from wfengine.logging import get_logger
from wfengine.notifying.courier import daemon_courier
from wfengine.run_worker import DEFAULT_LIMIT, checked_limit
from wfengine.scopes import current_scope
from wfengine.source_tables import Sources, configured_sources, services_of
from wfengine.upkeep import Backups, Retention, UpkeepService
from wfengine.upkeep_tables import FILE_NAME, configured_upkeep, find_file
from wfengine_journal.daemons import ids_of_flow
from wfengine_journal.errors import MissingFlowError, NotFoundError, UsageError
from wfengine_scheduler.loop import Scheduler
from wfengine_scheduler.pausing import pause_deployment, unpause_deployment

if TYPE_CHECKING:
    from wfengine.executor import Recover
    from wfengine.flows import AnyFlow
    from wfengine_journal.store import Journal
    from wfengine_scheduler.services import Service

_logger = logging.getLogger("wfengine.daemon")


@dataclass(frozen=True, slots=True)
class Served:
    """What a daemon serves. `deployment_ids` None: every deployment in the journal."""

    name: str
    deployment_ids: tuple[int, ...] | None = None
    flows: Mapping[str, AnyFlow] = field(default_factory=dict)  # at hand in this process, by name


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a daemon serves."""

    queues: tuple[str, ...] = ()  # none: those of what it serves
    limit: int | None = None
    recover: str = "own"
    stop_timeout: float = STOP_SECONDS
    retention: Retention | None = None
    backups: Backups | None = None
    sources: Sources = field(default_factory=Sources)
    parent_pid: int | None = None
    ui: tuple[str, int] | None = None  # host and port of the page; null: none is served
    metrics_port: int | None = None  # None: no metrics are served; 0: at any port that is free
    metrics_host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is written."""
        if self.recover not in RECOVER:
            raise UsageError(f"recover must be {', '.join(map(repr, RECOVER))}, not {self.recover!r}.")
        checked_limit(self.limit)
        checked_queues(self.queues)
        checked_stop_timeout(self.stop_timeout)
        port = self.metrics_port
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535):
            raise UsageError(f"metrics_port is a number from 0 (any that is free) to 65535, not {port!r}.")


def _configured(journal: Path, **options: Any) -> ServeOptions:
    """Return options with what the wfengine.toml that belongs to a journal says. Raises UsageError."""
    retention, backups = configured_upkeep(journal)
    return ServeOptions(**options, retention=retention, backups=backups, sources=configured_sources(journal))


# ------------------------------------------------------------------------------------------- from Python


def serve(
    *deployments: Deployment,
    pause_on_shutdown: bool = False,
    print_starting_message: bool = True,
    limit: int | None = None,
    **options: object,
) -> Coroutine[None, None, None] | None:
    """Record these deployments and serve them - schedules, runs, recovery - in this process until it is stopped.

    Blocks; in an event loop it returns a coroutine to await, as `aserve` does. SIGTERM and Ctrl-C stop it in order: runs under
    way may end, for at most 30 seconds (`stop_timeout`), and what is left goes on in the next daemon; a second signal ends it
    at once. `limit`: so many runs at a time. `pause_on_shutdown`: what falls due while nobody serves is skipped; else the
    schedule's catch-up decides about it. `recover`: "own" (default) takes up runs of these deployments whose process died,
    "all" every such run, "none" none. `metrics_port`: Prometheus is answered there.
    While a file is loaded to find its flows, this does nothing.
    """
    if is_loading():
        _note(deployments)
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _Serving(deployments, pause_on_shutdown, print_starting_message, limit, options).run()
        return None
    return aserve(
        *deployments,
        pause_on_shutdown=pause_on_shutdown,
        print_starting_message=print_starting_message,
        limit=limit,
        **options,
    )


def serve_flow(
    flow: AnyFlow, name: str | None, settings: Mapping[str, object], **options: Any
) -> Coroutine[None, None, None] | None:
    """Do what `Flow.serve` does."""
    named = flow.name if name is None else Path(name).stem if Path(name).is_file() else name
    return serve(cast(Any, flow).to_deployment(named, **settings), **options)


async def aserve(
    *deployments: Deployment,
    pause_on_shutdown: bool = False,
    print_starting_message: bool = True,
    limit: int | None = None,
    **options: object,
) -> None:
    """Do what `serve` does without stopping the event loop. Cancelled, it stops in order."""
    if is_loading():
        _note(deployments)
        return
    serving = _Serving(deployments, pause_on_shutdown, print_starting_message, limit, options)
    with stopping_on_signals(serving.daemon):
        running = asyncio.get_running_loop().run_in_executor(None, serving.run)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            serving.daemon.stop()
            await running
            raise


def _note(deployments: Sequence[Deployment]) -> None:
    for deployment in deployments:
        note_declared(deployment)
    note_skipped_call()


class _Serving:
    """One call of `serve`: what it records, and its daemon."""

    def __init__(
        self, deployments: Sequence[Deployment], pause: bool, announce: bool, limit: int | None, options: Mapping[str, object]
    ) -> None:
        if current_scope() is not None:
            raise UsageError("serve() was called in a flow or task, which would never end. Call it in a process of its own.")
        if not deployments:
            raise UsageError(
                "There is nothing to serve. Name deployments: serve(etl.to_deployment('nightly', cron='0 3 * * *'))"
            )
        for each in deployments:
            if not isinstance(each, Deployment):
                raise UsageError(f"serve() takes deployments, made by my_flow.to_deployment(NAME), and not {each!r}.")
        unknown = sorted(set(options) - {"recover", "stop_timeout", "queues", "metrics_port", "metrics_host"} - WITHOUT_MEANING)
        if unknown:
            raise UsageError(f"serve() has no option {', '.join(unknown)}. See: help(wfengine.serve)")
        given = {name: options[name] for name in options if name not in WITHOUT_MEANING}
        serve_options = _configured(default_path(), limit=limit, **given)
        get_logger()  # shows on stderr what is logged, unless the program has configured logging
        self._journal = default_journal()
        self.ids = apply_all(deployments)
        # Those that their author did not pause: paused when this ends, and so to be let go on now.
        self._pause = tuple(id_ for id_, each in zip(self.ids, deployments, strict=True) if pause and not each.paused)
        self._set_paused(paused=False)
        flows = {each.flow_name: each.flow for each in deployments if each.flow is not None}
        names = ", ".join(f"{each.flow_name}/{each.name}" for each in deployments)
        self.daemon = make_daemon(self._journal, Served(names, self.ids, flows), serve_options)
        if announce:
            _logger.info(
                "serving %s; start a run with: wfengine deployments run %s/%s",
                names, deployments[0].flow_name, deployments[0].name, extra={"event": "daemon.serving"},
            )  # fmt: skip

    def run(self) -> None:
        """Serve until stopped."""
        try:
            self.daemon.run()
        finally:
            self._set_paused(paused=True)

    def _set_paused(self, *, paused: bool) -> None:
        for deployment_id in self._pause:
            with contextlib.suppress(NotFoundError):  # somebody removed it meanwhile
                (pause_deployment if paused else unpause_deployment)(self._journal, deployment_id)


#: Options of Prefect's `serve` that name a server or a port: there is none here.
WITHOUT_MEANING = frozenset({"webserver", "enforce_parameter_schema", "entrypoint_type"})


def apply_all(deployments: Sequence[Deployment]) -> tuple[int, ...]:
    """Record deployments, and return their ids."""
    return tuple(cast(int, cast(Any, each).apply(_sync=True)) for each in deployments)


# ------------------------------------------------------------------------------------------- from files


@dataclass(frozen=True, slots=True)
class Found:
    """What files have to be served."""

    declared: list[Deployment]
    others: list[tuple[AnyFlow, str]]  # flows that none of these is of, each with the name of its file


def find_served(targets: Sequence[str]) -> Found:
    """Load files or modules and return what they have to be served; nothing is written.

    A deployment is declared by `flow.serve(...)`, `serve(...)` or `apply()` at module level, which do nothing while the file is
    loaded, or by a variable that holds one. Raises EntrypointError.
    """
    declared: list[Deployment] = []
    flows: dict[int, tuple[AnyFlow, str]] = {}
    for target in targets:
        with collecting() as found:
            namespace = load_namespace(target)
        found += [value for value in namespace.values() if isinstance(value, Deployment)]
        declared += [each for each in found if not any(known is each for known in declared)]
        try:
            own = cast("tuple[AnyFlow, ...]", load_target(target))
        except MissingFlowError:
            if not found:
                raise
        else:
            flows |= {id(flow): (flow, _name_of_place(target)) for flow in own}
    # The last one of a name counts, as it does when the file is run.
    declared = list({(each.flow_name, each.name): each for each in declared}.values())
    named = {each.flow_name for each in declared}
    return Found(declared, [(flow, place) for flow, place in flows.values() if flow.name not in named])


def _name_of_place(target: str) -> str:
    """Return what a file or module, of which a flow may be named, is called."""
    place, colon, _ = target.rpartition(":")
    if not colon or Path(target).is_file():
        place = target
    return Path(place).stem if place.endswith(".py") or Path(place).is_file() else place.rpartition(".")[2]


def _record(found: Found, name: str) -> Served:
    """Record what files declare and return what is to be served of them.

    A flow that they declare no deployment of is served by the deployments it has in the journal already; one that has none gets
    one, named like its file, without a schedule.
    """
    journal = default_journal()
    declared, known = list(found.declared), []
    for flow, place in found.others:
        ids = journal.read(lambda connection, flow=flow: ids_of_flow(connection, flow.name))  # type: ignore[misc]  # bound per turn
        known += ids
        if not ids:
            declared.append(flow.to_deployment(place))
    flows = {each.flow_name: each.flow for each in declared if each.flow is not None}
    flows |= {flow.name: flow for flow, _ in found.others}
    return Served(name, tuple(dict.fromkeys([*apply_all(declared), *known])), flows)


def daemon_of(path: Path, files: Sequence[str], *, name: str | None, no_config: bool, **options: Any) -> Daemon:
    """Return the daemon of a command line: of files, or of every deployment in the journal and in wfengine.toml.

    `options`: those of `ServeOptions`. Files that cannot be loaded, and options that make no sense, are refused before
    anything is written.
    """
    chosen = ServeOptions(**options) if no_config else _configured(path, **options)
    found = find_served(files)
    file = None if no_config or files else find_file(path)
    declared = None if file is None else read_file(file, path.absolute().parent / "sources")
    journal = use_journal(path)
    if declared is not None:
        for planned in apply_file(journal, declared):
            _logger.info("%s: %s '%s' is %s", FILE_NAME, planned.kind, planned.name, planned.outcome)
    served = _record(found, name or ", ".join(files)) if files else Served(name or "all deployments")
    return make_daemon(journal, served, chosen)


def _page(journal: Journal, host: str, port: int) -> Service:
    """Return the page as a part of the daemon. Raises UsageError where its packages are missing."""
    from wfengine.page.settings import page_server  # and with it the packages of the extra

    server = page_server(journal.path, host, port)
    server.on_start = lambda: _logger.info("the page is at %s", server.link, extra={"event": "daemon.page"})
    return server


def make_daemon(journal: Journal, served: Served, options: ServeOptions) -> Daemon:
    """Return the daemon of what is to be served: which services it has, and what each is told."""
    # What it starts, the executor finds in its queue: it is woken by the commit. So nothing has to be launched.
    services: list[Service] = [Scheduler(journal, deployment_ids=served.deployment_ids), Automations(journal)]
    services.append(daemon_courier(journal))
    services += services_of(journal, options.sources)
    if options.ui is not None:
        services.append(_page(journal, *options.ui))
    upkeep = UpkeepService(journal, retention=options.retention, backups=options.backups)
    if upkeep.is_configured:
        services.append(upkeep)
    if options.metrics_port is not None:
        from wfengine.listeners.metrics import MetricsServer  # needs an extra

        services.append(MetricsServer(journal, port=options.metrics_port, host=options.metrics_host))
    services.append(  # the last to be stopped, so that what the others began may end
        Executor(
            journal,
            queues=options.queues or None,
            limit=DEFAULT_LIMIT if options.limit is None else options.limit,
            flows=served.flows,
            recover=cast("Recover", options.recover),
            isolate=Children,
            deployment_ids=served.deployment_ids,
        )
    )
    return Daemon(journal, services, served.name, stop_timeout=options.stop_timeout, parent_pid=options.parent_pid)
