"""Voices: the real one heard by the real recogniser, the cache, the fake, and what goes wrong."""

from pathlib import Path

import attrs
import numpy as np
import pytest
import trio

from voice_agent.audio.resample import open_resampler
from voice_agent.core.errors import ModelFileError, SettingsError, SynthesisFailedError
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import Settings, VoiceSettings
from voice_agent.speech.engine import HEARING_RATE, RecognitionRequest, Urgency
from voice_agent.speech.models import load_models
from voice_agent.speech.phrases import CachedVoice
from voice_agent.speech.piper import PiperModel, find_voice, open_piper_voice
from voice_agent.speech.scripted_voice import ScriptedVoice
from voice_agent.speech.voice import MonoAudio, Sentence, Voice, VoiceUrgency
from voice_agent.speech.voices import open_voice

PHRASE = "I can offer you two lakh rupees for forty grams of gold."


async def heard_from(voice: Voice, text: str) -> list[MonoAudio]:
    """Return the pieces of a sentence."""
    async with voice.speaking(Sentence(text=text)) as pieces:
        return [piece async for piece in pieces]


@pytest.fixture(scope="module")
def piper() -> PiperModel:
    return PiperModel.open(VoiceSettings())


def test_what_piper_says_the_recogniser_understands(piper: PiperModel) -> None:
    """The sound is speech at the rate that it claims, not only samples."""
    sound = piper.synthesise(PHRASE)
    resampler = open_resampler(piper.sample_rate, HEARING_RATE)
    samples = np.concatenate([resampler.process(sound), resampler.flush()])
    request = RecognitionRequest(samples=samples, urgency=Urgency.FINAL, utterance_key=("test", 1))
    (recognised,) = load_models(Settings()).recogniser.recognise_batch([request], lambda _place: False)
    assert recognised is not None
    words = {word.strip(".,").lower() for word in recognised.text.split()}
    assert len(words & {"i", "can", "offer", "you", "rupees", "grams", "of", "gold", "forty", "40"}) >= 6


def test_nothing_to_say_has_no_sound_and_a_pace_changes_the_length(piper: PiperModel) -> None:
    """Samples stay in [-1, 1]; blanks and punctuation are no words."""
    assert len(piper.synthesise("  ")) == 0
    slow = PiperModel(piper._voice, pace=0.5)
    usual = piper.synthesise(PHRASE)
    assert len(slow.synthesise(PHRASE)) > 1.5 * len(usual)
    assert usual.dtype == np.float32
    assert np.abs(usual).max() <= 1


async def test_piper_speaks_for_several_at_once_and_what_waits_can_be_left(tmp_path: Path) -> None:
    """One thread; the spoken goes before what nobody waits for, and cancelled work is not begun."""
    done: list[str] = []
    async with open_piper_voice(VoiceSettings()) as voice:

        async def say(text: str, urgency: VoiceUrgency) -> None:
            async with voice.speaking(Sentence(text=text, urgency=urgency)) as pieces:
                async for piece in pieces:
                    assert len(piece) > 1000
            done.append(text)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, "The first of all.", VoiceUrgency.SPOKEN)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(say, "Made ahead.", VoiceUrgency.AHEAD)
                nursery.start_soon(say, "If need be.", VoiceUrgency.SPECULATIVE)
                nursery.start_soon(say, "Somebody waits.", VoiceUrgency.SPOKEN)
                with trio.move_on_after(0):
                    await say("Left alone.", VoiceUrgency.SPOKEN)
        assert done == ["The first of all.", "Somebody waits.", "If need be.", "Made ahead."]


