"""Embedding: a session inside somebody else's Trio program, with nothing to set up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voice_agent.core.commands import CallOptions
from voice_agent.core.transport import Transport
from voice_agent.server.assembly import open_services
from voice_agent.session.open import open_session as open_wired_session
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import Settings


@asynccontextmanager
async def open_session(
    services: Services | None = None,
    transport: Transport | None = None,
    *,
    settings: Settings | None = None,
    options: CallOptions | None = None,
) -> AsyncIterator[Session]:
    """Open a session; with no arguments, one with models and workers of its own.

    ``async with open_session() as session:`` loads the models (about half a second), runs their workers inside the
    block, and ends them with it. A program with many sessions opens :func:`open_services` once and gives its
    services to each. Settings come from defaults, ``settings.toml`` in the working directory and the environment,
    unless ``settings`` is given.

    Raises:
        SettingsError: a setting is wrong.
        ModelFileError: a model file is missing or not what it should be.
    """
    if services is not None:
        async with open_wired_session(services, transport, options=options) as session:
            yield session
        return
    async with (
        open_services(settings or load_settings().settings) as own_services,
        open_wired_session(own_services, transport, options=options) as session,
    ):
        yield session
