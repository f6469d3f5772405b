"""Logging is the process's; each test leaves it as it was."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave structlog, the root logger and the audit stream as they were."""
    config = structlog.get_config()
    root, audit = logging.getLogger(), logging.getLogger("voice_agent.audit")
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)
    for handler in audit.handlers[:]:
        audit.removeHandler(handler)
        handler.close()
    audit.propagate = True
