"""A partial that claims more words than can have been said is not told, and never becomes stable."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio
from trio.testing import MockClock

from voice_agent.core.events import Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.speech.engine import Recognition, RecognitionRequest, Urgency


class Hasty:
    """Says twelve words after any partial's audio, and two for good."""

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        count = 12 if request.urgency is Urgency.PARTIAL else 2
        tokens = tuple(range(count))
        return Recognition(
            text=" ".join(f"w{token}" for token in tokens),
            tokens=tokens,
            token_probabilities=(0.9,) * count,
            word_ends=tuple(range(1, count + 1)),
            confidence=0.9,
        )


async def test_words_that_cant_have_been_said_are_not_told(
    autojump_clock: MockClock,
    open_scripted_services: Callable[..., AbstractAsyncContextManager[Services]],
    spoken: Callable[..., list[AudioFrame]],
) -> None:
    """One second of speech holds no twelve words; the final is what was said."""
    async with open_scripted_services(engine=Hasty()) as services, open_session(services) as session:
        for frame in spoken(0.3, 1.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        results = [e.result async for e in session.events() if isinstance(e, Transcript)]
    assert [len(r.text.split()) for r in results if not r.is_final and r.stable] == []
    assert all(len(r.text.split()) <= 2 for r in results)
    assert results[-1].is_final
    assert results[-1].text == "w0 w1"
