"""What is logged and how."""

from typing import Literal

import attrs

from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "The least severe level written.")
    format: Literal["auto", "json", "console"] = setting("auto", "`auto`: console on a terminal, else JSON.")
