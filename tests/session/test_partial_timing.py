"""When partials and probable finals are asked for, what of them is told, and what is given up when it is outdated."""

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from string import ascii_lowercase
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.events import Notice, SessionEvent, SpeechStopped, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.settings.schema import RecogniserSettings, Settings, VadSettings
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW, Recognition, RecognitionRequest, Urgency

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

Answer = Callable[[RecognitionRequest], str]


@attrs.define(eq=False)
class TimedEngine:
    """Answers ``text_of(request)`` after the latency of the request's urgency; keeps what was asked and given up."""

    text_of: Answer
    latency_seconds: dict[Urgency, float] = attrs.field(factory=dict)
    asked: list[RecognitionRequest] = attrs.field(factory=list)
    answered: list[RecognitionRequest] = attrs.field(factory=list)
    abandoned: list[RecognitionRequest] = attrs.field(factory=list)

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        self.asked.append(request)
        try:
            await trio.sleep(self.latency_seconds.get(request.urgency, 0))
        except trio.Cancelled:
            self.abandoned.append(request)
            raise
        self.answered.append(request)
        words = self.text_of(request).split()
        return Recognition(
            text=" ".join(words),
            tokens=tuple(sum(map(ord, word)) for word in words),
            word_ends=tuple(range(1, len(words) + 1)),
            confidence=0.9 if words else 0.0,
        )

    def of(self, urgency: Urgency, where: str = "asked") -> list[RecognitionRequest]:
        return [request for request in getattr(self, where) if request.urgency is urgency]


