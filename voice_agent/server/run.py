"""Run a server: the task tree of the process, from the signals to the last connection.

::

    root
     ├ signals      first: drain; second: exit at once; SIGHUP: read the settings again
     ├ reload       the settings' files
     ├ keep alive   what systemd's watchdog wants to hear
     ├ summaries    of log lines that came too often
     ├ tls files    read again when they change
     └ tracing      spans to a collector, if one is set
        └ services     models, engine workers, supervisor (readiness checks, loop lag, close watches)
           └ media thread     asyncio, for WebRTC
              └ WebRTC calls     one nursery a call
                 └ HTTP server
                    └ one nursery a connection → one nursery a WebSocket call
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import attrs
import trio

from voice_agent.access.anonymous import check_bind
from voice_agent.access.authentication import open_authenticator
from voice_agent.access.limiter import Limiter
from voice_agent.cluster.names import name_of_node
from voice_agent.core.units import HOURS
from voice_agent.core.worker import WorkerPlace
from voice_agent.observability.logs import repeat_limiter
from voice_agent.observability.loop_lag import LoopLag
from voice_agent.observability.metrics import Metrics
from voice_agent.observability.process import count_threads
from voice_agent.observability.repeats import tell_suppressed_each_minute
from voice_agent.server.administration import Administration
from voice_agent.server.admission import Admission
from voice_agent.server.assembly import open_services
from voice_agent.server.calls import CallDesk
from voice_agent.server.clustering import open_clustering, report_of
from voice_agent.server.door import Asgi, Door
from voice_agent.server.drain import drain
from voice_agent.server.elsewhere import Elsewhere
from voice_agent.server.guard_metrics import GuardMetrics
from voice_agent.server.journals import Journals
from voice_agent.server.last_resort import end_process_after
from voice_agent.server.listening import HttpServer, open_http_server
from voice_agent.server.readiness import ReadinessChecks, readiness
from voice_agent.server.readiness_checks import add_checks
from voice_agent.server.reload import SettingsReload
from voice_agent.server.siblings import AllWorkers, Inside
from voice_agent.server.signals import OBEYED_SIGNALS, obey_signals
from voice_agent.server.stopping import LAST_RESORT_SECONDS, Stopping
from voice_agent.server.storage import open_storage
from voice_agent.server.systemd import ServiceManager
from voice_agent.server.ticket_exchange import TicketOffice
from voice_agent.server.tls import ServerTls, open_tls
from voice_agent.server.traced_requests import TracedRequests, open_tracing
from voice_agent.server.webrtc_calls import open_webrtc_calls
from voice_agent.server.worker import follow_supervisor, open_worker_server, tidy_up
from voice_agent.session.registry import CallRegistry
from voice_agent.session.store.memory import MemoryStore
from voice_agent.settings.changes import Adoption
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.effective import effective_settings
from voice_agent.settings.origin import SettingsOrigin
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import SpeechModels
from voice_agent.transports.webrtc.media_thread import open_media_thread
from voice_agent.web.app import create_app
from voice_agent.web.journal_routes import create_journal_routes
from voice_agent.web.node_routes import create_node_routes
from voice_agent.web.operations_routes import create_operations_routes
from voice_agent.web.session_routes import create_session_routes
from voice_agent.web.ticket_routes import create_ticket_routes
from voice_agent.web.webrtc_routes import create_webrtc_routes


async def serve(
    settings: Settings,
    *,
    on_listening: Callable[[HttpServer], None],
    origin: SettingsOrigin | None = None,
    apply: Callable[[Adoption], None] = lambda _adoption: None,
    place: WorkerPlace | None = None,
    models: SpeechModels | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    ``origin`` is where the settings came from: they are read again when they change there, and at SIGHUP. ``apply`` is
    told of others that have come into force, for what can't follow them by itself. Without an origin they stay.
    ``place`` is that of a worker among others, who shares their port; ``models``
    are some that were loaded before.

    Raises:
        OperatorError: the settings, the models or the address make serving impossible.
    """
    check_bind(settings.access, host=settings.server.host)
    current = CurrentSettings(settings)
    with trio.open_signal_receiver(*OBEYED_SIGNALS) as signals:
        async with trio.open_nursery() as root:
            stopping = Stopping(current, last_resort=end_process_after)
            metrics = Metrics(with_process=True)
            manager = ServiceManager.from_environ()
            reload = SettingsReload(
                origin or SettingsOrigin(files=(), environ={}),
                current,
                metrics,
                apply=apply,
                on_begin=manager.reloading,
                on_end=manager.ready,
            )
            tls = open_tls(settings.server, metrics)

            def read_again() -> None:
                reload.ask()
                if tls is not None:
                    tls.ask()

            root.start_soon(obey_signals, signals, stopping, read_again)
            if place is not None:
                follow_supervisor(place, stopping, current)
            if tls is not None:
                root.start_soon(tls.watch, name="tls files")
            root.start_soon(tell_suppressed_each_minute, repeat_limiter)
            abort_of_start: trio.CancelScope = await root.start(_abort_start, stopping, root.cancel_scope)
            async with _open_server(current, metrics, stopping, tls, place, models) as (server, desk):
                abort_of_start.cancel()
                if origin is not None:
                    root.start_soon(reload.run)
                on_listening(server)
                root.start_soon(manager.keep_alive)
                manager.ready("taking calls")
                await stopping.begun.wait()
                manager.stopping(
                    f"draining since {stopping.cause}",
                    within_seconds=stopping.deadline - trio.current_time() + LAST_RESORT_SECONDS,
                    cause=stopping.cause,
                )
                await drain(desk, stopping, server)
            if place is not None:
                tidy_up(place, stopping)
            root.cancel_scope.cancel()


