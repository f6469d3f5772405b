"""How a setting is declared: default, reason, unit and range in one place."""

from typing import Any

import attrs


def setting(
    default: Any,
    why: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
    live: bool = False,
) -> Any:
    """Declare one setting; range and unit are checked and shown by the loader.

    ``live`` says that a change takes effect while the server runs; any other one waits for a restart.
    """
    return attrs.field(
        default=default,
        repr=not secret,
        metadata={
            "why": why,
            "unit": unit,
            "minimum": minimum,
            "maximum": maximum,
            "secret": secret,
            "live": live,
        },
    )
