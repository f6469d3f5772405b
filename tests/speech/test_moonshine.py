"""The real recogniser: words, prefixes, batches, abandonment and what it does with next to nothing."""

import importlib.util
from pathlib import Path

import attrs
import numpy as np
import pytest
import soundfile
import soxr

from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import HEARING_RATE, MonoAudio, RecognitionRequest, Urgency
from voice_agent.speech.models import load_models
from voice_agent.speech.moonshine import MoonshineModel
from voice_agent.speech.tokens import Vocabulary

TWO_CITIES = "it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness"


def clip(name: str, start: float, end: float) -> MonoAudio:
    """Read seconds ``start`` to ``end`` of a recording that ships with the model."""
    spec = importlib.util.find_spec("moonshine_voice")
    folder = Path(spec.submodule_search_locations[0]) / "assets"
    rate = soundfile.info(folder / name).samplerate
    samples, _ = soundfile.read(
        folder / name, start=int(start * rate), stop=int(end * rate), dtype="float32", always_2d=True
    )
    return soxr.resample(samples.mean(axis=1), rate, HEARING_RATE).astype(np.float32)


def plain(text: str) -> str:
    """Return words without case or punctuation."""
    return " ".join("".join(c for c in text.lower() if c.isalpha() or c == " ").split())


def request(samples: MonoAudio, prefix: tuple[int, ...] = ()) -> RecognitionRequest:
    """Ask for a final."""
    return RecognitionRequest(
        samples=samples, urgency=Urgency.FINAL, utterance_key=("call", 1), prefix_tokens=prefix
    )


def wanted(_place: int) -> bool:
    """Everybody still waits."""
    return False


@pytest.fixture(scope="module")
def model() -> MoonshineModel:
    """The installed model."""
    return load_models(Settings()).recogniser


@pytest.fixture(scope="module")
def speech() -> MonoAudio:
    """The first 4.8 s of the recording, up to a pause: two clauses."""
    return clip("two_cities.wav", 0, 4.8)


def test_speech_becomes_its_words(model: MoonshineModel, speech: MonoAudio) -> None:
    """Words, one probability for each token, and a confidence that is their geometric mean."""
    [found] = model.recognise_batch([request(speech)], wanted)
    assert plain(found.text) == "it was the best of times it was the worst of times"
    assert len(found.tokens) == len(found.token_probabilities)
    assert all(0 < probability <= 1 for probability in found.token_probabilities)
    assert found.confidence == pytest.approx(np.prod(found.token_probabilities) ** (1 / len(found.tokens)))
    assert found.confidence > 0.6
    assert len(found.word_ends) == 12
    assert found.word_ends[-1] == len(found.tokens)
    assert not found.is_looping


def test_a_forced_prefix_begins_the_result(model: MoonshineModel, speech: MonoAudio) -> None:
    """The tokens already told come first, unchanged, and the model goes on from there."""
    [whole] = model.recognise_batch([request(speech)], wanted)
    for count in (1, whole.word_ends[2], whole.word_ends[-2]):
        [found] = model.recognise_batch([request(speech, whole.tokens[:count])], wanted)
        assert found.tokens[:count] == whole.tokens[:count]
        assert plain(found.text) == plain(whole.text)


def test_a_prefix_in_one_pass_is_the_same_as_token_by_token(model: MoonshineModel, speech: MonoAudio) -> None:
    """Forced tokens get the probabilities that they had as free ones, up to the rounding of int8."""
    [whole] = model.recognise_batch([request(speech)], wanted)
    [forced] = model.recognise_batch([request(speech, whole.tokens)], wanted)
    assert forced.tokens == whole.tokens
    assert np.abs(np.subtract(forced.token_probabilities, whole.token_probabilities)).max() < 0.15


def test_a_prefix_that_was_not_said_is_told_by_its_probability(
    model: MoonshineModel, speech: MonoAudio
) -> None:
    """Forced tokens count in the confidence with the model's own probability."""
    [other] = model.recognise_batch([request(clip("beckett.wav", 0, 3))], wanted)
    [found] = model.recognise_batch([request(speech, other.tokens[:4])], wanted)
    assert found.tokens[:4] == other.tokens[:4]
    assert min(found.token_probabilities[:4]) < 0.05


def test_a_batch_recognises_each_by_itself(model: MoonshineModel, speech: MonoAudio) -> None:
    """Different lengths and prefixes go together, and each result is that of its own audio."""
    short, other = speech[: int(2.9 * HEARING_RATE)], clip("beckett.wav", 0, 3.5)
    items = [short, speech, other]
    alone = [model.recognise_batch([request(samples)], wanted)[0] for samples in items]
    prefixes = [(), alone[1].tokens[:5], alone[2].tokens[:2]]
    together = model.recognise_batch(
        [request(samples, prefix) for samples, prefix in zip(items, prefixes, strict=True)], wanted
    )
    assert [plain(found.text) for found in together] == [plain(found.text) for found in alone]
    assert plain(together[0].text) == "it was the best of times"


def test_what_nobody_waits_for_is_not_recognised(model: MoonshineModel, speech: MonoAudio) -> None:
    """An abandoned request has no result, and its neighbour in the batch has one."""
    first, second = model.recognise_batch([request(speech), request(speech)], lambda place: place == 0)
    assert first is None
    assert plain(second.text).startswith("it was the best")
    assert model.recognise_batch([request(speech)], lambda _place: True) == [None]


