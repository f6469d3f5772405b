"""When the server calls itself ready."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class ReadinessSettings:
    """How the server finds out whether what it needs still works."""

    interval_seconds: float = setting(
        15 * SECONDS,
        "Each thing that the server needs is looked at so often; `/readyz` tells what was found last.",
        unit="seconds",
        minimum=0.1,
        maximum=3600,
    )
    timeout_seconds: float = setting(
        3 * SECONDS,
        "What has not answered by then has failed.",
        unit="seconds",
        minimum=0.05,
        maximum=60,
    )
    min_free_disk_mib: int = setting(
        64,
        "With less space than that where the server writes (`logging.audit_path`, `store.path`) it is not ready.",
        unit="MiB",
        minimum=0,
        maximum=1_000_000,
    )
