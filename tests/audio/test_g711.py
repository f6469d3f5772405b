"""G.711 against the decision values and levels that the recommendation's tables print."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from voice_agent.audio.g711 import decode_alaw, decode_mulaw, encode_alaw, encode_mulaw

EVERY_CODE = bytes(range(256))
EVERY_INT16 = np.arange(-32_768, 32_768, dtype=np.int32).astype(np.int16)

# Where each segment ends (ITU-T G.711, tables 1a and 2a, column "value at segment end points"), and its step.
ALAW_SEGMENTS = ((64, 2), (128, 4), (256, 8), (512, 16), (1024, 32), (2048, 64), (4096, 128))
MULAW_SEGMENTS = ((31, 2), (95, 4), (223, 8), (479, 16), (991, 32), (2015, 64), (4063, 128), (8159, 256))


def _decision_values(first: int, segments: tuple[tuple[int, int], ...]) -> list[int]:
    values = [0, first]
    for end, step in segments:
        values.extend(range(values[-1] + step, end + 1, step))
    return values


ALAW_DECISIONS = _decision_values(2, ALAW_SEGMENTS)
ALAW_LEVELS = [(low + high) // 2 for low, high in itertools.pairwise(ALAW_DECISIONS)]
MULAW_DECISIONS = _decision_values(1, MULAW_SEGMENTS)
MULAW_LEVELS = [0, *((low + high) // 2 for low, high in itertools.pairwise(MULAW_DECISIONS[1:]))]


def test_the_tables_of_this_test_are_those_of_the_recommendation() -> None:
    """128 intervals a side, with the end points and levels that the recommendation prints."""
    assert len(ALAW_LEVELS) == len(MULAW_LEVELS) == 128
    assert (ALAW_LEVELS[0], ALAW_LEVELS[32], ALAW_LEVELS[127]) == (1, 66, 4032)
    assert (MULAW_LEVELS[0], MULAW_LEVELS[1], MULAW_LEVELS[16], MULAW_LEVELS[127]) == (0, 2, 33, 8031)


def test_every_alaw_code_has_its_level() -> None:
    """Table 1a: code 0xD5 is the smallest positive level; even bits are inverted; 13 bits are scaled by 8."""
    decoded = decode_alaw(EVERY_CODE)
    assert decoded.dtype == np.int16
    for number, level in enumerate(ALAW_LEVELS):
        assert decoded[(0x80 | number) ^ 0x55] == level * 8
        assert decoded[number ^ 0x55] == -level * 8


def test_every_mulaw_code_has_its_level() -> None:
    """Table 2a: code 0xFF is positive zero; all bits are inverted; 14 bits are scaled by 4."""
    decoded = decode_mulaw(EVERY_CODE)
    assert decoded.dtype == np.int16
    for number, level in enumerate(MULAW_LEVELS):
        assert decoded[0xFF - number] == level * 4
        assert decoded[0x7F - number] == -level * 4


def _interval(decisions: list[int], scale: int) -> npt.NDArray[np.int64]:
    """Number of the interval that each int16's magnitude falls into; beyond the last decision value, the last."""
    magnitude = np.abs(EVERY_INT16.astype(np.int64))
    inner = np.array(decisions[1:-1]) * scale
    return np.searchsorted(inner, magnitude, side="right")


def test_every_int16_gets_the_alaw_code_of_its_interval() -> None:
    """All 65,536 samples are coded by the decision values of table 1a."""
    number = _interval(ALAW_DECISIONS, 8)
    expected = np.where(EVERY_INT16 < 0, number, number | 0x80) ^ 0x55
    assert encode_alaw(EVERY_INT16) == expected.astype(np.uint8).tobytes()


def test_every_int16_gets_the_mulaw_code_of_its_interval() -> None:
    """All 65,536 samples are coded by the decision values of table 2a."""
    number = _interval(MULAW_DECISIONS, 4)
    expected = np.where(EVERY_INT16 < 0, 0x7F - number, 0xFF - number)
    assert encode_mulaw(EVERY_INT16) == expected.astype(np.uint8).tobytes()


def test_alaw_codes_survive_a_round_trip() -> None:
    """Decoding and encoding again changes no A-law byte: a tandem of exchanges adds no noise."""
    assert encode_alaw(decode_alaw(EVERY_CODE)) == EVERY_CODE


def test_mulaw_codes_survive_a_round_trip() -> None:
    """The same for mu-law, but for its two zeros, which int16 can't tell apart."""
    expected = EVERY_CODE.replace(b"\x7f", b"\xff")
    assert encode_mulaw(decode_mulaw(EVERY_CODE)) == expected


@pytest.mark.parametrize(
    ("samples", "mulaw", "alaw"),
    [
        (32_767, 0x80, 0xAA),
        (-32_768, 0x00, 0x2A),
        (0, 0xFF, 0xD5),
        (-1, 0x7F, 0x55),
    ],
)
def test_the_extremes_do_not_wrap(samples: int, mulaw: int, alaw: int) -> None:
    """Full scale takes the loudest code, and zero the quietest."""
    assert encode_mulaw(np.array([samples], np.int16)) == bytes([mulaw])
    assert encode_alaw(np.array([samples], np.int16)) == bytes([alaw])


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_quantisation_noise_is_that_of_the_law(law: str) -> None:
    """A sine at -10 dB keeps at least 37 dB of signal to noise (G.712 asks 33 of a whole connection)."""
    encode, decode = {"mulaw": (encode_mulaw, decode_mulaw), "alaw": (encode_alaw, decode_alaw)}[law]
    sine = (10_000 * np.sin(np.arange(8_000) * 0.1234)).astype(np.int16)
    noise = decode(encode(sine)).astype(np.float64) - sine
    assert 10 * np.log10(np.mean(sine.astype(np.float64) ** 2) / np.mean(noise**2)) > 37


def test_interleaved_and_strided_samples_are_written_in_order() -> None:
    """Two channels come out interleaved, and a strided view like one channel of a stereo frame is read right."""
    stereo = np.array([[100, -100], [2000, -2000]], np.int16)
    assert encode_mulaw(stereo) == encode_mulaw(stereo.reshape(-1))
    assert encode_alaw(stereo[:, 1]) == encode_alaw(np.array([-100, -2000], np.int16))


def test_nothing_gives_nothing() -> None:
    """Empty in, empty out."""
    assert decode_mulaw(b"").shape == decode_alaw(b"").shape == (0,)
    assert encode_mulaw(np.zeros(0, np.int16)) == encode_alaw(np.zeros(0, np.int16)) == b""