async def test_a_model_that_fails_is_a_typed_error_and_the_next_sentence_is_said(
    piper: PiperModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raised stands in the message."""
    whole = PiperModel.synthesise

    def fail(self: PiperModel, text: str, *args: object) -> MonoAudio:
        if "fire" in text:
            raise RuntimeError("no tensor")
        return whole(self, text)

    monkeypatch.setattr(PiperModel, "open", lambda _settings: piper)
    monkeypatch.setattr(PiperModel, "synthesise", fail)
    async with open_piper_voice(VoiceSettings()) as voice:
        with pytest.raises(SynthesisFailedError, match="no tensor"):
            await heard_from(voice, "fire")
        assert await heard_from(voice, "water")


def test_what_is_missing_or_damaged_is_told_with_the_remedy(tmp_path: Path) -> None:
    """A path that leads nowhere, a file that is no model, a description that is none."""
    with pytest.raises(ModelFileError, match=r"is no file; install the extra"):
        find_voice(VoiceSettings(model_path=str(tmp_path / "none.onnx")))
    file = tmp_path / "voice.onnx"
    file.write_bytes(b"no model")
    described = tmp_path / "voice.onnx.json"
    described.write_text("{}")
    with pytest.raises(ModelFileError, match="does not describe a Piper voice"):
        PiperModel.open(VoiceSettings(model_path=str(file)))
    real = find_voice(VoiceSettings())
    described.write_text(real.with_name(f"{real.name}.json").read_text())
    with pytest.raises(ModelFileError, match="damaged or no model"):
        PiperModel.open(VoiceSettings(model_path=str(file)))


async def test_a_phrase_is_made_once_and_the_oldest_is_forgotten() -> None:
    """Bounded by seconds of sound; what was cut off is not kept."""
    maker = ScriptedVoice()
    voice = CachedVoice(maker, max_seconds=1.0)
    first = np.concatenate(await heard_from(voice, "one two"))
    again = await heard_from(voice, "one two")
    assert np.array_equal(np.concatenate(again), first)
    assert not again[0].flags.writeable
    assert len(maker.said) == 1
    async with voice.speaking(Sentence(text="cut off")) as pieces:
        async for _ in pieces:
            break
    assert [sentence.text for sentence in maker.abandoned] == ["cut off"]
    await heard_from(voice, "cut off")
    assert [sentence.text for sentence in maker.said] == ["one two", "cut off"]
    assert voice.seconds == pytest.approx(0.6)
    await heard_from(voice, "one two")
    assert len(maker.said) == 3
    await heard_from(voice, "one two three four")
    assert voice.seconds == pytest.approx(0.6)


async def test_half_a_phrase_is_not_remembered() -> None:
    """A voice that fails in the middle fails the next time too, instead of saying half."""
    voice = CachedVoice(ScriptedVoice(fails_at=frozenset({"two"})), max_seconds=10)
    for _ in range(2):
        with pytest.raises(SynthesisFailedError):
            await heard_from(voice, "one two")
    assert voice.seconds == 0


async def test_the_settings_choose_the_voice() -> None:
    """None is none; an endpoint needs an address."""
    async with open_voice(VoiceSettings()) as nobody:
        assert nobody is None
    api = VoiceSettings(kind="api", api_url="http://127.0.0.1:9/v1", api_sample_rate=16_000)
    async with open_voice(api) as voice:
        assert voice is not None
        assert voice.sample_rate == 16_000
    with pytest.raises(SettingsError, match=r"needs voice\.api_url"):
        load_settings(files=(), environ={"VOICE_AGENT__VOICE__KIND": "api"})


@attrs.frozen
class Served:
    """A speech endpoint of the test's own: what it sends, and what it was asked."""

    url: str
    asked: list[bytes]


@pytest.fixture
async def endpoint(nursery: trio.Nursery) -> Served:
    """A real TCP server that answers each request by what its text says."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"}" not in request:
                data = await stream.receive_some()
                if not data:
                    return
                request += data
            asked.append(request)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\nConnection: close\r\n"
            if b"refuse" in request:
                await stream.send_all(b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nslow")
            elif b"page" in request:
                await stream.send_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
                )
            elif b"stall" in request:
                await stream.send_all(head + b"\r\n")
                await trio.sleep_forever()
            elif b"odd" in request:
                await stream.send_all(head + b"\r\n" + b"\x00\x40\x00")
            elif b"break" in request:
                await stream.send_all(head + b"Content-Length: 100\r\n\r\n" + b"\x00\x40")
            else:
                await stream.send_all(head + b"\r\n" + b"\x00\x40\x00")
                await stream.send_all(b"\xc0\xff\x7f")

    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    port = listeners[0].socket.getsockname()[1]
    return Served(f"http://127.0.0.1:{port}/v1", asked)


async def test_an_endpoint_s_samples_are_whole_wherever_the_network_cuts(endpoint: Served) -> None:
    """The request is the API's, with the key; the sound is what was sent."""
    settings = VoiceSettings(
        kind="api", api_url=endpoint.url, api_key="secret-key", api_model="m", api_voice="v"
    )
    with trio.fail_after(60):
        async with open_voice(settings) as voice:
            assert voice is not None
            sound = np.concatenate(await heard_from(voice, "hello"))
    assert sound.tolist() == pytest.approx([0.5, -0.5, 32767 / 32768])
    (asked,) = endpoint.asked
    assert asked.startswith(b"POST /v1/audio/speech ")
    assert b"Authorization: Bearer secret-key" in asked
    assert b'"response_format":"pcm"' in asked.replace(b" ", b"")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("refuse", "answered 429: 'slow'"),
        ("page", "sent text/html, not sound"),
        ("stall", "Timeout"),
        ("odd", "in the middle of a sample"),
        ("break", "RemoteProtocolError"),
    ],
)
async def test_an_endpoint_that_is_no_good_is_a_typed_error(endpoint: Served, text: str, told: str) -> None:
    """Whatever it does; nothing hangs."""
    patience_seconds = 0.3 if text == "stall" else 30.0
    settings = VoiceSettings(kind="api", api_url=endpoint.url, api_timeout_seconds=patience_seconds)
    with trio.fail_after(60):
        async with open_voice(settings) as voice:
            assert voice is not None
            with pytest.raises(SynthesisFailedError, match=told):
                await heard_from(voice, text)


async def test_nobody_listens_at_the_endpoint() -> None:
    """Refused is told as what it is."""
    async with open_voice(VoiceSettings(kind="api", api_url="http://127.0.0.1:9/v1")) as voice:
        assert voice is not None
        with trio.fail_after(60), pytest.raises(SynthesisFailedError, match="ConnectError"):
            await heard_from(voice, "hello")