def test_work_is_abandoned_between_steps(model: MoonshineModel, speech: MonoAudio) -> None:
    """Once nobody waits, the decoder stops at its next step."""
    asked = []

    def after_three(place: int) -> bool:
        asked.append(place)
        return len(asked) > 3

    assert model.recognise_batch([request(speech)], after_three) == [None]
    assert len(asked) == 4


@pytest.mark.parametrize("count", [0, 1, 100, 894, 895, 3_000])
def test_a_very_short_sound_is_no_failure(model: MoonshineModel, count: int) -> None:
    """The encoder refuses less than 895 samples; we give it silence after them."""
    [found] = model.recognise_batch([request(np.zeros(count, np.float32))], wanted)
    assert len(found.tokens) <= 7


def test_a_prefix_longer_than_the_limit_is_kept(model: MoonshineModel, speech: MonoAudio) -> None:
    """What was told stays told, however little audio is left."""
    [whole] = model.recognise_batch([request(speech)], wanted)
    [found] = model.recognise_batch([request(speech[:1600], whole.tokens)], wanted)
    assert found.tokens[: len(whole.tokens)] == whole.tokens
    assert len(found.tokens) <= len(whole.tokens) + 1


class SilentEncoder:
    """Encodes anything to one frame of nothing."""

    def run(self, _outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.zeros((len(inputs["input_values"]), 1, 288), np.float32)]


class StubbornDecoder:
    """Writes the tokens it was given, over and over, whatever it hears; notes how many rows each step had."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens
        self.rows: list[int] = []

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows, count = inputs["input_ids"].shape
        past = inputs["past_key_values.0.decoder.key"].shape[2]
        self.rows.append(rows)
        logits = np.zeros((rows, count, 32_768), np.float32)
        for place in range(count):
            logits[:, place, self.tokens[(past + place) % len(self.tokens)]] = 20
        length = {True: past + count, False: 1}
        return [
            logits,
            *(np.zeros((rows, 8, length[".decoder." in name], 36), np.float32) for name in outputs[1:]),
        ]


def stubborn(*tokens: int) -> tuple[MoonshineModel, StubbornDecoder]:
    """Make a recogniser that can't stop writing ``tokens``."""
    vocabulary = Vocabulary([b"", b"", b"", *(f"\u2581w{number}".encode() for number in range(3, 2000))])
    decoder = StubbornDecoder(*tokens)
    return MoonshineModel(SilentEncoder(), decoder, vocabulary), decoder


def test_a_loop_of_the_decoder_is_cut_and_told() -> None:
    """The repeated phrase stays once, the result says so, and no time is spent on the rest."""
    model, decoder = stubborn(7, 8, 9)
    [found] = model.recognise_batch([request(np.zeros(14 * HEARING_RATE, np.float32))], wanted)
    assert (found.text, found.is_looping) == ("w7 w8 w9", True)
    assert len(found.token_probabilities) == len(found.tokens) == 3
    assert len(decoder.rows) == 15


def test_a_forced_prefix_is_not_cut_with_the_loop() -> None:
    """What was told stays, even where it is the loop itself."""
    model, _ = stubborn(7)
    [found] = model.recognise_batch([request(np.zeros(14 * HEARING_RATE, np.float32), (7,) * 8)], wanted)
    assert found.tokens == (7,) * 8
    assert found.is_looping


def test_context_guides_and_is_not_in_the_result() -> None:
    """Earlier words are fed before the prefix; tokens, probabilities, words and loops are counted after them."""
    model, _ = stubborn(*range(100, 1000))
    asked = attrs.evolve(
        request(np.zeros(2 * HEARING_RATE, np.float32), (103, 104)),
        context_tokens=(100, 101, 102),
        context_samples=HEARING_RATE,
    )
    [found] = model.recognise_batch([asked], wanted)
    assert found.tokens == tuple(range(103, 103 + len(found.tokens)))
    # One second is the utterance's own: the context's audio buys no tokens.
    assert len(found.tokens) == int(6.5) + 3
    assert len(found.token_probabilities) == len(found.tokens)
    assert min(found.token_probabilities) > 0.99
    assert found.text.startswith("w103 w104 w105")
    assert found.word_ends == tuple(range(1, len(found.tokens) + 1))


def test_a_finished_member_leaves_the_batch() -> None:
    """Steps after the end of the shorter one run on the longer one only; each has its own token limit."""
    model, decoder = stubborn(*range(100, 1000))
    short, long = (np.zeros(seconds * HEARING_RATE, np.float32) for seconds in (1, 3))
    first, second = model.recognise_batch([request(short), request(long)], wanted)
    assert (len(first.tokens), len(second.tokens)) == (int(6.5) + 6, int(3 * 6.5) + 6)
    assert decoder.rows == [2] * 12 + [1] * 13


def test_no_tokens_no_confidence() -> None:
    """Nothing written is an empty result without confidence, not an error."""
    model, _ = stubborn(2)
    [found] = model.recognise_batch([request(np.zeros(HEARING_RATE, np.float32))], wanted)
    assert (found.text, found.tokens, found.word_ends, found.confidence) == ("", (), (), 0.0)


@pytest.mark.e2e
def test_a_longer_passage(model: MoonshineModel) -> None:
    """Ten seconds of prose, word for word."""
    [found] = model.recognise_batch([request(clip("two_cities.wav", 0, 8.6))], wanted)
    assert plain(found.text) == TWO_CITIES
