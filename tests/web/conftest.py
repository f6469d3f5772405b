"""Applications that stand behind no door: who calls is put where the door would put it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from quart_trio import QuartTrio

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.identity import ANONYMOUS, Identity

ClientOf = Callable[..., Any]


def client_as(app: QuartTrio, identity: Identity | None, *, fault: VoiceAgentError | None = None) -> Any:
    client = PLAIN(app)
    who = Admitted(identity=identity, address="192.0.2.7", fault=fault)
    client.open = partial(client.open, scope_base={SCOPE_KEY: who})
    return client


PLAIN = QuartTrio.test_client


@pytest.fixture
def client_of() -> ClientOf:
    """Make a client that is somebody: ``client_of(app, identity)``; None has shown nothing."""
    return client_as


@pytest.fixture
def everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test client be what everybody is on loopback."""
    monkeypatch.setattr(QuartTrio, "test_client", lambda app: client_as(app, ANONYMOUS))