@asynccontextmanager
async def _open_server(
    current: CurrentSettings,
    metrics: Metrics,
    stopping: Stopping,
    tls: ServerTls | None = None,
    place: WorkerPlace | None = None,
    models: SpeechModels | None = None,
) -> AsyncIterator[tuple[HttpServer, CallDesk]]:
    settings = current.now
    metrics.tasks.set_function(lambda: trio.lowlevel.current_statistics().tasks_living)
    metrics.threads.set_function(count_threads)
    lag = LoopLag(metrics.loop_lag_seconds.observe)
    node = name_of_node(settings.cluster, place)
    async with (
        open_tracing(settings.tracing, metrics) as tracing,
        open_storage(current, metrics, node=node, seconds_left=stopping.seconds_left) as stored,
        open_services(settings, metrics=metrics, tracing=tracing, models=models) as opened,
    ):
        services = attrs.evolve(opened, storage=None if stored is None else stored.storage)
        services.supervisor.start_soon(lag.probe, name="loop lag")
        registry = CallRegistry(lambda: current.now.server.max_calls, node=node)
        limiter = Limiter(current, on_hit=lambda limit: metrics.limit_hits_total.labels(limit).inc())
        admission = Admission(
            current,
            meters=services.work_meters,
            lag=lag,
            open_calls=lambda: len(registry),
            on_sample=lambda stage, load: metrics.stage_load.labels(stage).set(load),
        )
        services.supervisor.start_soon(admission.watch, name="admission")
        desk = CallDesk(
            services=services, registry=registry, settings=current, limiter=limiter, admission=admission
        )
        server: HttpServer | None = None
        async with (
            open_media_thread() as media,
            open_clustering(
                settings,
                node=node,
                store=None if stored is None else stored.store,
                metrics=metrics.cluster,
                report=lambda: report_of(desk, is_listening=server is not None),
                on_owed=limiter.charge,
                place=place,
            ) as clustering,
            open_webrtc_calls(desk, media.open_peer, clustering.handles.new) as webrtc_calls,
            open_authenticator(
                current,
                metrics=metrics,
                failures=limiter,
                new_ticket=clustering.handles.new,
                elsewhere=clustering.tickets,
            ) as authenticator,
        ):
            limiter.shared = clustering.membership
            metrics.media_tasks.set_function(media.count_tasks)
            checks = ReadinessChecks(settings.readiness, metrics)
            await add_checks(checks, services, media, settings, stored)
            await services.supervisor.start(checks.run)
            state = partial(readiness, desk, checks)
            metrics.ready.set_function(lambda: state().is_ready)
            administration = Administration(
                registry=desk.registry,
                stopping=stopping,
                settings=lambda: effective_settings(current.now, current.sources, version=current.version),
            )
            journals = Journals(
                store=MemoryStore() if stored is None else stored.store,
                registry=registry,
                retention_seconds=lambda: current.now.store.retention_hours * HOURS,
            )
            web = create_app(
                metrics=metrics,
                readiness=state,
                routes=[
                    create_webrtc_routes(webrtc_calls),
                    create_session_routes(administration),
                    create_journal_routes(journals),
                    create_operations_routes(administration),
                    create_node_routes(clustering),
                    create_ticket_routes(authenticator, current),
                ],
                render_all=None if place is None else AllWorkers(place, metrics).render,
            )
            door = Door(
                web=cast("Asgi", web),
                desk=desk,
                settings=current,
                host=settings.server.host,
                authenticator=authenticator,
                turnstile=limiter,
                elsewhere=Elsewhere(
                    web=cast("Asgi", web),
                    clustering=clustering,
                    tickets=TicketOffice(authenticator),
                    registry=registry,
                    store=None if stored is None else stored.store,
                    metrics=metrics.cluster,
                ),
            )
            app = TracedRequests(door, tracing) if tracing.is_on else door
            open_alone = partial(
                open_http_server, app, settings, current=current, hooks=GuardMetrics(metrics), tls=tls
            )
            async with (
                open_alone()
                if place is None
                else open_worker_server(place, open_alone, Inside(app, metrics), current, desk, state)
            ) as server:
                yield server, desk


async def _abort_start(
    stopping: Stopping,
    root_scope: trio.CancelScope,
    task_status: trio.TaskStatus[trio.CancelScope],
) -> None:
    """Until the server listens there is nothing to drain: a signal just cancels the start."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await stopping.begun.wait()
        root_scope.cancel()
