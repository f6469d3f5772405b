"""What the tests of access share: an authenticator with a clock, a limiter, metrics and settings that a test can change."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest

from voice_agent.access.authentication import ServerAuthenticator, open_authenticator
from voice_agent.access.keys import NewKey, new_key
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.load import load_settings


@attrs.define
class CountingLimiter:
    """Blocks an address after so many failures."""

    allowed: int = 1_000_000
    counts: dict[str, int] = attrs.field(factory=dict)

    def wait_seconds(self, address: str) -> float:
        return 7.0 if self.counts.get(address, 0) >= self.allowed else 0

    def note_failure(self, address: str) -> None:
        self.counts[address] = self.counts.get(address, 0) + 1


@attrs.define
class Edge:
    """All that stands around an authenticator."""

    now: float = 1_800_000_000.0
    """Unix time; it moves when a test says so."""
    address: str = "192.0.2.7"
    limiter: CountingLimiter = attrs.field(factory=CountingLimiter)
    metrics: Metrics = attrs.field(factory=Metrics)
    current: CurrentSettings = attrs.field(
        factory=lambda: CurrentSettings(load_settings(files=(), environ={}).settings)
    )
    keys: dict[str, str] = attrs.field(factory=dict)
    access: dict[str, Any] = attrs.field(factory=dict)

    def configure(self, **access: Any) -> None:
        """Put settings in force, as from the environment; what was set before stays."""
        self.access |= access
        environ = {f"VOICE_AGENT__ACCESS__{name.upper()}": str(value) for name, value in self.access.items()}
        self.current.replace(load_settings(files=(), environ=environ).settings)

    def add_key(self, key_id: str, rest: str = "") -> str:
        """Make a key, configure it, and return its text; ``rest`` is more TOML for its line."""
        key: NewKey = new_key(key_id)
        self.keys[key_id] = f'{key_id} = {{ sha256 = "{key.sha256}"{rest} }}'
        self.configure(keys="\n".join(self.keys.values()))
        return key.text

    def remove_key(self, key_id: str) -> None:
        """Take a key away."""
        del self.keys[key_id]
        self.configure(keys="\n".join(self.keys.values()))

    def open(self) -> AbstractAsyncContextManager[ServerAuthenticator]:
        """Open the authenticator."""
        return open_authenticator(
            self.current, metrics=self.metrics, failures=self.limiter, now=lambda: self.now
        )

    def failures(self) -> dict[str, float]:
        """The counter of failures, by kind."""
        return {
            sample.labels["kind"]: sample.value
            for family in self.metrics.auth_failures_total.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }


@pytest.fixture
def edge() -> Edge:
    """Nobody has a key yet."""
    return Edge()
