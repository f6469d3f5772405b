"""Transcribing: utterances to partials and finals, in the order in which they were spoken.

One utterance at a time. While it grows, partials are asked for side by side, and a newer one takes the place of one
that still waits. When the caller pauses, the partials' scope is cancelled and the probable final is asked for at
once; if the caller speaks on, that attempt's scope is cancelled, else its result is the final when the utterance
ends.
"""

from typing import Final

import attrs
import structlog
import trio

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.core.events import Fault, Notice, Transcript
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.observability.tracing import CallTrace, UtteranceOutcome, UtteranceTimes
from voice_agent.session.hearing import Publish
from voice_agent.session.live import LiveUtterance
from voice_agent.session.services import Services
from voice_agent.speech.context import Spoken, SpokenContext
from voice_agent.speech.engine import HEARING_RATE, Recognition, RecognitionRequest, Urgency
from voice_agent.speech.plausibility import Evidence, is_plausible
from voice_agent.speech.stability import StablePrefix

PARTIAL_CONTEXT_SHARE: Final = 0.6
"""A partial is asked for several times a second of speech, and the encoder's work grows with the audio."""

MAX_WORDS_PER_SECOND: Final = 5.0
"""Fast speech has four words a second."""

MAX_UNTOLD: Final = 64
"""Of an embedded session nobody tells when its events were read."""

log = structlog.get_logger(__name__)


@attrs.define
class _Told:
    """What the caller was told of one utterance."""

    times: UtteranceTimes
    prefix: StablePrefix = attrs.field(factory=StablePrefix)
    revision: int = 0
    text: str = ""
    heard_samples: int = 0
    """How much of the utterance the newest partial was made from."""