def growing(request: RecognitionRequest) -> str:
    """One word more for each quarter of a second."""
    return " ".join(ascii_lowercase[: len(request.samples) * 4 // HEARING_RATE])


@attrs.frozen
class Heard:
    """An event and when it was told."""

    at: float
    event: SessionEvent

    @property
    def result(self) -> TranscriptResult | None:
        return self.event.result if isinstance(self.event, Transcript) else None


async def hear(services: Services, frames: list[AudioFrame]) -> list[Heard]:
    """Speak in (virtual) real time; return each event with its time."""
    heard: list[Heard] = []
    async with open_session(services) as session, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def listen() -> None:
            async for event in session.events():
                heard.append(Heard(trio.current_time() - began, event))

        nursery.start_soon(listen)
        for frame in frames:
            await session.send_audio(frame)
            await trio.sleep(frame.duration_seconds)
        await session.finish()
    return heard


def partials(heard: list[Heard]) -> list[TranscriptResult]:
    return [h.result for h in heard if h.result is not None and not h.result.is_final]


def finals(heard: list[Heard]) -> list[TranscriptResult]:
    return [h.result for h in heard if h.result is not None and h.result.is_final]


def settings(**recogniser: Any) -> Settings:
    return Settings(recogniser=RecogniserSettings(context_seconds=0, **recogniser))


@pytest.mark.parametrize(("interval_ms", "windows"), [(320, 10), (400, 13), (1000, 32)])
async def test_a_partial_is_asked_for_with_each_interval_of_new_speech(
    interval_ms: int,
    windows: int,
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    spoken: Spoken,
) -> None:
    """The interval in whole windows, rounded up, between any two; the first when so much was heard at all."""
    engine = TimedEngine(growing)
    async with open_scripted_services(
        engine=engine, settings=settings(partial_interval_ms=interval_ms)
    ) as services:
        heard = await hear(services, spoken(0.5, 4.0, 0.6))
    lengths = [len(request.samples) // VAD_WINDOW for request in engine.of(Urgency.PARTIAL)]
    assert len(lengths) > 3
    # Eight windows of pre-roll and three of speech are there when speech is noticed.
    assert lengths[0] == max(windows, 11)
    assert {later - earlier for earlier, later in itertools.pairwise(lengths)} == {windows}
    assert len(partials(heard)) >= len(lengths) - 1
    for told in partials(heard):
        assert told.end - told.start <= (lengths[-1] + windows) * 0.032 + 1e-6


async def test_partials_that_are_late_do_not_hold_up_the_pause(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """When the caller pauses, unanswered partials are given up, and the final is there with the end of the silence."""
    engine = TimedEngine(growing, {Urgency.PARTIAL: 1000.0})
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 2.0, 1.0))
    [stopped] = [h for h in heard if isinstance(h.event, SpeechStopped)]
    [final] = [h for h in heard if h.result is not None and h.result.is_final]
    assert final.at == pytest.approx(stopped.at)
    assert set(engine.of(Urgency.PARTIAL, "abandoned")) == set(engine.of(Urgency.PARTIAL))
    assert len(engine.abandoned) >= 4


async def test_a_partial_that_a_newer_one_overtook_is_not_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The first answer comes last: what the caller reads never goes back."""

    @attrs.define(eq=False)
    class FirstIsSlow(TimedEngine):
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            self.latency_seconds[Urgency.PARTIAL] = 0.0 if self.asked else 0.9
            return await super().recognise(request)

    engine = FirstIsSlow(growing)
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 2.0, 0.6))
    first = engine.of(Urgency.PARTIAL)[0]
    assert engine.answered.index(first) > 0
    assert growing(first) not in [told.text for told in partials(heard)]
    assert [told.end for told in partials(heard)] == sorted(told.end for told in partials(heard))


async def test_the_guess_in_a_pause_is_told_and_is_the_final_of_a_pause_that_lasts(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """It is asked for once, 128 ms into the pause; the caller reads it then, and as the final when the pause is over."""
    engine = TimedEngine(growing)
    async with open_scripted_services(
        engine=engine, settings=settings(partial_interval_ms=10_000)
    ) as services:
        heard = await hear(services, spoken(0.512, 1.024, 1.024))
    assert [request.urgency for request in engine.asked] == [Urgency.SPECULATIVE]
    [partial], [final] = partials(heard), finals(heard)
    assert partial.text == final.text == growing(engine.asked[0])
    assert (partial.revision, final.revision) == (1, 2)
    # 8 windows of pre-roll, 32 of speech and 4 of silence.
    assert len(engine.asked[0].samples) == 44 * VAD_WINDOW
    assert partial.end - partial.start == pytest.approx(44 * 0.032)
    assert final.end - final.start == pytest.approx(40 * 0.032)
    times = {h.result.is_final: h.at for h in heard if h.result is not None}
    assert times[False] == pytest.approx(1.536 + 0.128, abs=0.02)
    assert times[True] == pytest.approx(1.536 + 0.320, abs=0.02)


async def test_the_guess_is_not_told_to_who_wants_finals_only(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """It is made all the same: the final must be there when the silence is confirmed."""
    engine = TimedEngine(growing)
    async with open_scripted_services(engine=engine, settings=settings(partials=False)) as services:
        heard = await hear(services, spoken(0.5, 2.0, 0.6))
    assert [request.urgency for request in engine.asked] == [Urgency.SPECULATIVE]
    assert partials(heard) == []
    assert len(finals(heard)) == 1


async def test_a_guess_is_given_up_when_the_caller_speaks_on(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The engine is not left with work that nobody wants, and the next guess is made from all of it."""
    engine = TimedEngine(growing, {Urgency.SPECULATIVE: 0.12})
    async with open_scripted_services(
        engine=engine, settings=settings(partial_interval_ms=10_000)
    ) as services:
        heard = await hear(services, spoken(0.512, 1.024, 0.192, 1.024, 0.6))
    first, second = engine.of(Urgency.SPECULATIVE)
    assert engine.abandoned == [first]
    assert engine.answered == [second]
    assert len(second.samples) - len(first.samples) == (6 + 32) * VAD_WINDOW
    assert [final.text for final in finals(heard)] == [growing(second)]


async def test_partials_go_on_after_a_pause_that_was_none(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The interval is counted from what was last told, and revisions go on rising to the final's."""
    engine = TimedEngine(growing)
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 1.0, 0.2, 2.0, 0.6))
    kinds = [request.urgency for request in engine.asked]
    guess = kinds.index(Urgency.SPECULATIVE)
    assert Urgency.PARTIAL in kinds[:guess]
    assert Urgency.PARTIAL in kinds[guess:]
    after = next(r for r in engine.asked[guess:] if r.urgency is Urgency.PARTIAL)
    assert len(after.samples) - len(engine.asked[guess].samples) == 13 * VAD_WINDOW
    results = [h.result for h in heard if h.result is not None]
    assert [result.revision for result in results] == list(range(1, len(results) + 1))


async def test_words_at_the_end_of_the_audio_are_final_at_once(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Nobody can speak on: the request has the urgency of a final, and is told once."""
    engine = TimedEngine(growing)
    async with open_scripted_services(
        engine=engine, settings=settings(partial_interval_ms=10_000)
    ) as services:
        heard = await hear(services, spoken(0.5, 1.0))
    assert [request.urgency for request in engine.asked] == [Urgency.FINAL]
    assert partials(heard) == []
    assert len(finals(heard)) == 1


async def test_the_same_words_are_not_told_twice(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A partial that changed nothing is no event; one below the confidence limit, or without words, is none either."""
    engine = TimedEngine(lambda request: "yes" if len(request.samples) > HEARING_RATE else "")
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 1.5, 0.6))
    assert len(engine.of(Urgency.PARTIAL)) >= 3
    assert [told.text for told in partials(heard)] == ["yes"]
    assert [told.revision for told in [*partials(heard), *finals(heard)]] == [1, 2]


