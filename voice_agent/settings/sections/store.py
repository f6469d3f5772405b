"""Where sessions are kept, and for how long."""

from typing import Literal

import attrs

from voice_agent.core.units import KIB, MIB, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class StoreSettings:
    """Where sessions are kept, and for how long: what was said in finals, notices, and how calls ended."""

    kind: Literal["none", "memory", "sqlite", "redis"] = setting(
        "sqlite",
        "`sqlite`: a file of this machine; `redis`: a Redis or Valkey that several nodes share; `memory`: gone with the "
        "process; `none`: nothing is kept.",
    )
    path: str = setting(
        "",
        "The SQLite file; empty takes `voice-agent.db` in systemd's state directory, or else in the working directory.",
    )
    synchronous: Literal["full", "normal"] = setting(
        "full", "`full`: a final that was told survives a power cut; `normal`: only a crash of the process."
    )
    redis_url: str = setting(
        "",
        "Address of the Redis, as `rediss://user:password@host:6379/0`, `unix:///run/redis.sock`, "
        "`redis+sentinel://host1,host2/service` or `redis+cluster://host1,host2`; user and password percent-encoded.",
        secret=True,
        maximum=4 * KIB,
    )
    redis_ca_file: str = setting(
        "", "Certificates (PEM) that sign Redis's own, for `rediss`; empty takes the system's."
    )
    redis_certificate_file: str = setting(
        "", "Certificate (PEM) that is shown to a Redis which asks for one; empty shows none."
    )
    redis_key_file: str = setting(
        "", "Private key (PEM) of that certificate; empty where it is in the same file."
    )
    redis_wait_replicas: int = setting(
        0,
        "So many replicas must have a write before it counts as kept; 0 leaves them out, and a failover may then lose the "
        "last moments.",
        minimum=0,
        maximum=16,
    )
    redis_prefix: str = setting("voice-agent", "What every key in Redis begins with.", minimum=1, maximum=64)
    latency_budget_ms: int = setting(
        250,
        "A final waits so long to be kept before it is told; then it is told with `stored: false`, and kept later.",
        unit="milliseconds",
        minimum=0,
        maximum=10_000,
    )
    max_waiting_bytes: int = setting(
        16 * MIB,
        "What may wait while the store can't be reached; beyond it no new calls are taken.",
        unit="bytes",
        minimum=64 * KIB,
        maximum=1024 * MIB,
    )
    drain_seconds: float = setting(
        2 * SECONDS,
        "At the end of the server, what waits may take so long.",
        unit="seconds",
        minimum=0,
        maximum=60,
    )
    retention_hours: float = setting(
        24.0,
        "Sessions are deleted so long after their end.",
        unit="hours",
        minimum=0.001,
        maximum=87_600,
        live=True,
    )
