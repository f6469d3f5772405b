"""open_voice: from settings to the voice that speaks, with what it said before in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from voice_agent.settings.schema import VoiceSettings
from voice_agent.speech.phrases import CachedVoice
from voice_agent.speech.piper import open_piper_voice
from voice_agent.speech.voice import Voice
from voice_agent.speech.voice_api import open_api_voice


@asynccontextmanager
async def open_voice(settings: VoiceSettings) -> AsyncIterator[Voice | None]:
    """Open the voice for as long as the block lasts; None where the agent has none.

    Raises:
        ModelFileError: the extra or the voice's file is missing or damaged.
    """
    match settings.kind:
        case "piper":
            async with open_piper_voice(settings) as piper:
                yield CachedVoice(piper, max_seconds=settings.cached_seconds)
        case "api":
            async with open_api_voice(settings) as api:
                yield CachedVoice(api, max_seconds=settings.cached_seconds)
        case "none":
            yield None
