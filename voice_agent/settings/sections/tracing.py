"""Where traces go."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class TracingSettings:
    """Where traces go, and how many."""

    endpoint: str = setting(
        "",
        "Address that takes OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; empty for no traces.",
    )
    headers: str = setting(
        "",
        "Headers that the collector wants, as `name=value`, separated by commas.",
        secret=True,
    )
    sample_ratio: float = setting(
        1.0,
        "This share of the calls is traced, whatever a caller's `traceparent` asks for.",
        minimum=0,
        maximum=1,
    )
    timeout_seconds: float = setting(
        5 * SECONDS,
        "A collector that has not taken a batch by then loses it.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
    )
