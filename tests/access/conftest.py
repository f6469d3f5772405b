"""What the tests of access share: an authenticator with a clock, a limiter, metrics and settings that a test can change."""

import base64
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

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
        """The counter of failures, by kind, where there were any."""
        return {
            sample.labels["kind"]: sample.value
            for family in self.metrics.auth_failures_total.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }


SECRET = "a shared secret of more than 32 bytes"  # noqa: S105 - made up
ISSUER, AUDIENCE = "https://id.example.org/", "voice-agent"


def encoded(part: bytes | str | dict[str, Any]) -> str:
    """One part of a token: base64url without padding (RFC 7515, appendix C)."""
    if isinstance(part, dict):
        part = json.dumps(part)
    raw = part if isinstance(part, bytes) else part.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(name="encoded", scope="session")
def encoded_fixture() -> Any:
    """Write one part of a token."""
    return encoded


@attrs.define
class Issuer:
    """Who signs tokens: one key of each type, and the set that it publishes."""

    rsa: RSAKey = attrs.field(factory=lambda: RSAKey.generate_key(2048, {"kid": "rsa-1"}))
    ec: ECKey = attrs.field(factory=lambda: ECKey.generate_key("P-256", {"kid": "ec-1"}))
    okp: OKPKey = attrs.field(factory=lambda: OKPKey.generate_key("Ed25519", {"kid": "okp-1"}))
    secret: OctKey = attrs.field(factory=lambda: OctKey.import_key(SECRET))

    def key_of(self, algorithm: str) -> Any:
        kinds = {"HS": self.secret, "RS": self.rsa, "PS": self.rsa, "ES": self.ec, "Ed": self.okp}
        return kinds[algorithm[:2]]

    def key_set(self, *names: str) -> dict[str, Any]:
        """The public keys, by the first letters of their algorithms."""
        return {"keys": [self.key_of(name).as_dict(private=False) for name in names or ("RS", "ES", "Ed")]}

    def sign(
        self,
        algorithm: str = "RS256",
        claims: dict[str, Any] | bytes | str | None = None,
        *,
        key: Any = None,
        **header: Any,
    ) -> str:
        """Sign whatever is given, as it is; this is no library that would refuse nonsense."""
        key = key or self.key_of(algorithm)
        named = {"kid": key.kid} if key.kid else {}
        start = f"{encoded({'alg': algorithm, 'typ': 'JWT'} | named | header)}.{encoded(claims or {})}"
        signature = JWSRegistry.algorithms[algorithm].sign(start.encode(), key)
        return f"{start}.{encoded(signature)}"


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """Making an RSA key takes a while; one does for all."""
    return Issuer()


@pytest.fixture
def claims(edge: Edge) -> dict[str, Any]:
    """Claims that are good for an hour."""
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(edge.now) + 3600, "scope": "call"}


@pytest.fixture
def trusting(edge: Edge, issuer: Issuer, tmp_path: Path) -> Edge:
    """An edge that trusts the issuer's secret and its key set, from a file."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.key_set()))
    edge.configure(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_secret=SECRET, jwks_file=path)
    return edge


@pytest.fixture
def edge() -> Edge:
    """Nobody has a key yet."""
    return Edge()
