"""An OpenAI-compatible speech endpoint as a voice: ``POST {base}/audio/speech``, streamed as raw 16-bit samples.

The form of the request is that of the API's reference, "Create speech": ``model``, ``voice``, ``input`` and
``response_format``; with ``pcm`` the body is 16-bit little-endian samples of one channel without a header.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import attrs
import httpx
import numpy as np

from voice_agent.core.errors import SynthesisFailedError
from voice_agent.settings.schema import VoiceSettings
from voice_agent.speech.voice import MonoAudio, Sentence

INT16_SCALE: Final = np.float32(1 / 32768)
MAX_CONNECTIONS: Final = 64
TOLD_BYTES: Final = 200
"""Of an error's body, which goes into our log."""


@attrs.frozen
class ApiVoice:
    """A :class:`~voice_agent.speech.voice.Voice` at an endpoint; leaving a sentence's block closes its stream at once."""

    sample_rate: int
    _client: httpx.AsyncClient
    _asked: dict[str, str]

    @asynccontextmanager
    async def speaking(self, sentence: Sentence) -> AsyncIterator[AsyncIterator[MonoAudio]]:
        """Synthesise; sound comes as the endpoint sends it."""
        if not sentence.text.strip():
            async with aclosing(_nothing()) as sound:
                yield sound
            return
        try:
            async with self._client.stream(
                "POST", "audio/speech", json={**self._asked, "input": sentence.text}
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise SynthesisFailedError(await _refusal(response))
                async with aclosing(_samples(response)) as sound:
                    yield sound
        except httpx.HTTPError as error:
            raise SynthesisFailedError(
                f"the speech endpoint failed: {type(error).__name__}: {error}"
            ) from error


async def _nothing() -> AsyncGenerator[MonoAudio, None]:
    return
    yield  # what makes this a generator


async def _refusal(response: httpx.Response) -> str:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= TOLD_BYTES:
            break
    told = body[:TOLD_BYTES].decode("utf-8", "replace")
    return f"the speech endpoint answered {response.status_code}: {told!r}"


async def _samples(response: httpx.Response) -> AsyncGenerator[MonoAudio, None]:
    """Cut the stream into whole samples, wherever the network cut it."""
    kind = response.headers.get("content-type", "")
    if kind.startswith(("text/", "application/json")):
        raise SynthesisFailedError(f"the speech endpoint sent {kind}, not sound")
    odd = b""
    async for data in response.aiter_bytes():
        whole = odd + data
        odd = whole[len(whole) & ~1 :]
        if len(whole) > 1:
            yield np.frombuffer(whole, "<i2", count=len(whole) // 2).astype(np.float32) * INT16_SCALE
    if odd:
        raise SynthesisFailedError("the speech endpoint broke off in the middle of a sample")


@asynccontextmanager
async def open_api_voice(settings: VoiceSettings) -> AsyncIterator[ApiVoice]:
    """Keep connections to the endpoint for as long as the block lasts."""
    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    async with httpx.AsyncClient(
        base_url=settings.api_url.rstrip("/") + "/",
        headers=headers,
        timeout=settings.api_timeout_seconds,
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
        follow_redirects=False,
    ) as client:
        asked = {"model": settings.api_model, "voice": settings.api_voice, "response_format": "pcm"}
        yield ApiVoice(settings.api_sample_rate, client, asked)