@pytest.mark.parametrize(("confidence", "is_told"), [(0.4, True), (0.39, False)])
async def test_a_partial_is_as_sure_as_a_final_must_be(
    confidence: float,
    is_told: bool,
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    spoken: Spoken,
) -> None:
    """At `recogniser.min_confidence` it is told, below it is not, whatever its words."""

    @attrs.define(eq=False)
    class Doubting(TimedEngine):
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            return attrs.evolve(await super().recognise(request), confidence=confidence)

    async with open_scripted_services(
        engine=Doubting(growing), settings=settings(min_confidence=0.4)
    ) as services:
        heard = await hear(services, spoken(0.5, 2.0, 0.6))
    assert bool(partials(heard)) is is_told
    assert bool(finals(heard)) is is_told


async def test_a_partial_that_takes_back_a_promise_is_not_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """An engine that does not begin with what it was given as stable is not heeded; it is when it does so again."""

    def text_of(request: RecognitionRequest) -> str:
        is_astray = 2 < len(request.samples) / HEARING_RATE < 3
        return growing(request).upper() if is_astray else growing(request)

    engine = TimedEngine(text_of)
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 5.0, 0.6))
    astray = [r for r in engine.of(Urgency.PARTIAL) if text_of(r).isupper()]
    assert len(astray) >= 2
    assert all(request.prefix_tokens for request in astray)
    told = [result.text for result in partials(heard)]
    assert len(told) == len(engine.of(Urgency.PARTIAL)) - len(astray) + 1  # and the guess in the pause
    assert not any(text.isupper() for text in told)


@pytest.mark.parametrize(("count", "is_told"), [(3, True), (4, False)])
async def test_more_words_than_can_be_said_are_not_told(
    count: int,
    is_told: bool,
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    spoken: Spoken,
) -> None:
    """In four tenths of a second nobody says four words."""
    engine = TimedEngine(lambda _request: " ".join(ascii_lowercase[:count]))
    async with open_scripted_services(engine=engine, settings=settings()) as services:
        heard = await hear(services, spoken(0.5, 0.6, 0.6))
    assert len(engine.of(Urgency.PARTIAL)[0].samples) == 13 * VAD_WINDOW
    first = next((result for result in partials(heard)), None)
    assert (first is not None and first.end - first.start < 0.5) is is_told


