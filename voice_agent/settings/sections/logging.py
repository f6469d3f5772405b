"""What is logged and how."""

from typing import Literal

import attrs

from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least severe level written.", live=True
    )
    format: Literal["auto", "json", "console"] = setting(
        "auto", "`auto`: console on a terminal, else JSON.", live=True
    )
    transcripts: bool = setting(
        False,
        "Whether finals are logged with their text. It is what callers said: leave it off unless they know.",
        live=True,
    )
    max_repeats_per_minute: int = setting(
        60,
        "Of one warning or error so many lines a minute are written; the rest is counted and summed up.",
        unit="lines",
        minimum=1,
        maximum=1_000_000,
        live=True,
    )
    audit_path: str = setting(
        "",
        "The file that audit lines (authentication, administration) are appended to; empty for standard error.",
    )
