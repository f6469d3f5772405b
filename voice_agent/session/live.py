"""LiveUtterance: an utterance that one task lets grow while another makes words of it."""

import trio

from voice_agent.speech.utterance import Utterance


class LiveUtterance:
    """An utterance with its number, and a way to wait for what happens to it."""

    def __init__(self, number: int, utterance: Utterance) -> None:
        self.number = number
        self.utterance = utterance
        self.speech_began_at = trio.current_time()
        """When the caller began to speak, on Trio's clock."""
        self.closed_at: float | None = None
        """When it was known that the caller had ended; None until then."""
        self.speech_ended_at = 0.0
        """When the caller's speech ended, on Trio's clock; known when the utterance is closed."""
        self._changed = trio.Event()

    def announce(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until the utterance grows, pauses, resumes or closes."""
        await self._changed.wait()