async def test_nothing_is_promised_of_what_a_cut_may_take_away(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Once the utterance reaches the range where it may be cut, the stable prefix does not grow any more."""
    vad = VadSettings(max_utterance_seconds=4, cut_search_seconds=2)
    engine = TimedEngine(growing)
    async with open_scripted_services(
        engine=engine,
        settings=Settings(vad=vad, recogniser=RecogniserSettings(context_seconds=0, partial_interval_ms=320)),
    ) as services:
        heard = await hear(services, spoken(0.5, 3.4, 0.6))
    told = partials(heard)
    before = [t for t in told if t.end - t.start <= 2]
    after = [t for t in told if t.end - t.start > 2]
    assert len(before) > 2
    assert len(after) > 3
    assert len(before[-1].stable.split()) >= 4
    assert {t.stable for t in after} == {before[-1].stable}


async def test_what_was_promised_is_told_though_the_final_is_doubtful(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Without a stable word a doubtful final is no words; with one, the caller was told it, and gets the final."""

    def text_of(request: RecognitionRequest) -> str:
        return growing(request) if request.urgency is Urgency.PARTIAL else "..."

    for wants_partials, codes in ((False, ["no_words"]), (True, [])):
        async with open_scripted_services(
            engine=TimedEngine(text_of), settings=settings(partials=wants_partials)
        ) as services:
            heard = await hear(services, spoken(0.5, 3.0, 0.6))
        assert [h.event.code for h in heard if isinstance(h.event, Notice)] == codes
        assert len(finals(heard)) == 1 - len(codes)
        rejected = services.metrics.transcripts_total.labels("rejected")._value.get()
        assert rejected == len(codes)
        assert services.metrics.transcripts_total.labels("partial")._value.get() == len(partials(heard))
        assert services.metrics.transcripts_total.labels("final")._value.get() == len(finals(heard))


async def test_partials_reach_less_far_back_than_finals(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Six tenths of the context: it is heard again with every partial, so its length is what partials cost."""
    engine = TimedEngine(lambda request: f"utterance {request.utterance_key[1]}")
    context = Settings(recogniser=RecogniserSettings(context_seconds=8))
    async with open_scripted_services(engine=engine, settings=context) as services:
        await hear(services, spoken(0.5, 1.5, 0.5, 1.5, 0.5, 1.5, 0.5, 1.5, 0.5))
    longest = {
        urgency: max(len(request.samples) for request in engine.of(urgency)) / HEARING_RATE
        for urgency in (Urgency.PARTIAL, Urgency.SPECULATIVE)
    }
    assert 2 < longest[Urgency.PARTIAL] <= 4.8
    assert 4.8 < longest[Urgency.SPECULATIVE] <= 8
    assert engine.asked[0].context_tokens == ()
    assert engine.of(Urgency.SPECULATIVE)[1].context_tokens != ()
    keys = {request.utterance_key for request in engine.asked}
    assert [number for _, number in sorted(keys)] == [1, 2, 3, 4]
    assert len({name for name, _ in keys}) == 1


async def test_the_latency_that_is_measured_is_the_callers(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """From the end of the speech to the final: the hangover of 320 ms, and what the engine takes beyond it."""
    engine = TimedEngine(growing, {Urgency.SPECULATIVE: 0.692})
    async with open_scripted_services(engine=engine, settings=settings(partials=False)) as services:
        await hear(services, spoken(0.512, 1.024, 2.0))
        samples = services.metrics.stt_latency_seconds.collect()[0].samples
    values = {sample.name.removeprefix("voice_agent_stt_latency_seconds"): sample.value for sample in samples}
    assert values["_count"] == 1
    assert values["_sum"] == pytest.approx(0.128 + 0.692, abs=0.025)