class Transcribing:
    """The recognising half of one call."""

    def __init__(self, session_id: str, services: Services, publish: Publish, trace: CallTrace) -> None:
        self._session_id = session_id
        self._services = services
        self._publish = publish
        self._trace = trace
        self.language = "en"
        self.wants_partials = services.settings.recogniser.partials
        self._context = SpokenContext(services.settings.recogniser.context_seconds)
        self.finals: list[TranscriptResult] = []
        self._untold: dict[int, tuple[float, UtteranceTimes]] = {}
        """Finals that have not left for the caller yet, by utterance: when the speech ended, and all else."""

    async def run(self, utterances: trio.MemoryReceiveChannel[LiveUtterance]) -> None:
        """Make words of utterances until their channel is closed."""
        async with utterances:
            async for live in utterances:
                await self._transcribe(live)

    async def _transcribe(self, live: LiveUtterance) -> None:
        told = _Told(self._trace.begin_utterance(live.number, live.speech_began_at))
        recognition: Recognition | None = None
        while recognition is None:
            await self._tell_partials(live, told)
            try:
                if live.utterance.is_closed:
                    recognition = await self._recognise_all(live, told)
                elif live.utterance.is_settled:
                    recognition = await self._recognise_ahead(live, told)
            except RecognitionFailedError as error:
                log.exception("recognition_failed", utterance=live.number)
                self._trace.end_utterance(told.times, UtteranceOutcome.FAILED)
                await self._publish(
                    Fault(code=error.code, message="An utterance could not be recognised.", is_fatal=False)
                )
                return
        await self._tell_final(live, told, recognition)

    async def _tell_partials(self, live: LiveUtterance, told: _Told) -> None:
        """Tell partials until the caller pauses or ends."""
        interval = self._services.settings.recogniser.partial_interval_ms * HEARING_RATE // 1000
        asked = told.heard_samples
        async with trio.open_nursery() as attempts:
            while not live.utterance.is_settled:
                if self.wants_partials and live.utterance.length - asked >= interval:
                    asked = live.utterance.length
                    attempts.start_soon(self._tell_partial, live, told)
                await live.changed()
            attempts.cancel_scope.cancel()

    async def _tell_partial(self, live: LiveUtterance, told: _Told) -> None:
        heard_samples = live.utterance.length
        try:
            recognition = await self._services.engine.recognise(self._request(live, told, Urgency.PARTIAL))
        except RecognitionFailedError:
            log.warning("partial_failed", utterance=live.number, exc_info=True)
            return
        if recognition is not None:
            await self._publish_partial(live, told, recognition, heard_samples)

    async def _recognise_all(self, live: LiveUtterance, told: _Told) -> Recognition:
        recognition = await self._recognise(self._request(live, told, Urgency.FINAL), told.times)
        if recognition is None:
            raise RecognitionFailedError("the engine gave no result for a whole utterance")
        return recognition

    async def _recognise(self, request: RecognitionRequest, times: UtteranceTimes) -> Recognition | None:
        """Recognise for good; of several attempts the last one's times count, for that is the final."""
        times.asked_at, times.taken_at, times.recognised_at = trio.current_time(), None, None
        recognition = await self._services.engine.recognise(attrs.evolve(request, on_taken=times.note_taken))
        times.recognised_at = trio.current_time()
        return recognition

    async def _recognise_ahead(self, live: LiveUtterance, told: _Told) -> Recognition | None:
        """Recognise what was said up to the pause; ``None`` when the caller speaks on, or when it did not work."""
        utterance = live.utterance
        settled_length = utterance.settled_length
        request = self._request(live, told, Urgency.SPECULATIVE)
        settled: Recognition | None = None

        async def abandon_when_outdated(scope: trio.CancelScope) -> None:
            while utterance.settled_length == settled_length:
                await live.changed()
            scope.cancel()

        async with trio.open_nursery() as attempt:
            attempt.start_soon(abandon_when_outdated, attempt.cancel_scope)
            recognition: Recognition | None = None
            try:
                recognition = await self._recognise(request, told.times)
            except RecognitionFailedError:
                # Nothing is lost: when the utterance has ended, all of it is recognised.
                log.warning("speculation_failed", utterance=live.number, exc_info=True)
            if recognition is not None and not utterance.is_closed and self.wants_partials:
                await self._publish_partial(live, told, recognition, settled_length or 0)
            while not utterance.is_closed:
                await live.changed()
            if utterance.settled_length == settled_length:
                settled = recognition
            attempt.cancel_scope.cancel()
        return settled

    async def _publish_partial(
        self, live: LiveUtterance, told: _Told, recognition: Recognition, heard_samples: int
    ) -> None:
        vad = self._services.settings.vad
        is_stale = heard_samples <= told.heard_samples
        forced = told.prefix.tokens
        if is_stale or recognition.tokens[: len(forced)] != forced:
            return
        min_confidence = self._services.settings.recogniser.min_confidence
        if not recognition.text or recognition.confidence < min_confidence:
            return
        if len(recognition.word_ends) > MAX_WORDS_PER_SECOND * heard_samples / HEARING_RATE + 1:
            # More words than can have been said: the model runs ahead, or repeats its context.
            return
        told.heard_samples = heard_samples
        may_grow = heard_samples <= (vad.max_utterance_seconds - vad.cut_search_seconds) * HEARING_RATE
        stable = told.prefix.push(recognition, may_grow=may_grow)
        if recognition.text == told.text:
            return
        told.text = recognition.text
        told.revision += 1
        start = live.utterance.start
        told.times.partials += 1
        self._services.metrics.transcripts_total.labels("partial").inc()
        await self._publish(
            Transcript(
                result=TranscriptResult(
                    text=recognition.text,
                    is_final=False,
                    start=start / HEARING_RATE,
                    end=(start + heard_samples) / HEARING_RATE,
                    utterance=live.number,
                    revision=told.revision,
                    confidence=recognition.confidence,
                    language=self.language,
                    stable=stable if recognition.text.startswith(stable) else "",
                )
            )
        )

    async def _tell_final(self, live: LiveUtterance, told: _Told, recognition: Recognition) -> None:
        utterance = live.utterance
        told.times.listened_at = live.closed_at
        evidence = Evidence(
            speech_seconds=utterance.speech_seconds, mean_probability=utterance.mean_probability
        )
        min_confidence = self._services.settings.recogniser.min_confidence
        is_words = is_plausible(recognition, evidence, min_confidence=min_confidence)
        if not is_words and not told.prefix.text:
            self._services.metrics.transcripts_total.labels("rejected").inc()
            self._trace.end_utterance(told.times, UtteranceOutcome.NO_WORDS)
            await self._publish(
                Notice(
                    code="no_words",
                    message="A sound was heard that held no words.",
                    detail={"utterance": live.number},
                )
            )
            return
        end = utterance.start + utterance.length if utterance.speech_end is None else utterance.speech_end
        result = TranscriptResult(
            text=recognition.text,
            is_final=True,
            start=utterance.start / HEARING_RATE,
            end=max(end, utterance.start) / HEARING_RATE,
            utterance=live.number,
            revision=told.revision + 1,
            confidence=recognition.confidence,
            language=self.language,
            stable=recognition.text,
        )
        self._context.add(Spoken(utterance.start, utterance.clip(), recognition.tokens))
        metrics = self._services.metrics
        metrics.stt_latency_seconds.observe(
            max(0.0, trio.current_time() - live.speech_ended_at), self._trace.exemplar
        )
        told.times.outcome = UtteranceOutcome.FINAL
        self._untold[live.number] = live.speech_ended_at, told.times
        if len(self._untold) > MAX_UNTOLD:
            _, times = self._untold.pop(min(self._untold))
            self._trace.end_utterance(times)
        await self.tell(result)

    def note_told(self, utterance: int) -> None:
        """Note that a final has left for the caller."""
        if utterance not in self._untold:
            return
        speech_ended_at, times = self._untold.pop(utterance)
        times.told_at = trio.current_time()
        self._services.metrics.e2e_latency_seconds.observe(
            max(0.0, times.told_at - speech_ended_at), self._trace.exemplar
        )
        self._trace.end_utterance(times)

    async def tell(self, result: TranscriptResult) -> None:
        """Record a final, then publish it."""
        self.finals.append(result)
        self._services.metrics.transcripts_total.labels("final").inc()
        if self._services.settings.logging.transcripts:
            log.info("transcript", utterance=result.utterance, text=result.text)
        await self._publish(Transcript(result=result))

    def _request(self, live: LiveUtterance, told: _Told, urgency: Urgency) -> RecognitionRequest:
        utterance = live.utterance
        said = utterance.clip()
        samples, context = self._context.before(
            utterance.start,
            said,
            share=PARTIAL_CONTEXT_SHARE if urgency is Urgency.PARTIAL else 1.0,
        )
        return RecognitionRequest(
            samples=samples,
            urgency=urgency,
            utterance_key=(self._session_id, live.number),
            prefix_tokens=told.prefix.tokens,
            context_tokens=context,
            context_samples=len(samples) - len(said),
        )
