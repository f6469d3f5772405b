"""Who answers."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class AgentSettings:
    """Who answers; docs/dialogue.md explains it."""

    factory: str = setting(
        "none",
        "`none`: transcription only; `echo`; `gold_loan`; `chat`: a language model; or an agent of your own, as `package.module:factory`. For "
        "`voice-agent talk`: calls are transcribed and not answered yet.",
        minimum=1,
        maximum=256,
    )
    silence_seconds: float = setting(
        12 * SECONDS,
        "Who is silent for so long is asked again.",
        unit="seconds",
        minimum=1,
        maximum=600,
    )
